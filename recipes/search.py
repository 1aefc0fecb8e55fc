"""Search an architecture: `accelerate launch recipes/search.py [--config NAME|FILE] [--set KEY=VALUE ...] [--resume]`.

Without arguments it runs the search of the demo. Everything goes to the run folder: the whole configuration, the found
architecture, its weights as the supernet had them, how it scores beside the supernet, the history, plots and
TensorBoard logs.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import contextlib
import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from nni.nas.nn.pytorch import ModelSpace
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from quantnas_ext.architecture import Architecture, filed_costs
from quantnas_ext.costs.counted import CostCounter
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.distribution.fixed_choices import fix_operations
from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.reporting.distributions import plot_distributions
from quantnas_ext.reporting.drawing import draw_architecture
from quantnas_ext.reporting.progress import plot_search
from quantnas_ext.reporting.table import Column, costs_text, decimals, format_table
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, add_config_arguments, load_config, save_config
from quantnas_ext.runs.history import SearchHistory
from quantnas_ext.runs.provenance import provenance
from quantnas_ext.runs.run_identity import OPERATIONS_NAME, check_same_search
from quantnas_ext.runs.search_goals import goals_of
from quantnas_ext.search.discretization_gap import derive_and_score
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.settings import EpochRecord
from quantnas_ext.search.loop.trial_step import trial_step
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.data.decoding import finish_decoding
from quantnas_ext.sr.data.search_data import search_datasets
from quantnas_ext.sr.evaluation.metrics import psnr_rgb
from quantnas_ext.sr.evaluation.score_files import write_json
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from quantnas_ext.sr.weights.weight_loading import save_weights
from quantnas_ext.threads import choose_threads, set_threads


def main(argv: list[str] | None = None) -> None:
    """Run one search from a configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, default="demo")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted search in the run folder")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    search(config, resume=arguments.resume)


def search(config: Config, *, resume: bool = False) -> Architecture:
    """Search as ``config`` says and fill its run folder, which no other process may enter meanwhile."""
    with contextlib.ExitStack() as held:
        return _search(config, resume, held)


