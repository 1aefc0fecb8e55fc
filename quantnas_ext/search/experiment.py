"""Running a search as an NNI experiment, in one process or several."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.experiment.config import SequentialEngineConfig
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import ExecutableModelSpace, RawFormatModelSpace
from nni.nas.strategy.base import Strategy
from nni.tools.nnictl.config_utils import Experiments

from quantnas_ext.arguments import whole_number
from quantnas_ext.compat import kept_trial
from quantnas_ext.errors import InputError
from quantnas_ext.search.loop.processes import process_state


class CandidateSpace(RawFormatModelSpace):
    """A space and its weights, of which every candidate has a sample of its own.

    NNI hands its grid search's one dictionary on to all candidates, and empties it before they are trained.
    """

    def freeze(self, sample: dict[str, Any]) -> RawFormatModelSpace:
        """The candidate of a sample."""
        return super().freeze(dict(sample))


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
    """An NNI experiment in this process, whose every file lies in its working directory.

    NNI enters experiments in a list below ``~/nni-experiments``, wherever they work. A home that cannot be written to,
    as in many containers, ends that in a traceback; here the list is kept beside the experiment's own files.
    """

    def executable_model_factory(self, config: Any) -> ExecutableModelSpace:
        """The space as it is, with its weights."""
        return CandidateSpace(self.model_space, self.evaluator)

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


def run_experiment(
    space: ModelSpace, evaluator: Evaluator, strategy: Strategy, folder: Path, *, trials: int | None = None
) -> dict[str, Any]:
    """Search ``space`` and return the choices found.

    The main process runs an NNI experiment, whose files go to ``folder``; the other processes of ``accelerate launch``
    run the same strategy and engine without one.

    Args:
        space: becomes the supernet.
        evaluator: bilevel search on Accelerate; in one process also NNI's Lightning evaluators. For a multi-trial
            strategy what trains a candidate, such as ``CandidateEvaluator``.
        strategy: what to search with: ``QuantNAS``, in one process also NNI's own strategies.
        folder: for NNI's logs and checkpoints.
        trials: how many candidates a multi-trial strategy may have trained; None for as many as it likes.

    Returns:
        The found architecture as an NNI sample.

    Raises:
        InputError: for trials below 1, or when no candidate was trained.
        KeyboardInterrupt: when the user interrupts the search.
    """
    trials = None if trials is None else whole_number("the number of trials,", trials, least=1)
    if process_state().is_main_process:
        engine = SequentialEngineConfig(max_model_count=trials)
        config = NasExperimentConfig(execution_engine=engine, model_format="raw", trial_concurrency=1)
        config.experiment_working_directory = str(folder)
        experiment = FolderExperiment(space, evaluator, strategy, config)
        try:
            with kept_trial():
                completed = experiment.run()
        finally:
            experiment.stop()
        if not completed:  # NNI swallows the interruption and would export what there is so far
            raise KeyboardInterrupt
        found = experiment.export_top_models(formatter="dict")
        if not found:
            raise InputError("no candidate was trained; let the filter of the strategy pass some")
        sample: dict[str, Any] = found[0]
    else:
        strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
        sample = strategy.most_likely()
    return sample
