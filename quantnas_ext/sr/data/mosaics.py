"""Images that belong together: all of one photograph, and within it those whose places on it are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantnas_ext.notices import notice
from quantnas_ext.sr.data.image_files import read_header
from quantnas_ext.sr.data.origins import Box, Origin, read_origins, stem_of_sub_image
from quantnas_ext.sr.data.overlaps import MOST_PIXELS, candidate_overlaps


@dataclass(frozen=True)
class Mosaic:
    """Images that are known to be pieces of one picture, and where they lie on it.

    Attributes:
        boxes: the place of every image, in high-resolution pixels from a common corner, by the image's index.
        certain: whether no pixel of these images can be shared in another way than their places say.
    """

    boxes: Mapping[int, Box]
    certain: bool = True


@dataclass(frozen=True)
class Photograph:
    """All images of one photograph.

    Attributes:
        name: of the photograph or, where that is not known, of its first image.
        mosaics: its images. Those of several mosaics share no pixel, unless one of the mosaics is not certain.
    """

    name: str
    mosaics: tuple[Mosaic, ...]

    @property
    def images(self) -> list[int]:
        """Indices of all its images."""
        return sorted(index for mosaic in self.mosaics for index in mosaic.boxes)


def comparable(paths: Sequence[Path]) -> bool:
    """Whether images are few enough for ``find_photographs`` to compare their pixels."""
    headers = (read_header(path) for path in paths)
    return sum(header.height * header.width for header in headers) <= MOST_PIXELS


def find_photographs(folders: Sequence[str | Path], images: Sequence[Sequence[Path]]) -> list[Photograph]:
    """Sort images by the photograph that they show.

    What tells is, together: the record that preparation left in a dataset folder (``origins``); names such as
    ``0001_s002``, which are sub-images of ``0001``; and equal pixels (``overlaps``), as long as the images are not too
    many to compare. An image that nothing else is known of is a photograph of its own.

    Args:
        folders: dataset folders.
        images: the high-resolution images of each; they are counted through all folders.

    Returns:
        The photographs in the order of their first images.

    Raises:
        InputError: a record is damaged, or an image cannot be read.
    """
    paths = [path for of_folder in images for path in of_folder]
    headers = [read_header(path) for path in paths]
    sizes = [(header.height, header.width) for header in headers]
    origins: list[Origin | None] = []
    for folder, of_folder in zip(folders, images, strict=True):
        recorded = read_origins(folder)
        origins += [recorded.get(path.stem) for path in of_folder]
    # A record of another size is that of a file that has been replaced.
    origins = [
        origin if origin is not None and (origin.box.height, origin.box.width) == size else None
        for origin, size in zip(origins, sizes, strict=True)
    ]
    places, photographs = _Places(len(paths)), _Groups(len(paths))
    named: dict[str, int] = {}
    placed: dict[str, int] = {}
    for index, (path, origin) in enumerate(zip(paths, origins, strict=True)):
        if origin is not None:
            first = placed.setdefault(origin.photograph, index)
            here, there = origin.box, origins[first].box  # type: ignore[union-attr]
            places.join(first, index, here.top - there.top, here.left - there.left)
            photographs.join(first, index)
        stem = stem_of_sub_image(path.stem if origin is None else Path(origin.name).stem)
        if stem is not None:
            inside = "" if origin is None else Path(origin.name).parent
            photographs.join(named.setdefault(str(path.parent / inside / stem), index), index)

    compared = sum(height * width for height, width in sizes) <= MOST_PIXELS
    contradicted: list[int] = []
    if compared:
        for overlap in candidate_overlaps(paths):
            first, second = overlap.first, overlap.second
            if places.root(first) == places.root(second):
                (top, left), (other_top, other_left) = places.place(first), places.place(second)
                recorded_both = origins[first] is not None and origins[second] is not None
                if recorded_both or (other_top - top, other_left - left) in overlap.places:
                    continue
                if overlap.fitting(paths):
                    contradicted.append(first)
                continue
            fitting = overlap.fitting(paths)
            if fitting:
                places.join(first, second, *fitting[0])
                photographs.join(first, second)
            if len(fitting) > 1:  # a picture that repeats itself, such as stripes
                contradicted.append(first)
    else:
        _say_what_is_not_known(paths, origins)
    uncertain = {places.root(index) for index in contradicted}
    names = [path.stem if origin is None else origin.name for path, origin in zip(paths, origins, strict=True)]
    members: dict[int, dict[int, dict[int, Box]]] = {}
    for index, size in enumerate(sizes):
        mosaic = members.setdefault(photographs.root(index), {}).setdefault(places.root(index), {})
        mosaic[index] = Box(*places.place(index), *size)
    found = []
    for mosaics in members.values():
        # Where nothing was compared, only records tell how images of one photograph lie to each other.
        known = compared or len(mosaics) == 1
        found.append(
            Photograph(
                names[min(min(boxes) for boxes in mosaics.values())],
                tuple(Mosaic(boxes, known and root not in uncertain) for root, boxes in mosaics.items()),
            )
        )
    return found


def _say_what_is_not_known(paths: Sequence[Path], origins: Sequence[Origin | None]) -> None:
    """Name images that were neither compared nor known in another way."""
    unknown = [
        path.name
        for path, origin in zip(paths, origins, strict=True)
        if origin is None and stem_of_sub_image(path.stem) is None
    ]
    if unknown:
        notice(
            f"{len(unknown)} of {len(paths)} training images ('{unknown[0]}' is the first) are each taken for a "
            "photograph of its own: there is no record of where they were cut from, and they are too many to compare; "
            "if some overlap, cut them with recipes/prepare_data.py"
        )


class _Groups:
    """Disjoint sets of indices."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, index: int) -> int:
        """The index that stands for the group of another."""
        while self._parents[index] != index:
            self._parents[index] = index = self._parents[self._parents[index]]
        return index

    def join(self, first: int, second: int) -> None:
        """Make one group of two."""
        self._parents[self.root(second)] = self.root(first)


class _Places:
    """Disjoint sets of indices, each with the places of its members to each other."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))
        self._offsets = [(0, 0)] * count  # from the parent's corner

    def root(self, index: int) -> int:
        """The index that stands for the set of another; afterwards the other one's offset is from there."""
        chain = []
        while self._parents[index] != index:
            chain.append(index)
            index = self._parents[index]
        down = right = 0
        for member in reversed(chain):
            down, right = down + self._offsets[member][0], right + self._offsets[member][1]
            self._parents[member], self._offsets[member] = index, (down, right)
        return index

    def place(self, index: int) -> tuple[int, int]:
        """Top and left of a member, from the corner of its set's root."""
        self.root(index)
        return self._offsets[index]

    def join(self, first: int, second: int, down: int, right: int) -> None:
        """Make one set of two, the second index ``(down, right)`` from the first; nothing if they are one already."""
        root, other = self.root(first), self.root(second)
        if root != other:
            own, others = self.place(first), self.place(second)
            self._parents[other] = root
            self._offsets[other] = (own[0] + down - others[0], own[1] + right - others[1])
