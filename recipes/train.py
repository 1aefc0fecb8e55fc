"""Train a found network by quantization-aware training in BasicSR.

    python recipes/train.py --config demo --architecture runs/demo/architecture.yaml --run runs/demo/train

The run folder then holds the configuration, the architecture as trained, BasicSR's options file with all that it
writes, and the weights `network.safetensors`. A training that was cut short goes on with

    python -m quantnas_ext.sr.train -opt runs/demo/train/options.yml --auto_resume
"""

from __future__ import annotations

from quantnas_ext.files.paths import add_path_argument
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import add_config_arguments, load_config
from quantnas_ext.runs.run_folder import RunFolder, TrainingFolder


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = command_line.recipe_parser(__doc__)
    add_config_arguments(parser)
    add_path_argument(parser, "--architecture", "FILE", "architecture file of a search")
    start = "start from these weights, safetensors or net_g_*.pth (train.from_supernet takes the search's own)"
    add_path_argument(parser, "--weights", "FILE", start, required=False)
    folder = "run folder to make (default: 'train' in the configuration's run)"
    add_path_argument(parser, "--run", "DIR", folder, required=False)
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    run = TrainingFolder(arguments.run) if arguments.run else RunFolder(config.run).training()
    run.check()
    from quantnas_ext.sr.training_run import train  # with all that loads torch

    train(config, arguments.architecture, arguments.weights, run)


if __name__ == "__main__":
    command_line.run(main)
