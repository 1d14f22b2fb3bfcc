"""Recordings: find them, look at their headers, decode them as a stream into 16 kHz mono samples.

Whatever FFmpeg's libraries read, through PyAV; no `ffmpeg` program is needed. PyAV and numpy are imported inside
functions, so that the command line starts quickly.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo.engines.base import SAMPLE_RATE
from kuulo.errors import InputFailed

MISSING_MS = 500
"""A recording that is shorter than its header says by more than this, and by more than 2 %, was cut short. (Encoders
add or leave out some tens of ms.)"""

SUFFIXES = frozenset(
    {
        ".3g2",
        ".3gp",
        ".aac",
        ".ac3",
        ".adts",
        ".aif",
        ".aifc",
        ".aiff",
        ".amr",
        ".ape",
        ".asf",
        ".au",
        ".avi",
        ".caf",
        ".dss",
        ".dv",
        ".eac3",
        ".f4v",
        ".flac",
        ".flv",
        ".gsm",
        ".m2ts",
        ".m4a",
        ".m4b",
        ".m4v",
        ".mka",
        ".mkv",
        ".mov",
        ".mp2",
        ".mp3",
        ".mp4",
        ".mpc",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".oga",
        ".ogg",
        ".ogv",
        ".opus",
        ".ra",
        ".rm",
        ".sph",
        ".spx",
        ".tak",
        ".ts",
        ".tta",
        ".voc",
        ".vob",
        ".w64",
        ".wav",
        ".wave",
        ".weba",
        ".webm",
        ".wma",
        ".wmv",
        ".wv",
    }
)
"""What counts as a recording in a folder. A file that is named is always tried."""


@dataclass(frozen=True)
class Recording:
    """A file to transcribe, and the folder argument that it was found under."""

    path: Path
    base: Path | None = None


@dataclass(frozen=True)
class Found:
    """Recordings, and the arguments that gave none, with the reason."""

    recordings: list[Recording] = field(default_factory=list)
    failures: list[tuple[str, InputFailed]] = field(default_factory=list)


@dataclass(frozen=True)
class Probe:
    """What a header says. `duration_ms` is None where it does not say."""

    duration_ms: int | None
    sample_rate: int
    channels: int
    codec: str
    container: str
    streams: int


@dataclass(frozen=True)
class Decoded:
    """`samples` float32 values were written. The first is `offset_ms` into the recording. `warning` says where the
    recording broke off or was damaged, None when it was read whole."""

    samples: int
    offset_ms: int
    complete: bool = True
    warning: str | None = None

    @property
    def duration_ms(self) -> int:
        return self.samples * 1000 // SAMPLE_RATE


def find(paths: Sequence[str]) -> Found:
    """The recordings that arguments name: files as they are, folders with everything below them, - as it is."""
    found = Found()
    seen: set[Path] = set()
    for text in paths:
        path = Path(text)
        if text == "-":
            found.recordings.append(Recording(path))
        elif path.is_dir():
            below = [Recording(p, path) for p in sorted(_below(path), key=os.fsencode)]
            if not below:
                error = InputFailed("no recording is in this folder", do="see `kuulo formats` or name the files")
                found.failures.append((text, error))
            found.recordings.extend(r for r in below if r.path not in seen)
            seen.update(r.path for r in below)
        elif not os.path.lexists(path):
            found.failures.append((text, InputFailed("there is no such file or folder")))
        elif path not in seen:
            seen.add(path)
            found.recordings.append(Recording(path))
    return found


def _below(folder: Path) -> Iterator[Path]:
    """Files with a recording's suffix; hidden ones are left out and linked folders are not followed."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(where, name)


def check_file(path: Path) -> None:
    """Raises InputFailed for what cannot be a recording, without opening anything that could block."""
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise InputFailed("there is no such file") from error
    except OSError as error:
        raise InputFailed(f"it cannot be looked at: {error.strerror}") from error
    if stat.S_ISDIR(facts.st_mode):
        raise InputFailed("it is a folder")
    if not stat.S_ISREG(facts.st_mode):
        raise InputFailed("it is no ordinary file (a pipe, a socket or a device)", do="use - for standard input")
    if not os.access(path, os.R_OK):
        raise InputFailed("you may not read it", do="check its permissions")
    if facts.st_size == 0:
        raise InputFailed("the file is empty")


