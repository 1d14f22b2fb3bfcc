"""What an engine owes: a SPEC, and a `load` that gives a Session.

An engine is a module (see `pocketsphinx.py` for the smallest). At its top it imports the standard library and this
file alone, since the command line reads its SPEC without having the engine; heavy imports are inside `load`.
Parses on Python 3.9.

    SPEC: EngineSpec
    def refuse(options: Mapping[str, Any]) -> Dict[str, str]
        Options whose *values* it cannot honour: {option: why}. `options` holds those that were given by somebody,
        by their common names, plus "model" (its name) and "multilingual" (True, False, or None when not known).
    def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str
        The exact native call that these resolved options become, as Python or shell text, for people to read.
    def load(task: Task) -> Session
        Load the model. Raises Unusable when it cannot.

and, where the engine has a program that people type:

    def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine
        The program's command line for these resolved options; AUDIO stands for the recording.

An engine of the task "chat" has no `native` and no `load`: it is a server that speaks OpenAI's API, or an address that
somebody else's server has. Its SPEC.options are those of `kuulo.llm.options`, and it has

    def serve(task: ServerTask) -> ServerCommand
        What starts the server. Nothing is run or written here. Raises Unusable.

`contracts/test_engines.py` runs every engine through the same tests; `kuulo/testing.py` has them for engines of other
packages, which an entry point in the group `kuulo.engines` brings in (docs/adding-an-engine.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from kuulo.transcript import Segment, Turn

SAMPLE_RATE = 16_000
"""Hz; every engine here takes 16 kHz mono float32 from -1 to 1."""


@dataclass(frozen=True)
class Native:
    """How an engine says a common option: its own name, and what differs."""

    name: str
    note: str = ""


AUDIO = "AUDIO"
"""Stands for the recording in a command line."""


@dataclass(frozen=True)
class CommandLine:
    """An engine's own program and its arguments, none when it cannot do what was asked, and what is different or
    missing, a sentence each."""

    arguments: Tuple[str, ...]
    notes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineSpec:
    """What can be known of an engine without importing it.

    `package`: distribution whose version is the engine's; `module`: top-level module that is there when it is
    installed; `install`: the words after `pip install` that bring it. `options`: common option -> Native, just
    those that it honours. `model_formats`: what its files are called in the store, best first; empty when it
    brings its own model. `section_ms`: the worker hands it at most this much audio at a time, cut at a quiet
    place (None: it reads a whole recording and reports as it goes). `languages`: None for Whisper's list.
    `differs`: what it does otherwise than the other engines, whatever the options, a sentence each. `words_need`: the
    raw option without which it has no words' times. `files`: the raw options, with underscores, that name a file or a
    folder of this machine. `voices`: of one that tells speakers apart, whether it gives their embeddings, so that a
    roster's can be compared with them. `by_clip`: the options that a loaded model takes anew for each clip
    (`Session.told`); others need it loaded anew. `speeds`: published figures, in times real time, where there
    are any: `cuda` and `cuda batched` of the model large on a GPU, `cpu` and `cpu batched` (batches of 8) of the
    model small on eight cores; of an engine that tells speakers apart, whatever its model. Of the task "chat":
    `programs`, any of which on the PATH makes it installed too; `environment`, the engine whose environment serves this
    one; `schema_as`: see llm/endpoint.py; `same_seed_same_text`: whether it is so on the same machine, one question at
    a time."""

    name: str
    summary: str
    url: str
    licence: str
    package: str
    module: str
    install: str
    tasks: Tuple[str, ...]
    devices: Tuple[str, ...]
    options: Mapping[str, Native]
    model_formats: Tuple[str, ...] = ()
    section_ms: Optional[int] = None
    languages: Optional[Tuple[str, ...]] = None
    kind: str = "python"
    packages: Tuple[str, ...] = ()
    quality_note: str = ""
    differs: Tuple[str, ...] = ()
    words_need: Optional[str] = None
    files: Tuple[str, ...] = ()
    voices: bool = False
    by_clip: Tuple[str, ...] = ()
    speeds: Mapping[str, float] = field(default_factory=dict)
    programs: Tuple[str, ...] = ()
    environment: str = ""
    schema_as: str = "json_schema"
    same_seed_same_text: bool = False

    @property
    def home(self) -> str:
        """The engine in whose environment it is."""
        return self.environment or self.name

    def files_of(self, raw: Mapping[str, Any]) -> Dict[str, str]:
        """The raw options that are `files`, with what is relative, or begins with ~, made absolute: an engine stands
        elsewhere than who names them."""
        return {
            name: str(Path(value).expanduser().absolute())
            for name, value in raw.items()
            if isinstance(value, str) and name.replace("-", "_").lstrip("_") in self.files
        }


@dataclass(frozen=True)
class ServerTask:
    """A server that is wanted.

    `options`: those of llm/options.py that the SPEC has, resolved: `context`, `parallel` and `threads` are numbers.
    `python`: an interpreter that can import the engine, None where only a program was found. `folders`: where its
    programs are, looked into in this order. `socket`: a path ending in `.sock`, for those that can; `port`: of
    127.0.0.1, for the others. `key`: what the server has to ask for. `folder`: private, for files that it needs.
    `image`: the engine is in a container image, and `python` in it: programs are started by `python -m`."""

    model_path: str
    model_name: str
    options: Mapping[str, Any]
    raw: Mapping[str, Any] = field(default_factory=dict)
    python: Optional[str] = None
    folders: Tuple[str, ...] = ()
    socket: str = ""
    port: int = 0
    key: str = ""
    folder: str = ""
    image: bool = False


@dataclass(frozen=True)
class ServerCommand:
    """What starts a server. `environ` is added to its variables; `files`: name in the private folder -> text, written
    0600 before. `on_socket`: it listens at the socket, else at the port. `ready_path`: what answers 200 when the model
    is loaded. `secret`: names in `environ` whose values are shown to nobody."""

    argv: Tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    on_socket: bool = True
    ready_path: str = "/v1/models"
    secret: Tuple[str, ...] = ()


class Unusable(Exception):
    """The engine or its model cannot be used at all. `do` says what helps."""

    def __init__(self, what: str, do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.do = do


class Refused(Unusable):
    """What was asked cannot be honoured by this engine as it is installed here."""


@dataclass(frozen=True)
class Language:
    """The language of a clip: as asked (confidence None) or as detected (probability from 0 to 1)."""

    code: str
    confidence: Optional[float] = None


@dataclass(frozen=True)
class Checkpoint:
    """All segments so far are final, up to `at_ms`; `transcribe` called again with `state` goes on from there."""

    at_ms: int
    state: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Audio up to `done_ms` has been dealt with."""

    done_ms: int


