"""Which images share pixels, found from the pixels alone: sub-images of one photograph, copies under other names."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from quantnas_ext.sr.data.images import read_image

MOST_PIXELS = 2**27
"""Pixels of images that are compared, at most: half a minute of one core."""

_WINDOW = 8
"""Side of the windows that are looked up, a power of two."""
_KEPT = 2**5
"""One window in so many is looked up. Which ones their own pixels decide, so it is the same ones wherever they occur:
an overlap of 31 x 31 pixels misses all of its windows with a chance below 1e-7, one of 16 x 16 with 8 %."""
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing
_TRIED = 3
"""Places of one image on another that are compared pixel by pixel, at most."""


@dataclass(frozen=True)
class Overlap:
    """Two images that perhaps show the same pixels where they overlap.

    Attributes:
        first, second: which images, as indices.
        places: where the second may begin in the first, ``(down, right)`` in pixels, the likeliest first.
    """

    first: int
    second: int
    places: tuple[tuple[int, int], ...]

    def fitting(self, paths: Sequence[Path]) -> list[tuple[int, int]]:
        """Those of ``places`` at which all pixels that the images then share are equal."""
        first, second = _recent(paths[self.first]), _recent(paths[self.second])
        return [
            (down, right)
            for down, right in self.places
            if np.array_equal(_shared(first, second, down, right), _shared(second, first, -down, -right))
        ]


def candidate_overlaps(paths: Sequence[Path]) -> Iterator[Overlap]:
    """Pairs of images that have windows of pixels in common, enough pairs to connect all that do.

    Every image is read once. A window is told by a hash of its pixels; windows of one colour are passed over. Images
    that were compressed, resized or turned after they were cut are not recognised.

    Raises:
        InputError: one cannot be read.
    """
    bar = tqdm(paths, desc="comparing images", unit="image", delay=2, leave=False)
    found = [_windows(read_image(path)) for path in bar]
    hashes = np.concatenate([windows for windows, _ in found])
    places = np.concatenate([corners for _, corners in found])
    images = np.repeat(np.arange(len(found)), [len(windows) for windows, _ in found])
    order = np.argsort(hashes, kind="stable")
    hashes, places, images = hashes[order], places[order], images[order]
    # Equal windows stand beside each other now, in the order of their images: neighbours connect all of them.
    same = np.flatnonzero((hashes[1:] == hashes[:-1]) & (images[1:] != images[:-1]))
    if not len(same):
        return
    pairs = images[same].astype(np.int64) * len(paths) + images[same + 1]
    offsets = _offsets(places[same], places[same + 1])
    # A window that an image has several times speaks for more than one place: for its last and its first are counted.
    changes = (hashes[1:] != hashes[:-1]) | (images[1:] != images[:-1])
    run_starts = np.maximum.accumulate(np.where(np.append(True, changes), np.arange(len(hashes)), 0))[same]
    repeated = run_starts != same
    pairs = np.append(pairs, pairs[repeated])
    offsets = np.append(offsets, _offsets(places[run_starts[repeated]], places[same[repeated] + 1]))
    order = np.lexsort((offsets, pairs))
    pairs, offsets = pairs[order], offsets[order]
    places_start = np.flatnonzero(np.append(True, (pairs[1:] != pairs[:-1]) | (offsets[1:] != offsets[:-1])))
    votes = np.diff(places_start, append=len(pairs))
    pairs, offsets = pairs[places_start], offsets[places_start]
    starts = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1]))
    for start, end in zip(starts, [*starts[1:], len(pairs)], strict=True):
        likeliest = offsets[start + np.argsort(-votes[start:end], kind="stable")[:_TRIED]]
        first, second = divmod(int(pairs[start]), len(paths))
        yield Overlap(first, second, tuple((int(of) // 2**32 - 2**31, int(of) % 2**32 - 2**31) for of in likeliest))


def _offsets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differences ``(down, right)`` of corners ``int32 [n, 2]``, each in one ``uint64``."""
    down, right = (first - second).astype(np.int64).T + 2**31
    return down.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)


def _windows(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes ``uint64 [n]`` of the chosen windows of ``uint8 [h, w, 3]`` and places ``int32 [n, 2]``, rows first."""
    if min(image.shape[:2]) < _WINDOW:
        return np.zeros(0, np.uint64), np.zeros((0, 2), np.int32)
    red, green, blue = (image[:, :, channel].astype(np.uint64) for channel in range(3))
    colours = red | green << np.uint64(8) | blue << np.uint64(16)
    hashes = _mixed(colours)
    for axis, factor in ((0, 0xD1342543DE82EF95), (1, 0x2545F4914F6CDD1D)):
        # Sums over a column (row) of the window, each pixel times a power of an odd factor; each pass doubles them.
        length, multiplier = 1, factor
        while length < _WINDOW:
            ahead = hashes[length:] if axis == 0 else hashes[:, length:]
            behind = hashes[:-length] if axis == 0 else hashes[:, :-length]
            hashes = behind + ahead * np.uint64(multiplier)
            length, multiplier = 2 * length, multiplier * multiplier % 2**64
    hashes = _mixed(hashes)
    corners = np.argwhere(hashes < np.uint64(2**64 // _KEPT)).astype(np.int32)
    hashes = hashes[corners[:, 0], corners[:, 1]]
    windows = np.lib.stride_tricks.sliding_window_view(colours.astype(np.uint32), (_WINDOW, _WINDOW))
    pixels = windows[corners[:, 0], corners[:, 1]].reshape(-1, _WINDOW * _WINDOW)
    plain = (pixels == pixels[:, :1]).all(axis=1)
    return hashes[~plain], corners[~plain]


def _mixed(values: np.ndarray) -> np.ndarray:
    """``uint64`` values with every bit spread over all others (two rounds of splitmix64's finaliser)."""
    values = (values + np.uint64(1)) * _MIX
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    return values


def _shared(image: np.ndarray, other: np.ndarray, down: int, right: int) -> np.ndarray:
    """The part of an image that another one covers, whose corner lies ``(down, right)`` in the image."""
    top, left = max(0, down), max(0, right)
    return image[top : max(top, down + other.shape[0]), left : max(left, right + other.shape[1])]


_recent = functools.lru_cache(maxsize=32)(read_image)  # images that may have been compared just before
