"""Make a dataset folder for training and evaluation from a folder of high-resolution images.

    python recipes/prepare_data.py photographs data/mine --scale 2 --crop 128 --step 64

writes `data/mine/HR` and `data/mine/LRx2`: MATLAB-compatible bicubic, rounded to 8 bits. Sub-images (`--crop`) make
reading during training fast; leave them out for test sets.
"""

from __future__ import annotations

import argparse

from quantnas_ext.files.paths import path_argument
from quantnas_ext.runs import command_line
from quantnas_ext.sr.data.dataset_layout import dataset_pairs
from quantnas_ext.sr.data.folders import prepare_dataset_folder


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=path_argument, metavar="IMAGES", help="folder of high-resolution images")
    parser.add_argument("target", type=path_argument, metavar="DATASET", help="dataset folder to make")
    parser.add_argument("--scale", type=int, default=4, help="2, 3 or 4 (default: 4)")
    parser.add_argument("--crop", type=int, help="cut sub-images of this side, in high-resolution pixels")
    parser.add_argument("--step", type=int, help="distance between sub-images (default: the crop)")
    parser.add_argument("--nested", action="store_true", help="images in subfolders too: a/b.jpg becomes a_b.png")
    arguments = parser.parse_args(argv)

    folder = prepare_dataset_folder(
        arguments.source,
        arguments.target,
        arguments.scale,
        crop=arguments.crop,
        step=arguments.step,
        nested=arguments.nested,
    )
    print(f"{folder}: {len(dataset_pairs(folder, arguments.scale))} image pairs for scale {arguments.scale}")


if __name__ == "__main__":
    command_line.run(main)
