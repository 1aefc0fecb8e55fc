"""Final training by BasicSR's own ``train_pipeline``, with everything it writes in one run folder."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from quantnas_ext import compat
from quantnas_ext.errors import InputError
from quantnas_ext.files.lock import run_lock
from quantnas_ext.runs.run_folder import TrainingFolder
from quantnas_ext.sr.training.arch import QuantNASNetwork
from quantnas_ext.sr.training.basicsr_options import parse_arguments, read_options
from quantnas_ext.sr.training.rehearsal import rehearse
from quantnas_ext.sr.training.seen_images import note_seen_images
from quantnas_ext.sr.training.training_order import ordered_by_seed
from quantnas_ext.sr.weights.weight_files import read_weight_file, save_weights
from quantnas_ext.threads import choose_threads

compat.prepare_basicsr()
import basicsr.train as basicsr_train  # noqa: E402
from basicsr.utils import logger as basicsr_logger  # noqa: E402
from basicsr.utils.dist_util import get_dist_info  # noqa: E402


def train(argv: Sequence[str] | None, *, quiet: bool = False) -> Path:
    """Train as an options file says, from the start or (``--auto_resume``) from the latest state that is whole.

    Beside the options file appear ``experiments/`` (checkpoints, training states), ``tb_logger/``, ``train.log`` and,
    at the end, the trained weights.

    Args:
        argv: BasicSR's arguments, ``["-opt", FILE, ...]``; the command line's, if None.
        quiet: show only validations and warnings besides the progress bar; the log file has everything.

    Returns:
        The path of the trained weights.

    Raises:
        InputError: something in the options file is wrong, or the folder holds a training already and nothing says to
            go on with it; nothing has been written or moved then.
    """
    arguments = parse_arguments(argv)
    run = TrainingFolder(Path(arguments.opt).resolve().parent)
    torch.set_flush_denormal(True)  # denormal gradients slow a CPU down several times
    with (
        contextlib.ExitStack() as held,
        _logging(run.log, quiet),
        _parsing(arguments, held) as parsed,
        warnings.catch_warnings(),
    ):
        # A resumed training moves the schedule to its iteration before the optimizer's first step here, as it should.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        with ordered_by_seed(parsed):
            basicsr_train.train_pipeline(str(run))
        if get_dist_info()[0] == 0:
            trained = read_weight_file(Path(parsed["path"]["models"]) / "net_g_latest.pth")
            save_weights(trained.weights, run.weights, trained.identity)
    return run.weights


@contextlib.contextmanager
def _parsing(arguments: argparse.Namespace, held: contextlib.ExitStack) -> Iterator[dict[str, Any]]:
    """Let the pipeline read its options from ``arguments``, checked; yields a dict that the options are copied to.

    After the checks the first process locks the folder; ``held`` gives it back.
    """
    parsed: dict[str, Any] = {}

    def parse_options(root: str, is_train: bool = True) -> tuple[dict[str, Any], argparse.Namespace]:
        options = read_options(arguments, root, is_train)
        parsed.update(options)  # the order of images, in the rehearsal too, goes by it
        rehearse(options)
        note_seen_images(options)
        start = options, TrainingFolder(root).weights, f"python -m quantnas_ext.sr.train -opt {arguments.opt}"
        _check_start(*start)
        if options["rank"] == 0:
            held.enter_context(run_lock(root))
            _check_start(*start)  # again, as another process may have trained since
        if not options["dist"]:
            choose_threads(Path(root), _trial_step(options))
        return options, arguments

    original = basicsr_train.parse_options
    basicsr_train.parse_options = parse_options
    try:
        yield parsed
    finally:
        basicsr_train.parse_options = original


def _trial_step(options: dict[str, Any]) -> Callable[[], None] | None:
    """Forward and backward pass of a network like the one to be trained; None for networks that are not ours."""
    network_options = dict(options["network_g"])
    if network_options.pop("type") != QuantNASNetwork.__name__:
        return None
    with torch.random.fork_rng(devices=[]):
        network = QuantNASNetwork(**network_options).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train = options["datasets"]["train"]
        side = max(1, train.get("gt_size", 64) // options["scale"])
        inputs = torch.rand(train.get("batch_size_per_gpu", 1), 3, side, side).to(memory_format=torch.channels_last)

    def step() -> None:
        network(inputs).square().mean().backward()
        network.zero_grad()

    return step


def _check_start(options: dict[str, Any], weights: Path, command: str) -> None:
    """Refuse to begin anew where a training has left weights or states, and nothing says to go on from them."""
    states = list(Path(options["path"]["training_states"]).glob("*.state"))
    if options["path"].get("resume_state") or (options["auto_resume"] and (states or not weights.exists())):
        return
    folder, anew = weights.parent, "to train anew, move or delete what it left, or use another folder"
    if weights.exists():
        more = f"to go on from its last state, add --auto_resume ({command} --auto_resume)" if states else anew
        raise InputError(f"'{folder}' holds a finished network ({weights.name}), which is kept; {more}")
    if states:
        raise InputError(
            f"'{folder}' holds an unfinished training ({len(states)} states); to go on, add --auto_resume "
            f"({command} --auto_resume); {anew}"
        )


class _BarHandler(logging.Handler):
    """Prints log lines above a progress bar rather than through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))


class _LogFile(logging.FileHandler):
    """A log file whose full disk ends the training, where ``logging`` would print a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Let out what writing a line has raised; called while that is handled."""
        raise


@contextlib.contextmanager
def _logging(file: Path, quiet: bool) -> Iterator[None]:
    """Send BasicSR's log to one file, which a resumed training goes on with, and to the console.

    BasicSR itself sets its logger up once a process, so that a second training would write to the first one's file.
    """
    logger = logging.getLogger("basicsr")
    file_handler, console = _LogFile(file, encoding="utf-8", delay=True), _BarHandler()
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
