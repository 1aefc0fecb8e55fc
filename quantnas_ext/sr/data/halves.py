"""Which images, or regions of images, the weights of a search learn from, and which its logits: no pixel is in both."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from quantnas_ext.errors import InputError
from quantnas_ext.notices import notice
from quantnas_ext.sr.data.mosaics import Photograph
from quantnas_ext.sr.data.origins import Box

Regions = dict[int, Box | None]
"""Images by index, each with the part of it that may be used, in its own low-resolution pixels; None for all of it."""

GAP = 4
"""Low-resolution pixels between two regions of a photograph. Bicubic reduction by s reads 4 s pixels for one, so 3 keep
apart what the low-resolution pixels on either side were made from."""

_FEWEST = 3
"""Photographs that halves of whole photographs need: with two, either half would know one picture only."""
_TOLERANCE = 0.4
"""How far a part may be from its share before photographs are cut for it, relative to the smaller share."""
_NEAR = 0.1
"""The same for an order of dealing that is taken at once."""
_SHUFFLES = 100
"""Orders of dealing that are tried, at most."""


def split_photographs(
    photographs: Sequence[Photograph], regions: Regions, share: float, seed: int, scale: int, patch: int
) -> tuple[Regions, Regions]:
    """Split images into two parts that have no pixel in common.

    Whole photographs go to either part. Where there are too few for that, or no way to deal them out comes near the
    share, every photograph large enough is cut in two, with a gap of ``GAP`` low-resolution pixels between. Images
    across the gap keep what lies on a side where a patch fits into it.

    Args:
        photographs: what the images show (``find_photographs``); images that are not in ``regions`` do not count.
        regions: the images to split.
        share: share of the second part, strictly between 0 and 1: of the images, or of a photograph that is cut.
        seed: the same seed gives the same parts.
        scale: factor between high- and low-resolution pixels.
        patch: side of the patches in low-resolution pixels.

    Returns:
        The first and the second part; neither is empty.

    Raises:
        InputError: there is one photograph alone, and it cannot be cut.
    """
    shuffler = random.Random(seed)
    photographs = [photograph for photograph in photographs if not regions.keys().isdisjoint(photograph.images)]
    whole = [[index for index in photograph.images if index in regions] for photograph in photographs]
    if len(whole) >= _FEWEST:
        parts = _deal(whole, share, shuffler)
        got = len(parts[1]) / len(regions)
        if abs(got - share) <= _TOLERANCE * min(share, 1 - share):
            first, second = ({index: regions[index] for index in sorted(part)} for part in parts)
            return first, second

    first, second, left_whole, cut = {}, {}, [], 0
    for photograph in photographs:
        together: list[int] = []  # what may share pixels in ways that are not known
        for mosaic in photograph.mosaics:
            boxes = {i: _used(box, regions[i], scale) for i, box in mosaic.boxes.items() if i in regions}
            found = _cut(boxes, share, shuffler.random() < 0.5, scale, patch) if boxes and mosaic.certain else None
            if found is not None:
                cut += 1
                for part, kept in zip((first, second), found, strict=True):
                    part.update({i: _region(mosaic.boxes[i], box, regions[i], scale) for i, box in kept.items()})
            elif mosaic.certain:
                left_whole.append(list(boxes))
            else:
                together += boxes
        left_whole.append(together)
    left_whole = [images for images in left_whole if images]
    parts = _deal(left_whole, share, shuffler, len(first), len(second))
    for half, images in zip((first, second), parts, strict=True):
        half.update({index: regions[index] for index in images})
    if not first or not second:
        name = photographs[0].name
        raise InputError(
            f"'{name}' is the only photograph to search on, and cannot be split into parts for weights and logits that "
            f"share no pixel: with patches of {patch} it would have to be {2 * patch + GAP} low-resolution pixels long "
            "at least, and its sub-images known by their places; give more photographs or a smaller patch"
        )
    got = len(second) / (len(first) + len(second))
    if not cut and abs(got - share) > _TOLERANCE * min(share, 1 - share):
        notice(
            f"weights and logits learn from {1 - got:.0%} and {got:.0%} of the images, not from "
            f"{1 - share:.0%} and {share:.0%}: their {len(photographs)} photographs cannot be dealt out or cut so"
        )
    if cut:
        notice(
            f"weights and logits learn from two regions of each photograph ({cut} of them cut, {GAP} low-resolution "
            f"pixels between): whole photographs do not make parts of {1 - share:.0%} and {share:.0%}"
        )
    return dict(sorted(first.items())), dict(sorted(second.items()))


def _deal(
    groups: Sequence[Sequence[int]], share: float, shuffler: random.Random, first: int = 0, second: int = 0
) -> tuple[list[int], list[int]]:
    """Groups of images that stay together, dealt out to two parts that have ``first`` and ``second`` images before.

    Returns what is added to either part, nearest to the share among the orders that were tried. Neither part stays
    empty if that can be.
    """
    count = first + second + sum(map(len, groups))
    wanted = share * count - second
    best: list[int] = []
    least = float("inf")
    order = sorted(range(len(groups)))
    for _ in range(_SHUFFLES):
        shuffler.shuffle(order)
        taken, size = [], 0
        for group in order:
            if abs(size + len(groups[group]) - wanted) < abs(size - wanted):
                taken.append(group)
                size += len(groups[group])
        smallest = min(order, key=lambda group: len(groups[group]), default=None)
        if smallest is not None and not taken and not second:
            taken.append(smallest)
        elif smallest is not None and len(taken) == len(groups) > 1 and not first:
            taken.remove(smallest)
        error = abs(sum(len(groups[group]) for group in taken) - wanted) / count
        if error < least:
            best, least = taken, error
        if error <= _NEAR * min(share, 1 - share):
            break
    given = set(best)
    parts: tuple[list[int], list[int]] = ([], [])
    for group, images in enumerate(groups):
        parts[group in given].extend(images)
    return parts


def _cut(
    boxes: Mapping[int, Box], share: float, second_first: bool, scale: int, patch: int
) -> tuple[dict[int, Box], dict[int, Box]] | None:
    """Cut a mosaic in two, across its longer side if that can be; None if no cut leaves a patch on both sides.

    The second part has the share of the length, and is the upper or left one if ``second_first`` says so.
    """
    gap, least = GAP * scale, patch * scale
    starts = [min(box[axis] for box in boxes.values()) for axis in (0, 1)]
    ends = [max(box[axis] + box[axis + 2] for box in boxes.values()) for axis in (0, 1)]
    for axis in sorted((0, 1), key=lambda axis: starts[axis] - ends[axis]):
        length = ends[axis] - starts[axis] - gap
        nominal = starts[axis] + round(length * (share if second_first else 1 - share) / scale) * scale
        edges = [box[axis] + box[axis + 2] for box in boxes.values()] + [box[axis] - gap for box in boxes.values()]
        allowed = range(starts[axis] + least, ends[axis] - gap - least + 1)
        if not allowed:
            continue
        nominal = min(max(nominal, allowed.start), allowed.stop - 1)
        for border in [nominal, *sorted(set(edges) & set(allowed), key=lambda edge: (abs(edge - nominal), edge))]:
            low = _between(boxes, axis, starts[axis], border, scale, patch)
            high = _between(boxes, axis, border + gap, ends[axis], scale, patch)
            if low and high:
                return (high, low) if second_first else (low, high)
    return None


def _between(boxes: Mapping[int, Box], axis: int, start: int, end: int, scale: int, patch: int) -> dict[int, Box]:
    """What lies between two borders, in whole low-resolution pixels of each image, where a patch fits in."""
    kept = {}
    for index, box in boxes.items():
        skipped = max(0, -((box[axis] - start) // scale)) * scale
        left = min(box[axis + 2], (end - box[axis]) // scale * scale) - skipped
        if left >= patch * scale:
            sides = list(box)
            sides[axis], sides[axis + 2] = box[axis] + skipped, left
            kept[index] = Box(*sides)
    return kept


def _used(box: Box, region: Box | None, scale: int) -> Box:
    """The place of the usable region of an image, in high-resolution pixels."""
    if region is None:
        return box
    return Box(
        box.top + region.top * scale, box.left + region.left * scale, region.height * scale, region.width * scale
    )


def _region(box: Box, kept: Box, region: Box | None, scale: int) -> Box | None:
    """A kept place as a low-resolution region of its image; None where it is the whole image."""
    if region is None and kept == box:
        return None
    return Box(
        (kept.top - box.top) // scale, (kept.left - box.left) // scale, kept.height // scale, kept.width // scale
    )
