"""Measures `kuulo serve` beside the bare server behind it, by turns in one run, and prints ratios.

    python bench/serve.py [NAME...] [--shape SHAPE | --model PATH] [--engine NAME] [--quick] [--record]

steady    a stand-in that makes a token every 20 ms for each client, as a fast GPU does: tokens per second through
          `kuulo serve` over those of the bare server, with 1 and with 16 clients (wanted: at least 0.95); milliseconds
          that `kuulo serve` adds to the time to the first token, median (wanted: at most 10)
flood     a stand-in that makes tokens as fast as it can: what the front costs where nothing else takes time
engine    the same with llama.cpp on this machine, with 16 slots, and a model of a real one's shape with random weights
          (text_models.py); --model and --engine take another
batch     there: `kuulo llm batch` against the same questions one by one, to the bare server (wanted: at least 3 times
          as fast), and what the engine's own llama-batched-bench makes of 16 at a time, with no server at all: how much
          this machine can gain from it

--quick takes a smaller model and fewer rounds: 2 minutes. --record writes the figures into RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import text_models
from run import BENCH, machine, rewritten
from speech import ROOT

sys.path.insert(0, str(ROOT / "tests"))
import llm_standin  # type: ignore[import-not-found]
import serving  # type: ignore[import-not-found]

KUULO = (sys.executable, "-P", "-m", "kuulo")
CLIENTS = (1, 16)
SLOTS = 16
NAMES = ("steady", "flood", "engine")
RATIO, FIRST_MS, FASTER = 0.95, 10.0, 3.0
TITLE = "# kuulo serve"
"""The section of RESULTS.md that is ours."""

TEXT = re.compile(rb'"content": ?"[^"]')
"""In an event: a piece of text that is not empty, and neither is it null, as in the first event of llama.cpp."""

TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')


@dataclass(frozen=True)
class Target:
    """Who is asked. `process`: that of `kuulo serve`."""

    url: str
    socket: str | None
    key: str
    model: str
    process: int = 0

    def cpu_s(self) -> float:
        """The CPU time that it has taken, in seconds (proc(5))."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Took:
    """What requests took: tokens, seconds in all, and to the first token of each."""

    tokens: int
    seconds: float
    firsts: list[float]

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Row:
    """A figure: of what, in words, and what is wanted of it."""

    what: str
    found: str
    wanted: str = ""


