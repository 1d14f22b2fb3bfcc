"""Runs a command with no network but loopback, for itself and every process it starts.

    python tools/no_network.py COMMAND [ARGUMENT...]

It runs in a network namespace of its own (Linux). Where the kernel allows none, that is said on standard error, the
command runs all the same, and the guard in tests/conftest.py is what is left. In the namespace KUULO_NETWORK is "off".
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

# linux/sched.h, linux/if.h, linux/sockios.h
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
IFF_UP = 0x1
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916


def main() -> NoReturn:
    """Become the command. Exit code 2 without one, 127 when there is no such program."""
    command = sys.argv[1:]
    if not command:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        leave_network()
        os.environ["KUULO_NETWORK"] = "off"
    except OSError as error:
        print(f"no network namespace can be made here ({error}): only Python is kept off the network", file=sys.stderr)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        print(f"there is no program {command[0]!r}", file=sys.stderr)
        sys.exit(127)


def leave_network() -> None:
    """Put this process into a network namespace that has a working loopback and nothing else. Raises OSError."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        unshare(CLONE_NEWNET)
    else:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        # The same user inside: the tests shall not see themselves as root.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    raise_loopback()


def unshare(flags: int) -> None:
    """unshare(2), which Python has from 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def raise_loopback() -> None:
    """`ip link set lo up` and `ip address add 127.0.0.2 dev lo`, which need no program this way. The second address is
    for Slurm, which resolves names with AI_ADDRCONFIG: that finds nothing where 127.0.0.1 is the only address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        flags = struct.unpack("16sh14x", answer)[1] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))
        second = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton("127.0.0.2"))
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16s16s", b"lo:1", second))


if __name__ == "__main__":
    main()
