"""Super-resolution as NNI's Lightning evaluator, for NNI's own strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nni.nas.evaluator.pytorch.lightning import DataLoader, Lightning, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from quantnas_ext.runs.config import Config
from quantnas_ext.search.loop.sampling import EpochSampler
from quantnas_ext.sr.data.patches import PatchDataset


class RestorationModule(LightningModule):
    """L1 loss, and Adam with a cosine to zero over ``steps``: the weight step of this package's own searches.

    The datasets get new patches after every epoch.
    """

    def __init__(self, learning_rate: float, weight_decay: float, steps: int, datasets: list[PatchDataset]) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.steps = steps
        self.datasets = datasets

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean absolute error of a batch ``([N, 3, H, W], [N, 3, scale H, scale W])``."""
        inputs, targets = batch
        return nn.functional.l1_loss(self.model(inputs), targets)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return [optimizer], [{"scheduler": cosine, "interval": "step"}]

    def on_train_epoch_end(self) -> None:
        """New patches for the next epoch."""
        for dataset in self.datasets:
            dataset.set_epoch(self.trainer.current_epoch + 1)


def lightning_evaluator(config: Config, train: PatchDataset, validation: PatchDataset, folder: Path) -> Lightning:
    """The search of a configuration, as far as NNI's one-shot strategies have a part in it.

    Weights learn from ``train``, logits from ``validation``; TensorBoard's logs go to the folder.
    """
    search, batch = config.search, config.data.batch_size
    steps = search.steps_per_epoch or max(1, len(train) // batch)
    loaders = [
        DataLoader(
            part,
            batch_size=batch,
            sampler=EpochSampler(len(part), steps * batch, config.seed + index),
            num_workers=config.data.workers,
        )
        for index, part in enumerate((train, validation))
    ]
    module = RestorationModule(
        search.weight_learning_rate, search.weight_decay, search.epochs * steps, [train, validation]
    )
    trainer = Trainer(
        max_epochs=search.epochs,
        devices=1,
        logger=TensorBoardLogger(str(folder), name="", version=""),
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=steps,
    )
    return Lightning(module, trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
