"""What is compared: methods, spaces with their budgets, and the settings of all searches and trainings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """How an architecture comes about.

    Attributes:
        title: In tables.
        command: Recipe with its subcommand, or None where no search is run.
        overrides: Of the configuration, beside those of every search.
        version: To be raised by one when the code behind the method gives other results than before.
        budgeted: Whether it keeps a budget.
    """

    title: str
    command: tuple[str, ...] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    budgeted: bool = True


ONE_PATH = {"search.relaxation": "one_path", "search.epochs": 60, "search.warmup_epochs": 30}
METHODS = {
    "joint": Method("joint search", ("search.py",), version=2),
    "measured": Method("joint search, 8 and 4 measured", ("search.py",), {"search.measured": 8}),
    "hand": Method("by hand, best by validation"),
    "random": Method("random, best by validation"),
    "one_path": Method("joint search, one sampled path", ("search.py",), ONE_PATH, version=2),
    "two_step": Method("two steps", ("baseline.py", "two_step"), version=2),
    "darts": Method("NNI's DARTS, no budget", ("baseline.py", "darts"), budgeted=False),
}
REFERENCE, RANKED = "joint", ("joint", "one_path")
"""The method that the others are compared with; those whose supernets are asked for a ranking."""


@dataclass(frozen=True)
class Space:
    """A space with its budgets.

    Attributes:
        name: Of the space.
        arguments: Of the space.
        budgets: In GBitOps at 32x32, the smallest first.
        seeds: Number of seeds.
        ranked: Whether supernets are asked for a ranking.
    """

    name: str
    arguments: dict[str, Any]
    budgets: tuple[float, ...]
    seeds: int
    ranked: bool = False


SHAPE = {"scale": 4, "width": 24, "adq": False, "bits": [4, 8]}
SPACES = {
    "basic": Space("sr_basic", SHAPE | {"cells": 3}, (0.85, 1.1, 1.5), 5, ranked=True),
    "rfdn": Space("sr_rfdn", SHAPE | {"cells": 2, "share_cells": False, "fixed_bits": 8}, (1.2, 2.2), 3),
}
SEARCH = {
    "data.patch": 24,
    "data.batch_size": 8,
    "data.skip_small": True,
    "search.epochs": 20,
    "search.steps_per_epoch": 50,
    "search.warmup_epochs": 10,
    "search.architecture_learning_rate": 0.02,
    "search.threads": 1,
}
TRAINING = {"train.iterations": 1500, "train.learning_rate": 1e-3, "train.batch_size": 16, "train.patch": 24}
TRAINING |= {"train.validate_every": 1000000, "train.checkpoint_every": 1000000, "data.skip_small": True}
VERSION = 1
"""Of what all jobs have in common: the final training and the scores."""
DRAWN, HAND_MOST, RANDOM_MOST = 24, 4, 12
"""Architectures ranked; networks by hand at a budget, the costliest; random ones at most."""
