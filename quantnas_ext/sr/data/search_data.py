"""The data of a search: what the weights learn from, and what the logits learn from."""

from __future__ import annotations

from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import Config
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.spaces.contract import check_input_side, scale_of
from quantnas_ext.sr.data.dataset_layout import DatasetLayout
from quantnas_ext.sr.data.patches import PatchDataset, split_dataset
from quantnas_ext.sr.data.photographs import with_photographs


def search_datasets(config: Config, space: ModelSpace) -> tuple[PatchDataset, PatchDataset]:
    """The training and the validation part of a configuration's images, for a search of a super-resolution space.

    Raises:
        InputError: when the space has no scale, there are no images, a folder is no dataset folder for this scale and
            patch, there is only one image, or the space cannot run a patch of this size.
    """
    scale = scale_of(space)
    check_input_side(space, config.data.patch, f"data.patch of {config.data.patch} pixels")
    with process_state().local_main_process_first():
        data = with_photographs(config.data, scale)
    if not data.train:
        raise InputError("there is nothing to search on; name dataset folders with --set 'data.train=[FOLDER]'")
    layout = DatasetLayout.of(data)
    images = PatchDataset(data.train, scale, data.patch, config.seed, layout=layout, skip_small=data.skip_small)
    return split_dataset(images, data.validation_share, config.seed)
