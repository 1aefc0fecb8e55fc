"""BasicSR's super-resolution model with full-precision iterations before the quantization-aware ones."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantnas_ext import compat
from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import save_tensors
from quantnas_ext.quantization import (
    activation_quantizers,
    agree_on_steps,
    give_steps_a_group,
    reset_steps,
    set_quantization,
    watch_steps,
)
from quantnas_ext.sr.training.arch import architecture_of
from quantnas_ext.sr.weights.weight_files import IDENTITY_KEY, trained_state
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from quantnas_ext.sr.weights.weight_loading import check_weights, load_weights

compat.prepare_basicsr()
from basicsr.models.sr_model import SRModel  # noqa: E402
from basicsr.utils import get_root_logger  # noqa: E402
from basicsr.utils.dist_util import get_dist_info  # noqa: E402
from basicsr.utils.registry import MODEL_REGISTRY  # noqa: E402


@MODEL_REGISTRY.register()
class QuantNASModel(SRModel):
    """``SRModel`` for networks with learned quantization steps.

    Options besides BasicSR's own:
        ``train.full_precision_iter``: So many iterations run without quantization first. Then all steps restart, once,
            and quantization stays on. Which phase an iteration belongs to depends on its number alone, so that a
            resumed training goes on in the right one.
        ``logger.progress_bar``: Show a progress bar.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self._progress: tqdm | None = None
        self._validations: set[tuple[str, int]] = set()
        super().__init__(opt)

    def init_training_settings(self) -> None:
        """Set up losses, optimizer and schedule, and begin in the phase of the first iteration."""
        self._full_precision_iter = int(self.opt["train"].get("full_precision_iter", 0))
        architecture = architecture_of(self.opt["network_g"])
        self._identity = None if architecture is None else WeightIdentity.of(architecture)
        super().init_training_settings()
        self._enter_phase(1)

    def setup_optimizers(self) -> None:
        """BasicSR's optimizer, with the learned steps in a parameter group of their own (``give_steps_a_group``)."""
        super().setup_optimizers()
        give_steps_a_group(self.optimizer_g, self.get_bare_model(self.net_g))

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Place and wrap the network; channels-last memory makes convolutions of few channels faster."""
        return super().model_to_device(net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: ``lq [N, 3, h, w]``, and ``gt [N, 3, s h, s w]`` where there is one."""
        super().feed_data(data)
        self.lq: Tensor = self.lq.contiguous(memory_format=torch.channels_last)

    def optimize_parameters(self, current_iter: int) -> None:
        """Do training iteration ``current_iter``, counted from 1."""
        network = self.get_bare_model(self.net_g)
        first_quantized = current_iter == self._full_precision_iter + 1
        self._enter_phase(current_iter)
        if current_iter == 1:
            watch_steps(network)  # those of trained weights: the images may be others than they were found on
        if first_quantized and self._full_precision_iter > 0:
            reset_steps(network)
            get_root_logger().info("Quantization begins; all steps start anew from what the network has become.")
        super().optimize_parameters(current_iter)
        self._spread_steps(current_iter == 1 or first_quantized)
        self._show_progress(current_iter)

    def model_ema(self, decay: float = 0.999) -> None:
        """Average the parameters, and keep the buffers (batch norm's statistics), which BasicSR leaves behind."""
        super().model_ema(decay)
        for average, buffer in zip(self.net_g_ema.buffers(), self.get_bare_model(self.net_g).buffers(), strict=True):
            average.copy_(buffer)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Reload optimizers and schedulers, and go on in the phase of the state's iteration.

        Crops and flips go on from the seed and that iteration: the state does not hold them, and the seed alone would
        bring those of the first iterations again.
        """
        try:
            super().resume_training(resume_state)
        except ValueError as error:
            raise InputError(
                f"the training state of iteration {resume_state['iter']} does not fit ({error}); it is of another "
                "network or an older version: go on with that one, or start the training anew"
            ) from error
        self._enter_phase(resume_state["iter"])
        random.seed(f"{self.opt['manual_seed']}/{self.opt['rank']}/{resume_state['iter']}")

    def test(self) -> None:
        """Run the network on the batch in evaluation mode.

        BasicSR runs the distributed wrapper, which waits for other processes to send their buffers; but only the first
        process validates.
        """
        average = getattr(self, "net_g_ema", None)
        network = self.get_bare_model(self.net_g) if average is None else average
        network.eval()
        with torch.no_grad():
            self.output = network(self.lq)
        if average is None:
            network.train()

    def validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
        """Validate once an iteration; BasicSR validates again after the last one, under a later number."""
        current_iter = min(current_iter, self.opt["train"]["total_iter"]) if self.is_train else current_iter
        validation = (dataloader.dataset.opt["name"], current_iter)
        if validation not in self._validations:
            self._validations.add(validation)
            super().validation(dataloader, current_iter, tb_logger, save_img)

    @torch.no_grad()
    def save_network(self, net: Any, net_label: str, current_iter: int, param_key: Any = "params") -> None:
        """Save networks, whole or not at all, as ``{net_label}_{current_iter}.pth`` (-1: latest) in BasicSR's form.

        The identity of their weights stands beside them: BasicSR reads the entry of a name and passes over others, so
        that its own programs read such a file too. Left to itself, BasicSR goes on training where a file could not be
        written, and leaves half of it.

        Raises:
            WriteError: the disk is full, or nothing can be written there.
        """
        if get_dist_info()[0] != 0:
            return
        networks, keys = (given if isinstance(given, list) else [given] for given in (net, param_key))
        content: dict[str, Any] = {}
        for key, network in zip(keys, networks, strict=True):
            content[key] = {name: value.cpu() for name, value in self.get_bare_model(network).state_dict().items()}
        iteration = "latest" if current_iter == -1 else current_iter
        if self._identity is not None:
            total = self.opt["train"]["total_iter"]
            state, unquantized = trained_state(iteration, total, self._full_precision_iter)
            identity = self._identity.in_full_precision() if unquantized else self._identity
            content[IDENTITY_KEY] = dataclasses.replace(identity, state=state).to_text()
        save_tensors(content, Path(self.opt["path"]["models"], f"{net_label}_{iteration}.pth"))

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load a network as BasicSR does, once its weights are known to belong to this one; also from safetensors.

        Raises:
            InputError: they belong to another network or to other precisions.
        """
        architecture = architecture_of(self.opt["network_g"])
        if architecture is not None and Path(load_path).suffix == ".safetensors":
            for line in load_weights(self.get_bare_model(net), load_path, architecture, other_precisions="full"):
                get_root_logger().warning(line)
            return
        if architecture is not None:
            check_weights(load_path, architecture)
        super().load_network(net, load_path, strict, param_key)

    def save(self, epoch: int, current_iter: int) -> None:
        """Save networks and training state; -1 stands for the end of the training."""
        super().save(epoch, current_iter)
        if current_iter == -1 and self._progress is not None:
            self._progress.close()
            self._progress = None

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Save optimizers and schedulers, whole or not at all, as ``{current_iter}.state``; none at the end (-1)."""
        if current_iter != -1 and get_dist_info()[0] == 0:
            optimizers, schedulers = (
                [part.state_dict() for part in parts] for parts in (self.optimizers, self.schedulers)
            )
            content = {"epoch": epoch, "iter": current_iter, "optimizers": optimizers, "schedulers": schedulers}
            save_tensors(content, Path(self.opt["path"]["training_states"], f"{current_iter}.state"))

    def _enter_phase(self, current_iter: int) -> None:
        """Turn quantization on or off, as the iteration of this number has it."""
        quantized = current_iter > self._full_precision_iter
        set_quantization(self.get_bare_model(self.net_g), quantized)
        if self.ema_decay > 0:
            set_quantization(self.net_g_ema, quantized)

    def _spread_steps(self, first: bool) -> None:
        """Let processes, whose batches differ, agree on the quantizers, and bring those of the average up to date.

        ``first``: whether this was the first iteration, or the first one with quantization.
        """
        network = self.get_bare_model(self.net_g)
        if agree_on_steps(network) and self.ema_decay > 0:
            for average, quantizer in zip(
                activation_quantizers(self.net_g_ema), activation_quantizers(network), strict=True
            ):
                # An average of what is still being found would lag behind; once more for the last batch.
                if average.observing:
                    average.load_state_dict(quantizer.state_dict())
        if first:
            if self.opt["dist"]:
                for parameter in network.parameters():
                    torch.distributed.broadcast(parameter.data, src=0)
            if self.ema_decay > 0:
                self.net_g_ema.load_state_dict(network.state_dict())

    def _show_progress(self, current_iter: int) -> None:
        """Move the progress bar to an iteration."""
        if not self.opt["logger"].get("progress_bar") or get_dist_info()[0] != 0:
            return
        if self._progress is None:
            total = self.opt["train"]["total_iter"]
            self._progress = tqdm(total=total, initial=current_iter - 1, desc="training", unit="iteration")
        self._progress.set_postfix(loss=f"{sum(self.log_dict.values()):.4f}", refresh=False)
        self._progress.update(current_iter - self._progress.n)
