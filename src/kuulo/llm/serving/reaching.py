"""The lines that people type to reach a server. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from kuulo.llm.serving import address
from kuulo.llm.serving.registry import Server

SOCKET_PORT = 8000
"""The local port for a server on a Unix socket, which has none of its own."""


def url(server: Server) -> str:
    """Its base URL on its own machine; of a Unix socket, with the socket's name."""
    return f"unix:{server.socket}" if server.socket else address.url(server.bind, server.port or 0)


def environment(base_url: str, key: Path) -> list[str]:
    """The lines for a shell with which clients of OpenAI's API find it. The key itself is in none of them."""
    return [
        f"export OPENAI_BASE_URL={shlex.quote(base_url)}",
        f'export OPENAI_API_KEY="$(cat {shlex.quote(str(key))})"',
    ]


def tunnel(server: Server, here: str, user: str, login: str, port: int | None) -> list[str]:
    """The command that brings it to a port of another machine, typed there. `here` is the machine that one logs in
    to, and `login` what it is called from outside.

    A server on that machine: to its loopback. One on a node's own address: the login node reaches it. One on a node's
    loopback or Unix socket: only from the node itself, so ssh goes on to it (which sites allow, if at all, while one
    has a job there)."""
    local = port or server.port or SOCKET_PORT
    host = server.node or server.host
    there = server.socket or f"{_bracketed(server.bind)}:{server.port}"
    command = ["ssh", "-N", "-L", f"{local}:{there}"]
    if is_reachable(server, here):
        return [*command, f"{user}@{login}"]
    return [*command, "-J", f"{user}@{login}", f"{user}@{host}"]


def is_reachable(server: Server, host: str) -> bool:
    """Whether programs on that host reach it: on the same one, or over an address that is no loopback."""
    return host in (server.host, server.node) or (server.socket is None and not address.is_loopback(server.bind))


def _bracketed(bind: str) -> str:
    return f"[{bind}]" if ":" in bind else bind


def local_url(server: Server, port: int | None) -> str:
    """The base URL at the near end of the tunnel."""
    return address.url(address.LOOPBACK, port or server.port or SOCKET_PORT)


def openai_entry(name: str, server: Server, base_url: str) -> Mapping[str, object]:
    """The entry of simonw/llm's extra-openai-models.yaml."""
    return {
        "model_id": name,
        "model_name": server.model,
        "api_base": base_url,
        "api_key_name": name,
        "supports_schema": True,
    }
