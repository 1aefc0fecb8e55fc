from .candidate_training import CandidateEvaluator
from .discretization_gap import derive_and_score
from .experiment import run_experiment
from .loop.epoch_record import EpochRecord
from .loop.evaluator import AccelerateEvaluator
from .objective import SearchObjective, entropy_weight
from .options import EvaluatorOptions, StrategyOptions
from .result import SearchResult, run_search
from .strategy import QuantNAS

__all__ = [
    "AccelerateEvaluator",
    "CandidateEvaluator",
    "EpochRecord",
    "EvaluatorOptions",
    "QuantNAS",
    "SearchObjective",
    "SearchResult",
    "StrategyOptions",
    "derive_and_score",
    "entropy_weight",
    "run_experiment",
    "run_search",
]
