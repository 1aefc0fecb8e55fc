"""From a model space to an architecture: the QuantNAS strategy and what it is made of."""

from quantnas_ext.compat import prepare_nni

prepare_nni()

from quantnas_ext.search.budget import Budget  # noqa: E402
from quantnas_ext.search.choice_tree import ChoiceTree  # noqa: E402
from quantnas_ext.search.cost import BitOps, Cost, ExpectedCost, ParameterBytes  # noqa: E402
from quantnas_ext.search.distribution import ArchitectureDistribution  # noqa: E402
from quantnas_ext.search.evaluator import AccelerateEvaluator  # noqa: E402
from quantnas_ext.search.experiment import run_experiment  # noqa: E402
from quantnas_ext.search.gap import derive_and_score  # noqa: E402
from quantnas_ext.search.goals import goals_of  # noqa: E402
from quantnas_ext.search.latency import LatencyTable  # noqa: E402
from quantnas_ext.search.objective import Penalty, SearchObjective, entropy_weight  # noqa: E402
from quantnas_ext.search.profiler import BitOpsProfiler  # noqa: E402
from quantnas_ext.search.recalibration import calibrate, recalibrate_batch_norm  # noqa: E402
from quantnas_ext.search.search_plan import EpochRecord  # noqa: E402
from quantnas_ext.search.strategy import QuantNAS  # noqa: E402

__all__ = [
    "AccelerateEvaluator",
    "ArchitectureDistribution",
    "BitOps",
    "BitOpsProfiler",
    "Budget",
    "ChoiceTree",
    "Cost",
    "EpochRecord",
    "ExpectedCost",
    "LatencyTable",
    "ParameterBytes",
    "Penalty",
    "QuantNAS",
    "SearchObjective",
    "calibrate",
    "derive_and_score",
    "entropy_weight",
    "goals_of",
    "recalibrate_batch_norm",
    "run_experiment",
]
