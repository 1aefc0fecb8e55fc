"""Many runs as the trials of one NNI experiment, watched in NNI's web portal.

    python recipes/sweep.py start sweep_demo
    python recipes/sweep.py resume runs/sweep_demo [--failed]
    python recipes/sweep.py view runs/sweep_demo
    python recipes/sweep.py stop runs/sweep_demo

A trial is a whole job: search, final training, evaluation. The portal listens on this machine alone; from another one,
look through SSH: `ssh -L 8080:127.0.0.1:8080 HOST`, then http://localhost:8080.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Literal

from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import path_argument
from quantnas_ext.runs import command_line
from quantnas_ext.sweeps.sweep_file import load_sweep, shipped_sweeps
from quantnas_ext.sweeps.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from quantnas_ext.sweeps.running import SweepRun

PUBLIC = """\
--public: the portal of NNI asks nobody who they are. Whoever reaches port {port} of this machine can
  - run any program as you, by adding trials and changing the experiment,
  - read and delete whatever you can.
SSH forwarding needs none of this: ssh -L {port}:127.0.0.1:{port} HOST, then http://localhost:{port}
Type 'yes' to open it to the network all the same: """


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    names = ", ".join(shipped_sweeps())
    start = kinds.add_parser("start", help="begin a sweep")
    start.add_argument("sweep", metavar="NAME|FILE", help=f"a YAML file, or one of: {names}")
    override = "override a key of the sweep, as in --set run=runs/mine; repeatable"
    start.add_argument("--set", metavar="KEY=VALUE", dest="changes", action="append", default=[], help=override)
    resume = kinds.add_parser("resume", help="go on with a sweep that was stopped")
    resume.add_argument("--failed", action="store_true", help="run failed trials again, from where they were")
    view = kinds.add_parser("view", help="show a sweep in the portal, without running or changing anything")
    stop = kinds.add_parser("stop", help="stop a sweep that runs in another terminal")
    for one in (resume, view, stop):
        one.add_argument("folder", type=path_argument, metavar="SWEEP", help="folder of the sweep")
    for one in (start, resume, view):
        one.add_argument("--port", type=int, metavar="N", help="of the web portal (default: the sweep's)")
    for one in (start, resume):
        one.add_argument("--public", action="store_true", help="let the whole network use the portal; asks first")
    arguments = parser.parse_args(argv)
    if getattr(arguments, "port", None) is not None and not 1024 <= arguments.port <= 65534:
        raise InputError(f"--port {arguments.port} is not possible; give one from 1024 to 65534")
    if arguments.kind == "start":
        begin(arguments)
        return
    folder = SweepFolder(arguments.folder)
    folder.load()
    if arguments.kind == "stop":
        from quantnas_ext.sweeps.running import stop_sweep

        print("stopped" if stop_sweep(folder) else "nothing of this sweep is running")
    elif arguments.kind == "view":
        show(folder, arguments.port)
    else:
        go_on(folder, arguments)


def begin(arguments: argparse.Namespace) -> None:
    """Check all trials of a sweep, make its folder, and run it."""
    sweep = load_sweep(arguments.sweep, arguments.changes)
    folder = SweepFolder(sweep.run)
    folder.check_new()
    from quantnas_ext.sweeps import checking, running
    from quantnas_ext.sweeps.experiment import experiment_config
    from quantnas_ext.sweeps.listening import check_port

    port = arguments.port or sweep.port
    records = checking.check_sweep(sweep, folder)
    check_port(port)
    experiment_config(sweep, folder, 1)
    _ask(arguments.public, port)
    checking.check_searches(sweep, folder)
    experiment = running.new_experiment()
    sweep = running.make_folder(sweep, folder, records)
    _run(running.SweepRun(folder, sweep, experiment, port, public=arguments.public), "create")


def go_on(folder: SweepFolder, arguments: argparse.Namespace) -> None:
    """Run what is left of a sweep."""
    sweep = folder.load()
    from quantnas_ext.sweeps import running

    if sweep.architectures is not None:
        raise InputError(
            f"sweep '{folder}' cannot go on, as {sweep.architectures} forgets what it has tried; look at it with view, "
            "or start a new sweep with another seed"
        )
    experiment, port = running.experiment_of(folder), arguments.port or sweep.port
    _ask(arguments.public, port)
    _run(running.SweepRun(folder, sweep, experiment, port, public=arguments.public), "resume", failed=arguments.failed)


def show(folder: SweepFolder, port: int | None) -> None:
    """Show a sweep until Ctrl-C."""
    sweep = folder.load()
    from quantnas_ext.sweeps import running

    with folder.held(), running.shown(folder, sweep, port or sweep.port) as portal:
        print(f"{portal.url} shows {folder}; Ctrl-C ends that", flush=True)
        try:
            while True:
                portal.check()
                time.sleep(1)
        except KeyboardInterrupt:
            print()


def _run(run: SweepRun, action: Literal["create", "resume"], *, failed: bool = False) -> None:
    """Run a sweep, say how it has ended, and leave with 1 if a trial has failed."""
    from quantnas_ext.sweeps.portal import PortalFailure
    from quantnas_ext.sweeps.running import again, summary

    folder = run.folder
    with folder.held():
        try:
            if failed:
                again(folder)
            records = run.run(action)
        except PortalFailure as error:
            print(f"error: {error}; to go on: python recipes/sweep.py resume {folder}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print(f"\nstopped; to go on: python recipes/sweep.py resume {folder}", file=sys.stderr)
            sys.exit(130)
    print(summary(folder, records, run.experiment))
    if any(record.status == "failed" for record in records):
        sys.exit(1)


def _ask(public: bool, port: int) -> None:
    """Say what a public portal means, and go on only if that is wanted."""
    if not public:
        return
    try:
        answer = input(PUBLIC.format(port=port))
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        raise InputError("--public was not confirmed; leave it out, or answer 'yes'")


if __name__ == "__main__":
    command_line.run(main)
