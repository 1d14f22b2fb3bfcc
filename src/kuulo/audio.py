"""Recordings: find them, look at their headers, decode them as a stream into 16 kHz mono samples.

Whatever FFmpeg's libraries read, through PyAV; no `ffmpeg` program is needed. PyAV and numpy are imported inside
functions, so that the command line starts quickly.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from kuulo.engines.base import SAMPLE_RATE
from kuulo.errors import InputFailed

if TYPE_CHECKING:
    from kuulo.parts import Part

MISSING_MS = 500
"""A recording that is shorter than its header says by more than this, and by more than 2 %, was cut short. (Encoders
add or leave out some tens of ms.)"""

# fmt: off
SUFFIXES = frozenset({
    ".3g2", ".3ga", ".3gp", ".aac", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au",
    ".avi", ".awb", ".bwf", ".caf", ".dss", ".dts", ".dv", ".eac3", ".f4v", ".flac", ".flv", ".gsm", ".m2ts",
    ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpa", ".mpc", ".mpeg", ".mpg", ".mts",
    ".mxf", ".oga", ".ogg", ".ogv", ".ogx", ".opus", ".qcp", ".qt", ".ra", ".rf64", ".rm", ".shn", ".snd", ".sph",
    ".spx", ".tak", ".ts", ".tta", ".vob", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv", ".wv",
})
# fmt: on
"""What counts as a recording in a folder. A file that is named is always tried."""

STREAM_LENGTHS = frozenset({"aiff", "ape", "au", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "tta", "wv"})
CONTAINER_LENGTHS = frozenset({"flv", "matroska,webm"})
"""Formats (FFmpeg's names) whose header says how long the sound is, or how long the longest stream is. For others
FFmpeg takes the file's size for whole, or guesses from the first seconds' bit rate, which proves nothing."""

PCM_TAGS = frozenset({1, 3, 6, 7, 0xFFFE})
"""WAV formats in which every sample takes the same space: integers, floats, A-law, mu-law, extensible."""


class EndsBefore(InputFailed):
    """Nothing was decoded, since the recording is shorter than where decoding was to begin."""


@dataclass(frozen=True)
class Recording:
    """A file to transcribe, and the folder argument that it was found under. `stem`: what its results are called, where
    that is decided already. `part`: hear no more of it than this. `begun`: an earlier life of the same run has begun
    it, so that its journal counts, whatever --existing says."""

    path: Path
    base: Path | None = None
    stem: PurePath | None = None
    part: Part | None = None
    begun: bool = False


@dataclass(frozen=True)
class Found:
    """Recordings, and the arguments that gave none, with the reason."""

    recordings: list[Recording] = field(default_factory=list)
    failures: list[tuple[str, InputFailed]] = field(default_factory=list)


@dataclass(frozen=True)
class Probe:
    """What a header says. `duration_ms` is None where it does not say, and FFmpeg's guess where it has no exact
    length (mp3 and aac without a count of frames)."""

    duration_ms: int | None
    sample_rate: int
    channels: int
    codec: str
    container: str
    streams: int


@dataclass(frozen=True)
class Decoded:
    """`samples` float32 values were written. The first is `offset_ms` into the recording. `warning` says where the
    recording broke off or was damaged. Not `complete`: there is a warning, or decoding was told to stop."""

    samples: int
    offset_ms: int
    complete: bool = True
    warning: str | None = None
    channels: int = 1

    @property
    def duration_ms(self) -> int:
        return self.samples * 1000 // SAMPLE_RATE


def find(paths: Sequence[str]) -> Found:
    """The recordings that arguments name: files as they are, folders with everything below them, - as it is."""
    found = Found()
    seen: set[Path] = set()
    for text in paths:
        path = Path(text)
        if path in seen:
            continue
        try:
            below = _below(path, found) if text != "-" and stat.S_ISDIR(path.stat().st_mode) else [Recording(path)]
        except (FileNotFoundError, NotADirectoryError):
            found.failures.append((text, InputFailed("there is no such file or folder")))
        except OSError as error:
            found.failures.append((text, _hidden(error)))
        else:
            found.recordings.extend(r for r in below if r.path not in seen)
            seen.update(r.path for r in below)
    return found


def _below(folder: Path, found: Found) -> list[Recording]:
    """Files with a recording's suffix; hidden ones are left out and linked folders are not followed. Folders that
    cannot be looked into, or a folder without recordings, become failures of `found`."""
    errors: list[OSError] = []
    paths = []
    for where, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = [f for f in folders if not f.startswith(".")]
        paths += [Path(where, n) for n in files if not n.startswith(".") and Path(n).suffix.lower() in SUFFIXES]
    found.failures.extend((str(error.filename), _hidden(error)) for error in errors)
    if not paths and not errors:
        nothing = InputFailed(
            "no recording is in this folder",
            looked_at="files below it with the endings of sound and film (.wav .mp3 .m4a .mp4 ...)",
            do="name a file itself: then it is tried, whatever its ending",
        )
        found.failures.append((str(folder), nothing))
    return [Recording(path, folder) for path in sorted(paths, key=os.fsencode)]


def _hidden(error: OSError) -> InputFailed:
    return InputFailed(f"it cannot be looked at: {error.strerror}", do="check its name and permissions")


def check_file(path: Path) -> None:
    """Raises InputFailed for what cannot be a recording, without opening anything that could block."""
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise InputFailed("there is no such file") from error
    except OSError as error:
        raise _hidden(error) from error
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
            # No protocols: a playlist must neither open connections nor other files.
            options = {"protocol_whitelist": "none"}
            container = av.open(file, mode="r", options=options, metadata_errors="ignore")
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
    stop: threading.Event | None = None,
    layout: str = "mono",
) -> Decoded:
    """Writes the recording from `from_ms` to `to_ms` into the file `pcm`: raw float32, little endian, mono, 16 kHz.
    With the layout OWN all its channels, a value of each in turn.

    In constant memory. Sound is taken as continuous, as FFmpeg does by default: gaps in time stamps are closed. It is
    read from its beginning even when `from_ms` is late, since seeking in formats without an index (mp3) gives wrong
    times. What cannot be decoded in the middle is left out, with a warning. Raises InputFailed when nothing is left,
    and OSError when `pcm` cannot be written."""
    with _opened(path) as (container, stream), pcm.open("wb", buffering=1 << 20) as out:
        if not stream.sample_rate or not stream.codec_context.channels:
            raise InputFailed("its header names no sample rate or no channels", do="repair or convert the file")
        reading = _Reading(path, container, stream, layout)
        first = (from_ms or 0) * SAMPLE_RATE // 1000
        last = to_ms * SAMPLE_RATE // 1000 if to_ms is not None else None
        at = written = 0
        for block in reading.blocks():
            begin, end = max(first - at, 0), len(block) if last is None else min(len(block), last - at)
            if begin < end:
                out.write(block[begin:end].tobytes())
                written += end - begin
            at += len(block)
            if (last is not None and at >= last) or (stop and stop.is_set()):
                break
        else:
            reading.whole = True
    if stop and stop.is_set():
        return Decoded(written, from_ms or 0, complete=False)
    if at == 0:
        raise InputFailed("it holds no sound", do="the file may be damaged, or hold no samples")
    if written == 0 and not reading.whole:
        raise InputFailed("nothing lies between --from and --to")
    if written == 0:
        raise EndsBefore(f"it ends before --from: it is {_clock(at * 1000 // SAMPLE_RATE)} long")
    warning = reading.warning(at * 1000 // SAMPLE_RATE)
    return Decoded(written, (from_ms or 0), warning is None, warning, reading.channels)


OWN = "own"
"""Instead of the name of a layout: the channels that a recording has."""


def levels(path: Path, layout: str = "stereo") -> Any:
    """How loud each channel is: the sums of the samples' sizes (0 to 1) over each 10 ms, a numpy float64 array
    (frames, channels), the last frame being what is left. `layout` is FFmpeg's name of the channels that are wanted, or
    OWN; a recording with one channel has that one in all of them. Raises InputFailed."""
    import numpy as np

    frame = SAMPLE_RATE // 100
    with _opened(path) as (container, stream):
        found, left = [], None
        for block in _Reading(path, container, stream, layout).blocks():
            sizes = np.abs(block if left is None else np.concatenate([left, block]))
            whole = len(sizes) // frame * frame
            found.append(sizes[:whole].reshape(-1, frame, sizes.shape[1]).sum(1, dtype=np.float64))
            left = sizes[whole:]
    if left is None:
        raise InputFailed("it holds no sound", do="the file may be damaged, or hold no samples")
    return np.concatenate([*found, left.sum(0, dtype=np.float64, keepdims=True)])


class _Reading:
    """The samples of a stream, and what went wrong on the way. `layout`: FFmpeg's name of the channels they come in, or
    OWN for those of the first frame; `channels`: how many these are."""

    def __init__(self, path: Path, container: Any, stream: Any, layout: str = "mono") -> None:
        self._layout: Any = layout
        self.channels = 1
        self._container = container
        self._stream = stream
        self._samples = 0
        self._broken_at: int | None = None
        self._bad_packets = 0
        self.whole = False
        self._promised_ms = _promised_ms(path, container, stream)
        self._cut = container.format.name == "ogg" and _ends_within_page(path)

    def blocks(self) -> Iterator[Any]:
        """numpy float32 arrays, n >= 1: (n,) of mono, else (n, channels)."""
        from av.audio.resampler import AudioResampler

        # 16 bits and then float, as Whisper was trained and as its implementations do: equal samples, equal words.
        resampler: Any = None
        kind = None
        for frame in self._frames():
            # A resampler takes one kind of frame, but rate and channels may change: joined mp3, radio, broadcasts.
            if kind != (frame.format.name, frame.layout.name, frame.sample_rate):
                yield from self._rest(resampler)
                self._layout = self._layout if self._layout != OWN else frame.layout
                resampler = AudioResampler(format="s16", layout=self._layout, rate=SAMPLE_RATE)
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            frame.pts = None
            for made in resampler.resample(frame):
                yield from self._block(made)
        yield from self._rest(resampler)

    def _rest(self, resampler: Any) -> Iterator[Any]:
        for made in resampler.resample(None) if resampler else ():
            yield from self._block(made)

    def _block(self, frame: Any) -> Iterator[Any]:
        block = frame.to_ndarray().reshape(-1).astype("<f4") / 32768.0
        if self._layout != "mono":
            self.channels = frame.layout.nb_channels
            block = block.reshape(-1, self.channels)
        if len(block):
            self._samples += len(block)
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
            self._broken_at = self._samples * 1000 // SAMPLE_RATE

    def warning(self, read_ms: int) -> str | None:
        """What a person should know of a recording that was not whole."""
        promised = self._promised_ms if self.whole else None
        if promised is not None and promised - read_ms > max(MISSING_MS, promised // 50):
            return f"it ends at {_clock(read_ms)}, though its header promises {_clock(promised)}"
        if self._bad_packets > 0 and self._broken_at is not None and self._broken_at < read_ms - 200:
            parts = "1 part" if self._bad_packets == 1 else f"{self._bad_packets} parts"
            return f"it is damaged from {_clock(self._broken_at)} on: {parts} could not be read"
        if self._broken_at is not None:
            return f"it is broken off at {_clock(self._broken_at)}"
        if self.whole and self._cut:
            return f"it is broken off at {_clock(read_ms)}"
        return None


def _promised_ms(path: Path, container: Any, stream: Any) -> int | None:
    """How long the header says that the recording is; None where it does not say."""
    name = container.format.name
    if name == "wav":
        return _wav_promise(path)
    if name in CONTAINER_LENGTHS and len(container.streams) == 1 and container.duration is not None:
        return int(container.duration // 1000)
    if name not in STREAM_LENGTHS or stream.duration is None or (name == "mp3" and not _mp3_counts(path)):
        return None
    return int(stream.duration * stream.time_base * 1000)


def _wav_promise(path: Path) -> int | None:
    """The length in a RIFF file's `data` chunk, in ms; None when it says nothing, as streams' headers do. (FFmpeg
    believes the file's size instead.)"""
    with path.open("rb") as file:
        riff, per_second = file.read(12), 0
        while riff[:4] == b"RIFF" and len(head := file.read(8)) == 8:
            name, size = head[:4], int.from_bytes(head[4:], "little")
            if name == b"data":
                # Streamed headers have 0, or about the most that 31 or 32 bits hold.
                unknown = size == 0 or 0x7FFF0000 <= size <= 0x80010000 or size >= 0xFFFF0000
                return None if unknown or not per_second else size * 1000 // per_second
            after = file.tell() + size + size % 2
            if name == b"fmt ":
                tag, _, rate, _, width = struct.unpack("<HHIIH", file.read(14).ljust(14, b"\0"))
                per_second = rate * width if tag in PCM_TAGS else 0
            file.seek(after)
    return None


def _mp3_counts(path: Path) -> bool:
    """Whether an mp3 begins with a count of its frames (Xing's header or Fraunhofer's)."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        first = file.read(4096)
    at = max(first.find(b"Xing"), first.find(b"Info"))
    return b"VBRI" in first or (at >= 0 and len(first) > at + 7 and bool(first[at + 7] & 1))


def _ends_within_page(path: Path) -> bool:
    """Whether an Ogg file's last page is longer than the file: then the file was cut."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 17)))  # a page has 65,307 bytes at most
        end = file.read()
    at = end.rfind(b"OggS")
    page = end[at:] if at >= 0 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _clock(ms: int) -> str:
    seconds = ms / 1000
    return f"{int(seconds // 3600)}:{int(seconds // 60) % 60:02}:{seconds % 60:04.1f}"
