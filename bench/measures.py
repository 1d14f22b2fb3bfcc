"""What is measured, and the ratio that each is to reach. `MEASURES` is the table."""

from __future__ import annotations

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import models
import speech
from processes import Took, rounds, run

BENCH = Path(__file__).resolve().parent
COMPUTE_TYPE = "int8"

CLIP_TOKENS, CLIP_SECONDS = 20, 2.9
"""What the reciting model says to a clip of 3 to 8 s: 3 to 4 tokens a second, as people speak."""

WINDOW_TOKENS, WINDOW_SECONDS = 100, 28.0
"""... and to a full window of 30 s."""


@dataclass(frozen=True)
class Settings:
    """How much is measured. `folder` holds models and recordings, kept from run to run."""

    folder: Path
    quick: bool = False
    size: str = "tiny"
    beam_size: int = 5
    rounds: int = 3
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    @property
    def clips(self) -> int:
        return 40 if self.quick else 200

    @property
    def long_s(self) -> int:
        return 60 if self.quick else 300

    @property
    def hour_s(self) -> int:
        return 300 if self.quick else 3600

    @property
    def memory_s(self) -> tuple[int, int]:
        return (120, 3600) if self.quick else (600, 36_000)


@dataclass(frozen=True)
class Result:
    """One line of the table. `ours` and `theirs` are in `unit`, medians; `ratio` is the median of the rounds' ratios;
    `notes` are facts that belong to the number."""

    measure: str
    against: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    reach: float
    notes: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        return self.ratio <= self.reach


