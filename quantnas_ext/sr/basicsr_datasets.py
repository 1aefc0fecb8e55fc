"""Dataset folders in BasicSR's registry of datasets, for training patches and for validation on whole images."""

from __future__ import annotations

from typing import Any

from torch.utils.data import ConcatDataset, Dataset

from quantnas_ext import compat
from quantnas_ext.sr.evaluation_pairs import EvaluationPairs
from quantnas_ext.sr.folders import check_dataset_folder
from quantnas_ext.sr.images import image_to_tensor
from quantnas_ext.sr.patches import paired_images

compat.prepare_basicsr()
from basicsr.utils.registry import DATASET_REGISTRY  # noqa: E402

__all__ = ["PairedFoldersDataset", "WholeImagesDataset"]


@DATASET_REGISTRY.register()
class PairedFoldersDataset(ConcatDataset[dict[str, Any]]):
    """BasicSR's `PairedImageDataset` of several dataset folders, one after the other.

    Options:
        `folders`: Dataset folders (`HR`, `LRx{scale}`).
        `gt_size`: Side of the HR crop in pixels, a multiple of the scale.
        `scale`: Factor between HR and LR (BasicSR fills it in).

    Raises:
        InputError: A folder is not a dataset folder for this scale and crop.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        patch = opt["gt_size"] // opt["scale"]
        for folder in opt["folders"]:
            check_dataset_folder(folder, opt["scale"], patch)
        super().__init__([paired_images(folder, opt["scale"], patch) for folder in opt["folders"]])


@DATASET_REGISTRY.register()
class WholeImagesDataset(Dataset[dict[str, Any]]):
    """Whole image pairs of one folder by the evaluation protocol (`EvaluationPairs`).

    Options:
        `folder`: A dataset folder, or a folder of high-resolution images.
        `scale`: Factor between HR and LR (BasicSR fills it in).

    Raises:
        InputError: As `EvaluationPairs`.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self._pairs = EvaluationPairs(opt["folder"], opt["scale"])

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`lq [3, h, w]` and `gt [3, s h, s w]`, RGB in [0, 1], and the paths by which BasicSR names an image."""
        pair = self._pairs[index]
        lr, hr = (image_to_tensor(image).squeeze(0) for image in (pair.lr, pair.hr))
        return {"lq": lr, "gt": hr, "lq_path": pair.name, "gt_path": pair.name}
