"""Model spaces: what one has to be, those that come ready, and their names."""

from quantnas_ext.spaces.contract import check_input_side, scale_of, smallest_side
from quantnas_ext.spaces.diagram import Stage
from quantnas_ext.spaces.registry import SPACES, build_space, register_space
from quantnas_ext.spaces.sr_basic import SRBasicSpace
from quantnas_ext.spaces.sr_rfdn import SRRFDNSpace
from quantnas_ext.spaces.timm_models import TimmSpace, from_timm

__all__ = [
    "SPACES",
    "SRBasicSpace",
    "SRRFDNSpace",
    "Stage",
    "TimmSpace",
    "build_space",
    "check_input_side",
    "from_timm",
    "register_space",
    "scale_of",
    "smallest_side",
]
