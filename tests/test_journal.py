"""What is kept of a run that was killed."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

import numpy as np
import pytest

import recordings
from kuulo.formats import json as master
from kuulo.journal import Heard, Journal
from kuulo.transcript import Segment, Turn
from test_roster import LONG, OTHER, clip
from test_speakers import RATE, conversation

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

EVENTS = [
    {"type": "language", "language": "fi", "confidence": 0.9},
    {"type": "checkpoint", "at_ms": 0, "state": {"seek": 0}},
    {"type": "segment", "segment": Segment(0, 900, " Hyvää päivää.").to_json()},
    {"type": "checkpoint", "at_ms": 1000, "state": {"seek": 100}},
    {"type": "segment", "segment": Segment(1000, 1900, " Kiitos.").to_json()},
]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, PurePath("a/b"), "k" * 64)
    journal.start(Heard())
    for event in EVENTS:
        journal.write(event)
    yield journal
    journal.close()


def test_what_follows_the_last_checkpoint_is_dropped(journal: Journal) -> None:
    heard = journal.read()
    assert [s.text for s in heard.segments] == [" Hyvää päivää."]
    assert (heard.language, heard.confidence, heard.state, heard.at_ms) == ("fi", 0.9, {"seek": 100}, 1000)


def test_a_file_cut_at_any_byte_gives_a_beginning_of_what_was_written(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    kept = []
    for end in range(len(whole) + 1):
        journal.path.write_bytes(whole[:end])
        heard = journal.read()
        kept.append((heard.at_ms if heard.state else None, len(heard.segments)))
    assert sorted(set(kept), key=kept.index) == [(None, 0), (0, 0), (1000, 1)]
    assert kept == sorted(kept, key=[(None, 0), (0, 0), (1000, 1)].index)


def test_going_on_begins_with_what_was_kept(journal: Journal) -> None:
    heard = journal.read()
    journal.close()
    journal.start(heard)
    journal.write({"type": "segment", "segment": Segment(1000, 1950, " Kiitos!").to_json()})
    journal.write({"type": "checkpoint", "at_ms": 2000, "state": {"seek": 200}})
    assert [s.text for s in journal.read().segments] == [" Hyvää päivää.", " Kiitos!"]


def test_words_are_readable_by_their_owner_alone(journal: Journal) -> None:
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_nothing_is_left_when_done(journal: Journal, tmp_path: Path) -> None:
    journal.remove()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert journal.read() == Heard()


def test_another_plan_has_another_journal(tmp_path: Path) -> None:
    one, other = (Journal(tmp_path, PurePath("a"), key * 64) for key in "ab")
    assert one.path != other.path


# ---------------------------------------------------------------------- who speaks when

TURNS = (Turn(0, 900, "S1"), Turn(800, 1900, "S2"))
HELLO = {"engine": "resemblyzer", "engine_version": "1", "packages": {}}


def test_turns_are_kept_whatever_came_after_the_last_checkpoint(journal: Journal) -> None:
    journal.write_turns(TURNS, HELLO)
    journal.write({"type": "segment", "segment": Segment(1900, 2900, " Hei.").to_json()})
    heard = journal.read()
    assert (heard.turns, heard.told_apart_by, heard.at_ms) == (TURNS, HELLO, 1000)
    journal.close()
    journal.start(heard)
    assert journal.read() == heard


def test_turns_alone_are_worth_keeping(tmp_path: Path) -> None:
    journal = Journal(tmp_path, PurePath("a"), "k" * 64)
    journal.start(Heard())
    journal.write_turns((), HELLO)
    journal.close()
    assert journal.read() == Heard(turns=(), told_apart_by=HELLO)
    whole = journal.path.read_bytes()
    for end in range(len(whole) - 1):
        journal.path.write_bytes(whole[:end])
        assert journal.read() == Heard()
    journal.path.write_bytes(b"")
    journal.start(Heard())
    journal.close()
    assert not journal.path.exists(), "nobody could go on from nothing"


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voices, 40 s: two windows of the engine `null`."""
    samples, _ = conversation(["en-us+m3", "en-us+f2"], OTHER)
    several = np.tile(samples, -(-40 * RATE // len(samples)))[: 40 * RATE]
    return recordings.wav(tmp_path_factory.mktemp("talk") / "talk.wav", several, RATE)


def killed(
    command: list[str], asked: list[str], environment: dict[str, str], cwd: Path, when: str
) -> tuple[list[str], Path, str]:
    """What was typed for a run that was killed as soon as its journal had `when`, the journal, and what is in it. The
    engine waits longer until the run is killed before its end, however busy the machine is."""
    for wait_ms in (2_000, 8_000, 32_000):
        folder = cwd / f"out{wait_ms}"
        words = [*asked, "--engine-option", f"wait_ms={wait_ms}", "-o", str(folder)]
        run = subprocess.Popen([*command, *words], env=environment, cwd=cwd, stdin=subprocess.DEVNULL)
        while run.poll() is None and when not in _journal(folder)[1]:
            time.sleep(0.02)
        run.kill()
        run.wait()
        path, content = _journal(folder)
        if when in content and not (folder / "talk.json").exists():
            return words, path, content
    raise AssertionError(f"no journal had {when} before the end of its run")


def _journal(folder: Path) -> tuple[Path, str]:
    for path in folder.glob(".kuulo/partial/*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            return path, path.read_text()
    return folder, ""


def test_a_killed_run_does_not_tell_the_speakers_apart_again(
    talk: Path, kuulo: Kuulo, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    asked = ["transcribe", str(talk), "-e", "null", "--speakers", "2"]
    assert kuulo(*asked, "-o", "undisturbed").returncode == 0
    words, journal, left = killed(kuulo_command, asked, kuulo_environment, tmp_path, '"turns"')
    assert "voices" not in left and "encoder" not in left and max(map(len, left.splitlines())) < 4_000
    journal.write_text(re.sub(r'"engine_version":"[^"]*"', '"engine_version":"of the killed run"', left))
    done = kuulo(*words)
    assert done.returncode == 0, done.stderr
    read = master.read_master(journal.parents[2] / "talk.json")
    undisturbed = master.read_master(tmp_path / "undisturbed" / "talk.json")
    assert read.segments == undisturbed.segments and read.speakers == undisturbed.speakers
    assert read.provenance is not None
    assert read.provenance.steps[1].engine_version == "of the killed run"
    assert not list(journal.parent.iterdir())


def test_with_a_roster_who_speaks_when_is_not_kept(
    talk: Path, kuulo: Kuulo, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    clip(tmp_path / "anna.wav", ["f2"], LONG)
    assert kuulo("speakers", "enrol", "Anna", "anna.wav").returncode == 0
    asked = ["transcribe", str(talk), "-e", "null", "--speakers", "2", "--roster", str(tmp_path / "kuulo-roster.json")]
    words, journal, left = killed(kuulo_command, asked, kuulo_environment, tmp_path, '"at_ms":30000')
    vector = json.loads((tmp_path / "kuulo-roster.json").read_text())["voices"][0]["embedding"]
    assert '"turns"' not in left and str(vector[0]) not in left
    done = kuulo(*words)
    assert done.returncode == 0, done.stderr
    labels = {speaker.label for speaker in master.read_master(journal.parents[2] / "talk.json").speakers}
    assert "Anna" in labels, "names need the voices: they are heard again"
