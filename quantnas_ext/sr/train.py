"""`python -m quantnas_ext.sr.train -opt FILE`: BasicSR's training for found networks, with BasicSR's own arguments."""

from __future__ import annotations

import torch

from quantnas_ext.runs import command_line
from quantnas_ext.sr.training.final_training import train


def main(argv: list[str] | None = None) -> None:
    """Train, or with `--auto_resume` go on training, as an options file says.

    Raises:
        InputError: As `training.train`.
    """
    weights = train(argv)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if command_line.is_main_process():
        print(f"trained weights: {weights}")


if __name__ == "__main__":
    command_line.run(main)
