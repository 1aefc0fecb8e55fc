from .architecture import Architecture
from .conversion.conversion import quantize
from .conversion.quantized_space import QuantizedSpace
from .costs.cost import BitOps, ParameterBytes
from .costs.goals import Budget, Penalty
from .costs.latency.table import LatencyTable
from .costs.profiler import BitOpsProfiler
from .errors import InputError
from .nn.choice_block import ChoiceBlock, SharedInput
from .nn.mutable_layers import MutableQuantConv2d, MutableQuantLinear
from .quantization.layers import QuantConv2d, QuantLinear
from .quantization.precision import Precision
from .search.candidate_training import CandidateEvaluator
from .search.loop.evaluator import AccelerateEvaluator
from .search.strategy import QuantNAS
from .spaces.sr_basic import SRBasicSpace
from .spaces.timm_models import from_timm

__all__ = [
    "AccelerateEvaluator",
    "Architecture",
    "BitOps",
    "BitOpsProfiler",
    "Budget",
    "CandidateEvaluator",
    "ChoiceBlock",
    "InputError",
    "LatencyTable",
    "MutableQuantConv2d",
    "MutableQuantLinear",
    "ParameterBytes",
    "Penalty",
    "Precision",
    "QuantConv2d",
    "QuantLinear",
    "QuantNAS",
    "QuantizedSpace",
    "SRBasicSpace",
    "SharedInput",
    "from_timm",
    "quantize",
]
