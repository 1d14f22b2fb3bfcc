"""Measures who-speaks-when on conversations that espeak-ng speaks, and prints tables in Markdown.

    python bench/speakers.py [accuracy|cost|memory ...] [--quick] [--model ENGINE=PATH]

Every diarizing engine that is installed, and has its model named where it needs one, hears the same conversations: as
`kuulo diarize` runs it, one process for each number of voices. The voices are none of those that the engine resemblyzer
was tuned on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kuulo import engines
from kuulo.evaluation import turns as scoring
from kuulo.evaluation.lines import Line
from measures import WINDOW_SECONDS, WINDOW_TOKENS, Bench, Result, Settings, minutes
from processes import rounds
from run import machine, table
from speech import RATE, ROOT, _write

sys.path.insert(0, str(ROOT / "tools" / "miniature"))
from espeak import Speaker, Voice
from words import WORDS

FRESH = (
    "adam", "anika", "antonio", "aunty", "benjamin", "boris", "david", "Diogo", "ed", "edward", "Gene", "grandma",
    "Gustave", "Henrique", "Hugo", "iven", "Jacky", "john", "klatt2", "Lee", "marcelo", "Mario", "Mike", "Nguyen",
    "norbert", "paul", "pedro", "rob", "robert", "sandro", "shelby", "travis", "victor",
)  # fmt: skip
"""Variants of espeak-ng that nothing was tuned on. Left out: whispers, robots, all but one of those that have a number,
and four that are the same voice as another (less than 0.02 apart). Some of these are very similar (0.03 to 0.06)."""

LENGTHS_S = {20: 8, 60: 6, 180: 4, 600: 1, 1800: 1}
"""Seconds of a conversation -> how many there are for each number of voices and each kind of loudness."""
QUICK_S = {20: 3, 60: 3, 180: 1}
GIVEN_UP_TO_S = 600
"""The number of speakers is given for conversations up to this length: longer ones take long."""
LOUDNESS = {"even": 0.0, "changing": 18.0}
"""By how many dB a sentence may be quieter than another."""
MOST_VOICES = 4
NOISE = 15 / 32768
"""White noise over all of it: -67 dBFS."""
MEMORY_S = (600, 10_800)
GOOD = 0.1
"""A diarization error rate that is told of no further."""

PARTS = ("accuracy", "cost", "memory")


@dataclass(frozen=True)
class Conversation:
    """A file, and who speaks when in it."""

    path: Path
    length_s: int
    voices: int
    loudness: str
    truth: tuple[Line, ...]


def conversations(folder: Path, lengths: dict[int, int]) -> list[Conversation]:
    """All of them, written into `folder` where they are not there yet. Seeds are fixed: everybody gets the same."""
    folder.mkdir(parents=True, exist_ok=True)
    speaker = Speaker()
    made = []
    for length_s, count in lengths.items():
        for voices in range(1, MOST_VOICES + 1):
            for loudness in LOUDNESS:
                for number in range(count):
                    path = folder / f"{voices} voices {length_s} s {loudness} {number}.wav"
                    made.append(Conversation(path, length_s, voices, loudness, spoken(speaker, path, length_s, voices)))
    return made


def spoken(speaker: Speaker, path: Path, length_s: int, voices: int) -> tuple[Line, ...]:
    """Speaks a conversation into `path`, drawn by its name, and says who speaks when. Both are kept."""
    kept = path.with_suffix(".json")
    if not kept.exists():
        draw = random.Random(f"conversation {path.stem}")
        quieter = LOUDNESS[path.stem.split()[-2]]
        samples, lines = talk(speaker, draw, length_s, drawn_people(draw, voices), quieter)
        _write(path, [pcm(samples)])
        kept.write_text(json.dumps(lines), encoding="utf-8")
    return tuple(Line(None, *line) for line in json.loads(kept.read_text(encoding="utf-8")))


def drawn_people(draw: random.Random, count: int) -> list[Voice]:
    """Different variants, with a pitch and a speed of their own."""
    return [Voice(f"en-us+{name}", draw.randint(140, 180), draw.randint(35, 65)) for name in draw.sample(FRESH, count)]


def talk(
    speaker: Speaker, draw: random.Random, length_s: int, people: Sequence[Voice], quieter_db: float = 0.0
) -> tuple[Any, list[tuple[str, int, int]]]:
    """Samples (n,) from -1 to 1 of people who speak in turn, and (voice, start, end) in ms. First each says a sentence
    of five words or more; then who is next, how many sentences it is (one to three) and how long (one to twelve words)
    are drawn."""
    lines: list[tuple[str, int, int]] = []
    sound, at = [np.zeros(RATE // 3)], RATE // 3
    order = iter(turns(draw, people))
    while at < length_s * RATE or len(lines) < len(people):
        fewest = 5 if len(lines) < len(people) else 1
        voice = next(order)
        text = " ".join(draw.choices(WORDS["en"], k=draw.randint(fewest, 12)))
        said = speaker.say(text, voice).samples / 32768 * 10 ** (-draw.uniform(0, quieter_db) / 20)
        pause = np.zeros(int(draw.uniform(0.2, 1.0) * RATE))
        lines.append((voice.name, at * 1000 // RATE, (at + len(said)) * 1000 // RATE))
        sound += [said, pause]
        at += len(said) + len(pause)
    samples = np.concatenate(sound)
    return samples + np.random.default_rng(len(samples)).normal(0, NOISE, len(samples)), lines


def turns(draw: random.Random, people: Sequence[Voice]) -> Iterator[Voice]:
    """Who says each sentence: first everybody once."""
    yield from people
    last = people[-1]
    while True:
        last = draw.choice([voice for voice in people if voice != last] or list(people))
        for _ in range(draw.randint(1, 3)):
            yield last


# ---------------------------------------------------------------------- running


class Diarizing:
    """`kuulo diarize` with one engine."""

    def __init__(self, bench: Bench, name: str, model: str | None) -> None:
        self.name, self._bench = name, bench
        self.options = ["--speaker-engine", name, *(["--speaker-model", model] if model else [])]

    def command(self, files: Sequence[Path], speakers: str, output: Path) -> list[str]:
        return [
            *self._bench.kuulo, "diarize", *map(str, files), "--speakers", speakers, *self.options,
            "-o", str(output), "-f", "rttm", "--quiet",
        ]  # fmt: skip

    def heard(self, files: Sequence[Path], speakers: str) -> tuple[dict[str, list[Line]], dict[str, Any]]:
        """Turns of each file by its stem, and the run's report."""
        output = self._bench.fresh()
        self._bench.run(self.command(files, speakers, output))
        report: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
        return {file.stem: rttm(output / f"{file.stem}.speakers.rttm") for file in files}, report


