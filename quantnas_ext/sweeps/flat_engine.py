"""NNI's engine for multi-trial strategies, with architectures as flat parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nni.nas.execution.training_service import TrainingServiceExecutionEngine
from nni.nas.space import ExecutableModelSpace, ModelStatus


class FlatEngine(TrainingServiceExecutionEngine):
    """Sends the sample of an architecture, a value for each label, in place of a serialized model space."""

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Have some architectures trained."""
        channel: Any = self._channel  # type: ignore[has-type]
        self._channel = _FlatChannel(channel)
        try:
            super().submit_models(*models)
        finally:
            self._channel = channel

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        """The architectures that the strategy still knows; those it has let go are in the sweep's folder."""
        known = [reference() for reference in self._models.values()]
        return [model for model in known if model is not None and status in (None, model.status)]


class _FlatChannel:
    """NNI's channel of commands, for one submission."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def send_trial(self, *, parameter_id: int, parameters: Any, placement_constraint: Any = None) -> None:
        """Send a trial."""
        self._channel.send_trial(
            parameter_id=parameter_id, parameters=dict(parameters.sample), placement_constraint=placement_constraint
        )
