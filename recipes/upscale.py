"""Enlarge images with a trained network; no high-resolution originals are needed.

    python recipes/upscale.py --architecture runs/demo/train/architecture.yaml \\
        --weights runs/demo/train/network.safetensors holiday.jpg folder_of_images --out enlarged

Results are PNG files of the same names. Greyscale images stay greyscale, opacity is kept.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from quantnas_ext import cli
from quantnas_ext.errors import InputError
from quantnas_ext.paths import path_argument
from quantnas_ext.spaces import check_input_side
from quantnas_ext.sr.arch import QuantNASNetwork
from quantnas_ext.sr.images import list_images, read_picture, write_png
from quantnas_ext.sr.upscaling import upscale_picture
from quantnas_ext.threads import choose_threads


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--architecture", type=path_argument, required=True, metavar="FILE", help="architecture file of the network"
    )
    parser.add_argument(
        "--weights", type=path_argument, required=True, metavar="FILE", help="its weights (safetensors)"
    )
    parser.add_argument("inputs", type=path_argument, nargs="+", metavar="INPUT", help="images, or folders of images")
    parser.add_argument("--out", type=path_argument, required=True, metavar="DIR", help="folder for the results")
    arguments = parser.parse_args(argv)

    network = QuantNASNetwork(arguments.architecture, weights=arguments.weights).eval()
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    choose_threads()
    out = Path(arguments.out)
    results: dict[Path, Path] = {}
    for given in map(Path, arguments.inputs):
        for image in list_images(given) if given.is_dir() else [given]:
            result = out / f"{image.stem}.png"
            if result in results:
                raise InputError(f"'{results[result]}' and '{image}' would both become '{result}'; rename one")
            if result.exists():
                raise InputError(f"'{result}' already exists; name another folder or delete it first")
            height, width = read_picture(image).rgb.shape[:2]
            check_input_side(network, min(height, width), f"image '{image}' of {width}x{height} pixels")
            results[result] = image

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder '{out}' cannot be made ({error.strerror}); name another one") from error
    for result, image in tqdm(results.items(), desc="upscaling", unit="image"):
        write_png(result, upscale_picture(network, read_picture(image), network.scale))
    print(f"{len(results)} images in {out}")


if __name__ == "__main__":
    cli.run(main)
