"""Recordings of every kind, good and bad, made with PyAV for tests."""

from __future__ import annotations

import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

KINDS: dict[str, tuple[str, str, int, str]] = {
    # suffix: (codec, sample format, rate, layout)
    ".wav": ("pcm_s16le", "s16", 44_100, "stereo"),
    ".8k.wav": ("pcm_u8", "u8", 8_000, "mono"),
    ".24bit.wav": ("pcm_s24le", "s32", 44_100, "stereo"),
    ".96k.wav": ("pcm_s32le", "s32", 96_000, "5.1"),
    ".aac": ("aac", "fltp", 44_100, "stereo"),
    ".aiff": ("pcm_s16be", "s16", 48_000, "mono"),
    ".flac": ("flac", "s16", 22_050, "mono"),
    ".m4a": ("aac", "fltp", 44_100, "stereo"),
    ".mka": ("ac3", "fltp", 48_000, "stereo"),
    ".mp3": ("libmp3lame", "fltp", 44_100, "stereo"),
    ".mp4": ("aac", "fltp", 48_000, "stereo"),
    ".ogg": ("flac", "s16", 44_100, "stereo"),
    ".opus": ("libopus", "flt", 48_000, "mono"),
    ".webm": ("libopus", "flt", 48_000, "stereo"),
}


def tone(seconds: float, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    """float32 (n,) from -0.5 to 0.5, louder and softer twice a second so that a shift in time would show."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * t))).astype(np.float32)


def write(
    path: Path,
    kind: str,
    seconds: float = 3.0,
    *,
    rate: int | None = None,
    samples: np.ndarray | None = None,
    container: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
) -> Path:
    """A tone, or `samples`, as a file of this kind; .mp4 has a picture too. FFmpeg's options for container and
    encoder."""
    codec, sample_format, usual_rate, layout = KINDS[kind]
    rate = rate or usual_rate
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options=encoder or {})
        stream.codec_context.format = sample_format
        if kind == ".mp4":
            _picture(out)  # after the sound's stream: a file's streams are fixed when the first packet is written
        resampler = av.AudioResampler(sample_format, layout, rate)
        frame = av.AudioFrame.from_ndarray((tone(seconds, rate) if samples is None else samples)[None], "flt", "mono")
        frame.rate = rate
        fifo = av.AudioFifo()
        for made in resampler.resample(frame):
            made.pts = None
            fifo.write(made)
        size = stream.codec_context.frame_size or 1024
        while (piece := fifo.read(size, partial=True)) is not None:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def _picture(out: av.container.OutputContainer) -> None:
    video = out.add_stream("mpeg4", rate=5)
    video.width = video.height = 64
    video.pix_fmt = "yuv420p"
    video.time_base = video.codec_context.time_base = Fraction(1, 5)
    for number in range(5):
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        picture.pts, picture.time_base = number, Fraction(1, 5)
        out.mux(video.encode(picture))
    out.mux(video.encode(None))


def silent_film(path: Path) -> Path:
    """Video without sound."""
    with av.open(str(path), "w") as out:
        _picture(out)
    return path


def wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """16 bits; `samples` (n,), or (n, channels)."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def quiet_then_loud(seconds: float, rate: int) -> np.ndarray:
    """float32 (n,): silence, then noise: a rate of bits that is guessed from the beginning is wrong."""
    samples = np.random.default_rng(0).standard_normal(round(seconds * rate)) * 0.3
    samples[: len(samples) // 2] = 0
    return samples.astype(np.float32)


def with_chunk(path: Path, name: bytes, content: bytes, *, first: bool) -> Path:
    """Put another chunk into a WAV file: before its format, or between format and samples."""
    data, at = path.read_bytes(), 12 if first else 36
    path.write_bytes(data[:at] + name + struct.pack("<I", len(content)) + content + data[at:])
    return path


def wav_with_no_channels(path: Path) -> Path:
    """A header that says 0 channels."""
    data = bytearray(wav(path, tone(0.1)).read_bytes())
    data[22:24] = b"\0\0"
    path.write_bytes(data)
    return path


def wav_with_rate_zero(path: Path) -> Path:
    """A header that says 0 Hz."""
    data = np.zeros(1000, "<i2").tobytes()
    header = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, 0, 0, 2, 16) + b"data" + struct.pack("<I", len(data))
    path.write_bytes(header + data)
    return path
