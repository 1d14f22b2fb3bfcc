"""Voices that have names: the roster, who is recognised, and that embeddings stay where they belong."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recordings
from kuulo import conditions, engines, plan, roster, site, survey
from kuulo.errors import UsageError
from kuulo.formats import json as master
from kuulo.roster import MARGIN, RECORDED, Match, Roster, Voice
from test_speakers import RATE, conversation

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
ENCODER = "resemblyzer:0123"
SURE = roster.SURE[RECORDED]


def at(*distances: float) -> tuple[float, ...]:
    """A vector of length 1 that is so far (cosine distance) from each axis in turn; the rest lies on a last one."""
    parts = [1 - distance for distance in distances]
    return (*parts, math.sqrt(max(0.0, 1 - sum(part**2 for part in parts))))


def axes(number: int) -> list[tuple[float, ...]]:
    return [tuple(float(i == j) for j in range(number + 1)) for i in range(number)]


def of(*names: str) -> Roster:
    voices = tuple(Voice(name, axis, 30.0) for name, axis in zip(names, axes(len(names)), strict=True))
    return Roster(ENCODER, voices)


def test_who_is_near_is_recognised_and_who_is_not_is_unknown() -> None:
    found = roster.identify(of("Anna"), {"S1": at(SURE - 0.01), "S2": at(SURE + 0.01)})
    assert {name: (m.name, round(m.distance, 3), m.sure) for name, m in found.items()} == {
        "S1": ("Anna", round(SURE - 0.01, 3), True), "S2": ("Anna", round(SURE + 0.01, 3), False),
    }  # fmt: skip
    assert roster.identify(Roster(), {"S1": at(0.0)}) == {}


def test_a_name_goes_to_the_nearest_speaker_alone() -> None:
    found = roster.identify(of("Anna"), {"S1": at(0.1), "S2": at(0.02), "S3": at(0.11)})
    assert {name: m.sure for name, m in found.items()} == {"S1": False, "S2": True, "S3": False}


def test_between_two_voices_that_are_alike_nobody_is_sure() -> None:
    near = (1.0, 0.0, 0.0)
    alike = Roster(ENCODER, (Voice("Anna", near, 30.0), Voice("Bea", at(0.05, 1.0)[:3], 30.0)))
    (match,) = roster.identify(alike, {"S1": near}).values()
    assert match.sure and MARGIN * SURE <= 0.05
    (match,) = roster.identify(
        Roster(ENCODER, (Voice("Anna", near, 30.0), Voice("Bea", at(0.03, 1.0)[:3], 30.0))), {"S1": near}
    ).values()
    assert (match.name, match.sure) == ("Anna", False)


def test_a_voice_is_known_where_it_sounds_otherwise(tmp_path: Path) -> None:
    """By the limit of the condition under which it is nearest."""
    limit = roster.SURE["telephone"]
    anna = Voice("Anna", (1.0, 0.0, 0.0), 9.0, elsewhere={"telephone": (0.0, 1.0, 0.0), "by drum": (0.0, 0.0, 1.0)})
    made = Roster(ENCODER, (anna, Voice("Bo", (*at(0.3), 0.0), 9.0)))
    found = roster.identify(made, {"S1": at(1.0, limit - 0.01), "S2": at(1.0, limit + 0.01), "S3": (0.0, 0.0, 1.0)})
    assert [m.sure for m in found.values()] == [True, False, False]
    assert found["S1"].name == found["S2"].name == "Anna"
    assert found["S1"].distance == pytest.approx(limit - 0.01)
    roster.write(tmp_path / "r.json", made)
    assert roster.read(tmp_path / "r.json") == made
    old = json.loads((tmp_path / "r.json").read_text())
    for voice in old["voices"]:
        del voice["elsewhere"]
    (tmp_path / "r.json").write_text(json.dumps(old))
    assert roster.read(tmp_path / "r.json").voices[0].heard == {RECORDED: (1.0, 0.0, 0.0)}


def test_clips_count_by_their_length_elsewhere_too() -> None:
    one = roster.enrolled(Roster(), "Anna", [1.0, 0.0], 30.0, ENCODER, {"telephone": [0.0, 2.0]})
    two = roster.enrolled(
        one, "Anna", [1.0, 0.0], 10.0, ENCODER, {"telephone": [3.0, 0.0], "room of 0.3 s": [0.0, 1.0]}
    )
    (voice,) = two.voices
    assert voice.elsewhere["telephone"] == pytest.approx((1 / math.sqrt(10), 3 / math.sqrt(10)))
    assert voice.elsewhere["room of 0.3 s"] == (0.0, 1.0)


@pytest.mark.parametrize("condition", conditions.CONDITIONS)
def test_sound_elsewhere(condition: str) -> None:
    samples, _ = conversation(["en-us+f2"], LONG)
    found = conditions.heard(samples, condition)
    assert found.shape == samples.shape and found.dtype == np.float32
    assert np.abs(found).max() == pytest.approx(0.9)
    assert np.array_equal(found, conditions.heard(samples, condition)), "the same again"
    assert np.allclose(found, conditions.heard(0.1 * samples, condition), atol=1e-3), "however loud it is"
    assert not np.isnan(conditions.heard(samples * 0, condition)).any()
    assert set(roster.SURE) == {RECORDED, *conditions.CONDITIONS}


def test_noise_rooms_and_telephones_are_what_they_are_called() -> None:
    samples, _ = conversation(["en-us+f2"], LONG)

    def power(sound: Any, low: float, high: float) -> float:
        spectrum = np.abs(np.fft.rfft(sound)) ** 2
        bins = np.fft.rfftfreq(len(sound), 1 / RATE)
        return float(spectrum[(bins >= low) & (bins < high)].sum())

    loud = samples[np.abs(samples) > 0.01 * np.abs(samples).max()]
    for below in (20, 8):
        added = conditions._noise(samples, below) - samples
        assert 10 * math.log10(np.mean(loud**2) / np.mean(added**2)) == pytest.approx(below, abs=0.1)
    pink = conditions._noise(samples, 0, 1) - samples
    assert power(pink, 200, 400) == pytest.approx(power(pink, 2000, 4000), rel=0.1), "as much in each octave"
    telephone = conditions.heard(samples, "telephone")
    assert power(telephone, 4200, 8000) < 1e-3 * power(telephone, 0, 8000)
    click = np.zeros(RATE)
    click[0] = 1
    echo = conditions._room(click, 0.5, 1.0)
    early, late = np.mean(echo[800:1600] ** 2), np.mean(echo[4000:4800] ** 2)
    assert 10 * math.log10(early / late) == pytest.approx(60 * 0.2 / 0.5, abs=2)


def test_nobody_is_sure_by_voices_whose_limits_were_not_measured() -> None:
    near = (1.0, 0.0, 0.0)
    (match,) = roster.identify(Roster("pyannote:12", (Voice("Anna", near, 30.0),)), {"S1": near}).values()
    assert (match.name, match.sure) == ("Anna", False) and match.distance < 1e-6


def test_who_enrols_takes_an_engine_that_gives_voices() -> None:
    specs = {spec.name: spec for spec in engines.specs("diarize")}
    assert {name for name, spec in specs.items() if spec.voices} == {"pyannote", "resemblyzer"}
    assert specs["resemblyzer"].package == "kuulo"
    facts = survey.facts(site.load({}))
    assert plan.with_voices(facts) == "resemblyzer"
    model = plan.Model("two", "speakers-onnx", Path("/x"), "", 1, "store")
    installed = {**facts.installed, "sherpa-speakers": True}
    some = dataclasses.replace(facts, models=[model], installed=installed)
    assert plan.with_voices(some) == "resemblyzer", "although sherpa-speakers has its model"
    nobody = dataclasses.replace(facts, installed={})
    assert plan.with_voices(nobody) is None


@given(st.integers(0, 2**32))
def test_no_voice_is_surely_two_speakers(seed: int) -> None:
    draw = random.Random(seed)

    def vector() -> list[float]:
        return [draw.gauss(0, 1) + 3 for _ in range(4)]

    made = Roster(ENCODER, tuple(Voice(name, roster._unit(vector()), 9.0) for name in "ABC"))
    found = roster.identify(made, {f"S{n}": vector() for n in range(5)})
    sure = [match.name for match in found.values() if match.sure]
    assert len(sure) == len(set(sure))
    assert all(isinstance(match, Match) and 0 <= match.distance <= 2 for match in found.values())


def test_clips_of_a_person_count_by_their_length() -> None:
    one = roster.enrolled(Roster(), "Anna", [1.0, 0.0], 30.0, ENCODER)
    two = roster.enrolled(one, "Anna", [0.0, 5.0], 10.0, ENCODER)
    (voice,) = two.voices
    assert (voice.seconds, voice.clips) == (40.0, 2)
    assert voice.embedding == pytest.approx((3 / math.sqrt(10), 1 / math.sqrt(10)))
    with pytest.raises(UsageError, match="too little"):
        roster.enrolled(two, "Bo", [1.0, 0.0], roster.LEAST_SECONDS - 0.1, ENCODER)
    with pytest.raises(UsageError, match="another encoder"):
        roster.enrolled(two, "Bo", [1.0, 0.0], 30.0, "pyannote:9")
    assert roster.without(two, "Anna") == Roster()
    with pytest.raises(UsageError, match="nobody called 'Bo'"):
        roster.without(two, "Bo")


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_text("{}")
    path.chmod(0o644)
    roster.write(path, of("Anna", "Bo"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert roster.read(path) == of("Anna", "Bo")


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1}', '{"schema": 99, "voices": [], "encoder": ""}', "\x00"])
def test_what_is_no_roster(content: str, tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="no roster"):
        roster.read(path)


# ---------------------------------------------------------------------- the commands

LONG = ["The horizon seems extremely distant today.", "I would rather walk along the river than sit at home.",
        "We met in the old library, and nobody knew why."]  # fmt: skip
OTHER = ["Please bring the documents tomorrow morning.", "There is a long way to go before winter comes.",
         "Every question has more than one answer.", "He gave his answer without looking at the letter."]  # fmt: skip


def clip(path: Path, voices: Sequence[str], lines: Sequence[str]) -> Path:
    samples, _ = conversation([f"en-us+{voice}" for voice in voices], lines)
    return recordings.wav(path, samples, RATE)


def test_a_name_over_all_recordings(kuulo: Kuulo, tmp_path: Path) -> None:
    anna, bert = clip(tmp_path / "anna.wav", ["f2"], LONG), clip(tmp_path / "bert.wav", ["m3"], LONG)
    assert kuulo("speakers", "enrol", "Anna Ö", anna).returncode == 0
    done = kuulo("speakers", "enrol", "Bert", bert)
    assert done.returncode == 0 and "personal data" in done.stderr
    file = tmp_path / "kuulo-roster.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    vector = json.loads(file.read_text())["voices"][0]["embedding"]
    talk = clip(tmp_path / "talk.wav", ["m3", "f2"], OTHER)
    for command in (("diarize", talk), ("transcribe", talk, "-m", "miniature", "--word-times")):
        done = kuulo(*command, "--speakers", "2", "--roster", file, "-o", "out")
        assert done.returncode == 0, done.stderr
    for name in ("talk.speakers.json", "talk.json"):
        read = master.read_master(tmp_path / "out" / name)
        assert [(s.id, s.label) for s in read.speakers] == [("S1", "Bert"), ("S2", "Anna Ö")], name
        assert all(s.distance is not None and s.distance < SURE for s in read.speakers)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p != file and p.suffix != ".wav"]
    assert written and not any(str(vector[0]).encode() in p.read_bytes() for p in written), "voices stay in the roster"
    assert "skipped" in kuulo("diarize", talk, "--speakers", "2", "--roster", file, "-o", "out").stderr
    assert kuulo("speakers", "forget", "Bert").returncode == 0
    assert "Bert" not in kuulo("speakers", "roster").stdout
    again = kuulo("diarize", talk, "--speakers", "2", "--roster", file, "-o", "out")
    assert "1 done" in again.stderr, "another roster: it is done again"
    read = master.read_master(tmp_path / "out" / "talk.speakers.json")
    assert [s.label for s in read.speakers] == ["unknown (S1)", "Anna Ö"]
    assert "unknown (S1)" in kuulo("speakers", "list", "out/talk.speakers.json").stdout


def test_a_name_also_by_telephone_and_in_a_room(kuulo: Kuulo, tmp_path: Path) -> None:
    for name, voice in (("Anna", "f2"), ("Bert", "m3")):
        assert kuulo("speakers", "enrol", name, clip(tmp_path / f"{name}.wav", [voice], LONG)).returncode == 0
    samples, _ = conversation(["en-us+m3", "en-us+f2"], OTHER)
    for condition in ("telephone", "room of 0.3 s"):
        talk = recordings.wav(tmp_path / f"{condition}.wav", conditions.heard(samples, condition), RATE)
        done = kuulo("diarize", talk, "--speakers", "2", "--roster", "kuulo-roster.json", "-o", "out")
        assert done.returncode == 0, done.stderr
        read = master.read_master(tmp_path / "out" / f"{condition}.speakers.json")
        assert [s.label for s in read.speakers] == ["Bert", "Anna"], condition


def test_what_cannot_be_enrolled(kuulo: Kuulo, tmp_path: Path) -> None:
    clip(tmp_path / "two.wav", ["m3", "f2"], OTHER)
    clip(tmp_path / "short.wav", ["m3"], ["Yes, of course."])
    recordings.wav(tmp_path / "silent.wav", recordings.tone(3.0) * 0)
    for name, said in (
        ("two.wav", "2 voices are heard"), ("short.wav", "too little"), ("silent.wav", "no voices"),
        ("nonesuch.wav", "no such file"),
    ):  # fmt: skip
        done = kuulo("speakers", "enrol", "Anna", name)
        assert done.returncode == UsageError.exit_code and said in done.stderr, (name, done.stderr)
    assert not (tmp_path / "kuulo-roster.json").exists()
    assert kuulo("speakers", "enrol", " ", "two.wav").returncode == 2
    done = kuulo("speakers", "enrol", "Anna", "two.wav", "--speaker-engine", "channels")
    assert done.returncode == UsageError.exit_code and "--speakers channels" in done.stderr


def test_settings_may_name_a_roster_that_is_not_there_yet(
    kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    kuulo_environment["KUULO_ROSTER"] = str(tmp_path / "later.json")
    anna = clip(tmp_path / "anna.wav", ["f2"], LONG)
    done = kuulo("speakers", "enrol", "Anna", anna, anna, "--roster", "later.json", "--speaker-engine", "resemblyzer")
    assert done.returncode == 0, done.stderr
    assert "in 1 clips" in done.stdout, "one clip is one, however often it is named"


def test_a_roster_needs_speakers_and_their_engine(kuulo: Kuulo, tmp_path: Path) -> None:
    file = tmp_path / "roster.json"
    roster.write(file, Roster("pyannote:1", (Voice("Anna", (1.0, 0.0), 9.0),)))
    for words, said in (
        (("transcribe", "a.wav", "-m", "miniature", "--roster", file), "nobody tells them apart"),
        (("diarize", "a.wav", "--roster", "nonesuch.json"), "cannot be read"),
        (("diarize", "a.wav", "--roster", file, "--speaker-engine", "resemblyzer"), "which are of pyannote"),
    ):
        done = kuulo(*words)
        assert done.returncode != 0 and said in done.stderr, done.stderr
    wrong = Roster("resemblyzer:another", (Voice("Anna", (1.0, 0.0), 9.0),))
    roster.write(file, wrong)
    talk = clip(tmp_path / "talk.wav", ["m3"], LONG)
    done = kuulo("diarize", talk, "--roster", file)
    assert done.returncode == UsageError.exit_code and "another encoder" in done.stderr
    done = kuulo("transcribe", talk, "-m", "miniature", "--speakers", "1", "--roster", file, "-o", "out")
    assert done.returncode == UsageError.exit_code and "another encoder" in done.stderr
    assert not (tmp_path / "out" / "talk.json").exists()
