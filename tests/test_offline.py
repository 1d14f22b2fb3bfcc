"""The tests themselves run without a network: what is proved here holds for all others."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conftest import stays_inside

OUTSIDE = ("192.0.2.1", 80)
"""RFC 5737: an address for documentation, which nobody has."""

UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}

TRY = f"""
import socket, sys
with socket.socket() as outside:
    outside.settimeout(2)
    print(outside.connect_ex({OUTSIDE!r}))
"""

in_namespace = pytest.mark.skipif(
    os.environ.get("KUULO_NETWORK") != "off",
    reason="not in a network namespace: run `make test`, or `python tools/no_network.py pytest`",
)


@pytest.mark.parametrize("call", ["connect", "connect_ex"])
def test_python_in_this_process_cannot_leave(call: str) -> None:
    with socket.socket() as outside, pytest.raises(OSError, match="do not leave this machine"):
        getattr(outside, call)(OUTSIDE)


def test_no_packet_leaves_this_process() -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as outside,
        pytest.raises(OSError, match="do not leave this machine"),
    ):
        outside.sendto(b"x", OUTSIDE)


@in_namespace
def test_a_process_started_by_a_test_cannot_leave() -> None:
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, check=True)
    assert int(done.stdout) in UNREACHABLE


@in_namespace
def test_nothing_but_loopback_is_there() -> None:
    interfaces = {name for _, name in socket.if_nameindex()}
    # Some kernels give every new namespace tunnel devices that are down; none has a route.
    assert "lo" in interfaces
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    assert [r for r in routes if not r.startswith("lo\t")] == []


@in_namespace
def test_no_name_is_resolved_in_a_process_started_by_a_test() -> None:
    code = "import socket\ntry: socket.getaddrinfo('example.org', 80)\nexcept socket.gaierror: print('none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


def test_loopback_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        heard = []

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(16))

        thread = threading.Thread(target=answer)
        thread.start()
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            client.sendall(b"hello")
        thread.join(5)
    assert heard == [b"hello"]


@pytest.mark.parametrize(
    ("family", "address", "inside"),
    [
        (socket.AF_INET, ("127.0.0.1", 80), True),
        (socket.AF_INET, ("127.8.9.1", 80), True),
        (socket.AF_INET, ("localhost", 80), True),
        (socket.AF_INET6, ("::1", 80, 0, 0), True),
        (socket.AF_UNIX, "/run/socket", True),
        (socket.AF_INET, OUTSIDE, False),
        (socket.AF_INET, ("127.0.0.1.example.org", 80), False),
        (socket.AF_INET6, ("2001:db8::1", 80, 0, 0), False),
    ],
)
def test_what_counts_as_inside(family: int, address: object, inside: bool) -> None:
    assert stays_inside(family, address) is inside


def test_the_guard_steps_aside_for_nobody(kuulo_environment: dict[str, str]) -> None:
    assert kuulo_environment["HF_HUB_OFFLINE"] == "1"
    assert not [k for k in kuulo_environment if k.startswith("KUULO_") and k != "KUULO_STORE"]
