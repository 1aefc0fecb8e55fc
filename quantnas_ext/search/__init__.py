"""From a model space to an architecture: the QuantNAS strategy and what it is made of."""

from quantnas_ext.compat import prepare_nni

prepare_nni()

from quantnas_ext.search.discretization_gap import derive_and_score  # noqa: E402
from quantnas_ext.search.experiment import run_experiment  # noqa: E402
from quantnas_ext.search.loop.epoch_record import EpochRecord  # noqa: E402
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator  # noqa: E402
from quantnas_ext.search.objective import SearchObjective, entropy_weight  # noqa: E402
from quantnas_ext.search.options import EvaluatorOptions, StrategyOptions  # noqa: E402
from quantnas_ext.search.result import SearchResult, run_search  # noqa: E402
from quantnas_ext.search.strategy import QuantNAS  # noqa: E402

__all__ = [
    "AccelerateEvaluator",
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
