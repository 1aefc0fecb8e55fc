"""Train a found network by quantization-aware training in BasicSR.

    python recipes/train.py --config demo --architecture runs/demo/architecture.yaml --run runs/demo/train

The run folder then holds the configuration, the architecture as trained, BasicSR's options file with all that it
writes, and the weights `network.safetensors`. A training that was cut short goes on with

    python -m quantnas_ext.sr.train -opt runs/demo/train/options.yml --auto_resume
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import path_argument
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, add_config_arguments, load_config, save_config
from quantnas_ext.runs.run_folder import RunFolder, TrainingFolder


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument(
        "--architecture", type=path_argument, required=True, metavar="FILE", help="architecture file of a search"
    )
    parser.add_argument(
        "--weights",
        type=path_argument,
        metavar="FILE",
        help="start from these weights, safetensors or net_g_*.pth (train.from_supernet takes the search's own)",
    )
    parser.add_argument(
        "--run",
        type=path_argument,
        metavar="DIR",
        help="run folder to make (default: 'train' in the configuration's run)",
    )
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    run = TrainingFolder(arguments.run) if arguments.run else RunFolder(config.run).training()
    run.check()
    train(config, arguments.architecture, arguments.weights, run)


def train(config: Config, file: str, start: str | None, run: TrainingFolder) -> None:
    """Train the network of an architecture file, from the weights in another file where one is given."""
    from quantnas_ext.spaces import check_input_side, scale_of, smallest_side  # loads torch, as all that follows
    from quantnas_ext.sr.data.dataset_layout import DatasetLayout, dataset_pairs
    from quantnas_ext.sr.data.decoding import finish_decoding
    from quantnas_ext.sr.data.evaluation_pairs import EvaluationPairs
    from quantnas_ext.sr.data.photographs import with_photographs
    from quantnas_ext.sr.training import final_training
    from quantnas_ext.sr.training.arch import architecture_in
    from quantnas_ext.sr.training.basicsr_options import final_training_options, write_options
    from quantnas_ext.sr.weights.weight_files import save_weights
    from quantnas_ext.sr.weights.weight_identity import WeightIdentity
    from quantnas_ext.sr.weights.weight_loading import load_weights

    trained = architecture_in(file, config.train.precision)
    if start is None and config.train.from_supernet:
        start = str(RunFolder(Path(file).parent).weights)
    network: Any = trained.build()
    if start is not None:
        for line in load_weights(network, start, trained, other_precisions="any"):
            print(line)
    scale = scale_of(network)
    check_input_side(network, config.train.patch, f"train.patch of {config.train.patch} pixels")
    config = dataclasses.replace(config, data=with_photographs(config.data, scale))
    if not config.data.train:
        raise InputError("there is nothing to train on; name dataset folders with --set 'data.train=[FOLDER]'")
    layout, skip_small = DatasetLayout.of(config.data), config.data.skip_small
    images = sum(
        len(dataset_pairs(folder, scale, config.train.patch, layout=layout, skip_small=skip_small))
        for folder in config.data.train
    )
    smallest = scale * smallest_side(network)
    for folder in config.data.test.values():
        EvaluationPairs(folder, scale, smallest=smallest, nested=config.data.nested)

    finish_decoding()
    with run.held():
        save_config(config, run.config)
        trained.save(run.architecture)
        if start is not None:
            identity = WeightIdentity.of(trained, "what a training starts from")
            save_weights(network.state_dict(), run.initial, identity)
        initial = None if start is None else run.initial
        options = final_training_options(config, scale, images, run.architecture, initial)
        # Last and complete or not at all: in a folder without this file no training has begun.
        write_options(options, run.options)
        weights = final_training.train(["-opt", str(run.options)], quiet=True)
    print(f"trained weights: {weights}")


if __name__ == "__main__":
    command_line.run(main)
