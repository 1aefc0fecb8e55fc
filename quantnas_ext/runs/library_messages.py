"""Where a run keeps what the libraries below it have to say, so that its user reads this package's lines alone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from quantnas_ext.notices import notice

MESSAGES_NAME = "libraries.log"
"""The file in a run folder."""

_LOGGERS = (
    *("nni", "pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric", "matplotlib"),
    "py.warnings",  # what is said by Python's warnings
)
"""Loggers whose own handlers print."""


class _Messages(logging.FileHandler):
    """A file that begins with its first message, of which one line tells; errors are printed too."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True)
        self.file = file

    def emit(self, record: logging.LogRecord) -> None:
        notice(f"messages of NNI and other libraries are kept in '{self.file}'")
        super().emit(record)
        if record.levelno >= logging.ERROR:
            notice(f"{record.name}: {record.getMessage()}")


@contextlib.contextmanager
def keep_messages(folder: Path) -> Iterator[None]:
    """Write what the libraries log and warn of meanwhile to ``libraries.log`` in a run folder, and nowhere else.

    Call it after they have been imported, as NNI begins to print at its import.
    """
    handler = _Messages(folder / MESSAGES_NAME)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()