@dataclass(frozen=True)
class Diarization:
    """Who speaks when: the answer of `diarize`, which a session for the task "diarize" has instead of `transcribe`.

    `turns` in order of their starts, in ms from samples[0]; they may overlap. `voices`: an embedding of each speaker,
    where the engine has one; `encoder` says what made them, ENGINE:DIGEST: those of equal encoders can be compared by
    their cosine distance."""

    turns: List[Turn]
    voices: Dict[str, List[float]] = field(default_factory=dict)
    encoder: str = ""


Said = Union[Language, Segment, Checkpoint, Progress]


class Session:
    """A loaded model. Subclasses set what `ready` reports and write `transcribe`. `section_ms`, when set, replaces the
    SPEC's.

    `parallel`: into how many threads the worker may put `transcribe` calls at the same time. An engine that sets
    more than 1 joins their work into batches itself."""

    device: str = "cpu"
    compute_type: Optional[str] = None
    parallel: int = 1
    section_ms: Optional[int] = None

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        """What is said in `samples` (numpy float32, shape (n,), 16 kHz, -1 to 1; n >= 1), in order of time.

        Yields one Language before the first Segment; Segments with times in ms from samples[0]; Checkpoints and
        Progress where it can. `state`: from an earlier Checkpoint of the same samples. Raises any exception for
        a failure of this clip alone."""
        raise NotImplementedError

    def told(self, options: Mapping[str, Any]) -> Session:
        """The same loaded model with other values for options in the SPEC's `by_clip`. This session stays as it is."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what `load` took."""
