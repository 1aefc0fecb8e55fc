"""Images that belong together: all of one photograph, and within it those whose places on it are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

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
    sizes = [(header.height, header.width) for header in map(read_header, paths)]
    recorded = [
        records.get(path.stem) for records, of in zip(map(read_origins, folders), images, strict=True) for path in of
    ]
    # A record of another size is that of a file that has been replaced.
    origins = [
        origin if origin is not None and (origin.box.height, origin.box.width) == size else None
        for origin, size in zip(recorded, sizes, strict=True)
    ]
    photographs = DisjointSet(range(len(paths)))
    mosaic = np.arange(len(paths))  # that of every image, by the index of an image in it
    corners = np.zeros((len(paths), 2), np.int64)  # top and left of every image on its mosaic
    first_of: dict[str, int] = {}
    for index, (path, origin) in enumerate(zip(paths, origins, strict=True)):
        if origin is not None:
            mosaic[index] = first_of.setdefault(origin.photograph, index)
            corners[index] = origin.box.top, origin.box.left
            photographs.merge(first_of[origin.photograph], index)
        stem = stem_of_sub_image(path.stem if origin is None else Path(origin.name).stem)
        if stem is not None:
            inside = "" if origin is None else Path(origin.name).parent
            photographs.merge(first_of.setdefault(str(path.parent / inside / stem), index), index)

    compared = sum(height * width for height, width in sizes) <= MOST_PIXELS
    contradicted: list[int] = []
    if compared:
        for overlap in candidate_overlaps(paths):
            first, second = overlap.first, overlap.second
            if mosaic[first] == mosaic[second]:
                recorded_both = origins[first] is not None and origins[second] is not None
                if not recorded_both and tuple(corners[second] - corners[first]) not in overlap.places:
                    contradicted += [first] if overlap.fitting(paths) else []
                continue
            fitting = overlap.fitting(paths)
            if fitting:
                moved = mosaic == mosaic[second]
                corners[moved] += corners[first] + fitting[0] - corners[second]
                mosaic[moved] = mosaic[first]
                photographs.merge(first, second)
            if len(fitting) > 1:  # a picture that repeats itself, such as stripes
                contradicted.append(first)
    else:
        _say_what_is_not_known(paths, origins)
    uncertain = {int(mosaic[index]) for index in contradicted}
    names = [path.stem if origin is None else origin.name for path, origin in zip(paths, origins, strict=True)]
    members: dict[int, dict[int, dict[int, Box]]] = {}
    for index, size in enumerate(sizes):
        boxes = members.setdefault(photographs[index], {}).setdefault(int(mosaic[index]), {})
        top, left = corners[index].tolist()
        boxes[index] = Box(top, left, *size)
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
