"""Scores of the networks that a run has trained, beside bicubic interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantnas_ext.architecture import Architecture
from quantnas_ext.reporting.figures import save_figure
from quantnas_ext.reporting.table import PSNR, SSIM, cost_column, format_table
from quantnas_ext.runs.config import Config
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.spaces import scale_of
from quantnas_ext.sr.data.degradation import upscale_bicubic
from quantnas_ext.sr.data.evaluation_pairs import EvaluationPairs
from quantnas_ext.sr.data.photographs import with_photographs
from quantnas_ext.sr.evaluation.comparison import comparison_figure
from quantnas_ext.sr.evaluation.metrics import evaluate_bicubic, evaluate_folder
from quantnas_ext.sr.evaluation.score_files import write_json
from quantnas_ext.sr.evaluation.upscaling import upscale
from quantnas_ext.sr.training.arch import trained_network
from quantnas_ext.threads import choose_threads


def evaluate(config: Config, run: RunFolder, trainings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Score bicubic and the networks of some trainings on the held-out images; table, JSON file and picture.

    Args:
        config: names the one dataset folder.
        run: with the trainings in it.
        trainings: names of their folders; the first one's network is in the picture.

    Returns:
        What the JSON file holds: PSNR, SSIM and costs by network, ``bicubic`` first.
    """
    choose_threads()
    folders = {training: run.training(training) for training in trainings}
    networks = {
        training: trained_network(str(folder.architecture), str(folder.weights))[0]
        for training, folder in folders.items()
    }
    scale = scale_of(networks[trainings[0]])
    (images,) = with_photographs(config.data, scale).test.values()
    result = {"bicubic": evaluate_bicubic(images, scale, nested=config.data.nested).mean}
    for training, network in networks.items():
        costs = Architecture.load(folders[training].architecture).costs
        scores = evaluate_folder(network, images, scale, name=training, nested=config.data.nested)
        result[training] = {**scores.mean, **{cost.key: cost.value for cost in costs}}
    write_json(result, run.evaluation)

    found = EvaluationPairs(images, scale, nested=config.data.nested)
    pairs = [found[index] for index in range(len(found))]
    columns = [
        ("LR", [pair.lr for pair in pairs]),
        ("bicubic", [upscale_bicubic(pair.lr, scale) for pair in pairs]),
        ("ours", [upscale(networks[trainings[0]].eval(), pair.lr) for pair in pairs]),
        ("HR", [pair.hr for pair in pairs]),
    ]
    save_figure(comparison_figure(columns, names=[pair.name for pair in pairs]), run.comparison)
    rows = [{"network": name.replace("_", " "), **figures} for name, figures in result.items()]
    print(f"\n{len(pairs)} held-out photographs, x{scale}")
    print(format_table(rows, ["network", PSNR, SSIM, *map(cost_column, costs)]))
    print(f"picture: {run.comparison}\nfigures: {run.evaluation}")
    return result
