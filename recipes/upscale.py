"""Enlarge images with a trained network; no high-resolution originals are needed.

    python recipes/upscale.py --architecture runs/demo/train/architecture.yaml \\
        --weights runs/demo/train/network.safetensors holiday.jpg folder_of_images --out enlarged

Results are PNG files of the same names. Greyscale images stay greyscale, opacity is kept; colours are converted to
sRGB, and results have 8 bits per channel. Large images go through the network tile by tile, with the pixels that
they would have whole.
"""

from __future__ import annotations

from pathlib import Path

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import writing
from quantnas_ext.files.paths import add_path_argument, path_argument
from quantnas_ext.runs import command_line
from quantnas_ext.sr.data.decoding import begin_decoding, finish_decoding
from quantnas_ext.sr.data.images import image_headers, list_images, read_picture, write_png
from quantnas_ext.sr.evaluation.results import TILE, check_output_folder, check_tile, within_memory
from quantnas_ext.sr.weights.first_bytes import first_bytes
from quantnas_ext.threads import choose_threads


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = command_line.recipe_parser(__doc__)
    add_path_argument(parser, "--architecture", "FILE", "architecture file of the network")
    add_path_argument(parser, "--weights", "FILE", "its weights: safetensors or net_g_*.pth")
    parser.add_argument("inputs", type=path_argument, nargs="+", metavar="INPUT", help="images, or folders of images")
    add_path_argument(parser, "--out", "DIR", "folder for the results")
    parser.add_argument(
        "--tile",
        type=int,
        default=TILE,
        metavar="PIXELS",
        help=f"side of the tiles that larger images are enlarged in, 0 for none (default: {TILE})",
    )
    parser.add_argument("--skip-existing", action="store_true", help="leave out images whose results exist")
    arguments = parser.parse_args(argv)

    tile = check_tile(arguments.tile)
    out = Path(arguments.out)
    check_output_folder(out)
    Architecture.check_form(arguments.architecture)
    first_bytes(arguments.weights)
    results: dict[Path, Path] = {}
    skipped = 0
    for given in map(Path, arguments.inputs):
        for image in list_images(given) if given.is_dir() else [given]:
            result = out / f"{image.stem}.png"
            if result in results:
                raise InputError(f"'{results[result]}' and '{image}' would both become '{result}'; rename one")
            results[result] = image
            if result.exists() and not (result.is_file() and arguments.skip_existing):
                raise InputError(
                    f"'{result}' already exists; name another folder, delete it first, or add --skip-existing"
                )
            skipped += result.exists()
    waiting = {result: image for result, image in results.items() if not result.exists()}
    images = list(waiting.values())
    headers = image_headers(images, "the inputs")
    # Only now what loads torch: neither --help nor a refusal waits for it.
    import torch
    from tqdm import tqdm

    from quantnas_ext.spaces import check_input_side, scale_of
    from quantnas_ext.sr.evaluation.tiling import tile_margin
    from quantnas_ext.sr.evaluation.upscaling import upscale_picture
    from quantnas_ext.sr.training.arch import trained_network

    network, lines = trained_network(arguments.architecture, arguments.weights)
    for line in lines:
        print(line)
    scale = scale_of(network)
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    choose_threads()
    for image, header in zip(images, headers, strict=True):
        size = f"{header.width}x{header.height} pixels"
        check_input_side(network, min(header.width, header.height), f"image '{image}' of {size}")
    pixels = [header.width * header.height for header in headers]
    begin_decoding(images, sum(pixels), "the inputs")
    finish_decoding()
    if tile and max(pixels, default=0) > tile**2 and tile_margin(network) is None:
        print("images are enlarged whole, in as much memory as that takes: tiles would change this network's pixels")

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for result, image in tqdm(waiting.items(), desc="upscaling", unit="image"):
        with within_memory(image):
            enlarged = upscale_picture(network, read_picture(image), scale, tile=tile)
        write_png(result, enlarged)
    print(f"{len(waiting)} images in {out}" + (f", {skipped} were there already" if skipped else ""))


if __name__ == "__main__":
    command_line.run(main)
