"""NNI's server of an experiment, with its web portal, kept to the loopback interface (``portal_guard.js``).

NNI's own launcher starts the server unguarded. Here its sockets are looked at before it is told of an experiment, and
whenever ``check`` is called: where one is not on the loopback interface everything is stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import psutil

from quantnas_ext.errors import InputError
from quantnas_ext.sweeps.listening import check_port, family, open_to_others

GUARD = Path(__file__).with_name("portal_guard.js")

_PATIENCE = 60  # seconds for the server to answer
_LAST_WORDS = 20  # seconds for it to stop by itself


class PortalFailure(RuntimeError):
    """The server has ended, or does not answer."""


class Portal:
    """One run of NNI's server.

    Args:
        folder: for all its files, also the list of experiments that NNI keeps below the home folder.
        experiment: its id.
        port: to listen on.
        action: make the experiment, go on with it, or only show it.
        public: listen on every interface, where whoever reaches the port can run programs as this user.
        tuner_channel: where NNI's engine for architectures takes its commands; None for a tuner of NNI's.
    """

    def __init__(
        self,
        folder: Path,
        experiment: str,
        port: int,
        action: Literal["create", "resume", "view"],
        *,
        public: bool = False,
        tuner_channel: str | None = None,
    ) -> None:
        self.folder, self.experiment, self.port, self.action = folder.resolve(), experiment, port, action
        self.public = public
        self.tuner_channel = tuner_channel
        self.url = f"http://127.0.0.1:{port}"
        self._token = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[psutil.Process] = set()

    @property
    def pid(self) -> int | None:
        """Of the server, while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the server and look at its sockets; nothing runs in the experiment yet.

        Raises:
            InputError: the port is in use, or the server listens elsewhere than on the loopback interface.
            PortalFailure: it does not come up.
        """
        check_port(self.port)
        (self.folder / "nni-experiments").mkdir(parents=True, exist_ok=True)
        listing = self.folder / "nni-experiments" / ".experiment"
        entry = {"id": self.experiment, "port": self.port, "startTime": int(time.time() * 1000), "endTime": "N/A"}
        entry |= {"status": "INITIALIZED", "platform": "local", "experimentName": self.folder.parent.name, "tag": []}
        log = self.folder / self.experiment / "log"
        log.mkdir(parents=True, exist_ok=True)
        with (log / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                cwd=_node_folder(),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who stop it in order
            )
        try:
            entry |= {"pid": self._process.pid, "webuiUrl": [], "logDir": str(self.folder), "prefixUrl": None}
            listing.write_text(json.dumps({self.experiment: entry}), encoding="utf-8")
            self._wait_until_it_answers()
            self.check()
        except BaseException:
            self.stop()
            raise

    def _command(self) -> list[str]:
        node = _node_folder()
        arguments = {
            "port": self.port,
            "experiment-id": self.experiment,
            "action": self.action,
            "mode": "local",
            "experiments-directory": self.folder,
            "log-level": "info",
            "foreground": "false",
            "python-interpreter": sys.executable,
        }
        if self.tuner_channel is not None:
            arguments["tuner-command-channel"] = self.tuner_channel
        given = (word for name, value in arguments.items() for word in (f"--{name}", str(value)))
        return [str(node / "node"), "--max-old-space-size=4096", str(node / "main.js"), *given]

    def _environment(self) -> dict[str, str]:
        """The server's; trials and tuner inherit it without the guard's own part."""
        settings = {
            "host": None if self.public else "127.0.0.1",
            "readonly": self.action == "view",
            "token": self._token,
            "home": str(self.folder),
            "owner": os.getpid(),
        }
        local = "localhost,127.0.0.1,::1"
        before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
        without_proxy = f"{before},{local}" if before else local
        return os.environ | {
            # Quoted as Node.js reads it, which splits at spaces.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(GUARD.parents[2]), os.environ.get("PYTHONPATH")))),
            "NODE_OPTIONS": '--require="{}"'.format(str(GUARD).replace("\\", "\\\\").replace('"', '\\"')),
            "QUANTNAS_PORTAL": json.dumps(settings),
            "NO_PROXY": without_proxy,
            "no_proxy": without_proxy,
        }

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                raise PortalFailure(f"NNI's server has ended at once; its last words: {self.last_words()}")
            with contextlib.suppress(PortalFailure):
                if isinstance(self.get("/check-status"), dict):
                    return
            time.sleep(0.1)
        raise PortalFailure(f"NNI's server does not answer on {self.url} after {_PATIENCE} s")

    def last_words(self) -> str:
        """The end of what the server has printed, on one line."""
        log = self.folder / self.experiment / "log" / "server.log"
        with contextlib.suppress(OSError):
            lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
            said = [line for line in lines if line and not line.startswith("at ")]  # no calls of a traceback
            return " / ".join(said)[-600:]
        return "none"

    def check(self) -> None:
        """See that the server runs and that it and all that it has started listen on the loopback interface alone.

        Raises:
            PortalFailure: it has ended.
            InputError: something listens elsewhere, and ``public`` has not asked for that.
        """
        if self._process is None or self._process.poll() is not None:
            raise PortalFailure("NNI's server has ended")
        with contextlib.suppress(psutil.NoSuchProcess):
            running = family(psutil.Process(self._process.pid))
            self._known.update(running)
            if not self.public and (others := open_to_others(running)):
                raise InputError(
                    f"stopped, because others than this machine could reach the sweep: {'; '.join(others)} listens "
                    "beyond the loopback interface; have it listen on 127.0.0.1, or use --public"
                )

    def get(self, path: str) -> Any:
        """The answer of NNI's REST interface to ``/api/v1/nni`` and a path.

        Raises:
            PortalFailure: there is none, or it is a refusal.
        """
        return self.request("GET", path)

    def request(self, method: str, path: str, data: Any = None) -> Any:
        """As ``get``, by any method and with data as JSON."""
        import requests  # NNI brings it; it takes a moment to load

        url = f"{self.url}/api/v1/nni{path}"
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy between us
                session.headers["x-sweep-token"] = self._token
                answer = session.request(method, url, json=data, timeout=20)
            if not answer.ok:
                raise PortalFailure(f"NNI's server refuses {method} {path}: {answer.text[:300]}")
            return answer.json() if answer.content else None
        except (requests.RequestException, ValueError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self._process is not None and self._process.wait(0.5) is not None:
                    raise PortalFailure("NNI's server has ended") from error
            raise PortalFailure(f"NNI's server gives no answer to {method} {path}: {error}") from error

    def stop(self) -> None:
        """Stop the experiment and the server, and whatever of it does not stop by itself."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            self._known.update(family(psutil.Process(process.pid)))
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS)
        end_all(self._known)
        process.wait()


def end_all(processes: set[psutil.Process]) -> None:
    """End processes that still run, those that will not by force; ids that are other processes' by now are let be."""
    left = [process for process in processes if process.is_running()]  # by id and time of creation
    for signal in ("terminate", "kill"):
        for process in left:
            with contextlib.suppress(psutil.Error):
                getattr(process, signal)()
        _, left = psutil.wait_procs(left, timeout=4)
        if not left:
            return


def _node_folder() -> Path:
    """Where NNI's server lies."""
    import nni_node

    return Path(nni_node.__path__[0])
