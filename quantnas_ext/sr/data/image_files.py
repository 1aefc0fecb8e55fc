"""Image files as Pillow opens them: formats, headers, how a camera was held. Whatever a decoder raises is one sentence.

Checks and readers open files here and nowhere else, so that what passes a check can be read.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError

from quantnas_ext.errors import InputError, printable
from quantnas_ext.files.paths import seen_from
from quantnas_ext.sr.data.colour_profiles import profile_fits

LARGEST = 2**29
"""Most pixels of an image: 1.6 GB as RGB. A scan of 200 megapixels passes, a file made to fill the memory does not."""

_COMMON = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""Formats that Pillow knows by name only, or hands to another program."""

_ORIENTATION = 0x0112
"""Number of the EXIF tag in which a camera notes how it was held; from 5 on, width and height change places."""

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS = 256, 257, 258  # numbers of tags


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        width, height: of the upright image.
        deep: whether it has more than 8 bits per channel.
        profile_fits: whether its colour profile, where it has one, can be used.
    """

    width: int
    height: int
    deep: bool
    profile_fits: bool


@functools.cache
def image_formats() -> tuple[str, ...]:
    """The formats that Pillow reads on this machine, by Pillow's names, common ones first."""
    Image.init()
    others = sorted(set(Image.OPEN) - set(_COMMON) - _NO_PICTURES)
    return (*(name for name in _COMMON if name in Image.OPEN), *others)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Endings of the names of image files, in lower case and with their dot, of all ``image_formats``."""
    formats = image_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


@contextlib.contextmanager
def open_image(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """An image file, opened by its content whatever its name; its header is read, its pixels are not yet.

    Raises:
        InputError: the file is missing, is not an image or has more than ``LARGEST`` pixels; or anything that a decoder
            raised in the scope.
    """
    try:
        with _room_for_large_images, Image.open(path, formats=image_formats()) as image:
            if image.width * image.height > LARGEST:
                raise InputError(
                    f"image '{path}' of {image.width}x{image.height} pixels is too large; "
                    f"give images of at most {LARGEST // 10**6} megapixels"
                )
            yield image
    except InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"image '{path}' does not exist{seen_from(path)}; name an image file") from error
    # Decoders meet damaged files with errors of every kind, and each new one brings its own.
    except Exception as error:
        raise InputError(
            f"image '{path}' cannot be read ({_reason(Path(path), error)}); replace or remove it"
        ) from error


def read_header(path: str | Path) -> ImageHeader:
    """Size and kind of an image, without decoding it.

    Raises:
        InputError: as ``open_image``.
    """
    with open_image(path) as image:
        if image.format == "PNG" and "exif" not in image.info and _has_late_metadata(Path(path)):
            image.load()
        width, height = image.size
        if image.format == "TIFF":  # Pillow swaps the sides itself where it understands the orientation
            width, height = _tiff_tag(image, _TIFF_WIDTH) or width, _tiff_tag(image, _TIFF_HEIGHT) or height
        if _code(_orientation(image)) >= 5:
            width, height = height, width
        fits = profile_fits(image.info.get("icc_profile"), colour_mode(image))
        return ImageHeader(width, height, _is_deep(image), fits)


def upright(image: ImageFile.ImageFile) -> Image.Image:
    """Decode an image and turn it as its camera was held; a note of that which cannot be understood is ignored."""
    if image.format == "PNG":
        image.load()  # it may come after the pixels
    noted = _orientation(image)
    image.load()
    done = image.format == "TIFF" and _plain(noted) > 1  # by Pillow, on decoding
    turn = 1 if done else _code(noted)
    return image.transpose(_TRANSPOSITIONS[turn]) if turn in _TRANSPOSITIONS else image


def colour_mode(image: Image.Image) -> str:
    """Pillow's mode of an image's colours, without opacity, in 8 bits: ``L``, ``RGB``, ``CMYK`` or ``LAB``."""
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"):
        return "L"
    return image.mode if image.mode in ("CMYK", "LAB") else "RGB"


def levels_of(image: ImageFile.ImageFile) -> int | None:
    """The value of white in a greyscale image of more than 8 bits; None where its pixels are no such numbers."""
    if image.mode.startswith("I;16"):
        bits = _tiff_tag(image, _TIFF_BITS) if image.format == "TIFF" else None
        return 2 ** (int(bits[0]) if isinstance(bits, tuple) else 16) - 1
    # Pillow scales a PGM to 16 bits; PNG was opened in this mode before Pillow 11.
    return 2**16 - 1 if image.mode == "I" and image.format in ("PPM", "PNG") else None


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether a file has more than 8 bits per channel, as far as Pillow tells before decoding."""
    if image.mode.startswith("I"):
        return True
    found = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in image.tile]
    arguments = [argument for of_tile in found for argument in of_tile]
    if image.format == "PPM":
        return any(isinstance(argument, int) and argument > 255 for argument in arguments)
    return any(isinstance(argument, str) and ";16" in argument for argument in arguments)


def _orientation(image: ImageFile.ImageFile) -> Any:
    """The EXIF orientation as it is in the file, of whatever type; None where there is none."""
    try:
        # Not the PNG reader's own method, which decodes the whole image first.
        return Image.Image.getexif(image).get(_ORIENTATION)
    # As with pixels: damaged metadata raises anything, but an image can do without.
    except Exception:
        return None


def _code(value: Any) -> int:
    """The number from 1 to 8 that an orientation of any type means: bytes, text, fractions, a list of one; else 1."""
    try:
        if isinstance(value, tuple | list):
            value = value[0]
        if isinstance(value, bytes):
            value = value.strip(b"\0")
            value = value[0] if len(value) == 1 and value[0] <= 8 else value.decode("ascii")
        if isinstance(value, str):
            value = value.strip("\0 ")
        number = float(value)
        return int(number) if number in range(1, 9) else 1
    except (TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError):
        return 1


def _plain(value: Any) -> int:
    """The orientation that Pillow itself makes out: a number from 1 to 8, else 1."""
    try:
        return next((code for code in range(1, 9) if code == value), 1)
    except (TypeError, ValueError):
        return 1


def _tiff_tag(image: ImageFile.ImageFile, tag: int) -> Any:
    """A tag of a TIFF file, None where it is not there or cannot be understood."""
    try:
        return image.tag_v2.get(tag)  # type: ignore[attr-defined]
    except Exception:
        return None


def _has_late_metadata(path: Path) -> bool:
    """Whether a PNG file has EXIF or XMP after its pixels; only chunk headers are read."""
    keys = (b"Raw profile type exif", b"XML:com.adobe.xmp")
    with path.open("rb") as file:
        file.seek(8)
        pixels_seen = False
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            pixels_seen = pixels_seen or kind == b"IDAT"
            if pixels_seen and kind == b"eXIf":
                return True
            if pixels_seen and kind in (b"tEXt", b"zTXt", b"iTXt"):
                start = file.read(min(length, 24))
                if start.startswith(keys):
                    return True
                length -= len(start)
            file.seek(length + 4, 1)
    return False


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in a few words on one line."""
    if isinstance(error, UnidentifiedImageError):
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                return "the file is empty"
        return "it is damaged or no image that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {LARGEST // 10**6} megapixels"
    if isinstance(error, MemoryError):
        return "it does not fit the memory"
    text = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0]
    return printable(text[:200]) or type(error).__name__


class _RoomForLargeImages:
    """A scope, shared by threads, in which Pillow's limit of pixels is above ``LARGEST``; it comes back after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 2 * LARGEST
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._before


_room_for_large_images = _RoomForLargeImages()
