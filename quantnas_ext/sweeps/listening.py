"""What processes listen on, and whether others than this machine's own users can reach it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import psutil

from quantnas_ext.errors import InputError


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that descend from it, as far as they still run."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def open_to_others(processes: Iterable[psutil.Process]) -> list[str]:
    """Every socket on which one of some processes listens and that is not on the loopback interface, in words.

    Raises:
        InputError: the operating system does not tell.
    """
    found = []
    for process in processes:
        try:
            # psutil 5 has the older name alone.
            sockets = (getattr(process, "net_connections", None) or process.connections)(kind="inet")
            name = process.name()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        except (psutil.Error, OSError) as error:
            raise InputError(
                f"what process {process.pid} listens on cannot be told ({error}); a portal of which nobody knows who "
                "reaches it is not started"
            ) from error
        for listening in sockets:
            if listening.type == socket.SOCK_STREAM and listening.status == psutil.CONN_LISTEN:
                if not is_loopback(listening.laddr.ip):
                    found.append(f"{name} (process {process.pid}) on {listening.laddr.ip} port {listening.laddr.port}")
    return found


def is_loopback(address: str) -> bool:
    """Whether an address, IPv4 or IPv6, is of this machine alone."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def check_port(port: int) -> None:
    """Refuse a port that something listens on already.

    Raises:
        InputError: naming it.
    """
    for host, kind in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with socket.socket(kind) as probe:
            probe.settimeout(1)
            try:
                answered = probe.connect_ex((host, port)) == 0
            except OSError:  # no IPv6 here
                continue
        if answered:
            raise InputError(f"port {port} is in use by another program; name a free one with --port")