def able(bench: Bench, models: dict[str, str]) -> list[Diarizing]:
    """The engines that can run here; says on stderr which are left out. `models`: of engines that need one."""
    found = []
    for spec in engines.specs("diarize"):
        why = ""
        if spec.name == "channels":
            why = "it hears no voices"
        elif not engines.installed(spec):
            why = "it is not installed"
        elif spec.model_formats and spec.name not in models:
            why = f"it needs --model {spec.name}=PATH"
        if why:
            print(f"left out: {spec.name}, {why}", file=sys.stderr)
        else:
            found.append(Diarizing(bench, spec.name, models.get(spec.name)))
    return found


def rttm(path: Path) -> list[Line]:
    """Turns of an RTTM file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        field = line.split()
        start = round(float(field[3]) * 1000)
        found.append(Line(None, field[7], start, start + round(float(field[4]) * 1000)))
    return found


# ---------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Heard:
    """What became of a conversation: how many speakers were found, the diarization error rate, and the rate where the
    number was given (None: longer than GIVEN_UP_TO_S)."""

    conversation: Conversation
    found: int
    rate: float
    given_rate: float | None

    def __str__(self) -> str:
        who = " ".join(sorted({(line.speaker or "").rpartition("+")[2] for line in self.conversation.truth}))
        given = "" if self.given_rate is None else f", number given {self.given_rate:.1%}"
        return f"{self.conversation.path.stem} ({who}): {self.found} found, {self.rate:.1%}{given}"


def accuracy(engine: Diarizing, said: Sequence[Conversation]) -> list[Heard]:
    """`auto` and the number given, for each conversation. Tells of each that went wrong."""
    heard = []
    for voices in range(1, MOST_VOICES + 1):
        group = [one for one in said if one.voices == voices]
        alone, report = engine.heard([one.path for one in group], "auto")
        given, _ = engine.heard([one.path for one in group if one.length_s <= GIVEN_UP_TO_S], str(voices))
        seconds = sum(file["audio_ms"] for file in report["files"]) / 1000
        print(f"{voices} voices: {seconds / 60:.0f} min in {report['elapsed_ms'] / 1000:.0f} s", flush=True)
        for one in group:
            turns = alone[one.path.stem]
            found = len({line.speaker for line in turns})
            number = error(one, given[one.path.stem]) if one.path.stem in given else None
            heard.append(Heard(one, found, error(one, turns), number))
            if found != voices or max(heard[-1].rate, number or 0) > GOOD:
                print(f"  {heard[-1]}", flush=True)
    return heard


def error(one: Conversation, turns: Sequence[Line]) -> float:
    """The diarization error rate, nothing left out."""
    return scoring.compare(one.truth, turns).rate or 0.0


def accuracy_table(heard: Sequence[Heard]) -> str:
    lines = [
        "| length | loudness | right number, of 1, 2, 3, 4 voices | together | error: median, worst | number given |",
        "|---|---|---|---|---|---|",
    ]
    keys = sorted(
        {(one.conversation.length_s, one.conversation.loudness) for one in heard}, key=lambda k: (k[0], k[1] != "even")
    )
    for length_s, loudness in keys:
        group = [h for h in heard if (h.conversation.length_s, h.conversation.loudness) == (length_s, loudness)]
        each = [[h.found == n for h in group if h.conversation.voices == n] for n in range(1, MOST_VOICES + 1)]
        counts = ", ".join(f"{sum(right)}/{len(right)}" for right in each)
        all_of = f"{sum(map(sum, each))}/{len(group)}"
        length = f"{length_s} s" if length_s < 60 else minutes(length_s)
        cells = (
            length,
            loudness,
            counts,
            all_of,
            spread([h.rate for h in group]),
            spread([h.given_rate for h in group if h.given_rate is not None]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    right = sum(h.found == h.conversation.voices for h in heard)
    good = sum(h.rate <= GOOD for h in heard)
    lines += [
        "",
        f"Right number in {right} of {len(heard)} ({right / len(heard):.0%}); error of {GOOD:.0%} or less in {good}.",
    ]
    return "\n".join(lines)


def spread(rates: Sequence[float]) -> str:
    """The median and the worst."""
    return f"{np.median(rates) * 100:.1f} %, {max(rates) * 100:.1f} %" if rates else "-"


def cost(engine: Diarizing, bench: Bench) -> Result:
    """What telling two speakers apart adds to recognising the words, by turns."""
    plain = bench.with_model(bench.reciting(WINDOW_TOKENS, WINDOW_SECONDS))
    seconds = bench.settings.long_s
    recording = bench.recording(seconds)
    took = rounds(
        bench.settings.rounds,
        lambda: bench.run(bench.transcribe([recording], bench.fresh(), *plain, "--speakers", "2", *engine.options)),
        lambda: bench.run(bench.transcribe([recording], bench.fresh(), *plain)),
        lambda: bench.run(engine.command([recording], "2", bench.fresh())),
    )
    ratios = [both.wall_s / words.wall_s for both, words, _ in took]
    alone = statistics.median(turns.wall_s for _, _, turns in took)
    return Result(
        measure=f"{minutes(seconds)}: the words and who says them, {engine.name}",
        against="the words alone",
        ours=statistics.median(both.wall_s for both, _, _ in took),
        theirs=statistics.median(words.wall_s for _, words, _ in took),
        unit="s",
        ratio=statistics.median(ratios),
        reach=1.5,
        notes=(
            f"{len(took)} rounds: {min(ratios):.2f} to {max(ratios):.2f}",
            f"kuulo diarize alone {alone:.1f} s, {seconds / alone:.0f} times real time",
            f"faster-whisper {bench.model_note(WINDOW_TOKENS)}",
        ),
    )


def memory(engine: Diarizing, bench: Bench) -> Result:
    """The highest private memory (not of mapped files) of all processes together: of 3 h, and of 10 min."""
    short_s, long_s = MEMORY_S
    short, long = (private_peak(engine.command([repeated(bench, s)], "auto", bench.fresh()), bench) for s in MEMORY_S)
    return Result(
        measure=f"private memory of kuulo diarize, {minutes(long_s)}, {engine.name}",
        against=minutes(short_s),
        ours=long / 1e6,
        theirs=short / 1e6,
        unit="MB",
        ratio=long / short,
        reach=2.0,
        notes=("highest of all processes together",),
    )


def repeated(bench: Bench, seconds: int) -> Path:
    """A WAV file: the same ten minutes of two voices again and again."""
    path = bench.settings.folder / "conversations" / f"repeated {seconds} s.wav"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draw, block_s = random.Random(3), MEMORY_S[0]
        samples, _ = talk(Speaker(), draw, block_s, drawn_people(draw, 2))
        _write(path, [pcm(samples[: block_s * RATE])] * (seconds // block_s))
    return path


def pcm(samples: Any) -> Any:
    """From -1 to 1 -> 16 bits, as floats."""
    return np.clip(samples * 32768, -32768, 32767)


def private_peak(command: Sequence[str], bench: Bench) -> int:
    """Bytes. Raises RuntimeError when the command fails."""
    highest = 0
    with (bench.out / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=bench.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while process.poll() is None:
            highest = max(highest, sum(private(process.pid)))
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError((bench.out / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:])
    return highest


def private(pid: int) -> Iterator[int]:
    """RssAnon of a process and of all that it started, in bytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
        children = [Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii").split() for task in tasks]
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended meanwhile
    yield from (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))
    for child in (int(number) for numbers in children for number in numbers):
        yield from private(child)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter conversations")
    parser.add_argument("--model", action="append", default=[], metavar="ENGINE=PATH", help="the model of an engine")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent / "out")
    given = parser.parse_args()
    parts = given.parts or PARTS
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    bench = Bench(Settings(given.folder, quick=given.quick, rounds=1 if given.quick else 3))
    results = []
    for engine in able(bench, dict(pair.split("=", 1) for pair in given.model)):
        print(f"\n## {engine.name}\n", flush=True)
        if "accuracy" in parts:
            said = conversations(given.folder / "conversations", QUICK_S if given.quick else LENGTHS_S)
            print(accuracy_table(accuracy(engine, said)), flush=True)
        results += [measure(engine, bench) for measure in (cost, memory) if measure.__name__ in parts]
    print(f"\n{table(results)}")
    for result in results:
        print(f"  {result.measure}: {'; '.join(result.notes)}")
    print("\n".join(["", *(f"- {name}: {value}" for name, value in machine().items())]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
