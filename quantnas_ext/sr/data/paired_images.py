"""Random aligned crops of image pairs, cropped and turned by BasicSR, read as everything else here is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from quantnas_ext import compat
from quantnas_ext.sr.data.dataset_layout import ImagePaths
from quantnas_ext.sr.data.decoding import finish_decoding
from quantnas_ext.sr.data.images import image_to_tensor, read_image
from quantnas_ext.sr.data.origins import Box

compat.prepare_basicsr()
from basicsr.data.transforms import augment, paired_random_crop  # noqa: E402


class PairedImages(Dataset[dict[str, Any]]):
    """What BasicSR's ``PairedImageDataset`` does in training, with the reader of ``images`` in place of OpenCV.

    Item ``i`` has ``lq [3, patch, patch]`` and ``gt [3, scale patch, scale patch]``, ``float32`` RGB in [0, 1], and the
    files' paths. Crops, flips and rotations are drawn from Python's ``random`` in BasicSR's order: the same state gives
    the same crop as there.

    Args:
        pairs: the image pairs, checked (``dataset_pairs``).
        scale: factor between HR and LR.
        patch: side of the LR crop in pixels.

    Attributes:
        paths: the pairs as BasicSR has them, each with ``gt_path`` and ``lq_path``.
    """

    def __init__(self, pairs: Sequence[ImagePaths], scale: int, patch: int) -> None:
        self.paths = [{"gt_path": str(pair.hr), "lq_path": str(pair.lr)} for pair in pairs]
        self._scale = scale
        self._patch = patch

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.sample(index)

    def sample(self, index: int, region: Box | None = None) -> dict[str, Any]:
        """Item ``index``, from a region in low-resolution pixels, as large as the patch at least; None for all."""
        finish_decoding()
        paths = self.paths[index]
        high, low = read_image(paths["gt_path"]), read_image(paths["lq_path"])
        if region is not None:
            high, low = region.times(self._scale).of(high), region.of(low)
        high, low = paired_random_crop(high, low, self._patch * self._scale, self._scale, paths["gt_path"])
        high, low = augment([high, low])
        lr, hr = (image_to_tensor(image).squeeze(0) for image in (low, high))
        return {"lq": lr, "gt": hr, **paths}
