"""BasicSR's options files: written for a final training, read safely, and its command line."""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from quantnas_ext import compat
from quantnas_ext.errors import InputError, about
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.files.paths import expanded, path_argument, seen_from
from quantnas_ext.files.schema import read_yaml, read_yaml_file
from quantnas_ext.runs.config import Config
from quantnas_ext.sr.data.dataset_layout import DatasetLayout
from quantnas_ext.sr.training.option_types import check_types, find_option, path_options

compat.prepare_basicsr()
from basicsr.utils import set_random_seed  # noqa: E402
from basicsr.utils.dist_util import get_dist_info, init_dist  # noqa: E402

_EPOCH_ITERATIONS = 1000
"""Iterations in what BasicSR counts as an epoch: at each one's end it restarts its data loader."""


def final_training_options(
    config: Config, scale: int, images: int, architecture: str | Path, weights: str | Path | None
) -> dict[str, Any]:
    """BasicSR's options for the final training of a found network: L1, Adam, cosine to (nearly) zero.

    Args:
        config: its ``seed``, ``data.train``, ``data.test``, ``data.workers`` and ``train`` are used.
        scale: the network's scale.
        images: number of training pairs, on which the length of BasicSR's epochs depends.
        architecture: the architecture file to train.
        weights: safetensors weights to start from; None for new ones.
    """
    train = config.train
    needed = train.batch_size * min(train.iterations, _EPOCH_ITERATIONS)
    datasets: dict[str, Any] = {
        "train": {
            "name": "train",
            "type": "PairedFoldersDataset",
            "folders": [os.path.abspath(folder) for folder in config.data.train],
            "layout": dataclasses.asdict(DatasetLayout.of(config.data)),
            "skip_small": config.data.skip_small,
            "gt_size": train.patch * scale,
            "batch_size_per_gpu": train.batch_size,
            "num_worker_per_gpu": config.data.workers,
            "dataset_enlarge_ratio": -(-needed // images),
        }
    }
    for number, (name, folder) in enumerate(config.data.test.items(), start=1):
        datasets[f"val_{number}"] = {
            "name": name,
            "type": "WholeImagesDataset",
            "folder": os.path.abspath(folder),
            "nested": config.data.nested,
        }
    metric = {"crop_border": scale, "test_y_channel": True}
    options: dict[str, Any] = {
        "name": "train",
        "model_type": "QuantNASModel",
        "scale": scale,
        "num_gpu": "auto",
        "manual_seed": config.seed,
        # Without quantization the steps have no gradient, for which several processes would wait.
        "find_unused_parameters": train.full_precision_iterations > 0,
        "datasets": datasets,
        "network_g": {
            "type": "QuantNASNetwork",
            "architecture": os.path.abspath(architecture),
            "weights": None if weights is None else os.path.abspath(weights),
        },
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "total_iter": train.iterations,
            "full_precision_iter": train.full_precision_iterations,
            "warmup_iter": -1,
            "optim_g": {"type": "Adam", "lr": train.learning_rate, "weight_decay": 0, "betas": [0.9, 0.99]},
            "scheduler": {
                "type": "CosineAnnealingRestartLR",
                "periods": [train.iterations],
                "restart_weights": [1],
                "eta_min": 1e-7,
            },
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "logger": {
            "print_freq": 100,
            "save_checkpoint_freq": train.checkpoint_every,
            "use_tb_logger": True,
            "progress_bar": True,
            "wandb": None,
        },
    }
    if config.data.test:
        options["val"] = {
            "val_freq": train.validate_every,
            "save_img": False,
            "metrics": {"psnr": {"type": "calculate_psnr", **metric}, "ssim": {"type": "calculate_ssim", **metric}},
        }
    return options


def write_options(options: dict[str, Any], path: str | Path) -> None:
    """Write an options file; it appears complete or not at all.

    Paths below its folder are written relative to it, so that the folder can be moved. ``written_in`` says where it
    lay.
    """
    path = Path(path)
    folder = path.absolute().parent
    options = {**copy.deepcopy(options), "written_in": str(folder)}
    for section, key, _ in path_options(options):
        if isinstance(section[key], list):
            section[key] = [_inside(folder, item) for item in section[key]]
        elif section[key] is not None:
            section[key] = _inside(folder, section[key])
    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(options, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _inside(folder: Path, path: str) -> str:
    """A path relative to a folder, where it lies below that."""
    return os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else path


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """BasicSR's command line for training (``python -m basicsr.train``)."""
    parser = argparse.ArgumentParser(
        prog="python -m quantnas_ext.sr.train",
        description="BasicSR's training with the networks, datasets and model of quantnas_ext; all results go to the "
        "folder of the options file.",
    )
    parser.add_argument("-opt", type=path_argument, required=True, metavar="FILE", help="options file in YAML")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="how processes start")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the latest state, if there is one")
    parser.add_argument("--debug", action="store_true", help="short intervals, nothing logged to TensorBoard")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by some launchers; not used")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY:SUB=VALUE", help="override options: train:total_iter=2000"
    )
    return parser.parse_args(argv)


