"""Where a server listens: a loopback port that is free, unless something else is asked for."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

from kuulo.errors import CannotRun, UsageError

LOOPBACK = "127.0.0.1"
NODE = "node"
"""Instead of an address: this machine's own, which other machines can reach."""

LONGEST_SOCKET = 107
"""Bytes of a Unix socket's name, at most (unix(7))."""


def bound(bind: str, port: int) -> socket.socket:
    """A socket on that address, which nobody else has from now on; port 0 takes a free one. It does not listen yet:
    connections are refused until the server is ready. Raises UsageError, CannotRun."""
    host = own() if bind == NODE else bind
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError as error:
        raise UsageError(
            f"--bind: {bind!r} is no address", do="an address of this machine, or the word node"
        ) from error
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise CannotRun(
            f"the server cannot have the port {port} of {host}: {error.strerror}",
            do="leave --port out: then a free one is found" if port else "name another address of this machine",
        ) from error
    return made


def bound_at(path: Path) -> socket.socket:
    """A Unix socket of that name, for its owner alone. Raises CannotRun."""
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise CannotRun(
            "the name of the Unix socket is too long", looked_at=str(path), do=f"at most {LONGEST_SOCKET} bytes"
        )
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        made.bind(os.fsencode(path))
    except OSError as error:
        made.close()
        raise CannotRun(
            f"the Unix socket cannot be made: {error.strerror}",
            looked_at=str(path),
            do="name another with --socket, or remove it where a killed server has left it",
        ) from error
    finally:
        os.umask(before)
    return made


def own() -> str:
    """This machine's address towards the others: what its name stands for, else what leads to its default route.
    Raises CannotRun."""
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    except OSError:
        found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # for documents alone (RFC 5737); nothing is sent
            found.append(asking.getsockname()[0])
        except OSError:
            pass
    for address in found:
        if not ipaddress.ip_address(address).is_loopback:
            return address
    raise CannotRun(
        "this machine's own address cannot be told",
        looked_at=f"{socket.gethostname()}: {', '.join(found) or 'no address'}",
        do="name it: --bind ADDRESS",
    )


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def url(bind: str, port: int) -> str:
    """The base URL of a port."""
    return f"http://{f'[{bind}]' if ':' in bind else bind}:{port}/v1"