def sha256(path: Path) -> str:
    """Digest of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """(container, its first audio stream). Raises InputFailed."""
    import av
    import av.logging

    av.logging.set_level(None)
    check_file(path)
    try:
        # A file object: FFmpeg would take a name such as `concat:a|b` or one with bytes that are no text for a URL.
        file = path.open("rb")
    except OSError as error:
        raise InputFailed(f"it cannot be opened: {error.strerror}") from error
    with file:
        try:
            container = av.open(file, mode="r", metadata_errors="ignore")
        except (av.FFmpegError, ValueError, OSError) as error:
            raise InputFailed("it is not audio or video that FFmpeg's libraries can read") from error
        with container:
            streams = container.streams.audio
            if not streams:
                raise InputFailed("it has no sound (no audio stream)")
            yield container, streams[0]


def probe(path: Path) -> Probe:
    """What the header says. Raises InputFailed."""
    with _opened(path) as (container, stream):
        context = stream.codec_context
        if not stream.sample_rate or not context.channels:
            raise InputFailed("its header names no sample rate or no channels", do="repair or convert the file")
        length = None
        if stream.duration is not None and stream.time_base is not None:
            length = round(stream.duration * stream.time_base * 1000)
        elif container.duration is not None:
            length = container.duration // 1000
        return Probe(
            length if length is not None and length >= 0 else None,
            stream.sample_rate,
            context.channels,
            context.name,
            container.format.name,
            len(container.streams),
        )


def decode(
    path: Path,
    pcm: Path,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    on_progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Decoded:
    """Writes the recording from `from_ms` to `to_ms` into the file `pcm`: raw float32, little endian, mono, 16 kHz.

    In constant memory. Sound is taken as continuous, as FFmpeg does by default: gaps in time stamps are closed. It is
    read from its beginning even when `from_ms` is late, since seeking in formats without an index (mp3) gives wrong
    times. What cannot be decoded in the middle is left out, with a warning. Raises InputFailed when nothing is left,
    and OSError when `pcm` cannot be written."""
    with _opened(path) as (container, stream), pcm.open("wb", buffering=1 << 20) as out:
        if not stream.sample_rate or not stream.codec_context.channels:
            raise InputFailed("its header names no sample rate or no channels", do="repair or convert the file")
        reading = _Reading(path, container, stream)
        first = (from_ms or 0) * SAMPLE_RATE // 1000
        last = to_ms * SAMPLE_RATE // 1000 if to_ms is not None else None
        at = written = 0
        for block in reading.blocks():
            begin, end = max(first - at, 0), len(block) if last is None else min(len(block), last - at)
            if begin < end:
                out.write(block[begin:end].tobytes())
                written += end - begin
            at += len(block)
            if on_progress:
                on_progress(at * 1000 // SAMPLE_RATE)
            if (last is not None and at >= last) or (stop and stop.is_set()):
                break
        else:
            reading.whole = True
    if at == 0:
        raise InputFailed("it holds no sound", do="the file may be damaged, or hold no samples")
    if written == 0:
        raise InputFailed(f"it ends before --from: it is {_clock(at * 1000 // SAMPLE_RATE)} long")
    warning = reading.warning(at * 1000 // SAMPLE_RATE)
    return Decoded(written, (from_ms or 0), complete=warning is None, warning=warning)


class _Reading:
    """The samples of a stream, and what went wrong on the way."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self._container = container
        self._stream = stream
        self._ms = 0
        self._broken_at: int | None = None
        self._bad_packets = 0
        self.whole = False
        self._promised_ms = _promised_ms(path, container, stream)

    def blocks(self) -> Iterator[Any]:
        """numpy float32 arrays (n,), n >= 1."""
        from av.audio.resampler import AudioResampler

        # 16 bits and then float, as Whisper was trained and as its implementations do: equal samples, equal words.
        resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for frame in self._frames():
            frame.pts = None
            for made in resampler.resample(frame):
                yield from self._block(made)
        for made in resampler.resample(None):
            yield from self._block(made)

    def _block(self, frame: Any) -> Iterator[Any]:
        block = frame.to_ndarray().reshape(-1).astype("<f4") / 32768.0
        if len(block):
            self._ms += len(block) * 1000 // SAMPLE_RATE
            yield block

    def _frames(self) -> Iterator[Any]:
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError):
                self._broke()
                return
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                self._broke()
                self._bad_packets += 1
                continue
            yield from frames

    def _broke(self) -> None:
        if self._broken_at is None:
            self._broken_at = self._ms

    def warning(self, read_ms: int) -> str | None:
        """What a person should know of a recording that was not whole."""
        promised = self._promised_ms if self.whole else None
        if promised is not None and promised - read_ms > max(MISSING_MS, promised // 50):
            return f"it ends at {_clock(read_ms)}, though its header promises {_clock(promised)}"
        if self._bad_packets > 0 and self._broken_at is not None and self._broken_at < read_ms - 200:
            return f"it is damaged from {_clock(self._broken_at)} on: {self._bad_packets} parts could not be read"
        if self._broken_at is not None:
            return f"it is broken off at {_clock(self._broken_at)}"
        return None


def _promised_ms(path: Path, container: Any, stream: Any) -> int | None:
    """How long the header says that the recording is; None where it does not say."""
    if "wav" in container.format.name:
        # FFmpeg believes the file's size instead, and so takes a file that was cut short for whole.
        promised = _wav_promise(path)
        if promised is not None:
            return promised
    if stream.duration is None or stream.time_base is None:
        return None
    return int(stream.duration * stream.time_base * 1000)


def _wav_promise(path: Path) -> int | None:
    """The length in a RIFF file's `data` chunk, in ms; None when it says nothing, as streams' headers do."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    at = head.find(b"data", 12)
    bytes_per_second = int.from_bytes(head[28:32], "little")
    if head[:4] != b"RIFF" or at < 0 or len(head) < at + 8 or not bytes_per_second:
        return None
    size = int.from_bytes(head[at + 4 : at + 8], "little")
    return None if size in (0, 0x7FFFFFFF, 0xFFFFFFFF) else size * 1000 // bytes_per_second


def _clock(ms: int) -> str:
    seconds = ms / 1000
    return f"{int(seconds // 3600)}:{int(seconds // 60) % 60:02}:{seconds % 60:04.1f}"
