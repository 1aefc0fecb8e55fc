"""How every recipe starts, and how it ends when the input was bad."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from quantnas_ext.errors import InputError, printable
from quantnas_ext.files.atomic import DISK_TROUBLE, WriteError


def run(main: Callable[[list[str] | None], None]) -> NoReturn:
    """Run a recipe's ``main`` on the command line's arguments and leave the process.

    Exit codes: 0 when ``main`` returns; 2 for an ``InputError``, whose sentence goes to standard error without a
    traceback (argparse ends with 2 as well), and likewise where a disk takes no more; 1 for a ``FloatingPointError``,
    which says that the numbers of a run diverged, in the same way; 130 when the user interrupts. Any other exception is
    a fault of the program and keeps its traceback.
    """
    # matplotlib tells of its cache of fonts, and of the temporary one that it makes where the home cannot be written.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Pillow warns of damaged files, of which the reader says in one sentence what is wrong.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    try:
        main(sys.argv[1:])
    except (InputError, OSError) as error:
        if isinstance(error, OSError):  # from a library that writes by itself, such as TensorBoard or NNI
            if error.errno not in DISK_TROUBLE:
                raise
            error = WriteError(error.filename or "a result", error)
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: stopped before the end, results so far are incomplete", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def is_main_process() -> bool:
    """Whether this is the first of the processes that a launcher has started, as its environment tells before torch."""
    ranks = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # those that Accelerate goes by
    return next((os.environ[rank] for rank in ranks if rank in os.environ), "0") == "0"
