"""Measures the memory of the engine pyannote on hours of sound, and prints a table in Markdown.

    python bench/pyannote_hours.py [SECONDS ...] [--raw JSON]

with the Python of its environment, where pyannote.audio is. All of it is run by `Session.diarize` on a recording that
is mapped from a file, as the worker does it. The networks alone are stand-ins that take no time (what networks need
depends on the batch, not on the recording): a sample's value says who speaks, at random, in turns of 1 to 8 s; a voice
has 256 numbers, as WeSpeaker's. So what is told is all that grows with a recording, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kuulo.engines import pyannote
from kuulo.runtimes.here import KEEP_MEMORY
from kuulo.wire import Task

RATE, LENGTHS_S = 16_000, (600, 3_600, 10_800)
CLASSES = 7
"""Nobody, 1, 2, 3, 1+2, 1+3, 2+3."""
LIKELY = (0.15, 0.26, 0.26, 0.26, 0.03, 0.02, 0.02)
VOICE = 256
FIELD, SHIFT = 991, 270
"""Samples that a frame of PyanNet sees, and from one to the next."""
STEP = 0.1
"""A class's number -> a sample's value."""
SAMPLE_S = 0.005


def recording(path: Path, seconds: int) -> Path:
    """Samples that say who speaks, float32, written piece by piece."""
    random = np.random.default_rng(seconds)
    left = seconds * RATE
    with path.open("wb") as file:
        while left:
            length = min(left, int(random.uniform(1, 8) * RATE))
            np.full(length, STEP * random.choice(CLASSES, p=LIKELY), "<f4").tofile(file)
            left -= length
    return path


def session(folder: Path, raw: dict[str, Any]) -> Any:
    """The engine on a pipeline of pyannote.audio's own classes, its networks' forward replaced."""
    import torch

    import speaker_models  # type: ignore[import-not-found, unused-ignore]

    torch.set_num_threads(1)
    speaker_models.pyannote_folder(folder, steps=0, voice=VOICE)
    made = pyannote.load(Task("diarize", pyannote.SPEC.name, "stand-ins", str(folder), {"device": "cpu"}, raw))
    hears, embeds = made._pipeline._segmentation.model, made._pipeline._embedding.model_
    random = torch.Generator().manual_seed(0)
    voices = torch.randn(CLASSES, VOICE, generator=random)

    def segment(sound: Any) -> Any:
        heard = (sound[:, 0, FIELD // 2 : -(FIELD // 2) : SHIFT] / STEP).round().long()
        return torch.nn.functional.one_hot(heard, CLASSES).float().log()

    def embed(sound: Any, weights: Any = None) -> Any:
        heard = (sound[:, 0, FIELD // 2 : -(FIELD // 2) : SHIFT] / STEP).round().long()
        spoken = torch.nn.functional.one_hot(heard, CLASSES).float()[:, : weights.shape[1]]
        shares = (spoken * weights[:, : spoken.shape[1], None]).sum(1)
        return torch.nn.functional.normalize(shares @ voices) + 0.01 * torch.randn(len(sound), VOICE, generator=random)

    hears.forward, embeds.forward = segment, embed
    return made


def private(process: int) -> int:
    """Bytes of a process that are of no file; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measure(seconds: int, raw: dict[str, Any], told: Any) -> None:
    """In a process of its own, whose memory nothing else has grown, and that another one looks at: a thread of this one
    would stand still where a library holds Python's lock."""
    with tempfile.TemporaryDirectory() as name:
        made = session(Path(name) / "model", raw)
        path = recording(Path(name) / "recording", seconds)
        made.diarize(np.fromfile(path, "<f4", 60 * RATE))  # what is loaded when it is first used
        told.send(private(os.getpid()))
        began = time.monotonic()
        found = made.diarize(np.memmap(path, "<f4", "r"))
        took = time.monotonic() - began
    # Any change of the turns shows in it; the times are in milliseconds.
    turns = json.dumps([[turn.start_ms, turn.end_ms, turn.speaker] for turn in found.turns])
    speakers = len({turn.speaker for turn in found.turns})
    told.send((took, speakers, len(found.turns), hashlib.sha256(turns.encode()).hexdigest()[:8]))


def watched(seconds: int, raw: dict[str, Any]) -> tuple[int, int, tuple[float, int, int, str]]:
    """The most that a recording took beside what was loaded, in bytes; what was loaded; what was found."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(seconds, raw, there))
    process.start()
    there.close()
    before, highest = here.recv(), 0
    while not here.poll(SAMPLE_S):
        highest = max(highest, private(process.pid or 0))
    found = here.recv()
    process.join()
    return highest - before, before, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="*", type=int, default=LENGTHS_S)
    parser.add_argument("--raw", type=json.loads, default={}, help="settings, as --speaker-option has them")
    given = parser.parse_args()
    os.environ.update(KEEP_MEMORY)  # as every worker has it
    print("| length | memory for it | loaded before | took | speakers | turns | digest of the turns |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for seconds in given.seconds:
        grown, before, (took, speakers, turns, digest) = watched(seconds, given.raw)
        cells = (f"{seconds / 60:.0f} min", f"{grown / 1e6:.0f} MB", f"{before / 1e6:.0f} MB", f"{took:.0f} s")
        print(f"| {' | '.join(cells)} | {speakers} | {turns} | {digest} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
