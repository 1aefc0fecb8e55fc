"""Running a search as an NNI experiment, in one process or several."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.space import RawFormatModelSpace
from nni.tools.nnictl.config_utils import Experiments

from quantnas_ext.search.loop.processes import process_state


class ReportingEvaluator(Evaluator):
    """An evaluator whose result, a number, NNI gets as the final one of its trial, where there is a trial."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def evaluate(self, model: Any) -> Any:
        """The evaluator's own result."""
        result = self.evaluator.evaluate(model)
        if nni.get_current_parameter() is not None:
            nni.report_final_result(result)
        return result


class FolderExperiment(NasExperiment):
    """An NNI experiment whose every file lies in its working directory.

    NNI enters experiments in a list below ``~/nni-experiments``, wherever they work. A home that cannot be written to,
    as in many containers, ends that in a traceback; here the list is kept beside the experiment's own files.
    """

    def has_checkpoint(self) -> bool:
        """Whether the experiment is in the list, so that ``resume`` finds it."""
        return self.id in Experiments(str(self.config.experiment_working_directory)).get_all_experiments()

    def _start_without_nni_manager(self) -> None:
        folder = str(self.config.experiment_working_directory)
        started = int(time.time() * 1000)
        Experiments(folder).add_experiment(
            self.id, "N/A", started, "N/A", self.config.experiment_name, status="RUNNING", logDir=folder
        )

    def _stop_without_nni_manager(self) -> None:
        experiments = Experiments(str(self.config.experiment_working_directory))
        experiments.update_experiment(self.id, "status", "STOPPED")
        experiments.update_experiment(self.id, "endTime", int(time.time() * 1000))


def run_experiment(space: ModelSpace, evaluator: Evaluator, strategy: OneShotStrategy, folder: Path) -> dict[str, Any]:
    """Search ``space`` and return the choices found.

    The main process runs an NNI experiment, whose files go to ``folder``; the other processes of ``accelerate launch``
    run the same strategy and engine without one.

    Args:
        space: becomes the supernet.
        evaluator: bilevel search on Accelerate; in one process also NNI's Lightning evaluators.
        strategy: what to search with: ``QuantNAS``, in one process also NNI's own one-shot strategies.
        folder: for NNI's logs and checkpoints.

    Returns:
        The found architecture as an NNI sample.

    Raises:
        KeyboardInterrupt: when the user interrupts the search.
    """
    if process_state().is_main_process:
        config = NasExperimentConfig(execution_engine="sequential", model_format="raw", trial_concurrency=1)
        config.experiment_working_directory = str(folder)
        experiment = FolderExperiment(space, evaluator, strategy, config)
        try:
            completed = experiment.run()
        finally:
            experiment.stop()
        if not completed:  # NNI swallows the interruption and would export what there is so far
            raise KeyboardInterrupt
        sample: dict[str, Any] = experiment.export_top_models(formatter="dict")[0]
    else:
        strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
        sample = strategy.most_likely()
    return sample
