from .discretization_gap import derive_and_score
from .experiment import run_experiment
from .loop.evaluator import AccelerateEvaluator
from .loop.settings import EpochRecord
from .objective import SearchObjective, entropy_weight
from .strategy import QuantNAS

__all__ = [
    "AccelerateEvaluator",
    "EpochRecord",
    "QuantNAS",
    "SearchObjective",
    "derive_and_score",
    "entropy_weight",
    "run_experiment",
]
