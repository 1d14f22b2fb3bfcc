"""A speaker for each channel: leaks, overlap, microphones of different sensitivity, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recordings
from kuulo import audio, channels
from kuulo.engines import channels as engine
from kuulo.errors import UsageError
from kuulo.evaluation import turns as scoring
from kuulo.evaluation.lines import Line
from kuulo.formats import json as master
from kuulo.wire import Task
from test_speakers import RATE, conversation

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
LINES = ["good morning mother", "we need coffee and milk today", "three children and two people",
         "happy summer cold winter", "today we study music and language", "always good coffee"]  # fmt: skip


def tracks(
    *, leak_db: float, gains: Sequence[float] = (1.0, 1.0), overlap_s: float = 0.0, noise: float = 0.0
) -> tuple[Any, list[Line]]:
    """Two voices in turn, each on a channel and, more quietly and later, on the other (n, 2); who speaks when."""
    mixed, truth = conversation(["en-us+m3", "en-us+f2"], LINES, gap_s=0.6)
    own = np.zeros((len(mixed), 2), np.float32)
    lines = []
    for number, line in enumerate(truth):
        assert line.start_ms is not None and line.end_ms is not None
        start, end, shift = line.start_ms * 16, line.end_ms * 16, round(overlap_s * RATE * (number % 2))
        own[start - shift : end - shift, number % 2] += mixed[start:end]
        lines.append(Line(None, f"channel {number % 2 + 1}", line.start_ms - shift // 16, line.end_ms - shift // 16))
    heard = np.array(own)
    for a, b, late in ((0, 1, 40), (1, 0, 57)):
        heard[late:, b] += own[:-late, a] * 10 ** (leak_db / 20)
    heard += np.random.default_rng(0).normal(0, 1, heard.shape) * noise
    return (heard * np.array(gains)).astype(np.float32), lines


@pytest.fixture(scope="module")
def session() -> Any:
    return engine.load(Task("diarize", "channels", "its own", None))


@pytest.mark.parametrize("leak_db", [-60, -20, -10])
@pytest.mark.parametrize(("gains", "overlap_s"), [((1.0, 1.0), 0.0), ((1.0, 0.3), 0.0), ((1.0, 1.0), 1.0)])
def test_leaks_are_left_out_and_overlap_is_kept(
    leak_db: float, gains: tuple[float, float], overlap_s: float, session: Any
) -> None:
    samples, truth = tracks(leak_db=leak_db, gains=gains, overlap_s=overlap_s, noise=1e-3)
    found = session.diarize(samples)
    assert found.voices == {}
    heard = [Line(None, turn.speaker, turn.start_ms, turn.end_ms) for turn in found.turns]
    errors = scoring.compare(truth, heard)
    assert errors.rate is not None and errors.rate <= 0.2, errors
    assert errors.confused <= 0.01 * errors.total, errors
    assert found.turns == sorted(found.turns, key=lambda turn: turn.start_ms)


def test_two_who_speak_at_once_are_both_found(session: Any, tmp_path: Path) -> None:
    """A real recording: a sentence in each channel, of 5 and of 2.3 s, begun at the same time."""
    path = Path(__file__).parent / "audio" / "stereo_diarization.flac"
    audio.decode(path, tmp_path / "pcm", layout=audio.OWN)
    turns = session.diarize(np.fromfile(tmp_path / "pcm", "<f4").reshape(-1, 2)).turns
    assert [turn.speaker for turn in turns] == ["channel 1", "channel 2"]
    assert turns[0].end_ms > 4_500 and 2_300 < turns[1].end_ms < 3_000


def test_silence_noise_and_very_short_sounds(session: Any) -> None:
    assert session.diarize(np.zeros((1, 2), np.float32)).turns == []
    assert session.diarize(np.zeros((RATE * 3, 3), np.float32)).turns == []
    noise = np.random.default_rng(1).normal(0, 0.05, (RATE * 4, 2)).astype(np.float32)
    assert session.diarize(noise).turns == []


def test_stretches_join_close_gaps_and_drop_what_is_short() -> None:
    own = np.zeros(300, bool)
    own[10:40] = own[60:90] = own[200:215] = own[250:300] = True
    assert engine.stretches(own) == [(100, 900), (2500, 3000)]
    assert engine.stretches([]) == [] and engine.stretches([False, True]) == []


# ---------------------------------------------------------------------- channels that differ


def test_channels_of_microphones_differ_and_those_of_a_room_do_not(tmp_path: Path) -> None:
    samples, _ = tracks(leak_db=-20, noise=1e-3)
    room, _ = tracks(leak_db=-2, noise=1e-3)
    both = samples.mean(1)
    for name, sound, differ in (
        ("microphones", samples, True), ("room", room, False), ("same", np.stack([both, both], 1), False),
        ("one is silent", samples * [1, 0], False), ("short", samples[: RATE * 2], False),
    ):  # fmt: skip
        path = recordings.wav(tmp_path / "a.wav", sound * 0.5, RATE)
        assert channels.differ(audio.levels(path, audio.OWN)) is differ, name


def levels(sound: Any) -> Any:
    return np.abs(sound[: len(sound) // 160 * 160]).reshape(-1, 160, sound.shape[1]).sum(1)


def test_the_same_in_all_channels() -> None:
    samples, _ = tracks(leak_db=-60)
    both = samples.sum(1)
    noise = np.random.default_rng(2).normal(0, 3e-3, (len(both), 2))
    for name, other in (
        ("the same", both), ("quieter, upside down", both * -0.3), ("later", np.roll(both, 40)),
        ("muffled", np.convolve(both, np.ones(4) / 4, "same")),
    ):  # fmt: skip
        for added in (0, noise):
            assert channels.same(levels(np.stack([both, other], 1) + added)), name
    for name, sound in (
        ("in turn", samples), ("much leaks", tracks(leak_db=-3, noise=1e-3)[0]), ("silence", samples * 0),
        ("one is silent", samples * [1, 0]), ("at once", tracks(leak_db=-20, overlap_s=1.0)[0]),
        ("nothing", samples[:9]), ("half a second", samples[RATE // 2 : RATE]),
    ):  # fmt: skip
        assert not channels.same(levels(sound)), name


def test_one_who_says_little_makes_channels_different() -> None:
    samples, truth = tracks(leak_db=-60)
    own = samples[:, :1] * [1, 0.5]
    assert channels.same(levels(own))
    last = truth[-1]
    assert last.start_ms is not None and last.end_ms is not None
    little = np.concatenate([*[own] * 8, samples[last.start_ms * 16 : last.end_ms * 16, 1:] * [0.5, 1]])
    assert not channels.same(levels(little))


def test_what_speaks_against_channels_is_said() -> None:
    samples, _ = tracks(leak_db=-20)
    assert channels.doubt(levels(samples)) is None
    assert channels.doubt(levels(samples * 0)) is None and channels.doubt(levels(samples[:9])) is None
    assert "equally loud" in str(channels.doubt(levels(tracks(leak_db=-3)[0])))
    noise = np.random.default_rng(2).normal(0, 1e-4, samples.shape)
    assert "only one" in str(channels.doubt(levels(samples * [1, 0] + noise)))


def test_levels_of_what_is_decoded(tmp_path: Path) -> None:
    samples, _ = tracks(leak_db=-20)
    path = recordings.wav(tmp_path / "a.wav", samples * 0.5, RATE)
    decoded = audio.decode(path, tmp_path / "pcm", layout=audio.OWN)
    assert np.array_equal(channels.levels(tmp_path / "pcm", decoded.samples, 2), audio.levels(path, audio.OWN))


def test_all_channels_are_decoded(tmp_path: Path) -> None:
    samples, _ = tracks(leak_db=-20)
    path = recordings.wav(tmp_path / "a.wav", np.concatenate([samples, samples[:, :1] * 0.5], 1) * 0.5, RATE)
    decoded = audio.decode(path, tmp_path / "pcm", from_ms=1_000, to_ms=3_000, layout=audio.OWN)
    assert (decoded.samples, decoded.channels) == (2 * RATE, 3)
    sound = np.fromfile(tmp_path / "pcm", "<f4").reshape(-1, 3)
    assert np.abs(sound[:, :2] - samples[RATE : 3 * RATE] * 0.5).max() < 1e-3


# ---------------------------------------------------------------------- the commands


def test_transcribe_and_diarize_by_channels(kuulo: Kuulo, tmp_path: Path) -> None:
    samples, _ = tracks(leak_db=-15, noise=1e-3)
    talk = recordings.wav(tmp_path / "talk.wav", samples * 0.5, RATE)
    done = kuulo("transcribe", talk, "-m", "miniature", "--speakers", "channels", "-o", "out", "--print")
    assert done.returncode == 0, done.stderr
    read = master.read_master(tmp_path / "out" / "talk.json")
    assert [(s.id, s.label) for s in read.speakers] == [("S1", "channel 1"), ("S2", "channel 2")]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["channel 1", "channel 2"] * 3
    assert read.provenance is not None and read.provenance.steps[1].engine == "channels"
    done = kuulo("diarize", talk, "--speakers", "channels", "-o", "out")
    assert done.returncode == 0, done.stderr
    read = master.read_master(tmp_path / "out" / "talk.speakers.json")
    assert [turn.speaker for turn in read.turns] == ["S1", "S2"] * 3
    assert [s.label for s in read.speakers] == ["channel 1", "channel 2"]
    hint = "its channels have different speakers"
    told = kuulo("diarize", talk, "--speakers", "2", "-o", "other", "--json")
    assert hint in json.loads(told.stdout)["files"][0]["warning"]
    assert hint not in kuulo("transcribe", talk, "-m", "miniature", "-o", "other").stderr, "nobody asked for speakers"
    assert not list((tmp_path / "tmp").glob("kuulo-*")), "nothing stays in scratch"


def test_what_is_refused(kuulo: Kuulo, tmp_path: Path) -> None:
    samples, _ = tracks(leak_db=-20)
    both = samples.mean(1) * 0.5
    recordings.wav(tmp_path / "mono.wav", both, RATE)
    recordings.wav(tmp_path / "same.wav", np.stack([both, both * 0.7], 1), RATE)
    recordings.wav(tmp_path / "left.wav", samples * [0.5, 0], RATE)
    done = kuulo("diarize", "mono.wav", "same.wav", "left.wav", "--speakers", "channels", "--json")
    files = json.loads(done.stdout)["files"]
    whys = [file.get("why") for file in files]
    assert done.returncode == 1
    assert "it has one channel" in whys[0] and "hold the same" in whys[1]
    assert files[2]["state"] == "done" and "only one of its channels" in files[2]["warning"]
    for words, said in (
        (("--speaker-engine", "channels"), "--speakers channels"),
        (("--speakers", "channels", "--speaker-engine", "resemblyzer"), "tells voices apart"),
    ):
        refused = kuulo("diarize", "mono.wav", *words)
        assert refused.returncode == UsageError.exit_code and said in refused.stderr
