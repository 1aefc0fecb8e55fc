"""NNI's server is reached from this machine alone, by its own name, and by its own pages."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from quantnas_ext.errors import InputError
from quantnas_ext.sweeps import portal as portal_module
from quantnas_ext.sweeps.listening import is_loopback, open_to_others
from quantnas_ext.sweeps.portal import Portal, PortalFailure


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """A server that runs, with no experiment in it, below a folder that is hard to quote."""
    portal = Portal(tmp_path_factory.mktemp("a \"b' c") / "nni", "guarded1", free_port(), "create")
    portal.start()
    yield portal
    portal.stop()


def answer(port: int, method: str = "GET", path: str = "/api/v1/nni/check-status", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    given = connection.getresponse()
    return given.status, given.read().decode()


def test_it_answers_on_loopback_and_on_no_other_address_of_the_machine(portal: Portal) -> None:
    assert answer(portal.port)[0] == 200
    addresses = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    tried = 0
    for entry in addresses:
        if entry.family in (socket.AF_INET, socket.AF_INET6) and entry.address != "127.0.0.1":
            place = socket.getaddrinfo(entry.address, portal.port, entry.family, socket.SOCK_STREAM)[0][4]
            with socket.socket(entry.family) as probe:
                probe.settimeout(2)
                tried += 1
                assert probe.connect_ex(place) != 0, entry.address
    assert tried
    portal.check()


def test_other_names_and_other_pages_are_refused(portal: Portal) -> None:
    port = portal.port
    foreign = [
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        f"localhost.evil:{port}",
        "",
        "[::2]",
        "0.0.0.0",
    ]
    for host in foreign:  # a name that was rebound to 127.0.0.1 still stands in Host
        assert answer(port, Host=host) == (403, "this portal is reached as localhost alone\n"), host
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", "http://127.0.0.1:1"):
        for method in ("GET", "POST", "OPTIONS"):
            assert answer(port, method, Origin=origin)[0] == 403, origin
    assert answer(port, "POST", "/api/v1/nni/trial-jobs", Host="evil.example", Origin="http://evil.example")[0] == 403
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert answer(port, path="/tuner", Origin="http://evil.example", **upgrade, **key)[0] == 403


def test_the_portal_itself_works_also_through_a_forwarded_port(portal: Portal) -> None:
    for host in (f"127.0.0.1:{portal.port}", f"localhost:{portal.port}", "localhost:9000"):
        assert answer(portal.port, Host=host, Origin=f"http://{host}")[0] == 200
    status, page = answer(portal.port, path="/oview")
    assert status == 200 and "<html" in page


def test_no_tensorboard_is_started(portal: Portal) -> None:
    assert answer(portal.port, "POST", "/api/v1/nni/tensorboard")[0] == 403


def test_trials_do_not_inherit_the_guard_and_nothing_lands_in_the_home_folder(portal: Portal) -> None:
    environment = portal._environment()
    code = "console.log(JSON.stringify([process.env.NODE_OPTIONS, process.env.QUANTNAS_PORTAL, os.homedir()]))"
    node = str(portal_module._node_folder() / "node")
    done = subprocess.run([node, "-e", f"const os = require('os'); {code}"], env=environment, capture_output=True)
    assert json.loads(done.stdout) == [None, None, str(portal.folder)], done.stderr
    assert {path.name for path in portal.folder.iterdir()} == {"guarded1", "nni-experiments"}


def test_a_port_in_use_is_named(portal: Portal, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"port {portal.port} is in use"):
        Portal(tmp_path / "nni", "second", portal.port, "create").start()
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_on_loopback_is_stopped_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_guard.js").touch()  # as if the guard had no effect
    monkeypatch.setattr(portal_module, "GUARD", tmp_path / "no_guard.js")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "nni-experiments").mkdir()
    (tmp_path / "nni-experiments" / ".experiment").write_text("{}")
    port = free_port()
    open_one = Portal(tmp_path / "nni", "openone1", port, "create")
    with pytest.raises(InputError, match=f"others than this machine could reach.*port {port} .*--public"):
        open_one.start()
    assert open_one.pid is None
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_worker_that_listens_to_the_network_is_seen() -> None:
    code = "import socket, time\ns = socket.socket()\ns.bind(('0.0.0.0', 0))\ns.listen()\nprint(1, flush=True)\n"
    code += "time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        (found,) = open_to_others([psutil.Process(worker.pid)])
        worker.kill()
    assert f"process {worker.pid}) on 0.0.0.0 port " in found
    assert [is_loopback(ip) for ip in ("127.0.0.9", "::1", "::ffff:127.0.0.1")] == [True] * 3
    assert [is_loopback(ip) for ip in ("0.0.0.0", "::", "fe80::1%eth0", "::ffff:10.0.0.1")] == [False] * 4


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom quantnas_ext.sweeps.portal import Portal\n"
        f"portal = Portal(Path({str(tmp_path / 'nni')!r}), 'orphan01', {free_port()}, 'create')\n"
        "portal.start()\nprint(portal.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        os.kill(starter.pid, signal.SIGKILL)
    psutil.wait_procs([server], timeout=15)
    assert not server.is_running()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.js"
    broken.write_text("throw new Error('no such luck');")
    monkeypatch.setattr(portal_module, "GUARD", broken)
    begun = time.monotonic()
    with pytest.raises(PortalFailure, match="no such luck"):
        Portal(tmp_path / "nni", "broken01", free_port(), "create").start()
    assert time.monotonic() - begun < 20
