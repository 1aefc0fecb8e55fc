"""The epoch of a search whose distribution did best on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32, reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from quantnas_ext.deriving.calibration import evaluating
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.quantization import ActivationQuantizer
from quantnas_ext.search.loop.sampling import FixedBatches
from quantnas_ext.supernet.context import SupernetContext


@contextmanager
def measuring(model: nn.Module, distribution: ArchitectureDistribution) -> Iterator[None]:
    """A supernet as in an architecture step, but of the distribution itself and such that nothing of it changes.

    There is no noise of a relaxation and no gradient; batch norm uses its running statistics, and activation steps that
    have not started stay so. Modes of modules come back afterwards.
    """
    distribution.settle()
    with evaluating(model), torch.no_grad():
        model.train()
        for module in model.modules():
            if isinstance(module, (_BatchNorm, ActivationQuantizer)):
                module.eval()
        yield


class KeptEpoch:
    """Weights and logits of the best epoch so far.

    Args:
        model: the bare supernet.
        distribution: its logits.

    Attributes:
        state: ``loss``, ``model`` and ``distribution`` of the best epoch, for checkpoints; None before the first.
    """

    def __init__(self, model: nn.Module, distribution: ArchitectureDistribution) -> None:
        self._model, self._distribution = model, distribution
        self.state: dict[str, Any] | None = None

    def offer(self, loss: float) -> None:
        """Keep the present weights and logits if their loss is lower than that of all epochs before."""
        if math.isfinite(loss) and (self.state is None or loss < self.state["loss"]):
            self.state = {
                "loss": loss,
                "model": _copied(self._model.state_dict()),
                "distribution": _copied(self._distribution.state_dict()),
            }

    def restore(self) -> float | None:
        """Put model and distribution back to the best epoch, if one is kept.

        Returns:
            Its loss.
        """
        if self.state is None:
            return None
        self._model.load_state_dict(self.state["model"])
        self._distribution.load_state_dict(self.state["distribution"])
        self._distribution.settle()
        return float(self.state["loss"])


class BestEpoch(KeptEpoch):
    """Measures a search after its epochs, and keeps weights and logits of the best one so far.

    Args:
        model: the bare supernet.
        context: of the supernet.
        accelerator: of this process.
    """

    def __init__(self, model: nn.Module, context: SupernetContext, accelerator: Accelerator) -> None:
        super().__init__(model, context.distribution)
        self._context, self._accelerator = context, accelerator

    def measure(self, batches: FixedBatches, loss: Callable[[Tensor, Tensor], Tensor], seed: int, step: int) -> float:
        """Loss of the distribution itself, see ``measuring``.

        Quantization noise is there: without it the loss would not know of precisions. Processes share the batches.

        Args:
            batches: of inputs and targets.
            loss: of outputs and targets.
            seed: of the search.
            step: for the noise of the first batch, the same at every call; steps behind the search's last are free.
        """
        accelerator = self._accelerator
        sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        with measuring(self._model, self._distribution):
            for index, batch in enumerate(batches):
                if index % accelerator.num_processes != accelerator.process_index:
                    continue
                self._context.bank.begin(seed, accelerator.process_index, step + index, 0)
                inputs, targets = (tensor.to(accelerator.device) for tensor in batch)
                with accelerator.autocast():
                    value = loss(convert_to_fp32(self._model(inputs)), targets)
                sums += torch.stack([value.double() * len(inputs), sums.new_tensor(len(inputs))])
        total, count = reduce(sums, "sum").tolist()
        return float(total / count)


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
