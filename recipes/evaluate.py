"""Score a network beside bicubic interpolation on any number of folders of images.

    python recipes/evaluate.py --architecture runs/demo/train/architecture.yaml \\
        --weights runs/demo/train/network.safetensors --data Set5=data/Set5 --data Set14=data/Set14 --out metrics.json

A folder is a dataset folder, or simply holds high-resolution images. PSNR and SSIM are those of the literature: Y
channel, borders of `scale` pixels left out. The JSON file has the figures of every image and their means.
"""

from __future__ import annotations

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import add_path_argument, named_folder_argument
from quantnas_ext.runs import command_line
from quantnas_ext.sr.data.evaluation_pairs import EvaluationPairs, scored_folder
from quantnas_ext.sr.data.images import list_images
from quantnas_ext.sr.evaluation.score_files import check_new_file, scores_table, write_json
from quantnas_ext.sr.weights.first_bytes import first_bytes


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = command_line.recipe_parser(__doc__)
    add_path_argument(parser, "--architecture", "FILE", "architecture file of the network")
    add_path_argument(parser, "--weights", "FILE", "its weights: safetensors or net_g_*.pth")
    parser.add_argument(
        "--data",
        type=named_folder_argument,
        required=True,
        action="append",
        metavar="NAME=DIR",
        help="a folder of images and its name; repeatable",
    )
    add_path_argument(parser, "--out", "FILE", "JSON file to write", required=False)
    parser.add_argument("--nested", action="store_true", help="images in subfolders of the folders too")
    parser.add_argument("--lpips", action="store_true", help="add LPIPS, the learned perceptual distance")
    arguments = parser.parse_args(argv)

    folders = {}
    for text in arguments.data:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or name in folders:
            raise InputError(f"--data '{text}' is not possible; write NAME=DIR with a new name, as in Set5=data/Set5")
        folders[name] = folder
    if arguments.out:
        check_new_file(arguments.out)
    Architecture.check_form(arguments.architecture)
    first_bytes(arguments.weights)
    for folder in folders.values():
        list_images(scored_folder(folder), nested=arguments.nested)

    # Only now what loads torch: neither --help nor a refusal waits for it.
    import torch

    from quantnas_ext.spaces import scale_of, smallest_side
    from quantnas_ext.sr.data.decoding import finish_decoding
    from quantnas_ext.sr.evaluation.metrics import evaluate_bicubic, evaluate_folder
    from quantnas_ext.sr.evaluation.perceptual import Lpips, load_lpips
    from quantnas_ext.sr.training.arch import trained_network
    from quantnas_ext.threads import choose_threads

    network, lines = trained_network(arguments.architecture, arguments.weights)
    for line in lines:
        print(line)
    scale = scale_of(network)
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    choose_threads()
    smallest = max(scale * smallest_side(network), Lpips.SMALLEST if arguments.lpips else 0)
    for folder in folders.values():
        EvaluationPairs(folder, scale, smallest=smallest, nested=arguments.nested)
    finish_decoding()

    lpips = load_lpips() if arguments.lpips else None
    scores = {
        name: {
            "bicubic": evaluate_bicubic(folder, scale, lpips=lpips, name=name, nested=arguments.nested),
            "network": evaluate_folder(network, folder, scale, lpips=lpips, name=name, nested=arguments.nested),
        }
        for name, folder in folders.items()
    }
    cost = Architecture.load(arguments.architecture).cost
    print(scores_table(scores))
    print("network: " + ", ".join(f"{name} {value:,.0f}" for name, value in cost.items()))
    if arguments.out:
        result = {
            "architecture": arguments.architecture,
            "weights": arguments.weights,
            "scale": scale,
            "cost": dict(cost),
            "datasets": {
                name: {"folder": folders[name], **{method: found.to_dict() for method, found in methods.items()}}
                for name, methods in scores.items()
            },
        }
        write_json(result, arguments.out)


if __name__ == "__main__":
    command_line.run(main)
