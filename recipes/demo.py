"""The main job from end to end, on photographs that need no download: `python recipes/demo.py [--set KEY=VALUE ...]`.

Search, final training in the found precisions and in full precision (side by side, a core each), evaluation on held-out
photographs. It only calls the other recipes, so it shows how they fit together. Started again after an interruption it
goes on where it was; steps that are done are not done again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from quantnas_ext.errors import InputError
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, add_config_arguments, load_config
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.runs.run_identity import check_same_run

RECIPES = Path(__file__).parent
TRAININGS = {"quantized": [], "full_precision": ["--set", "train.precision=32"]}


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, default="demo")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    tests = len(config.data.test)
    if tests > 1 or (not tests and config.data.photographs is None):
        raise InputError(f"the demo evaluates on exactly one dataset folder, but 'data.test' has {tests}; give it one")
    run = RunFolder(config.run)
    if run.configured:
        check_same_run(run, config)
    for training, changes in TRAININGS.items():
        if run.training(training).options.exists():
            own = load_config(arguments.config, [*arguments.overrides, *changes[1::2]])
            check_same_run(run.training(training), own)
    for folder in (run, *map(run.training, TRAININGS)):
        folder.check_idle()
    given = ["--config", arguments.config, *(word for override in arguments.overrides for word in ("--set", override))]

    start = time.perf_counter()
    search(run, given)
    searched = time.perf_counter()
    train(run, given)
    trained = time.perf_counter()
    evaluate(config, run)
    seconds = searched - start, trained - searched, time.perf_counter() - trained
    print("seconds: search {:.0f}, training {:.0f}, evaluation {:.0f}".format(*seconds))


def search(run: RunFolder, given: list[str]) -> None:
    """Search with `accelerate launch`, or go on with a search that was interrupted."""
    if run.state == "found":
        return
    resume = ["--resume"] if run.state == "begun" else []
    launch = ["accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
    _run([sys.executable, "-m", *launch, "--dynamo_backend", "no", str(RECIPES / "search.py"), *given, *resume])


def train(run: RunFolder, given: list[str]) -> None:
    """Train the found network in its precisions and in full precision, in two processes that share the cores."""
    from quantnas_ext.threads import available_cores

    logs: dict[str, Path] = {}
    threads = str(max(1, available_cores()[0] // len(TRAININGS)))
    processes: dict[str, subprocess.Popen[bytes]] = {}
    for training, changes in TRAININGS.items():
        folder = run.training(training)
        if folder.state == "trained":
            continue
        command = folder.command
        if folder.state == "new":
            folder.clear()
            architecture = ["--architecture", str(run.architecture), "--run", str(folder)]
            command = [str(RECIPES / "train.py"), *given, *changes, *architecture]
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        command = [sys.executable, *command]
        if not processes:  # one of them shows its progress, the other goes to a file
            processes[training] = subprocess.Popen(command, env=environment)
            continue
        logs[training] = run.log(training)
        with logs[training].open("ab") as log:
            processes[training] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        failed = [training for training, process in processes.items() if process.wait() != 0]
    except BaseException:
        for process in processes.values():
            process.terminate()
            process.wait()
        raise
    if failed:
        reasons = [f"'{training}' ({logs.get(training, 'its output is above')})" for training in failed]
        raise InputError(f"training stopped early and can go on once the reason is removed: {', '.join(reasons)}")


def evaluate(config: Config, run: RunFolder) -> None:
    """Score bicubic and both networks on the held-out photographs; table, JSON file and picture."""
    from quantnas_ext.architecture import Architecture
    from quantnas_ext.reporting.figures import save_figure
    from quantnas_ext.reporting.table import PSNR, SSIM, cost_column, format_table
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

    choose_threads()
    folders = {training: run.training(training) for training in TRAININGS}
    networks = {
        training: trained_network(str(folder.architecture), str(folder.weights))[0]
        for training, folder in folders.items()
    }
    scale = scale_of(networks["quantized"])
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
        ("ours", [upscale(networks["quantized"].eval(), pair.lr) for pair in pairs]),
        ("HR", [pair.hr for pair in pairs]),
    ]
    save_figure(comparison_figure(columns, names=[pair.name for pair in pairs]), run.comparison)
    rows = [{"network": name.replace("_", " "), **figures} for name, figures in result.items()]
    print(f"\n{len(pairs)} held-out photographs, x{scale}")
    print(format_table(rows, ["network", PSNR, SSIM, *map(cost_column, costs)]))
    print(f"picture: {run.comparison}\nfigures: {run.evaluation}")


def _run(command: list[str]) -> None:
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    command_line.run(main)
