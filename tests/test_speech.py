"""Cuts at quiet places, and times on both sides of left-out silence."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuulo import speech
from kuulo.engines import silero
from kuulo.wire import Task

AUDIO = Path(__file__).parent / "audio"


def noise(seconds: float, level: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(round(seconds * 16_000)) * level).astype(np.float32)


def test_sections_are_cut_in_the_pauses() -> None:
    pauses = [8.0, 17.0, 26.5]
    samples = noise(35)
    for at in pauses:
        samples[round(at * 16_000) : round((at + 0.5) * 16_000)] *= 0.001
    sections = speech.quiet_cuts(samples, longest_ms=10_000, look_back_ms=4_000)
    ends = [end / 1000 for _, end in sections[:-1]]
    assert len(ends) == 3 and all(p < e < p + 0.5 for p, e in zip(pauses, ends, strict=True))


@given(
    st.integers(1, 40_000),
    st.integers(200, 3_000),
    st.integers(100, 3_000),
    st.integers(0, 3),
)
def test_sections_cover_everything_once(length: int, longest: int, look_back: int, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    sections = speech.quiet_cuts(samples, longest, look_back)
    assert sections[0][0] == 0 and sections[-1][1] == -(-length // 16)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(sections))
    assert all(0 < end - start <= longest for start, end in sections)


def test_a_section_depends_on_what_follows_its_start_alone() -> None:
    samples = noise(60)
    sections = speech.quiet_cuts(samples, 10_000, 5_000)
    start = sections[2][0]
    again = speech.quiet_cuts(samples[start * 16 :], 10_000, 5_000)
    assert [(a + start, b + start) for a, b in again] == sections[2:]


ranges = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 800)), min_size=1, max_size=8).map(
    lambda steps: [(sum(map(sum, steps[:i])) + steps[i][0], sum(map(sum, steps[: i + 1]))) for i in range(len(steps))]
)


@given(kept=ranges)
def test_times_come_back_to_where_they_were(
    kept: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = np.arange((kept[-1][1] + 100) * 16, dtype=np.float32)
    joined, clock = speech.keep(samples, kept, str(tmp_path_factory.mktemp("joined") / "speech"))
    length = len(joined) // 16
    assert length == sum(b - a for a, b in kept)
    starts = [clock.original(ms, False) for ms in range(length)]
    ends = [clock.original(ms, True) for ms in range(1, length + 1)]
    assert starts == [ms for a, b in kept for ms in range(a, b)]
    assert ends == [ms for a, b in kept for ms in range(a + 1, b + 1)]
    assert all(samples[at * 16] == joined[ms * 16] for ms, at in enumerate(starts))


# ---------------------------------------------------------------------- speech detection


@pytest.fixture(scope="module")
def detector() -> silero.DetectSession:
    return silero.load(Task("detect-speech", "silero", "its own", None))


@pytest.mark.parametrize(
    "samples",
    [np.zeros(48_000, np.float32), noise(3, 0.01), np.sin(np.arange(48_000) * 0.17).astype(np.float32) * 0.3],
    ids=["silence", "noise", "tone"],
)
def test_what_is_no_speech_gives_none(detector: silero.DetectSession, samples: np.ndarray) -> None:
    assert detector.detect(samples) == []


def test_speech_is_found_where_it_is(detector: silero.DetectSession) -> None:
    import faster_whisper
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    voice = faster_whisper.decode_audio(str(AUDIO.parent.parent / "examples" / "jfk.flac"))[: 5 * 16_000]
    samples = np.concatenate([np.zeros(5 * 16_000, np.float32), voice, np.zeros(5 * 16_000, np.float32)])
    found = detector.detect(samples)
    assert found[0][0] > 4_000 and found[-1][1] < 11_500
    reference = get_speech_timestamps(samples, VadOptions())
    assert found == [(c["start"] // 16, -(-c["end"] // 16)) for c in reference]


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """Six minutes of speech and pauses, more than one batch of the model."""
    import faster_whisper

    voice = faster_whisper.decode_audio(str(AUDIO.parent.parent / "examples" / "jfk.flac"))
    rng = np.random.default_rng(1)
    parts = [(voice[: rng.integers(8_000, len(voice))], np.zeros(rng.integers(80_000), np.float32)) for _ in range(45)]
    return np.concatenate([samples for part in parts for samples in part])


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        ({}, None),
        ({"max_speech_duration_s": 7, "min_silence_duration_ms": 100}, None),
        ({"threshold": 0.3, "speech_pad_ms": 37}, 512 * 10_000),
        ({}, 512 * 400 - 20),
        ({}, 511),
        ({}, 1),
    ],
)
def test_speech_is_what_faster_whisper_finds_at_any_length(
    talk: np.ndarray, raw: dict[str, float], length: int | None
) -> None:
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    samples = talk[:length]
    assert length is not None or len(samples) > 512 * 10_000
    found = silero.load(Task("detect-speech", "silero", "its own", None, raw=raw)).detect(samples)
    reference = get_speech_timestamps(samples.copy(), VadOptions(**raw))
    assert [end for _, end in found] == [-(-c["end"] // 16) for c in reference]
    assert all(0 <= a - c["start"] // 16 <= 1 for (a, _), c in zip(found, reference, strict=True))
    assert all(a < b for a, b in found) and all(a[1] <= b[0] for a, b in itertools.pairwise(found))


def test_detection_holds_no_whole_recording_in_memory(
    detector: silero.DetectSession, talk: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "long.f32"
    peaks = []
    for times in (1, 3):
        path.write_bytes(talk.tobytes() * times)
        samples = np.memmap(path, "<f4", "r")
        tracemalloc.start()
        assert detector.detect(samples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2e6  # bytes; the samples have 24e6 and 71e6


def test_an_option_that_it_does_not_have_is_refused() -> None:
    from kuulo.engines.base import Unusable

    with pytest.raises(Unusable, match="treshold") as caught:
        silero.load(Task("detect-speech", "silero", "its own", None, raw={"treshold": 0.5}))
    assert "threshold" in caught.value.do
