from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.degradation import downscale
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import tensor_to_image
from quantnas_ext.sr.data.patches import PatchDataset, split_dataset

PATCH = 24


@pytest.fixture
def patches(dataset_folder: Path) -> PatchDataset:
    return PatchDataset([dataset_folder, dataset_folder], 2, PATCH, seed=3)


def test_low_and_high_resolution_patches_are_the_same_place_turned_alike(patches: PatchDataset) -> None:
    for index in range(len(patches)):
        lr, hr = patches[index]
        assert lr.shape == (3, PATCH, PATCH) and hr.shape == (3, 2 * PATCH, 2 * PATCH)
        assert lr.dtype == hr.dtype == torch.float32 and 0 <= lr.min() and hr.max() <= 1
        # Reducing the patch itself gives the patch of the reduced image, but for its borders.
        reduced = downscale(tensor_to_image(hr), 2)[2:-2, 2:-2].astype(int)
        assert np.abs(reduced - tensor_to_image(lr)[2:-2, 2:-2]).max() <= 1


def test_a_sample_depends_on_seed_epoch_and_index_alone(patches: PatchDataset, dataset_folder: Path) -> None:
    random.seed(0)
    forwards = [patches[index] for index in range(len(patches))]
    random.seed(1)
    backwards = [patches[index] for index in reversed(range(len(patches)))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    other_seed = PatchDataset([dataset_folder], 2, PATCH, seed=4)
    assert sum(torch.equal(other_seed[index][0], forwards[index][0]) for index in range(len(other_seed))) <= 1
    patches.set_epoch(1)
    assert sum(torch.equal(patches[index][0], forwards[index][0]) for index in range(len(patches))) <= 1
    half = len(patches) // 2  # the same images again, as other samples
    assert sum(torch.equal(forwards[index][0], forwards[index + half][0]) for index in range(half)) <= 1


def test_worker_processes_that_outlive_an_epoch_read_the_same_samples(patches: PatchDataset) -> None:
    loader = DataLoader(patches, batch_size=4, num_workers=2, persistent_workers=True)
    for epoch in (0, 5):
        patches.set_epoch(epoch)
        from_workers = torch.cat([hr for _, hr in loader])
        own = torch.stack([patches[index][1] for index in range(len(patches))])
        assert torch.equal(from_workers, own)


def test_the_global_random_state_is_left_alone(patches: PatchDataset) -> None:
    before = random.getstate()
    patches[0]
    assert random.getstate() == before


def test_flips_rotations_and_places_all_occur(hr_folder: Path, tmp_path: Path) -> None:
    folder = prepare_dataset_folder(hr_folder, tmp_path / "data", 2)
    patches = PatchDataset([folder], 2, 60)
    samples = set()
    for epoch in range(300):
        patches.set_epoch(epoch)
        samples.add(patches[2][0].numpy().tobytes())
    # The third image by name, 60 pixels high and 65 wide: 6 columns times 8 orientations.
    assert len(samples) == 48


def test_a_split_is_disjoint_complete_and_reproducible(patches: PatchDataset) -> None:
    train, validation = split_dataset(patches, 0.25, seed=7)
    assert sorted(train.images + validation.images) == patches.images
    # One of three photographs.
    assert len(validation) / len(patches) == pytest.approx(0.25, abs=0.1)
    again = split_dataset(patches, 0.25, seed=7)
    assert (again[0].images, again[1].images) == (train.images, validation.images)
    assert len({tuple(split_dataset(patches, 0.25, seed)[1].images) for seed in range(5)}) == 3
    assert torch.equal(validation[2][0], patches[validation.images[2]][0])
    train.set_epoch(1)
    assert torch.equal(validation[2][0], patches[validation.images[2]][0])


def test_impossible_datasets_and_splits_are_refused(patches: PatchDataset, dataset_folder: Path) -> None:
    with pytest.raises(InputError, match="no training folder"):
        PatchDataset([], 2, PATCH)
    with pytest.raises(InputError, match="smaller than the patch of 33"):
        PatchDataset([dataset_folder], 2, 33)
    with pytest.raises(InputError, match="share of 1.0 is not possible"):
        split_dataset(patches, 1.0)
    with pytest.raises(InputError, match="the only photograph to search on, and cannot be split"):
        split_dataset(patches.part([0]), 0.5)
