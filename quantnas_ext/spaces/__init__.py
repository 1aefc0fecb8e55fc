"""Model spaces: what one has to be, those that come ready, and their names."""

from quantnas_ext.compat import prepare_nni

prepare_nni()

from quantnas_ext.spaces.contract import check_input_side, scale_of, smallest_side  # noqa: E402
from quantnas_ext.spaces.diagram import Stage  # noqa: E402
from quantnas_ext.spaces.registry import SPACES, build_space, register_space  # noqa: E402
from quantnas_ext.spaces.sr_basic import SRBasicSpace  # noqa: E402
from quantnas_ext.spaces.sr_rfdn import SRRFDNSpace  # noqa: E402

__all__ = [
    "SPACES",
    "SRBasicSpace",
    "SRRFDNSpace",
    "Stage",
    "build_space",
    "check_input_side",
    "register_space",
    "scale_of",
    "smallest_side",
]
