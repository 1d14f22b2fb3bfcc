"""`kuulo diarize`, and who tells speakers apart: engine and model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import recordings
import test_speakers
from kuulo import naming
from kuulo.errors import CannotRun, UsageError
from kuulo.evaluation import lines
from kuulo.formats import json as master

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
talk = test_speakers.talk


def test_turns_without_words(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    done = kuulo("diarize", talk, "--speakers", "2", "-o", "out", "-f", "rttm,eaf,textgrid")
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "out").iterdir() if path.name.startswith("talk")}
    assert made == {"talk.speakers.json", "talk.speakers.rttm", "talk.speakers.eaf", "talk.speakers.TextGrid"}
    read = master.read_master(tmp_path / "out" / "talk.speakers.json")
    assert read.segments == ()
    assert [turn.speaker for turn in read.turns] == ["S1", "S2"] * 3
    assert [speaker.id for speaker in read.speakers] == ["S1", "S2"]
    assert read.provenance is not None
    assert [(step.task, step.engine) for step in read.provenance.steps] == [("diarize", "resemblyzer")]
    rttm = lines.read(tmp_path / "out" / "talk.speakers.rttm")
    assert rttm == lines.read(tmp_path / "out" / "talk.speakers.json")
    assert [(line.start_ms, line.end_ms, line.speaker) for line in rttm] == [
        (turn.start_ms, turn.end_ms, turn.speaker) for turn in read.turns
    ]
    tiers = lines.read(tmp_path / "out" / "talk.speakers.eaf")
    assert [(line.start_ms, line.end_ms, line.speaker) for line in tiers] == [
        (turn.start_ms, turn.end_ms, turn.speaker) for turn in read.turns
    ]
    assert "voices" not in (tmp_path / "out" / "talk.speakers.json").read_text(), "embeddings are nobody's business"


def test_it_is_done_once_and_never_in_a_transcripts_way(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    transcribed = ("transcribe", talk, "-m", "miniature", "-o", "out")
    assert kuulo(*transcribed).returncode == 0
    before = (tmp_path / "out" / "talk.json").read_bytes()
    asked = ("diarize", talk, "--speakers", "2", "-o", "out")
    assert kuulo(*asked).returncode == 0
    assert (tmp_path / "out" / "talk.json").read_bytes() == before
    assert "skipped" in kuulo(*asked).stderr and "skipped" in kuulo(*transcribed).stderr
    assert "skipped" not in kuulo(*asked, "--overwrite").stderr
    other = kuulo("diarize", talk, "--speakers", "1", "-o", "out")
    assert "1 done" in other.stderr, "another number: it is done again"
    assert naming.SPEAKERS in naming.INNER


def test_a_part_of_a_recording_has_the_recordings_times(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    whole = kuulo("diarize", talk, "--speakers", "2", "-o", "whole")
    turns = master.read_master(tmp_path / "whole" / "talk.speakers.json").turns
    begin_ms = (turns[1].end_ms + turns[2].start_ms) // 2
    part = kuulo("diarize", talk, "--speakers", "2", "--from", str(begin_ms / 1000), "-o", "part")
    assert whole.returncode == part.returncode == 0
    late = master.read_master(tmp_path / "part" / "talk.speakers.json").turns
    assert [turn.speaker for turn in late] == ["S1", "S2"] * 2
    assert all(abs(a.start_ms - b.start_ms) <= 200 for a, b in zip(turns[2:], late, strict=True))


def test_several_recordings_silence_and_one_that_is_broken(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"nothing")
    recordings.wav(tmp_path / "silent.wav", recordings.tone(2.0) * 0)
    done = kuulo("diarize", "broken.wav", "silent.wav", talk, "--speakers", "2", "-o", "out", "--json")
    assert done.returncode == 1
    states = {Path(f["source"]).name: f["state"] for f in json.loads(done.stdout)["files"]}
    assert states == {"broken.wav": "failed", "silent.wav": "done", "talk.wav": "done"}
    assert master.read_master(tmp_path / "out" / "silent.speakers.json").turns == ()
    assert (tmp_path / "out" / "silent.speakers.rttm").read_text() == ""


def test_names_are_given_to_turns_too(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    assert kuulo("diarize", talk, "--speakers", "2", "-o", "out").returncode == 0
    file = tmp_path / "out" / "talk.speakers.json"
    assert "3 turns" in kuulo("speakers", "list", file).stdout
    assert kuulo("speakers", "rename", file, "S1=Anna").returncode == 0
    assert file.with_suffix(".rttm").read_text().count(" Anna ") == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["diarize"], UsageError, "no recording was named"),
        (["diarize", "a.wav", "--speakers", "none"], UsageError, "leaves nothing to do"),
        (["diarize", "a.wav", "-f", "rttm,srt"], UsageError, "srt is made of words"),
        (["diarize", "a.wav", "--speaker-engine", "nonesuch"], UsageError, "there is no engine 'nonesuch'"),
        (["diarize", "a.wav", "--speaker-engine", "faster-whisper"], UsageError, "faster-whisper cannot diarize"),
        (["diarize", "a.wav", "--speaker-engine", "resemblyzer", "--speaker-model", "x"], UsageError, "its own model"),
        (["diarize", "a.wav", "--device", "cuda"], UsageError, "its devices are cpu"),
        (["transcribe", "a.wav", "-m", "miniature", "--speakers", "2", "--speaker-engine", "silero"], UsageError,
         "silero cannot diarize"),
        (["transcribe", "a.wav", "-m", "miniature", "--engine", "resemblyzer"], UsageError,
         "resemblyzer cannot transcribe"),
    ],
)  # fmt: skip
def test_what_is_refused(words: list[str], code: type[UsageError | CannotRun], said: str, kuulo: Kuulo) -> None:
    done = kuulo(*words)
    assert done.returncode == code.exit_code, done.stderr
    assert said in done.stderr


def test_a_dry_run_says_who_tells_speakers_apart(kuulo: Kuulo, talk: Path) -> None:
    asked = ("transcribe", talk, "-m", "miniature", "--speakers", "2", "--dry-run")
    shown = kuulo(*asked).stdout
    assert "speakers: resemblyzer, " in shown
    plan = json.loads(kuulo(*asked, "--json").stdout)
    assert (plan["diarizer"]["engine"], plan["diarizer"]["model"], plan["job"]) == ("resemblyzer", None, "transcribe")
    assert json.loads(kuulo("transcribe", talk, "-m", "miniature", "--dry-run", "--json").stdout)["diarizer"] is None
    alone = json.loads(kuulo("diarize", talk, "--dry-run", "--json").stdout)
    assert (alone["job"], alone["engine"], alone["options"]["speakers"]) == ("diarize", "resemblyzer", "auto")
    assert alone["recordings"][0]["outputs"] == ["transcripts/talk.speakers.json", "transcripts/talk.speakers.rttm"]
