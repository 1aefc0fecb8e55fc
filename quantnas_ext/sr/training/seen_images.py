"""Test images that a network is trained on: said before the training, whose scores would tell little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantnas_ext.notices import notice
from quantnas_ext.sr.data.images import read_image
from quantnas_ext.sr.data.mosaics import comparable, find_photographs
from quantnas_ext.sr.data.origins import photograph_digest, read_origins
from quantnas_ext.sr.training.basicsr_datasets import PairedFoldersDataset, WholeImagesDataset


def note_seen_images(options: dict[str, Any]) -> None:
    """Print a line for every data set of a training's validation that shares photographs with its training images.

    Data sets of other kinds than this package's are passed over; the options have been checked.
    """
    datasets = options["datasets"].values()
    trained = [PairedFoldersDataset(of) for of in datasets if of["type"] == PairedFoldersDataset.__name__]
    tested = {of["name"]: WholeImagesDataset(of) for of in datasets if of["type"] == WholeImagesDataset.__name__}
    if not trained or not tested:
        return
    folders = [Path(folder) for dataset in trained for folder in dataset.opt["folders"]]
    images = [paths for dataset in trained for paths in dataset.images]
    tests = {name: dataset.images for name, dataset in tested.items()}
    everything = [path for part in (*images, *tests.values()) for path in part]
    of_training = sum(map(len, images))
    if comparable(everything):
        folders += [Path(dataset.opt["folder"]) for dataset in tested.values()]
        photographs = [photograph.images for photograph in find_photographs(folders, [*images, *tests.values()])]
        seen = {everything[index] for shown in photographs if min(shown) < of_training for index in shown}
    else:
        recorded = {origin.photograph for folder in folders for origin in read_origins(folder).values()}
        of_tests = everything[of_training:] if recorded else []
        seen = {path for path in of_tests if photograph_digest(read_image(path)) in recorded}
    for name, paths in tests.items():
        known = [path.name for path in paths if path in seen]
        if known:
            notice(
                f"{len(known)} of {len(paths)} images of the test set '{name}' ('{known[0]}' is the first) are among "
                "the training images, whole or in part; their scores tell nothing about other images"
            )
