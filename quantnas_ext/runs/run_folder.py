"""What lies where in the folder of a run, what state the run is in, and who may write there.

This module loads no torch, so that a folder that cannot be used is refused before that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import check_writable
from quantnas_ext.files.lock import LOCK_FILES, run_lock
from quantnas_ext.files.paths import seen_from
from quantnas_ext.runs.library_messages import keep_messages


class Folder:
    """A folder, perhaps still missing, that one process at a time fills, and that no second run is mixed into.

    Attributes:
        path: the folder.
        config: the whole configuration; it is written first.
        architecture: the architecture that was found, or as it is trained; of a search it is written last.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.architecture = self.path / "architecture.yaml"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def configured(self) -> bool:
        """Whether a run has begun here, as its configuration tells.

        Raises:
            InputError: no folder can have that name.
        """
        try:
            return self.config.exists()
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise self._unusable(error, "be used") from error

    @property
    def going_on(self) -> str:
        """How the run in it, if there is one, goes on; ends the sentence that refuses a filled folder."""
        return ""

    def content(self) -> list[Path]:
        """What lies in the folder, its lock aside; nothing where there is none."""
        return [path for path in self.path.iterdir() if path.name not in LOCK_FILES] if self.path.is_dir() else []

    def check(self, *, resume: bool = False) -> None:
        """Refuse to mix a new run with an old one; nothing is made or written.

        Args:
            resume: go on in a folder that an earlier run has filled; then it has to be there.

        Raises:
            InputError: the folder already holds files (and ``resume`` is off), is missing (and ``resume`` is on), or is
                not a folder.
        """
        try:
            in_the_way = self.path.exists() and not self.path.is_dir()
            filled = bool(self.content())
        except (OSError, ValueError) as error:
            raise self._unusable(error, "be used") from error
        if in_the_way:
            raise InputError(f"run folder '{self}' is a file; name another folder")
        if resume and not filled:
            where = seen_from(self.path)
            raise InputError(f"run folder '{self}' holds nothing to resume{where}; name the folder of an earlier run")
        if filled and not resume:
            more = f"; {self.going_on}" if self.going_on else ""
            raise InputError(
                f"run folder '{self}' already holds a run; name another folder or delete this one first{more}"
            )

    def make(self, *, resume: bool = False) -> Path:
        """Make the folder, after every other input has been checked, so that bad input leaves no folder behind.

        Raises:
            InputError: as ``check``, or the folder cannot be written to.
        """
        self.check(resume=resume)
        made = [] if self.path.exists() else [self.path, *(up for up in self.path.parents if not up.exists())]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise self._unusable(error, "be made") from error
        try:
            check_writable(self.path)
        except InputError:
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise
        return self.path

    @contextlib.contextmanager
    def held(self, *, resume: bool = False) -> Iterator[Path]:
        """Make the folder, as ``make``, and keep other processes out of it until the end.

        What libraries log meanwhile goes to a file there (``library_messages``).

        Raises:
            InputError: as ``make``, or another process is at work in the folder.
        """
        self.make(resume=resume)
        with run_lock(self.path):
            folder = self.make(resume=resume)  # again, as another process may have begun a run since
            with keep_messages(folder):
                yield folder

    def check_idle(self) -> None:
        """Refuse, by an ``InputError`` that names it, that a process is at work in the folder."""
        if self.path.is_dir():
            with run_lock(self.path):
                pass

    def _unusable(self, error: OSError | ValueError, what: str) -> InputError:
        reason = getattr(error, "strerror", error)
        return InputError(f"run folder '{self}' cannot {what} ({reason}); name another folder")


class RunFolder(Folder):
    """The folder of a search, with folders of further stages in it: the ``run`` of a configuration.

    Attributes:
        weights: the derived network's weights, as the supernet had them.
        history: the record of every epoch.
        derived: scores of supernet and derived network, and all architectures that were written.
        checkpoint: from which a search goes on.
        operations: copy of the architecture file whose operations a search keeps.
        plots, tensorboard, nni: folders for pictures, for TensorBoard's logs, and for NNI's experiment.
        evaluation, comparison: scores and picture of the trained networks.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.weights = self.path / "weights.safetensors"
        self.history = self.path / "history.json"
        self.derived = self.path / "derived.json"
        self.checkpoint = self.path / "search.ckpt"
        self.operations = self.path / "operations.yaml"
        self.plots = self.path / "plots"
        self.tensorboard = self.path / "tensorboard"
        self.nni = self.path / "nni"
        self.evaluation = self.path / "evaluation.json"
        self.comparison = self.path / "comparison.png"

    @property
    def state(self) -> Literal["new", "begun", "found"]:
        """Whether a search has not begun here, can go on, or has found its architecture; raises as ``configured``."""
        if not self.configured:
            return "new"
        return "found" if self.architecture.exists() else "begun"

    @property
    def going_on(self) -> str:
        """How a search that was stopped goes on, if it is one of this package's."""
        return "a search goes on with --resume" if self.state == "begun" and self.history.exists() else ""

    @property
    def holds_search(self) -> bool:
        """Whether a search has left something here beside its configuration, which it does as soon as it has begun."""
        return any(path.exists() for path in (self.checkpoint, self.history, self.nni))

    def ranked(self, rank: int) -> Path:
        """The architecture file of a rank, 1 for the one that was found, 2 for the next most probable one."""
        return self.architecture if rank == 1 else self.path / f"architecture_{rank}.yaml"

    def training(self, name: str = "train") -> TrainingFolder:
        """The folder of a final training."""
        return TrainingFolder(self.path / name)

    def log(self, training: str) -> Path:
        """Output of a training that runs beside another one."""
        return self.path / f"{training}.log"

    def step(self, name: Literal["full_precision", "precisions"]) -> RunFolder:
        """The folder of one of two searches, for operations and for the precisions of these."""
        return RunFolder(self.path / name)


class TrainingFolder(Folder):
    """The folder of a final training, which BasicSR fills by its options file.

    Attributes:
        initial: weights that the training starts from.
        options: BasicSR's options file; where it is, the training has begun.
        weights: the trained weights.
        log: BasicSR's log.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.initial = self.path / "initial.safetensors"
        self.options = self.path / "options.yml"
        self.weights = self.path / "network.safetensors"
        self.log = self.path / "train.log"

    @property
    def state(self) -> Literal["new", "begun", "trained"]:
        """Whether the training has not begun, can go on, or has ended."""
        if self.weights.exists():
            return "trained"
        return "begun" if self.options.exists() else "new"

    @property
    def command(self) -> list[str]:
        """What Python is to be called with for the training to go on."""
        return ["-m", "quantnas_ext.sr.train", "-opt", str(self.options), "--auto_resume"]

    @property
    def going_on(self) -> str:
        """How a training that was stopped goes on."""
        return f"its training goes on with: python {' '.join(self.command)}" if self.options.is_file() else ""

    def clear(self) -> None:
        """Remove what a training left that was stopped before it began; anything else in the folder makes it stay."""
        if not self.path.is_dir():
            return
        with run_lock(self.path):  # which removes what was half-written, and keeps a training from beginning meanwhile
            left = self.content()
            if {*left} <= {self.config, self.architecture, self.initial}:
                for path in left:
                    path.unlink()
