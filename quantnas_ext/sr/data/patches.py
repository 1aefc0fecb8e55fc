"""Training patches: random aligned crops with flips and rotations that depend on (seed, epoch, index) alone."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.dataset_layout import DatasetLayout, dataset_pairs
from quantnas_ext.sr.data.halves import Regions, split_photographs
from quantnas_ext.sr.data.mosaics import Photograph, find_photographs
from quantnas_ext.sr.data.paired_images import PairedImages

FINGERPRINT_PAIRS = 2000
"""Pairs of a folder whose files are looked up for a fingerprint, about."""


@contextlib.contextmanager
def keyed_random(*key: int) -> Iterator[None]:
    """A scope in which Python's global ``random`` is a function of ``key``; its state comes back afterwards.

    BasicSR draws crops and flips from there, so that without this a sample would depend on everything drawn before it:
    on the process, the worker and the order of reading.
    """
    state = random.getstate()
    random.seed("/".join(map(str, key)))  # strings are seeded through SHA-512, alike on every machine
    try:
        yield
    finally:
        random.setstate(state)


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """One random patch of every image pair of some dataset folders, another one in every epoch.

    Item ``i`` is ``(lr, hr)``: ``float32 [3, patch, patch]`` and ``[3, scale patch, scale patch]``, RGB in [0, 1]. It
    is the same whatever the process, worker or order that asks for it.

    Args:
        folders: dataset folders (``HR``, ``LRx{scale}``).
        scale: factor between HR and LR.
        patch: side of the LR crop in pixels.
        seed: seed of crops, flips and rotations.
        layout: where the folders have their images.
        skip_small: leave out images smaller than the patch instead of refusing them.

    Attributes:
        images: indices of the image pairs in use, all folders counted through.
        regions: by these indices, the part of an image that patches are cropped from, in low-resolution pixels; None
            for all of it.

    Raises:
        InputError: no folder is given, or one is not a dataset folder for this scale and patch.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        scale: int,
        patch: int,
        seed: int = 0,
        *,
        layout: DatasetLayout | None = None,
        skip_small: bool = False,
    ) -> None:
        if not folders:
            raise InputError("no training folder is given; name at least one dataset folder in data.train")
        if patch < 1:
            raise InputError(f"a patch of {patch} pixels is not possible; give a positive number")
        found = [dataset_pairs(folder, scale, patch, layout=layout, skip_small=skip_small) for folder in folders]
        self.scale = scale
        self.patch = patch
        self._seed = seed
        self._folders = list(folders)
        self._found = found
        self._pairs = PairedImages([pair for pairs in found for pair in pairs], scale, patch)
        self.images = list(range(len(self._pairs)))
        self.regions: Regions = dict.fromkeys(self.images)
        # In shared memory: workers that outlive an epoch see the new one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw the patches of this epoch from now on, in worker processes too."""
        self._epoch.fill_(epoch)

    def part(self, images: Sequence[int] | Regions) -> PatchDataset:
        """A dataset of some of the image pairs (indices as in ``images``), with an epoch of its own.

        A mapping gives the region of each (as in ``regions``) instead of that it has here.
        """
        part = copy.copy(self)
        part.images = list(images)
        part.regions = dict(images) if isinstance(images, dict) else {index: self.regions[index] for index in images}
        part._epoch = self._epoch.clone().share_memory_()
        return part

    def fingerprint(self) -> list[tuple[int, list[tuple[str, int]]]]:
        """What tells these images from others, wherever they lie: for every folder how many pairs, their names, sizes.

        Of very many pairs some, evenly spread.
        """
        found = []
        for pairs in self._found:
            some = pairs[:: 1 + len(pairs) // FINGERPRINT_PAIRS]
            paths = [path for pair in some for path in (pair.hr, pair.lr)]
            found.append((len(pairs), [(path.name, path.stat().st_size) for path in paths]))
        return found

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        with keyed_random(self._seed, int(self._epoch), image):
            pair = self._pairs.sample(image, self.regions[image])
        return pair["lq"], pair["gt"]

    def photographs(self) -> list[Photograph]:
        """What the images show, as far as that can be told (``find_photographs``); indices as in ``images``."""
        return find_photographs(self._folders, [[pair.hr for pair in pairs] for pairs in self._found])


def split_dataset(dataset: PatchDataset, share: float, seed: int = 0) -> tuple[PatchDataset, PatchDataset]:
    """Split a dataset into a training and a validation part that have no pixel in common.

    Photographs stay whole, with all sub-images that were cut from them, where there are enough; otherwise they are cut
    in two regions with a gap between (``halves``). Which images are of one photograph is told by what preparation
    recorded, by names such as ``0001_s002``, and by equal pixels (``mosaics``). Either part gets at least
    one image, the second by the share (above 0, below 1), and the same seed gives the same split.

    Returns:
        The training part and the validation part; both need ``set_epoch``.

    Raises:
        InputError: the share is out of range, or there is one photograph that cannot be cut in two.
    """
    if not 0 < share < 1:
        raise InputError(f"a validation share of {share} is not possible; give a number between 0 and 1")
    first, second = split_photographs(dataset.photographs(), dataset.regions, share, seed, dataset.scale, dataset.patch)
    return dataset.part(first), dataset.part(second)
