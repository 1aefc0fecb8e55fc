"""Whether BasicSR can train as its options say, found out before it moves or writes anything."""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
import io
import logging
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from quantnas_ext import compat
from quantnas_ext.errors import InputError, printable, shown, unknown_name
from quantnas_ext.files.paths import seen_from
from quantnas_ext.sr.data.decoding import finish_decoding
from quantnas_ext.sr.training import arch, basicsr_datasets, model
from quantnas_ext.sr.training.option_types import path_options
from quantnas_ext.sr.weights.weight_loading import check_weights

compat.prepare_basicsr()
import basicsr.train as basicsr_train  # noqa: E402
from basicsr.models import build_model, lr_scheduler  # noqa: E402
from basicsr.utils import set_random_seed  # noqa: E402
from basicsr.utils.registry import (  # noqa: E402
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
)

_REGISTERED = (arch.QuantNASNetwork, basicsr_datasets.PairedFoldersDataset, model.QuantNASModel)
"""Importing their modules entered them in BasicSR's registries."""

_TRAIN_OPTIONS = (
    *("total_iter", "warmup_iter", "full_precision_iter", "ema_decay"),
    *("optim_g", "scheduler", "pixel_opt", "perceptual_opt"),
)
"""Options under ``train`` that ``QuantNASModel`` and the training loop read."""

_SCHEDULERS = {
    "MultiStepLR": lr_scheduler.MultiStepRestartLR,
    "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
    "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
}


def rehearse(options: dict[str, Any]) -> None:
    """Build, on the CPU, all that the training is made of, read one item of every dataset, and forget it again.

    Random numbers are seeded anew afterwards, so that a training is the same however much was checked.

    Raises:
        InputError: a name or an option is unknown, a file is missing, or BasicSR cannot build something from its
            options.
    """
    _check_names(options)
    total, full_precision = options["train"]["total_iter"], options["train"].get("full_precision_iter", 0)
    if full_precision >= total:
        raise InputError(
            f"{full_precision} full-precision iterations leave none of {total} for quantization; "
            "take fewer, or train in precision 32"
        )
    _check_device(options)
    for section, key, whole_key in path_options(options):
        if key not in ("folder", "folders", "architecture", "weights") and section[key] is not None:
            path = section[key].partition("?")[0]
            if not os.path.exists(path):
                raise InputError(f"'{whole_key}' names '{path}', which does not exist{seen_from(path)}")
    architecture = arch.architecture_of(options["network_g"])
    start = options["path"].get("pretrain_network_g")
    if start is not None and architecture is not None:
        check_weights(start, architecture)
    rehearsed = copy.deepcopy(options)
    rehearsed.update(dist=False, num_gpu=0)
    with _silence():
        with _explained("datasets"):
            train_loader, _, val_loaders, *_ = basicsr_train.create_train_val_dataloader(
                rehearsed, logging.getLogger("basicsr")
            )
            for loader in (train_loader, *val_loaders):
                loader.dataset[0]
            finish_decoding()
        with _explained("network_g, path and train"):
            build_model(rehearsed)
    set_random_seed(options["manual_seed"] + options["rank"])


def _check_names(options: dict[str, Any]) -> None:
    """Refuse unknown names of things, and unknown options of those that take a fixed set."""
    for kind, name, registry in (
        ("model_type", options["model_type"], MODEL_REGISTRY),
        ("network type", options["network_g"]["type"], ARCH_REGISTRY),
        *(("dataset type", dataset["type"], DATASET_REGISTRY) for dataset in options["datasets"].values()),
    ):
        if name not in registry:
            raise unknown_name(kind, name, registry.keys())
    prefetch, pinned = (options["datasets"]["train"].get(key) for key in ("prefetch_mode", "pin_memory"))
    if prefetch not in (None, "cpu") and not (prefetch == "cuda" and pinned is True and torch.cuda.is_available()):
        raise InputError(
            "'datasets:train:prefetch_mode' must be cpu, or cuda with pin_memory: true where there is a GPU, "
            f"not {shown(prefetch)}"
        )
    _check_arguments("network_g", options["network_g"], ARCH_REGISTRY.get(options["network_g"]["type"]))
    train = options["train"]
    if options["model_type"] == model.QuantNASModel.__name__:
        for name in train:
            # Only what is nearly a known name: a model of one's own may read others.
            if name not in _TRAIN_OPTIONS and difflib.get_close_matches(str(name), _TRAIN_OPTIONS, cutoff=0.8):
                raise unknown_name("option of 'train':", name, _TRAIN_OPTIONS)
    for key in ("pixel_opt", "perceptual_opt"):
        if train.get(key):
            _check_part(f"train:{key}", train[key], LOSS_REGISTRY)
    for key, known in (("optim_g", {"Adam": torch.optim.Adam}), ("scheduler", _SCHEDULERS)):
        supplied = ("params",) if key == "optim_g" else ("optimizer",)
        _check_part(f"train:{key}", train.get(key), known, supplied)
    for name, metric in ((options.get("val") or {}).get("metrics") or {}).items():
        _check_part(f"val:metrics:{name}", metric, METRIC_REGISTRY, ("img", "img2"))


def _check_part(key: str, part: Any, known: Any, supplied: Collection[str] = ()) -> None:
    """Check a section ``{type: ..., options ...}`` against what its type takes; BasicSR itself gives ``supplied``."""
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InputError(f"'{key}' must be a section with a 'type'; compare it with one that recipes/train.py wrote")
    if part["type"] not in known:
        raise unknown_name(f"type of '{key}':", part["type"], known.keys())
    _check_arguments(key, part, known.get(part["type"]), supplied)


def _check_arguments(key: str, given: dict[str, Any], function: Callable[..., Any], supplied: Any = ()) -> None:
    """Compare the options of a section with the parameters of what is built from them."""
    parameters = {name: p for name, p in inspect.signature(function).parameters.items() if name not in supplied}
    kinds = {parameter.kind for parameter in parameters.values()}
    names = [name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name in given:
        if name != "type" and name not in names and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise unknown_name(f"option of '{key}':", name, names)
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and name not in given:
            raise InputError(f"'{key}' lacks the option '{name}'; give it a value")


def _check_device(options: dict[str, Any]) -> None:
    """Refuse GPUs that are not there."""
    wanted, there = options["num_gpu"], torch.cuda.device_count()
    if wanted > there and not (options["dist"] and there):
        have = f"{there} GPU{'s' if there > 1 else ''}" if there else "no GPU"
        raise InputError(f"'num_gpu' is {wanted}, but torch finds {have} here; write auto, or {there}")


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say in one sentence why something cannot be built; BasicSR lets exceptions of every kind out."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"the options of {what} lack {error}; give it a value") from error
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}".partition("\n")[0][:300])
        raise InputError(f"the options of {what} cannot be trained with ({reason}); correct them") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep BasicSR's reports of what it builds from console and log."""
    logger = logging.getLogger("basicsr")
    before, logger.disabled = logger.disabled, True
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.disabled = before
