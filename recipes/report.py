"""Report on runs and sweeps in one HTML file that needs no network and no server.

    python recipes/report.py runs/demo
    python recipes/report.py runs/seed0 runs/seed1 runs/sweep --out report

A run is the folder of a search, of the demo or of a training; a sweep stands for all its trials. The folder of the
report holds `report.html` (front, every run with its architecture, layers, curves and images, two runs compared), the
same as `front.png`, `runs.csv`, `report.json` and `architectures/`, and all runs for `tensorboard --logdir`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import path_argument
from quantnas_ext.reporting.report.trials import Trial, read_trials
from quantnas_ext.runs import command_line
from quantnas_ext.runs.plugins import import_plugins
from quantnas_ext.runs.run_folder import RunFolder

PAGE = "report.html"


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", type=path_argument, nargs="+", metavar="RUN_OR_SWEEP", help="folder of a run or of a sweep"
    )
    parser.add_argument(
        "--out", type=path_argument, metavar="DIR", help="folder for the report (default: 'report' in the first one)"
    )
    parser.add_argument("--images", type=int, default=3, metavar="N", help="show crops of N test images (default: 3)")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="module that registers a space of yours; those that a run names are not imported; repeatable",
    )
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.images <= 20:
        raise InputError(f"--images {arguments.images} is not possible; give a number from 0 to 20")
    trials = read_trials(arguments.folders)
    out = Path(arguments.out or Path(arguments.folders[0]) / "report")
    check_report_folder(out)
    import_plugins(arguments.plugin)
    report(trials, out, images=arguments.images)


def check_report_folder(out: Path) -> None:
    """Refuse a folder that holds something else than an earlier report, or that cannot be written to."""
    from quantnas_ext.sr.evaluation.results import check_output_folder

    if out.is_dir() and any(out.iterdir()) and not (out / PAGE).is_file():
        raise InputError(f"folder '{out}' holds something else than a report; name another one with --out")
    check_output_folder(out)


def report(trials: Sequence[Trial], out: Path, *, images: int) -> None:
    """Write the report on some runs."""
    # With all that loads torch, after what can be refused without.
    from quantnas_ext.files.atomic import atomic_file, write_text
    from quantnas_ext.reporting.figures import save_figure
    from quantnas_ext.reporting.report.beside import file_names, still_front, table_csv
    from quantnas_ext.reporting.report.contents import report_contents
    from quantnas_ext.reporting.report.document import report_page
    from quantnas_ext.reporting.report.tensorboard import write_tensorboard
    from quantnas_ext.sr.evaluation.score_files import write_json
    from quantnas_ext.sr.trial_crops import trial_crops
    from quantnas_ext.threads import choose_threads

    choose_threads()
    content, drawings = report_contents(trials, trial_crops(trials, images))
    figure, picture, text = still_front(content)
    page = report_page(content, drawings, picture, text)

    out.mkdir(parents=True, exist_ok=True)
    boards = RunFolder(out).tensorboard
    for part in (out / "architectures", boards):  # of an earlier report, which had other runs perhaps
        shutil.rmtree(part, ignore_errors=True)
    if figure is not None:
        save_figure(figure, out / "front.png")
    names = file_names(content)
    for trial, name in zip(content["trials"], names, strict=True):
        if trial.get("drawing") is not None:
            with atomic_file(out / "architectures" / f"{name}.png", parents=True) as temporary:
                temporary.write_bytes(drawings[trial["drawing"]])
    write_tensorboard(content, drawings, boards, names)
    write_json({**content, "trials": [{**trial, "crops": None} for trial in content["trials"]]}, out / "report.json")
    for name, written in (("runs.csv", table_csv(content)), (PAGE, page)):
        write_text(out / name, written)
    print(f"{len(trials)} runs, {len(page) / 1e6:.2f} MB: {out / PAGE}")


if __name__ == "__main__":
    command_line.run(main)