class Bench:
    """Recordings, models and the programs' commands. Everything is made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.out = settings.folder / "run"
        shutil.rmtree(self.out, ignore_errors=True)
        for folder in (self.out, self.out / "home", settings.folder / "models"):
            folder.mkdir(parents=True, exist_ok=True)
        self._runs = 0

    @property
    def kuulo(self) -> list[str]:
        script = Path(sys.executable).with_name("kuulo")
        return [str(script)] if script.exists() else [sys.executable, "-m", "kuulo"]

    @cached_property
    def environ(self) -> dict[str, str]:
        """An empty home, no settings, no network, for everybody alike."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KUULO_", "XDG_", "HF_"))}
        return {**kept, "HOME": str(self.out / "home"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}

    @cached_property
    def clips(self) -> list[Path]:
        return speech.clips(self.settings.folder / f"clips {speech.source()}", self.settings.clips)

    def reciting(self, tokens: int, seconds: float) -> Path:
        return models.reciting(self.settings.folder / "models", self.settings.size, tokens, seconds)

    def recording(self, seconds: int) -> Path:
        return speech.recording(self.settings.folder / f"recordings {speech.source()}", seconds)

    def run(self, command: Sequence[str], *, memory: bool = False) -> Took:
        return run(command, self.environ, self.out / "log.txt", memory=memory)

    def fresh(self) -> Path:
        """A name for an output folder that is not there."""
        self._runs += 1
        return self.out / f"results {self._runs}"

    def transcribe(self, recordings: Sequence[Path], output: Path, *options: str) -> list[str]:
        """The command that does it with Kuulo."""
        return [*self.kuulo, "transcribe", *map(str, recordings), "-o", str(output), "-f", "json", "--quiet", *options]

    def with_model(self, model: Path, *options: str) -> list[str]:
        """Kuulo's options for faster-whisper with the settings' model, as `theirs` has them."""
        return [
            "--engine", "faster-whisper", "--model", str(model), "--language", "en", "--device", "cpu",
            "--compute-type", COMPUTE_TYPE, "--beam-size", str(self.settings.beam_size), "--temperature", "0",
            "--no-condition-on-previous-text", *options,
        ]  # fmt: skip

    def theirs(self, model: Path, recordings: Sequence[Path], output: Path) -> list[str]:
        """The command that does it with whisper-ctranslate2."""
        return [
            str(Path(sys.executable).with_name("whisper-ctranslate2")), *map(str, recordings),
            "--model_directory", str(model), "--language", "en", "--device", "cpu",
            "--threads", str(self.settings.threads), "--compute_type", COMPUTE_TYPE,
            "--beam_size", str(self.settings.beam_size), "--temperature", "0",
            "--temperature_increment_on_fallback", "None", "--condition_on_previous_text", "False",
            "--verbose", "False", "-f", "json", "-o", str(output),
        ]  # fmt: skip

    def ours_took(self, model: Path, recordings: Sequence[Path], *options: str) -> Took:
        output = self.fresh()
        took = self.run(self.transcribe(recordings, output, *self.with_model(model, *options)))
        said = texts(output)
        assert len(said) == len(recordings), f"{len(recordings)} recordings, {len(said)} transcripts"
        assert all(said.values()), "a transcript is empty"
        shutil.rmtree(output)
        return took

    def theirs_took(self, model: Path, recordings: Sequence[Path]) -> Took:
        output = self.fresh()
        took = self.run(self.theirs(model, recordings, output))
        assert len(list(output.glob("*.json"))) == len(recordings), "whisper-ctranslate2 left some out"
        shutil.rmtree(output)
        return took

    def compare(self, measure: str, reach: float, took: Sequence[tuple[Took, Took]], *notes: str) -> Result:
        """A Result of (ours, theirs) for each round. The ratio is of wall time."""
        ours, theirs = ([pair[side] for pair in took] for side in (0, 1))
        ratios = [a.wall_s / b.wall_s for a, b in took]
        cpu = statistics.median(a.cpu_s / b.cpu_s for a, b in took)
        spread = f"{len(took)} rounds: {min(ratios):.2f} to {max(ratios):.2f}; CPU time {cpu:.2f}"
        return Result(
            measure=measure,
            against="whisper-ctranslate2",
            ours=statistics.median(t.wall_s for t in ours),
            theirs=statistics.median(t.wall_s for t in theirs),
            unit="s",
            ratio=statistics.median(ratios),
            reach=reach,
            notes=(spread, *notes),
        )

    def model_note(self, tokens: int) -> str:
        size, beam = self.settings.size, self.settings.beam_size
        return f"{size}, {COMPUTE_TYPE}, beam {beam}, {tokens} tokens a window"


def one_file(bench: Bench) -> list[Result]:
    """One recording, the whole process, against whisper-ctranslate2."""
    model = bench.reciting(WINDOW_TOKENS, WINDOW_SECONDS)
    recording = bench.recording(bench.settings.long_s)
    took = rounds(
        bench.settings.rounds,
        lambda: bench.ours_took(model, [recording]),
        lambda: bench.theirs_took(model, [recording]),
    )
    pairs = [(ours, theirs) for ours, theirs in took]
    return [bench.compare(f"one file of {minutes(bench.settings.long_s)}", 1.0, pairs, bench.model_note(WINDOW_TOKENS))]


def many_clips(bench: Bench) -> list[Result]:
    """Many short recordings in one call, alone in their windows and packed, against whisper-ctranslate2."""
    short, full = bench.reciting(CLIP_TOKENS, CLIP_SECONDS), bench.reciting(WINDOW_TOKENS, WINDOW_SECONDS)
    clips = bench.clips
    took = rounds(
        bench.settings.rounds,
        lambda: bench.ours_took(short, clips),
        # A packed window holds about five clips, so the model says five times as much in it.
        lambda: bench.ours_took(full, clips, "--pack"),
        lambda: bench.theirs_took(short, clips),
    )
    same, changed = words(bench)
    alone = [(ours, theirs) for ours, _, theirs in took]
    packed = [(ours, theirs) for _, ours, theirs in took]
    name = f"{len(clips)} clips of 3 to 8 s"
    return [
        bench.compare(name, 0.6, alone, bench.model_note(CLIP_TOKENS)),
        same,
        bench.compare(f"{name}, --pack", 0.35, packed, bench.model_note(WINDOW_TOKENS), changed),
    ]


def hearing(bench: Bench) -> list[Result]:
    """What takes the time when a model really hears: as many words as are said. By the miniature, which is so small
    that most of it is what surrounds a model."""
    model = models.miniature(bench.settings.folder / "models")
    results = []
    recording = bench.recording(bench.settings.long_s)
    for title, recordings in (
        (f"one file of {minutes(bench.settings.long_s)}", [recording]),
        (f"{len(bench.clips)} clips of 3 to 8 s", bench.clips),
    ):
        took = rounds(
            bench.settings.rounds,
            functools.partial(bench.ours_took, model, recordings),
            functools.partial(bench.theirs_took, model, recordings),
        )
        pairs = [(ours, theirs) for ours, theirs in took]
        note = f"miniature, {COMPUTE_TYPE}, beam {bench.settings.beam_size}, speech from {speech.source()}"
        results.append(bench.compare(f"{title}, heard", 1.0, pairs, note))
    return results


def words(bench: Bench) -> tuple[Result, str]:
    """What becomes of the words, heard by the miniature: in one batch against faster-whisper one by one; packed."""
    import jiwer

    model, clips = models.miniature(bench.settings.folder / "models"), bench.clips
    alone, packed = bench.fresh(), bench.fresh()
    bench.run(bench.transcribe(clips, alone, *bench.with_model(model)))
    bench.run(bench.transcribe(clips, packed, *bench.with_model(model, "--pack")))
    command = [sys.executable, str(BENCH / "one_by_one.py"), str(model), str(bench.settings.beam_size), COMPUTE_TYPE]
    done = subprocess.run([*command, *map(str, clips)], env=bench.environ, capture_output=True, text=True, check=True)
    single = {Path(name).stem: text.split() for name, text in json.loads(done.stdout).items()}
    batch = {name: text.split() for name, text in texts(alone).items()}
    repacked = {name: text.split() for name, text in texts(packed).items()}
    differing = [name for name in single if single[name] != batch.get(name)]
    names = [name for name in single if single[name]]
    rate = jiwer.wer([" ".join(single[n]) for n in names], [" ".join(repacked.get(n, [])) for n in names])
    same = Result(
        measure="... whose words differ from one by one",
        against="all clips, by faster-whisper itself",
        ours=len(differing),
        theirs=len(single),
        unit="clips",
        ratio=len(differing) / len(single),
        reach=0.0,
        notes=(f"heard by the miniature, {COMPUTE_TYPE}, speech from {speech.source()}", *differing[:5]),
    )
    return same, f"words changed by packing: {rate:.1%} (WER against one by one, miniature)"


def around_engine(bench: Bench) -> list[Result]:
    """What Kuulo adds to the engine's own calls, loading among them."""
    model = bench.reciting(WINDOW_TOKENS, WINDOW_SECONDS)
    output = bench.fresh()
    took = bench.run(bench.transcribe([bench.recording(bench.settings.hour_s)], output, *bench.with_model(model)))
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    engine = (report["load_ms"] + sum(file["engine_ms"] for file in report["files"])) / 1000
    shutil.rmtree(output)
    around = took.wall_s - engine
    return [
        Result(
            measure=f"time around the engine, {minutes(bench.settings.hour_s)} of audio",
            against="the engine's own calls",
            ours=around,
            theirs=engine,
            unit="s",
            ratio=around / engine,
            reach=0.03,
            notes=(f"loading {report['load_ms'] / 1000:.1f} s of it", bench.model_note(WINDOW_TOKENS)),
        )
    ]


def startup(bench: Bench) -> list[Result]:
    """`kuulo --help` against an interpreter that imports click."""
    kuulo, click = [*bench.kuulo, "--help"], [sys.executable, "-c", "import click"]
    bench.run(kuulo)
    bench.run(click)
    took = rounds(11, lambda: bench.run(kuulo), lambda: bench.run(click))
    ratios = [ours.wall_s / theirs.wall_s for ours, theirs in took]
    return [
        Result(
            measure="kuulo --help",
            against='python -c "import click"',
            ours=statistics.median(ours.wall_s for ours, _ in took) * 1000,
            theirs=statistics.median(theirs.wall_s for _, theirs in took) * 1000,
            unit="ms",
            ratio=statistics.median(ratios),
            reach=2.0,
            notes=(f"{len(took)} rounds: {min(ratios):.2f} to {max(ratios):.2f}",),
        )
    ]


def memory(bench: Bench) -> list[Result]:
    """The processes' memory with an engine that hears nothing, on a long recording against a short one."""
    short_s, long_s = bench.settings.memory_s
    peak = {}
    for seconds in (short_s, long_s):
        recording, output = bench.recording(seconds), bench.fresh()
        took = bench.run(bench.transcribe([recording], output, "--engine", "null"), memory=True)
        assert texts(output), "nothing was transcribed"
        shutil.rmtree(output)
        if seconds > 3600:
            recording.unlink()  # more than 1 GB
        peak[seconds] = took.peak_bytes / 1e6
    return [
        Result(
            measure=f"peak memory of everything but the engine, {minutes(long_s)}",
            against=f"{minutes(short_s)}",
            ours=peak[long_s],
            theirs=peak[short_s],
            unit="MB",
            ratio=peak[long_s] / peak[short_s],
            reach=1.2,
            notes=("highest resident memory of each process, added",),
        )
    ]


def texts(output: Path) -> dict[str, str]:
    """Kuulo's transcripts in a folder: {name without extension: text}."""
    found = {}
    for path in sorted(output.glob("*.json")):
        if path.name != "report.json":
            master: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found[path.stem] = "".join(segment["text"] for segment in master["segments"])
    return found


def minutes(seconds: int) -> str:
    """1 h, 5 min"""
    return f"{seconds // 3600} h" if seconds % 3600 == 0 else f"{seconds // 60} min"


MEASURES: dict[str, Callable[[Bench], list[Result]]] = {
    "startup": startup,
    "one-file": one_file,
    "clips": many_clips,
    "hearing": hearing,
    "around": around_engine,
    "memory": memory,
}
"""Name on the command line -> what measures it, quick ones first."""
