"""Dataset folders in BasicSR's registry of datasets, for training patches and for validation on whole images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from quantnas_ext import compat
from quantnas_ext.files.schema import build
from quantnas_ext.sr.data.dataset_layout import DatasetLayout, dataset_pairs
from quantnas_ext.sr.data.evaluation_pairs import EvaluationPairs
from quantnas_ext.sr.data.images import image_to_tensor
from quantnas_ext.sr.data.paired_images import PairedImages

compat.prepare_basicsr()
from basicsr.utils.registry import DATASET_REGISTRY  # noqa: E402


@DATASET_REGISTRY.register()
class PairedFoldersDataset(PairedImages):
    """Random crops of the image pairs of several dataset folders, one after the other (``PairedImages``).

    Options:
        ``folders``: Dataset folders (``HR``, ``LRx{scale}``).
        ``layout``: Where the folders have their images, as in ``DatasetLayout``; may be left out.
        ``skip_small``: Whether images smaller than the crop are left out instead of refused; may be left out.
        ``gt_size``: Side of the HR crop in pixels, a multiple of the scale.
        ``scale``: Factor between HR and LR (BasicSR fills it in).

    Attributes:
        images: the high-resolution images of every folder.

    Raises:
        InputError: a folder is not a dataset folder for this scale and crop.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        patch = opt["gt_size"] // opt["scale"]
        layout = build(DatasetLayout, opt.get("layout"), "datasets:train:layout.")
        skip_small = bool(opt.get("skip_small", False))
        found = [
            dataset_pairs(folder, opt["scale"], patch, layout=layout, skip_small=skip_small)
            for folder in opt["folders"]
        ]
        super().__init__([pair for pairs in found for pair in pairs], opt["scale"], patch)
        self.images = [[pair.hr for pair in paths] for paths in found]


@DATASET_REGISTRY.register()
class WholeImagesDataset(Dataset[dict[str, Any]]):
    """Whole image pairs of one folder by the evaluation protocol (``EvaluationPairs``).

    Options:
        ``folder``: A dataset folder, or a folder of high-resolution images.
        ``nested``: Whether images in subfolders belong to it; may be left out.
        ``scale``: Factor between HR and LR (BasicSR fills it in).

    Raises:
        InputError: as ``EvaluationPairs``.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self._pairs = EvaluationPairs(opt["folder"], opt["scale"], nested=bool(opt.get("nested", False)))

    @property
    def images(self) -> list[Path]:
        """The high-resolution images."""
        return self._pairs.images

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``lq [3, h, w]`` and ``gt [3, s h, s w]``, RGB in [0, 1], and the paths by which BasicSR names an image."""
        pair = self._pairs[index]
        lr, hr = (image_to_tensor(image).squeeze(0) for image in (pair.lr, pair.hr))
        return {"lq": lr, "gt": hr, "lq_path": pair.name, "gt_path": pair.name}
