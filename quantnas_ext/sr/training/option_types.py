"""What kinds of values the options of a training may have, checked before anything is done with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from quantnas_ext.errors import InputError, shown

_NEEDED = (
    *("name", "model_type", "scale", "num_gpu", "datasets:train", "network_g:type", "path"),
    *("train:total_iter", "logger:print_freq", "logger:save_checkpoint_freq"),
)

_LEAST = {
    "scale": 1,
    "manual_seed": 0,
    "train:total_iter": 1,
    "train:full_precision_iter": 0,
    "train:warmup_iter": -1,
    "logger:print_freq": 1,
    "logger:save_checkpoint_freq": 1,
    "val:val_freq": 1,
}
"""Options that are whole numbers, and the least that each may be."""

_LEAST_OF_DATASETS = {"gt_size": 1, "batch_size_per_gpu": 1, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 1}

_WITH_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
"""Numbers such as ``1e-4``, which YAML 1.1 takes for text."""


def find_option(options: Any, key: str) -> Any:
    """The option with a path such as ``train:total_iter``, or None."""
    for name in key.split(":"):
        options = options.get(name) if isinstance(options, dict) else None
    return options


def path_options(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Every option that names a file or folder: the section that holds it, its key there, and its whole key."""
    for name, section in options.items():
        if name.startswith("network_") and isinstance(section, dict):
            yield from ((section, key, f"{name}:{key}") for key in ("architecture", "weights") if section.get(key))
    for phase, dataset in options["datasets"].items():
        for key in dataset:
            if key in ("folder", "folders") or key.startswith(("dataroot", "meta_info")):
                yield dataset, key, f"datasets:{phase}:{key}"
    for key in options["path"]:
        if key == "resume_state" or key.startswith("pretrain_network_"):
            yield options["path"], key, f"path:{key}"


def check_types(options: Any) -> None:
    """Check what must be there and of which kind, and turn ``1e-4`` and ``5e3``, texts in YAML, into numbers, in place.

    Raises:
        InputError: an option is missing, or of another kind or size than it can be. The sentence does not name the
            file.
    """
    for key in _NEEDED:
        if find_option(options, key) is None:
            raise InputError(f"lacks '{key}'; compare it with one that recipes/train.py wrote")
    for name in ("datasets", "network_g", "path", "train", "logger", "val"):
        if options.get(name) is not None and not isinstance(options[name], dict):
            raise InputError(f"'{name}' must be a section of options, not {shown(options[name])}")
    for phase, dataset in options["datasets"].items():
        if not isinstance(phase, str) or not isinstance(dataset, dict):
            raise InputError(f"'datasets:{phase}' must be a section of options, not {shown(dataset)}")
        dataset.setdefault("name", phase)
    texts = ["name", "model_type", "network_g:type"]
    texts += [f"datasets:{phase}:{key}" for phase in options["datasets"] for key in ("name", "type")]
    for key in texts:
        if not isinstance(find_option(options, key), str):
            raise InputError(f"'{key}' must be text in quotes, not {shown(find_option(options, key))}")
    if options["name"] in (".", "..") or set(options["name"]) & set("/\\\0"):
        raise InputError(f"'name' must be a plain name, as it becomes that of a folder, not {shown(options['name'])}")
    for name in ("train", "logger", "val"):
        _read_exponents(options.get(name) or {})
    for dataset in options["datasets"].values():
        _read_exponents(dataset)
    least = {f"datasets:{phase}:{key}": low for phase in options["datasets"] for key, low in _LEAST_OF_DATASETS.items()}
    for key, low in (_LEAST | least).items():
        _check_whole(options, key, low)
    if options["num_gpu"] != "auto":
        _check_whole(options, "num_gpu", 0, " or auto")
    if options.get("val") is not None:
        for key in ("val_freq", "save_img"):
            if options["val"].get(key) is None:
                raise InputError(f"lacks 'val:{key}'; compare it with one that recipes/train.py wrote")
    for section, key, whole_key in path_options(options):
        value = section[key]
        items = value if key == "folders" else [value]
        if not isinstance(items, list) or not all(isinstance(item, str) or item is None for item in items):
            kind = "a list of folders" if key == "folders" else "a path"
            raise InputError(f"'{whole_key}' must be {kind}, not {shown(value)}")


def _read_exponents(section: Any) -> None:
    """Turn texts such as ``1e-4`` into numbers, in sections of sections too, in place; names stay text."""
    entries = section.items() if isinstance(section, dict) else enumerate(section)
    for key, value in list(entries):
        if isinstance(value, dict | list):
            _read_exponents(value)
        elif isinstance(value, str) and key not in ("name", "type") and _WITH_EXPONENT.fullmatch(value):
            section[key] = float(value)


def _check_whole(options: dict[str, Any], key: str, least: int, more: str = "") -> None:
    """Check a whole number where there is one; ``5000.0``, as BasicSR's own files have it, becomes 5000."""
    value = find_option(options, key)
    if value is None:
        return
    if isinstance(value, float) and value.is_integer():
        value = int(value)
        *sections, name = key.split(":")
        section = find_option(options, ":".join(sections)) if sections else options
        section[name] = value
    if type(value) is not int or value < least:
        raise InputError(f"'{key}' must be a whole number of at least {least}{more}, not {shown(value)}")
