"""Where the images of a dataset folder come from: each one's photograph, and its place on it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quantnas_ext.errors import InputError, shown

ORIGINS_NAME = "origins.json"
"""The record that preparation leaves in a dataset folder, beside ``HR``."""

_FORMAT, _VERSION = "quantnas-origins", 1
_LARGEST_FILE = 200_000_000  # bytes; DIV2K in sub-images takes three millions
_SUB_IMAGE = re.compile(r"(.+)_s\d{3,}")  # as recipes/prepare_data.py and BasicSR's extract_subimages.py name them
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Box(NamedTuple):
    """A rectangle of pixels; those of which image, its user says."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """This part of an image ``[h, w, ...]``."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def times(self, factor: int) -> Box:
        """The same rectangle of an image that is so many times as large."""
        return Box(*(value * factor for value in self))


@dataclass(frozen=True)
class Origin:
    """Where an image was cut from.

    Attributes:
        photograph: digest of the photograph's pixels (``photograph_digest``), which says that two are the same whatever
            they are called.
        name: what the photograph was called.
        box: its place there, in high-resolution pixels.
    """

    photograph: str
    name: str
    box: Box


def photograph_digest(image: np.ndarray) -> str:
    """A digest of the pixels of a photograph, ``uint8 [h, w, 3]``."""
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def stem_of_sub_image(stem: str) -> str | None:
    """``0001`` of a sub-image that is called ``0001_s002``, as is usual with DIV2K; None for other names."""
    match = _SUB_IMAGE.fullmatch(stem)
    return match[1] if match else None


def write_origins(folder: Path, origins: Mapping[str, Origin]) -> None:
    """Write the record of a dataset folder that is being made, by file names without their endings."""
    photographs = {origin.name: origin.photograph for origin in origins.values()}
    images = {stem: {"photograph": origin.name, "box": list(origin.box)} for stem, origin in origins.items()}
    content = {"format": _FORMAT, "version": _VERSION, "photographs": photographs, "images": images}
    (folder / ORIGINS_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_origins(folder: str | Path) -> dict[str, Origin]:
    """The origins of a dataset folder's images by file name without its ending; none where nothing is recorded.

    Raises:
        InputError: the record is damaged or of another version.
    """
    path = Path(folder) / ORIGINS_NAME
    if not path.exists():
        return {}
    remedy = "prepare the folder anew, or remove the file: sub-images are then recognised by their pixels"
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read as a record of photographs; {remedy}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"'{path}' is no record of photographs; {remedy}")
    if type(content.get("version")) is not int or content["version"] != _VERSION:
        raise InputError(f"'{path}' has version {shown(content.get('version'))}, not {_VERSION}; {remedy}")
    try:
        return _origins(content)
    except InputError as error:
        raise InputError(f"'{path}' is damaged ({error}); {remedy}") from error


def _origins(content: dict[str, Any]) -> dict[str, Origin]:
    """The origins in a record, of which nothing is known to be right."""
    photographs, images = content.get("photographs"), content.get("images")
    if not isinstance(photographs, dict) or not isinstance(images, dict):
        raise InputError("photographs and images should be mappings")
    for name, digest in photographs.items():
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise InputError(f"the digest of {shown(name)} should have 64 hexadecimal digits")
    found = {}
    for stem, image in images.items():
        match image:
            case {"photograph": str(name), "box": [int(top), int(left), int(height), int(width)]}:
                box = Box(top, left, height, width)
            case _:
                raise InputError(f"{shown(stem)} should have a photograph, and a box of four whole numbers")
        if name not in photographs:
            raise InputError(f"the photograph of {shown(stem)} is not among photographs")
        if min(top, left) < 0 or min(height, width) < 1 or max(box) >= 2**31:
            raise InputError(f"the box of {shown(stem)} should be top and left from 0, height and width from 1")
        found[stem] = Origin(photographs[name], name, box)
    return found
