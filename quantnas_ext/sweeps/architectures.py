"""NNI's multi-trial strategies as sweeps: every trial trains one architecture of the space.

NNI sends an architecture to its trial, and so to the portal, as an object that the portal shows as ``[object Object]``.
Here it goes as flat parameters, a choice each, and a trial builds its network from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from quantnas_ext.errors import about
from quantnas_ext.runs.config import Config, load_config, save_config
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.sweeps.planning import PlannedTrial
from quantnas_ext.sweeps.sweep_file import SweepConfig

if TYPE_CHECKING:
    from quantnas_ext.sweeps.portal import Portal


def architecture_trial(sweep: SweepConfig, parameters: Mapping[str, Any], trials: Path) -> PlannedTrial:
    """The trial of an architecture.

    Raises:
        InputError: the sweep's configuration is not possible.
    """
    name = f"architecture_{hashlib.sha256(json.dumps(dict(parameters), sort_keys=True).encode()).hexdigest()[:10]}"
    config = base_config(sweep, trials / name)
    return PlannedTrial(name, dict(parameters), "architecture", config)


def base_config(sweep: SweepConfig, run: Path) -> Config:
    """What all trials of a sweep of architectures run; without a search there are no weights to start from.

    Raises:
        InputError: it is not possible.
    """
    changes = [*sweep.set, "train.from_supernet=false", f"run={json.dumps(str(run))}"]
    with about("a sweep of architectures"):
        config = load_config(sweep.config, changes)
        config.data.check_one_test("a sweep")
    return config


def write_architecture(config: Config, choices: Mapping[str, Any]) -> None:
    """Fill a run folder up to its architecture.

    Args:
        config: of the run.
        choices: an NNI sample of the space, which may have choices that do not matter for the others.
    """
    from quantnas_ext.architecture import Architecture
    from quantnas_ext.distribution.choices import ChoiceTree
    from quantnas_ext.runs.provenance import provenance
    from quantnas_ext.spaces import build_space

    run = RunFolder(config.run)
    tree = ChoiceTree.of(build_space(config.space.name, config.space.arguments))
    sample = tree.complete(dict(choices))
    save_config(config, run.config)
    Architecture.of(config.space.name, config.space.arguments, sample, provenance(config)).save(run.architecture)


def choices_of(config: Config) -> dict[str, Any]:
    """NNI's search space of a space: a choice for each label."""
    from quantnas_ext.spaces import build_space

    space = build_space(config.space.name, config.space.arguments)
    return {label: mutable.as_legacy_dict() for label, mutable in space.simplify().items()}


class Exploration:
    """A strategy of NNI's under its training-service engine, in a thread beside what watches the trials.

    Args:
        sweep: with its strategy.
        config: with the space, the seed and the budgets.
        portal: that runs.
    """

    def __init__(self, sweep: SweepConfig, config: Config, portal: Portal) -> None:
        from quantnas_ext.sweeps.flat_engine import FlatEngine

        local = "localhost,127.0.0.1,::1"
        os.environ["NO_PROXY"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), local)))  # for NNI's own channel
        self.failure: BaseException | None = None
        self._engine = FlatEngine(_Binding(portal))
        self._strategy, self._space = _strategy_and_space(sweep, config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._strategy(self._space, self._engine)
        except BaseException as error:  # told by who watches
            self.failure = error

    @property
    def ended(self) -> bool:
        """Whether the strategy will submit no more."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """End the engine, after the portal; it waits for its last command, which a killed one does not give."""
        ending = threading.Thread(target=self._engine.shutdown, daemon=True)
        ending.start()
        ending.join(10)


def _strategy_and_space(sweep: SweepConfig, config: Config) -> tuple[Any, Any]:
    """NNI's strategy, behind a filter of BitOps where there is such a budget, and the space as it wants it."""
    import nni.nas.strategy as strategies
    from nni.nas.space import SimplifiedModelSpace
    from nni.nas.strategy.middleware import Chain, Filter

    from quantnas_ext.costs.cost import sample_cost
    from quantnas_ext.costs.goals import Budget
    from quantnas_ext.distribution.choices import ChoiceTree
    from quantnas_ext.runs.search_goals import goals_of
    from quantnas_ext.spaces import build_space

    space = build_space(config.space.name, config.space.arguments)
    tree = ChoiceTree.of(space)
    budgets = [goal for goal in goals_of(config.search) if isinstance(goal, Budget)]
    terms = [(budget.maximum, budget.cost.terms(space)) for budget in budgets]

    def affordable(model: Any) -> bool:
        sample = tree.complete(dict(model.sample))
        return all(sample_cost(of, sample) <= maximum for maximum, of in terms)

    arguments = dict(sweep.tuner.arguments)
    if sweep.architectures == "RegularizedEvolution":
        arguments = {"population_size": max(2, min(100, (sweep.trials or 2) // 2)), "sample_size": 2} | arguments
    if sweep.architectures == "TPE":
        arguments = {"optimize_mode": "maximize"} | arguments
    arguments.setdefault("seed", config.seed)
    strategy = getattr(strategies, sweep.architectures or "Random")(**arguments)
    simplified = SimplifiedModelSpace.from_model(space)
    return (Chain(strategy, Filter(affordable)) if terms else strategy), simplified


class _Binding:
    """What NNI's engine asks of an experiment, from our portal."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self.tuner_command_channel = f"ws://localhost:{portal.port}/tuner"

    def get_status(self) -> str:
        """Of the experiment."""
        return str(self._portal.get("/check-status")["status"])

    def get_job_statistics(self) -> Any:
        """Number of trials by status."""
        return self._portal.get("/job-statistics")

    def list_trial_jobs(self) -> Iterator[Any]:
        """All trials, with their parameters and final metrics."""
        for job in self._portal.get("/trial-jobs"):
            given = [json.loads(text) for text in job.get("hyperParameters", ())]
            parameters = [SimpleNamespace(**{key: one[key] for key in ("parameter_id", "parameters")}) for one in given]
            yield SimpleNamespace(trialJobId=job["trialJobId"], status=job["status"], hyperParameters=parameters)
