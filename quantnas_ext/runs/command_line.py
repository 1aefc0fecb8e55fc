"""How every recipe starts, how it ends when the input was bad, and where it may write."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from quantnas_ext.errors import InputError, printable
from quantnas_ext.files.atomic import DISK_TROUBLE, WriteError, check_writable
from quantnas_ext.files.lock import LOCK_FILES, run_lock
from quantnas_ext.files.paths import seen_from
from quantnas_ext.runs.library_messages import keep_messages

__all__ = ["held_run_folder", "new_run_folder", "run"]


def run(main: Callable[[list[str] | None], None]) -> NoReturn:
    """Run a recipe's `main` on the command line's arguments and leave the process.

    Exit codes: 0 when `main` returns; 2 for an `InputError`, whose sentence goes to standard error without a traceback
    (argparse ends with 2 as well), and likewise where a disk takes no more; 1 for a `FloatingPointError`, which says
    that the numbers of a run diverged, in the same way; 130 when the user interrupts. Any other exception is a fault of
    the program and keeps its traceback.

    Args:
        main: Takes the arguments after the program's name.
    """
    # matplotlib tells of its cache of fonts, and of the temporary one that it makes where the home cannot be written.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Pillow warns of damaged files, of which the reader says in one sentence what is wrong.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # from a library that writes by itself, such as TensorBoard or NNI
        if error.errno not in DISK_TROUBLE:
            raise
        print(f"error: {printable(str(WriteError(error.filename or 'a result', error)))}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: stopped before the end, results so far are incomplete", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def new_run_folder(path: str | Path, *, resume: bool = False, going_on: str = "") -> Path:
    """Make the folder of a run, and refuse to mix a new run with an old one.

    Call it after every other input has been checked, so that bad input leaves no folder behind.

    Args:
        path: The folder; it may be missing or empty.
        resume: Go on in a folder that an earlier run has filled; then it has to be there.
        going_on: How a run in that folder, if there is one, goes on; ends the sentence that refuses a filled folder.

    Returns:
        The folder, which exists.

    Raises:
        InputError: The folder already holds files (and `resume` is off), is missing (and `resume` is on), is not a
            folder, or cannot be written to.
    """
    folder = Path(path)
    try:
        in_the_way = folder.exists() and not folder.is_dir()
        filled = folder.is_dir() and any(path.name not in LOCK_FILES for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"run folder '{folder}' cannot be used ({error.strerror}); name another folder") from error
    if in_the_way:
        raise InputError(f"run folder '{folder}' is a file; name another folder")
    if resume and not filled:
        where = seen_from(folder)
        raise InputError(f"run folder '{folder}' holds nothing to resume{where}; name the folder of an earlier run")
    if filled and not resume:
        more = f"; {going_on}" if going_on else ""
        raise InputError(
            f"run folder '{folder}' already holds a run; name another folder or delete this one first{more}"
        )
    made = [] if folder.exists() else [folder, *(parent for parent in folder.parents if not parent.exists())]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", error)
        raise InputError(f"run folder '{folder}' cannot be made ({reason}); name another folder") from error
    try:
        check_writable(folder)
    except InputError:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return folder


@contextlib.contextmanager
def held_run_folder(path: str | Path, *, resume: bool = False, going_on: str = "") -> Iterator[Path]:
    """Make the folder of a run, as `new_run_folder`, and keep other processes out of it until the end.

    What libraries log meanwhile goes to a file there (`library_messages`).

    Raises:
        InputError: As `new_run_folder`, or another process is at work in the folder.
    """
    folder = new_run_folder(path, resume=resume, going_on=going_on)
    with run_lock(folder):
        # Again, as another process may have begun a run since.
        folder = new_run_folder(path, resume=resume, going_on=going_on)
        with keep_messages(folder):
            yield folder
