"""What is kept of a run that was killed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from kuulo.journal import Heard, Journal
from kuulo.transcript import Segment

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