def messages(number: int, words: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {number}: " + " ".join(f"w{n}" for n in range(words))}]


def asked_of(model: str, number: int, words: int, tokens: int) -> dict[str, Any]:
    """A request for exactly so many tokens, where the server knows `ignore_eos`, as llama.cpp's does. Nothing is kept
    of earlier prompts, so that each round does the same work."""
    told = {"model": model, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    return {**told, "messages": messages(number, words)}


async def ask(target: Target, number: int, words: int, tokens: int) -> tuple[int, float]:
    """One streamed answer: its tokens, as the server counts them, and the seconds to the first that has text. Written
    by hand, so that the client costs little and the same for both."""
    where = urlsplit(target.url)
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps({**asked_of(target.model, number, words, tokens), **streamed}).encode()
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
    first, begun, last = 0.0, b"", b""
    while chunk := await reader.read(1 << 16):
        begun = begun or chunk
        last = last[-4096:] + chunk
        if not first and TEXT.search(last):
            first = time.perf_counter() - began
        if b"[DONE]" in last:  # a server may keep the connection
            break
    writer.close()
    counted = TOKENS.search(last)
    if not begun.startswith(b"HTTP/1.1 200 ") or not counted or not first:
        raise RuntimeError(f"no text came: {begun[:300]!r} ... {last[-600:]!r}")
    return int(counted[1]), first


async def load(target: Target, clients: int, each: int, words: int, tokens: int) -> Took:
    """So many clients at the same time, each with so many requests one after the other."""

    async def one(client: int) -> list[tuple[int, float]]:
        return [await ask(target, client * each + n, words, tokens) for n in range(each)]

    began = time.perf_counter()
    done = [answer for answers in await asyncio.gather(*map(one, range(clients))) for answer in answers]
    return Took(sum(n for n, _ in done), time.perf_counter() - began, [first for _, first in done])


def by_turns(
    targets: list[Target], rounds: int, clients: int, each: int, words: int, tokens: int
) -> tuple[list[Took], ...]:
    """Each target's requests, a Took for each round. In a round each has its turn; their order changes."""
    took: dict[Target, list[Took]] = {target: [] for target in targets}
    for number in range(rounds + 1):
        for target in targets if number % 2 else reversed(targets):
            said = asyncio.run(load(target, clients, each, words, tokens))
            if number:  # the first round warms up
                took[target].append(said)
    return tuple(took[target] for target in targets)


def faster(ours: list[float], theirs: list[float], words: str) -> str:
    """The ratio: the median of the rounds', since what else the machine does comes and goes, with the least and the
    largest; and the medians themselves."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    of = f"{len(ratios)} rounds: {min(ratios):.2f} to {max(ratios):.2f}"
    speeds = f"{statistics.median(ours):.1f} {words} {statistics.median(theirs):.1f} tokens/s"
    return f"{statistics.median(ratios):.3f} ({of}; {speeds})"


@contextlib.contextmanager
def front(endpoint: Any, folder: Path) -> Iterator[list[Target]]:
    """The bare server and `kuulo serve` before it."""
    folder.mkdir()
    environ = {**serving.home(folder), "KUULO_LLM_KEY": endpoint.key or "none"}
    socket = str(endpoint.socket) if endpoint.socket else None
    bare = Target(endpoint.base_url, socket, endpoint.key or "none", endpoint.model)
    with serving.serving(KUULO, environ, folder, "--endpoint", address(bare), "--idle", "10m") as one:
        yield [bare, Target(one.url, None, one.key, endpoint.model, one.process.pid)]


def address(target: Target) -> str:
    return f"unix:{target.socket}" if target.socket else target.url


def compare(name: str, targets: list[Target], rounds: int, each: int, words: int, tokens: int) -> Iterator[Row]:
    """`rounds`: with 16 clients; there are twice as many with one."""
    for clients in CLIENTS:
        before = targets[1].cpu_s()
        bare, ours = by_turns(targets, rounds if clients > 1 else 2 * rounds, clients, each, words, tokens)
        many = "1 client" if clients == 1 else f"{clients} clients"
        wanted = f"at least {RATIO}" if name != "flood" else ""
        found = faster([one.rate for one in ours], [one.rate for one in bare], "of")
        yield Row(f"{name}: tokens per second over the bare server's, {many}", found, wanted)
        heard = sum(one.tokens for one in ours) * (1 + 1 / len(ours))  # and those of the first round
        cost = 1000 * (targets[1].cpu_s() - before) / heard
        yield Row(f"{name}: CPU time of kuulo serve for a token, {many}", f"{cost:.2f} ms")
        if clients == 1:
            first = [1000 * statistics.median(f for took in all_ for f in took.firsts) for all_ in (ours, bare)]
            added = f"{first[0] - first[1]:.1f} ms ({first[0]:.1f} instead of {first[1]:.1f} ms)"
            most = f"at most {FIRST_MS:g} ms" if wanted else ""
            yield Row(f"{name}: added to the time to the first token", added, most)


def batch(bare: Target, folder: Path, rounds: int, requests: int, words: int, tokens: int) -> Iterator[Row]:
    """`kuulo llm batch` and one by one, by turns."""
    folder.mkdir()
    prompts = folder / "prompts.jsonl"
    lines = [
        {"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": asked_of(bare.model, n, words, tokens)}
        for n in range(requests)
    ]  # fmt: skip
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fast, slow = [], []
    for number in range(rounds + 1):
        said = answered(bare, prompts, folder / f"{number}.jsonl")
        one = asyncio.run(load(bare, 1, requests, words, tokens))
        if number:
            fast.append(said)
            slow.append(one.rate)
    found = faster(fast, slow, "and")
    yield Row(f"kuulo llm batch, {SLOTS} at a time, over one by one", found, f"at least {FASTER:g}")


def answered(bare: Target, prompts: Path, out: Path) -> float:
    """Tokens per second of `kuulo llm batch`, as its report says. Raises RuntimeError."""
    command = [*KUULO, "llm", "batch", str(prompts), "-o", str(out), "--endpoint", address(bare), "--json",
               "--concurrency", str(SLOTS)]  # fmt: skip
    environ = {**os.environ, "KUULO_LLM_KEY": bare.key, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    report = json.loads(done.stdout)
    tokens = sum(json.loads(line)["response"]["body"]["usage"]["completion_tokens"] for line in out.open())
    return float(tokens / (report["elapsed_ms"] / 1000))


def without_server(program: Path, model: Path, threads: int, tokens: int) -> Iterator[Row]:
    """What llama.cpp itself makes of 1 and of 16 answers at a time, on as many threads."""
    many = ",".join(map(str, CLIENTS))
    command = [str(program), "-m", str(model), "-c", str(SLOTS * 128), "-t", str(threads), "-ngl", "0", "-npp", "16",
               "-ntg", str(tokens), "-npl", many, "--output-format", "jsonl"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    speed = {row["pl"]: row["speed_tg"] for row in rows}
    found = f"{speed[SLOTS] / speed[1]:.3f} ({speed[SLOTS]:.1f} and {speed[1]:.1f} tokens/s)"
    yield Row(f"llama-batched-bench, no server: {SLOTS} at a time over one, {threads} threads", found)


def steady(folder: Path, *, quick: bool) -> Iterator[Row]:
    with (
        llm_standin.running(folder / "steady", unix=True, slow=0.02) as endpoint,
        front(endpoint, folder / "a") as targets,
    ):
        yield from compare("steady", targets, 2 if quick else 5, each=1 if quick else 2, words=60, tokens=60)


def flood(folder: Path, *, quick: bool) -> Iterator[Row]:
    with llm_standin.running(folder / "flood", unix=True) as endpoint, front(endpoint, folder / "b") as targets:
        yield from compare("flood", targets, 1 if quick else 4, each=1 if quick else 2, words=500, tokens=500)


def engine(folder: Path, model: Path, named: str | None, threads: int | None, *, quick: bool) -> Iterator[Row]:
    from kuulo.llm import plan, server
    from kuulo.machine import cores

    # llama.cpp's threads wait for each other by spinning: one core is left for what is measured beside them.
    threads = threads or max(1, cores() - 1)
    asked: dict[str, Any] = {
        "model": str(model), "parallel": SLOTS, "context": 256, "threads": threads, "device": "cpu",
        **({"engine": named} if named else {}),
    }  # fmt: skip
    chosen = plan.make(asked)
    scratch = folder / "engine"
    scratch.mkdir()
    tokens = 32 if quick else 48
    yield Row("engine", f"{chosen.engine}, {model.name}, {threads} threads, {SLOTS} slots, {tokens} tokens an answer")
    with server.running(chosen, scratch) as endpoint, front(endpoint, folder / "c") as targets:
        yield from compare(chosen.engine, targets, 2 if quick else 3, each=1, words=1, tokens=tokens)
        yield from batch(targets[0], folder / "batch", 1 if quick else 2, SLOTS, 1, tokens)
    own = chosen.environment.folder.glob("lib/python*/site-packages/bin") if chosen.environment else []
    for program in [place / "llama-batched-bench" for place in own if (place / "llama-batched-bench").is_file()]:
        yield from without_server(program, model, threads, tokens)


def recorded(rows: list[Row]) -> str:
    """Our section of RESULTS.md."""
    cells = [f"| {row.what} | {row.found} | {row.wanted} |" for row in rows]
    facts = [f"- {name}: {value}" for name, value in machine().items() if name != "packages"]
    return "\n".join(
        [
            TITLE, "", "By turns in one run: asked directly, and through `kuulo serve`.", "",
            "| measure | found | wanted |", "| --- | --- | --- |", *cells, "",
            *facts, f"- command: `python bench/serve.py {shlex.join(sys.argv[1:])}`", "",
        ]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; without: all")
    parser.add_argument("--shape", choices=text_models.SHAPES, help="of the model that is made for the engine")
    parser.add_argument("--model", type=Path, metavar="PATH", help="a model of your own instead")
    parser.add_argument("--engine", metavar="NAME", help="without it: the best that has the model")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine; without it: all cores but one")
    parser.add_argument("--folder", type=Path, default=BENCH / "out", help="where made models are kept")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a smaller model")
    parser.add_argument("--record", action="store_true", help="write the figures into RESULTS.md")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in NAMES]:
        parser.error(f"no measure {unknown[0]!r}: there are {', '.join(NAMES)}")
    environments = Path(sys.prefix, "environments")
    if environments.is_dir():  # those that `make dev` made
        os.environ.setdefault("KUULO_ENVIRONMENTS", str(environments))
    rows = []
    with tempfile.TemporaryDirectory(prefix="serve-") as place:
        for row in measured(given, Path(place)):
            rows.append(row)
            print(f"{row.what}: {row.found}{f'; wanted: {row.wanted}' if row.wanted else ''}", flush=True)
    facts = machine()
    print(f"{facts['date']}, {facts['processor']}, load {facts['load at the end']}")
    if given.record:
        rewritten(TITLE, recorded(rows))
    return 0


def measured(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    from kuulo import engines, site, survey

    for name in given.names or NAMES:
        if name == "steady":
            yield from steady(folder, quick=given.quick)
        elif name == "flood":
            yield from flood(folder, quick=given.quick)
        elif given.model or given.engine or survey.facts(site.load()).installed[engines.specs("chat")[0].name]:
            shape = given.shape or ("smollm2-135m" if given.quick else "qwen2.5-0.5b")
            model = given.model or text_models.written(given.folder, shape)
            yield from engine(folder, model.absolute(), given.engine, given.threads, quick=given.quick)
        else:
            yield Row("engine", f"left out: kuulo engines install {engines.specs('chat')[0].name}")


if __name__ == "__main__":
    raise SystemExit(main())
