"""What the search finds, judged: against networks by hand, random ones, two steps and NNI's own DARTS.

    python benchmarks/search_quality.py [--quick] [--data DIR] [--only joint,hand] [--budgets 0.85] [--page]

Every method gives an architecture within a budget of BitOps (x4, 24 channels, 4 and 8 bits, no ADQ), which is trained
from scratch and scored; only the recipes' command lines are used for that. Finished jobs are kept in
``benchmarks/results``, each a small JSON file named by a digest of all it depends on: an interrupted run goes on, and a
changed method reruns only itself. Networks that several methods find are trained once a seed.

DIR holds a folder of images for each data set (or one with ``HR`` in it): Set5 and Set14 are for the test, the others
for training, without every tenth of their images, which are the validation that the best of several networks is chosen
by. Without DIR, and without ``../shared/data``, the photographs that ship with scikit-image and scikit-learn are taken.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the judge beside this file, and for the recipes

import quantnas_ext  # noqa: E402, F401 (before torch, so that its threads wait without spinning)
from benchmarks.judge.images import prepared  # noqa: E402
from benchmarks.judge.methods import METHODS, REFERENCE, SEARCH, SPACES, TRAINING  # noqa: E402
from benchmarks.judge.plan import Plan, Settings  # noqa: E402
from benchmarks.judge.running import Runner, load_results, run_all  # noqa: E402


def numbers(kind: type) -> Callable[[str], list[Any]]:
    """An argument's type: values with commas between."""
    return lambda text: [kind(part) for part in text.split(",")]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folders of images (default: ../shared/data, if any)")
    parser.add_argument("--quick", action="store_true", help="one budget, two seeds, short; results go to --work")
    parser.add_argument("--only", type=numbers(str), metavar="METHOD,..", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--spaces", type=numbers(str), metavar="SPACE,..", help=f"of {', '.join(SPACES)}")
    parser.add_argument("--budgets", type=numbers(float), metavar="G,..", help="GBitOps at 32x32")
    parser.add_argument("--seeds", type=numbers(int), metavar="N,..", help="seeds (default: 0 to 4, RFDN-like 0 to 2)")
    parser.add_argument("--jobs", type=int, default=2, help="jobs at a time, each with one thread (default: 2)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "search_quality", help="scratch folder")
    parser.add_argument("--results", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--page", action="store_true", help="write docs/evidence.md from what there is, run nothing")
    arguments = parser.parse_args(argv)
    for name, given, known in (("only", arguments.only, METHODS), ("spaces", arguments.spaces, SPACES)):
        unknown = [value for value in given or () if value not in known]
        if unknown:
            parser.error(f"--{name} '{unknown[0]}' is not known; use some of {', '.join(known)}")
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs} is not possible; use at least 1")
    data = arguments.data or ROOT.parent / "shared" / "data"
    if arguments.data and not data.is_dir():
        parser.error(f"--data '{data}' is not a folder; name one that holds a folder of images for each data set")
    work = arguments.work.resolve()
    folder, identity = prepared(data if data.is_dir() else None, work)
    names = arguments.spaces or (["basic"] if arguments.quick else list(SPACES))
    spaces = {}
    for name in names:
        budgets = arguments.budgets or SPACES[name].budgets[: 1 if arguments.quick else None]
        spaces[name] = dataclasses.replace(SPACES[name], budgets=tuple(sorted(budgets)))
    settings = Settings(identity, spaces, arguments.only or list(METHODS), SEARCH, TRAINING, arguments.seeds)
    results = arguments.results or ROOT / "benchmarks" / "results"
    if arguments.quick:
        search = SEARCH | {"search.steps_per_epoch": 10, "search.epochs": 10, "search.warmup_epochs": 5}
        search["search.architecture_learning_rate"] = 0.2
        training = TRAINING | {"train.iterations": 150}
        seeds = arguments.seeds or (0, 1)
        settings = Settings(identity, spaces, settings.methods, search, training, seeds, drawn=4, hand_most=2)
        results = arguments.results or work / "quick_results"
    if arguments.page:
        from benchmarks.judge.page import write_page

        print(write_page(Plan(settings, load_results(results)), METHODS, REFERENCE, ROOT / "docs"))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = run_all(settings, results, Runner(work, folder), arguments.jobs)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on")
        return 130
    if failed:
        print("failed:", *failed, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