def read_options(arguments: argparse.Namespace, root: str, is_train: bool = True) -> dict[str, Any]:
    """What ``basicsr.utils.options.parse_options`` does, without its ``exec``, ``eval`` and unsafe YAML.

    Options are read, overridden and checked, processes are joined (``--launcher``), random numbers are seeded, and the
    paths of ``experiments/`` and ``tb_logger/`` below ``root`` are filled in.

    Raises:
        InputError: the file is missing, is not YAML or lacks an option, an option is of another kind than it can be, or
            an override is not possible.
    """
    path = Path(arguments.opt)
    if not path.is_file():
        raise InputError(f"options file '{path}' does not exist{seen_from(path)}; recipes/train.py writes one")
    with about(f"options file '{path}' cannot be read"):
        options = read_yaml_file(path)
    for override in arguments.force_yml:
        _override(options, override)
    try:
        check_types(options)
        written_in = options.get("written_in") if isinstance(options.get("written_in"), str) else None
        for section, key, _ in path_options(options):
            if isinstance(section[key], list):
                section[key] = [_beside(item, path, written_in) for item in section[key]]
            elif section[key] is not None:
                section[key] = _beside(section[key], path, written_in)
    except InputError as error:
        raise InputError(f"options file '{path}' {error}") from error
    options["dist"] = arguments.launcher != "none"
    if options["dist"]:
        init_dist(arguments.launcher, **(options.get("dist_params", {}) if arguments.launcher == "slurm" else {}))
    options["rank"], options["world_size"] = get_dist_info()
    if options.get("manual_seed") is None:
        options["manual_seed"] = random.randint(1, 10000)
    set_random_seed(options["manual_seed"] + options["rank"])
    options.update(auto_resume=arguments.auto_resume, is_train=is_train)
    if options["num_gpu"] == "auto":
        # One process drives one GPU; several GPUs take several processes, started by a launcher.
        options["num_gpu"] = torch.cuda.device_count() if options["dist"] else min(torch.cuda.device_count(), 1)
    for phase, dataset in options["datasets"].items():
        dataset.update(phase=phase.split("_")[0], scale=options["scale"])
    if arguments.debug:
        options["name"] = f"debug_{options['name']}"
        options["logger"].update(print_freq=1, save_checkpoint_freq=8)
        options.get("val", {}).update(val_freq=8)
    experiment = Path(root, "experiments", options["name"])
    options["path"].update(
        experiments_root=str(experiment),
        log=str(experiment),
        **{folder: str(experiment / folder) for folder in ("models", "training_states", "visualization")},
    )
    return options


def _beside(path: str, options: Path, written_in: str | None) -> str:
    """The file or folder that a path in an options file means; the path itself where there is none.

    A relative path begins at the options file (what lies in the run folder moves with it), else, as BasicSR has it, at
    the working directory, else where the file was written. An absolute one that moved with the file is found again.
    """
    path = expanded(path)
    folder = options.absolute().parent
    places = [Path(path)] if os.path.isabs(path) else [folder / path, Path(path).absolute()]
    if written_in is not None:
        apart = os.path.relpath(path, written_in) if os.path.isabs(path) else path
        places.append(folder / apart if os.path.isabs(path) else Path(written_in, path))
    return next((os.path.normpath(place) for place in places if os.path.exists(place)), path)


def _override(options: dict[str, Any], text: str) -> None:
    """Apply one ``--force_yml KEY:SUB=VALUE``, in place. Sections must exist, the last key may be new."""
    key, equals, value = (part.strip() for part in text.partition("="))
    *sections, name = key.split(":")
    section = find_option(options, ":".join(sections)) if sections else options
    if not equals or not name or not isinstance(section, dict):
        raise InputError(f"'--force_yml {text}' is not possible; write KEY:SUB=VALUE, KEY a section of the options")
    section[name] = _value(value)


def _value(text: str) -> Any:
    """An override's value as BasicSR reads it: YAML, ``None``, and numbers such as ``1e-4``."""
    if text.lower() == "none":
        return None
    value = read_yaml(text)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)  # 1e-4, which YAML takes for text
    return value
