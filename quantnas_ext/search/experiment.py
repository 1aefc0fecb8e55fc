"""Running a search as an NNI experiment, in one process or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nni.nas.evaluator import Evaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.space import RawFormatModelSpace

from quantnas_ext.search.processes import process_state


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
        experiment = NasExperiment(space, evaluator, strategy, config)
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
