"""Measures `kuulo serve` beside the bare server behind it, by turns in one run, and prints ratios.

    python bench/serve.py [--model PATH [--engine NAME]] [--quick]

steady    a stand-in that makes a token every 20 ms for each client, as a fast GPU does: tokens per second through
          `kuulo serve` over those of the bare server, with 1 and with 16 clients (wanted: at least 0.95)
first     the same: milliseconds that `kuulo serve` adds to the time to the first token, median (wanted: at most 10)
flood     a stand-in that makes tokens as fast as it can: what the front costs where nothing else takes time
batch     16 requests at a time against one by one, through `kuulo serve`: how many times as fast (wanted: at least 3)

With --model the same with a real engine on this machine, which starts with 16 slots.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from run import machine
from speech import ROOT

sys.path.insert(0, str(ROOT / "tests"))
import llm_standin  # type: ignore[import-not-found]
import serving  # type: ignore[import-not-found]

KUULO = (sys.executable, "-P", "-m", "kuulo")
CLIENTS = (1, 16)


@dataclass(frozen=True)
class Target:
    """Who is asked."""

    url: str
    socket: str | None
    key: str
    model: str


@dataclass
class Took:
    """What requests took: tokens, seconds in all, and to the first token of each."""

    tokens: int
    seconds: float
    firsts: list[float]

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


async def ask(target: Target, words: int, tokens: int) -> tuple[int, float]:
    """One streamed answer: its tokens, and the seconds to the first. Written by hand, so that the client costs little
    and the same for both."""
    where = urlsplit(target.url)
    text = " ".join(f"w{n}" for n in range(words))
    asked = {"model": target.model, "stream": True, "max_tokens": tokens, "temperature": 0}
    body = json.dumps({**asked, "messages": [{"role": "user", "content": text}]}).encode()
    head = (
        f"POST {where.path}/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    began = time.perf_counter()
    if target.socket:
        reader, writer = await asyncio.open_unix_connection(target.socket)
    else:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(head.encode() + body)
    heard, first, data = 0, 0.0, b""
    while chunk := await reader.read(1 << 16):
        data += chunk
        *lines, data = data.split(b"\n")
        for line in lines:
            if b'"content"' in line and b'"content": ""' not in line and b'"content":""' not in line:
                heard += 1
                first = first or time.perf_counter() - began
        if b"[DONE]" in chunk:  # a server may keep the connection
            break
    writer.close()
    if not heard:
        raise RuntimeError("no token came")
    return heard, first


async def load(target: Target, clients: int, each: int, words: int, tokens: int) -> Took:
    """So many clients at the same time, each with so many requests one after the other."""

    async def one() -> list[tuple[int, float]]:
        return [await ask(target, words, tokens) for _ in range(each)]

    began = time.perf_counter()
    done = [answer for answers in await asyncio.gather(*(one() for _ in range(clients))) for answer in answers]
    return Took(sum(n for n, _ in done), time.perf_counter() - began, [first for _, first in done])


def by_turns(targets: list[Target], rounds: int, clients: int, each: int, words: int, tokens: int) -> list[Took]:
    """Each target's requests, in rounds in which each has its turn; their order changes."""
    took: dict[Target, list[Took]] = {target: [] for target in targets}
    for number in range(rounds + 1):
        for target in targets if number % 2 else reversed(targets):
            said = asyncio.run(load(target, clients, each, words, tokens))
            if number:  # the first round warms up
                took[target].append(said)
    return [
        Took(sum(t.tokens for t in all_), sum(t.seconds for t in all_), [f for t in all_ for f in t.firsts])
        for all_ in (took[target] for target in targets)
    ]


@contextlib.contextmanager
def front(endpoint: Any, folder: Path) -> Iterator[list[Target]]:
    """The bare server and `kuulo serve` before it."""
    folder.mkdir()
    url = f"unix:{endpoint.socket}" if endpoint.socket else endpoint.base_url
    environ = {**serving.home(folder), "KUULO_LLM_KEY": endpoint.key or "none"}
    socket = str(endpoint.socket) if endpoint.socket else None
    bare = Target(endpoint.base_url, socket, endpoint.key or "none", endpoint.model)
    with serving.serving(KUULO, environ, folder, "--endpoint", url, "--idle", "10m") as one:
        yield [bare, Target(one.url, None, one.key, endpoint.model)]


def compare(name: str, targets: list[Target], rounds: int, each: int, words: int, tokens: int) -> None:
    for clients in CLIENTS:
        bare, ours = by_turns(targets, rounds, clients, each, words, tokens)
        print(
            f"{name:<8} {clients:>2} {'client ' if clients == 1 else 'clients'}  bare {bare.rate:8.1f} tokens/s  "
            f"kuulo serve {ours.rate:8.1f}  ratio {ours.rate / bare.rate:.3f}",
            flush=True,
        )
        if clients == 1:
            first = [1000 * statistics.median(took.firsts) for took in (bare, ours)]
            print(
                f"{name:<8} first token  bare {first[0]:.1f} ms  kuulo serve {first[1]:.1f} ms  "
                f"added {first[1] - first[0]:.1f} ms",
                flush=True,
            )


def batch(name: str, ours: Target, requests: int, words: int, tokens: int) -> None:
    slow = asyncio.run(load(ours, 1, requests, words, tokens))
    fast = asyncio.run(load(ours, requests, 1, words, tokens))
    print(f"{name:<8} {requests} at a time {fast.rate:.1f} tokens/s  one by one {slow.rate:.1f}  "
          f"{fast.rate / slow.rate:.2f} times as fast", flush=True)  # fmt: skip


def stand_ins(folder: Path, *, quick: bool) -> None:
    rounds = 2 if quick else 4
    with (
        llm_standin.running(folder / "steady", unix=True, slow=0.02) as endpoint,
        front(endpoint, folder / "a") as targets,
    ):
        compare("steady", targets, rounds, each=3 if quick else 6, words=60, tokens=60)
        batch("steady", targets[1], 16, words=40, tokens=40)
    with llm_standin.running(folder / "flood", unix=True) as endpoint, front(endpoint, folder / "b") as targets:
        compare("flood", targets, rounds, each=5, words=500, tokens=500)


def real(folder: Path, model: str, engine: str | None, *, quick: bool) -> None:
    from kuulo.llm import plan, server
    from kuulo.machine import cores

    # llama.cpp's threads wait for each other by spinning: one core is left for what is measured beside them.
    threads = max(1, cores() - 1)
    asked: dict[str, Any] = {"model": model, "parallel": 16, "context": 512, "threads": threads}
    chosen = plan.make({**asked, **({"engine": engine} if engine else {})})
    scratch = folder / "engine"
    scratch.mkdir()
    with server.running(chosen, scratch) as endpoint, front(endpoint, folder / "c") as targets:
        compare(chosen.engine, targets, 2 if quick else 3, each=2, words=20, tokens=64)
        batch(chosen.engine, targets[1], 16, words=20, tokens=64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="PATH", help="a real model, for the bare engine and `kuulo serve` alike")
    parser.add_argument("--engine", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-") as place:
        if given.model:
            real(Path(place), str(Path(given.model).absolute()), given.engine, quick=given.quick)
        else:
            stand_ins(Path(place), quick=given.quick)
    facts = machine()
    print(f"{facts['date']}, {facts['processor']}, load {facts['load at the end']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
