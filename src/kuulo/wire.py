"""What the command line and a worker say to each other: JSON, one message to a line.

To the worker, on its standard input:

    task   first line: engine, model, options (once: the model is loaded once)
    clip   one recording that is decoded and ready; as many as there are, as they become ready
    forget id: nobody wants this clip any more. It ends as soon as the engine says something, with `file_failed`
    end    nothing more will come. End of input without it means that the parent has died: the worker stops at once

From the worker, on a private copy of its standard output (whatever the engine prints goes to standard error):

    hello      wire version, engine, its version, Python, versions of its packages
    ready      the model is loaded: device, compute type, load_ms, parallel (how many clips it wants at a time)
    language   id, language, confidence: detected, or as asked
    segment    id, segment (times in ms from the start of the clip)
    checkpoint id, at_ms, state: segments sent so far are final; a clip sent again with this state goes on from here
    progress   id, done_ms
    speech     id, turns: the answer of the task detect-speech
    turns      id, turns, voices, encoder: the answer of the task diarize, with speakers and, where the engine has them,
               their embeddings
    file_done  id, engine_ms
    file_failed id, what, do
    log        text
    fatal      what, looked_at, do: nothing can run (engine or model unusable)
    done       all clips were dealt with. Success is this event and never exit code 0 alone

Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

WIRE = 1


class WireError(ValueError):
    """A line is not a message of this protocol."""


@dataclass(frozen=True)
class Task:
    """What a worker is for. `options` has the common options, resolved, by their names in `options.py`;
    `raw` goes to the engine as it is (`--engine-option`)."""

    task: str
    engine: str
    model: str
    model_path: Optional[str]
    options: Dict[str, Any] = field(default_factory=dict)
    raw: Dict[str, Any] = field(default_factory=dict)
    wire: int = WIRE


@dataclass(frozen=True)
class Clip:
    """One decoded recording: `samples` float32 values (little endian, mono, 16 kHz) in the file `pcm`.

    `speech`: only these ranges (ms) hold speech; None when speech detection was not asked for.
    `parts`: the file holds several recordings with gaps between them; each part is (id, start_ms, end_ms) and
    events are sent for the parts' ids, on the parts' own clocks.
    `channels`: how many values each sample has, one after the other; for the engine `channels` alone more than one.
    `state`: go on from a checkpoint.
    `options`: of this clip alone, other values than the task's for options in the engine's `by_clip`."""

    id: str
    pcm: str
    samples: int
    speech: Optional[Tuple[Tuple[int, int], ...]] = None
    parts: Tuple[Tuple[str, int, int], ...] = ()
    state: Optional[Dict[str, Any]] = None
    channels: int = 1
    options: Optional[Dict[str, Any]] = None


def encode(kind: str, fields: Mapping[str, Any]) -> bytes:
    """One message as a line. Names that are not UTF-8 survive, as JSON escapes."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":")).encode("ascii") + b"\n"


def encode_task(task: Task) -> bytes:
    return encode("task", dataclasses.asdict(task))


def encode_clip(clip: Clip) -> bytes:
    return encode("clip", dataclasses.asdict(clip))


def encode_forget(id_: str) -> bytes:
    return encode("forget", {"id": id_})


def decode(line: bytes) -> Dict[str, Any]:
    """The message in `line`; raises WireError when it is none."""
    try:
        message = json.loads(line)
    except ValueError as error:
        raise WireError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise WireError(f"no type: {line[:80]!r}")
    return message


def task_from(message: Mapping[str, Any]) -> Task:
    """The Task in the first message; raises WireError for another message or another wire version."""
    if message["type"] != "task":
        raise WireError(f"expected a task, got {message['type']!r}")
    if message.get("wire") != WIRE:
        raise WireError(f"the parent speaks wire version {message.get('wire')}, this worker {WIRE}")
    names = {f.name for f in dataclasses.fields(Task)}
    return Task(**{k: v for k, v in message.items() if k in names})


def clip_from(message: Mapping[str, Any]) -> Clip:
    names = {f.name for f in dataclasses.fields(Clip)}
    known = {k: v for k, v in message.items() if k in names}
    speech = known.get("speech")
    known["speech"] = None if speech is None else tuple((int(a), int(b)) for a, b in speech)
    known["parts"] = tuple((str(i), int(a), int(b)) for i, a, b in known.get("parts", ()))
    return Clip(**known)