def _search(config: Config, resume: bool, held: contextlib.ExitStack) -> Architecture:
    """Search; ``held`` gets the lock of the run folder."""
    # Everything that can be wrong with the input shows before the run folder is made.
    set_seed(config.seed)
    torch.set_flush_denormal(True)
    set_threads(config.search.threads)
    space = build_space(config.space.name, config.space.arguments)
    stages = space.diagram()
    train_part, validation_part = search_datasets(config, space)
    kept = config.search.operations
    operations = {} if kept is None else _keep_operations(space, kept)
    strategy = QuantNAS(
        costs=goals_of(config.search),
        entropy=config.search.entropy,
        regularizer=config.search.regularizer,
        relaxation=config.search.relaxation,
        temperature=(config.search.temperature[0], config.search.temperature[1]),
        quantization=config.search.quantization,
        noise=config.search.noise,
        noise_mixture=config.search.noise_mixture,
        masked_noise=config.search.masked_noise,
        evaluation=config.search.evaluation,
        architecture_learning_rate=config.search.architecture_learning_rate,
        warmup_epochs=config.search.warmup_epochs,
        gradient_clip=config.search.gradient_clip,
    )
    strategy.check(space)
    finish_decoding()
    run = Path(config.run)
    main_process = process_state().is_main_process
    if main_process:
        begun = os.path.isfile(run / "config.yaml") and not os.path.exists(run / "architecture.yaml")
        going_on = "a search goes on with --resume" if begun else ""
        if resume and os.path.isfile(run / "config.yaml"):
            check_same_search(run, config)
        held.enter_context(command_line.held_run_folder(run, resume=resume, going_on=going_on))
        save_config(config, run / "config.yaml")
        if kept is not None and not (run / OPERATIONS_NAME).exists():
            with atomic_file(run / OPERATIONS_NAME) as temporary:
                shutil.copyfile(kept, temporary)
        (run / "plots").mkdir(exist_ok=True)
        history = SearchHistory(run / "history.json", ChoiceTree.of(space))
        board = SummaryWriter(str(run / "tensorboard"), purge_step=0)
    # A table of latencies holds for the threads it was measured with; several processes share the cores evenly.
    if config.search.threads is None and config.search.latency_table is None and process_state().num_processes == 1:
        batch = (config.data.batch_size, 3, config.data.patch, config.data.patch)
        choose_threads(run, trial_step(space, strategy, batch))
    process_state().wait_for_everyone()

    def log(record: EpochRecord) -> None:
        history.add(record)
        for label, probabilities in record.probabilities.items():
            for value, probability in zip(history.labels[label]["values"], probabilities, strict=True):
                board.add_scalar(f"probability/{label}/{value}", probability, record.epoch)
        scalars = {"entropy": record.entropy, "train_loss": record.train_loss, "val_loss": record.val_loss}
        scalars["settled_loss"] = record.settled_loss
        scalars |= record.expected_costs | {f"multiplier_{name}": value for name, value in record.multipliers.items()}
        for name, scalar in scalars.items():
            if scalar is not None:
                board.add_scalar(f"search/{name}", scalar, record.epoch)
        board.flush()

    evaluator = AccelerateEvaluator(
        train_part,
        validation_part,
        epochs=config.search.epochs,
        steps_per_epoch=config.search.steps_per_epoch,
        batch_size=config.data.batch_size,
        learning_rate=config.search.weight_learning_rate,
        weight_decay=config.search.weight_decay,
        seed=config.seed,
        workers=config.data.workers,
        mixed_precision=config.search.mixed_precision,
        channels_last=True,
        checkpoint=run / "search.ckpt",
        on_epoch=log,
        derive_from=config.search.derive_from,
    )
    start = time.perf_counter()
    choices = operations | run_experiment(space, evaluator, strategy, run / "nni")
    seconds = time.perf_counter() - start
    origin = provenance(config, search_seconds=round(seconds, 1))
    architecture = Architecture.of(config.space.name, config.space.arguments, choices, origin)
    if main_process:
        board.close()
        network, scores = derive_and_score(
            strategy,
            evaluator.training_batches(),
            evaluator.validation_batches(),
            {"loss": F.l1_loss, "psnr": psnr_rgb},
        )
        derived = {
            "epoch": _derived_epoch(history.records),
            "scores": scores,
            "architectures": _save_others(strategy, operations, architecture, config.search.top_k, run),
        }
        write_json(derived, run / "derived.json")
        identity = WeightIdentity.of(architecture, "supernet's, calibrated")
        save_weights(network.state_dict(), run / "weights.safetensors", identity)
        architecture.save(run / "architecture.yaml")
        plot_distributions(history.to_dict(), run / "plots" / "distributions.png")
        plot_search(history.to_dict(), run / "plots" / "search.png")
        draw_architecture(
            stages, choices, run / "plots" / "architecture.png", title=config.space.name, costs=architecture.costs
        )
        confident = [probability for probability in strategy.distribution.confidences().values() if probability > 0.5]
        print(
            f"found in {seconds:.0f} s: {costs_text(architecture.costs)}; joint probability above 0.5 in "
            f"{len(confident)} of {len(strategy.distribution.tree.roots())} blocks"
        )
        print(*strategy.objective.spent(choices), run / "architecture.yaml", sep="\n")
        print(f"derived from epoch {derived['epoch']}; on validation crops, before any training of its own:")
        columns = [
            Column("network", "network"),
            Column("loss", "L1", decimals(4)),
            Column("psnr", "PSNR in RGB, dB", decimals(2)),
        ]
        print(format_table([{"network": name.replace("_", " "), **row} for name, row in scores.items()], columns))
    return architecture


def _keep_operations(space: ModelSpace, path: str) -> dict[str, Any]:
    """The operations of an architecture file, which ``space`` no longer has to choose."""
    architecture = Architecture.load(path)
    try:
        return fix_operations(space, architecture.choices)
    except InputError as error:
        raise InputError(f"'search.operations' ({path}) does not fit this space: {error}") from error


def _derived_epoch(records: list[EpochRecord]) -> int:
    """The epoch that was derived from: of those with a settled loss the one of the lowest, else the last."""
    measured = [record for record in records if record.settled_loss is not None]
    return min(measured, key=lambda record: record.settled_loss or 0.0).epoch if measured else records[-1].epoch


def _save_others(
    strategy: QuantNAS, operations: dict[str, str], found: Architecture, count: int, run: Path
) -> list[dict[str, Any]]:
    """Write the next most probable architectures as ``architecture_2.yaml`` and so on, and say what all of them are."""
    described = []
    counter = CostCounter(build_space(found.space, found.arguments), filed_costs(found.space))
    # Among equally probable ones the found one comes first.
    top = [(log_probability, operations | choices) for log_probability, choices in strategy.top_architectures(count)]
    top.sort(key=lambda entry: entry[1] != found.choices)
    for rank, (log_probability, choices) in enumerate(top, start=1):
        name = "architecture.yaml" if rank == 1 else f"architecture_{rank}.yaml"
        ranked = dataclasses.replace(found, choices=choices, costs=counter.of(choices))
        if rank > 1:
            ranked.save(run / name)
        described.append({"file": name, "log_probability": log_probability, **ranked.cost})
    return described


if __name__ == "__main__":
    command_line.run(main)
