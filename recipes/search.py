"""Search an architecture: `accelerate launch recipes/search.py [--config NAME|FILE] [--set KEY=VALUE ...] [--resume]`.

Without arguments it runs the search of the demo. Everything goes to the run folder: the whole configuration, the found
architecture, its weights as the supernet had them, how it scores beside the supernet, the history, plots and
TensorBoard logs.
"""

from __future__ import annotations

import argparse

from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import add_config_arguments, load_config
from quantnas_ext.runs.run_folder import RunFolder


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, default="demo")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted search in the run folder")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    if command_line.is_main_process():
        RunFolder(config.run).check(resume=arguments.resume)
    from quantnas_ext.sr.search_run import search  # with all that loads torch, after what can be refused without it

    search(config, resume=arguments.resume)


if __name__ == "__main__":
    command_line.run(main)
