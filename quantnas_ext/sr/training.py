"""Final training by BasicSR's own `train_pipeline`, with everything it writes in one run folder."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from quantnas_ext import compat
from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.sr import arch, basicsr_datasets, model
from quantnas_ext.sr.decoding import finish_decoding
from quantnas_ext.sr.options import parse_arguments, read_options
from quantnas_ext.sr.seen_images import note_seen_images
from quantnas_ext.sr.weights import save_weights

compat.prepare_basicsr()
import basicsr.train as basicsr_train  # noqa: E402
from basicsr.utils import logger as basicsr_logger  # noqa: E402
from basicsr.utils.dist_util import get_dist_info  # noqa: E402
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY  # noqa: E402

__all__ = ["WEIGHTS_NAME", "train"]

WEIGHTS_NAME = "network.safetensors"
"""The trained weights in a run folder."""

_REGISTERED = (arch.QuantNASNetwork, basicsr_datasets.PairedFoldersDataset, model.QuantNASModel)
"""Importing their modules entered them in BasicSR's registries."""


def train(argv: Sequence[str] | None, *, quiet: bool = False) -> Path:
    """Train as an options file says, from the start or (`--auto_resume`) from the latest state.

    Beside the options file appear `experiments/` (checkpoints, training states), `tb_logger/`, `train.log` and, at the
    end, the trained weights.

    Args:
        argv: BasicSR's arguments, `["-opt", FILE, ...]`; the command line's, if None.
        quiet: Show only validations and warnings besides the progress bar; the log file has everything.

    Returns:
        The path of the trained weights.

    Raises:
        InputError: Something in the options file is wrong; nothing has been written then.
    """
    arguments = parse_arguments(argv)
    root = Path(arguments.opt).resolve().parent
    weights = root / WEIGHTS_NAME
    torch.set_flush_denormal(True)  # denormal gradients slow a CPU down several times
    with _logging(root / "train.log", quiet), _parsing(arguments) as parsed, warnings.catch_warnings():
        # A resumed training moves the schedule to its iteration before the optimizer's first step here, as it should.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        basicsr_train.train_pipeline(str(root))
        if get_dist_info()[0] == 0:
            trained = torch.load(Path(parsed["path"]["models"]) / "net_g_latest.pth", weights_only=True)
            save_weights(trained.get("params_ema", trained["params"]), weights)
    return weights


@contextlib.contextmanager
def _parsing(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Let the pipeline read its options from `arguments`, checked; yields a dict that the options are copied to."""
    parsed: dict[str, Any] = {}

    def parse_options(root: str, is_train: bool = True) -> tuple[dict[str, Any], argparse.Namespace]:
        options = read_options(arguments, root, is_train)
        _check(options)
        note_seen_images(options)
        parsed.update(options)
        return options, arguments

    original = basicsr_train.parse_options
    basicsr_train.parse_options = parse_options
    try:
        yield parsed
    finally:
        basicsr_train.parse_options = original


def _check(options: dict[str, Any]) -> None:
    """Build network and datasets once before the pipeline makes its folders.

    Raises:
        InputError: A registered name is unknown, a file is missing, or quantization would never be turned on.
    """
    network = dict(options["network_g"])
    for kind, name, registry in (
        ("model_type", options["model_type"], MODEL_REGISTRY),
        ("network type", network["type"], ARCH_REGISTRY),
        *(("dataset type", dataset.get("type"), DATASET_REGISTRY) for dataset in options["datasets"].values()),
    ):
        if name not in registry:
            raise unknown_name(kind, name, registry.keys())
    if network.pop("type") == arch.QuantNASNetwork.__name__:
        arch.QuantNASNetwork(**network)
    for dataset in options["datasets"].values():
        if dataset["type"] in (
            basicsr_datasets.PairedFoldersDataset.__name__,
            basicsr_datasets.WholeImagesDataset.__name__,
        ):
            DATASET_REGISTRY.get(dataset["type"])(dataset)
    finish_decoding()
    full_precision, total = options["train"].get("full_precision_iter", 0), options["train"]["total_iter"]
    if full_precision >= total:
        raise InputError(
            f"{full_precision} full-precision iterations leave none of {total} for quantization; "
            "take fewer, or train in precision 32"
        )


class _BarHandler(logging.Handler):
    """Prints log lines above a progress bar rather than through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))


@contextlib.contextmanager
def _logging(file: Path, quiet: bool) -> Iterator[None]:
    """Send BasicSR's log to one file, which a resumed training goes on with, and to the console.

    BasicSR itself sets its logger up once a process, so that a second training would write to the first one's file.
    """
    logger = logging.getLogger("basicsr")
    file_handler, console = logging.FileHandler(file, encoding="utf-8", delay=True), _BarHandler()
    console.addFilter(functools.partial(_worth_showing, quiet))
    before = (logger.handlers[:], logger.propagate, dict(basicsr_logger.initialized_logger))
    level = logger.level
    logger.handlers = [file_handler, console]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    basicsr_logger.initialized_logger["basicsr"] = True
    for handler in logger.handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        handler.addFilter(lambda record: get_dist_info()[0] == 0 or record.levelno >= logging.ERROR)
    try:
        yield
    finally:
        file_handler.close()
        logger.handlers, logger.propagate, basicsr_logger.initialized_logger = before
        logger.setLevel(level)


def _worth_showing(quiet: bool, record: logging.LogRecord) -> bool:
    """Whether a line of BasicSR's log goes to the console."""
    text = record.getMessage()
    if text.startswith("Multiple validation datasets"):  # a warning for models other than BasicSR's SRModel
        return False
    return not quiet or record.levelno > logging.INFO or text.startswith("Validation")
