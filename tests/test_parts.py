"""Recordings that are heard in parts: every sample in one part, and the whole as if it had not been cut."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scores import bare, errors, heard_parts, lost_and_repeated

import jobs_made
import recordings
from kuulo import audio, parts, run
from kuulo.formats import json as master
from kuulo.jobs import account, join
from kuulo.jobs.folder import tasks_of
from kuulo.journal import Journal
from kuulo.parts import WORDS, Part
from kuulo.preparation import Preparation
from kuulo.results import Results
from models_fixture import Miniature, long_recording
from sessions import UNCLOSED

pytestmark = UNCLOSED


class Nobody:
    """A watcher who watches nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def spoken(seconds: float, seed: int = 3) -> np.ndarray:
    """Bursts of a tone with pauses of other lengths between them."""
    drawn = np.random.default_rng(seed)
    pieces = []
    length = 0.0
    while length < seconds:
        burst, pause = drawn.uniform(1, 8), drawn.uniform(0.1, 1.5)
        pieces += [recordings.tone(burst, hertz=drawn.uniform(200, 600)), np.zeros(round(16_000 * pause), np.float32)]
        length += burst + pause
    return np.concatenate(pieces)[: round(seconds * 16_000)]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings.wav(tmp_path_factory.mktemp("talk") / "talk å.wav", spoken(400))


def decoded(path: Path, part: Part, scratch: Path) -> tuple[np.ndarray, int]:
    """A part's samples, and the sample that it begins with."""
    pcm = scratch / "part.f32"
    try:
        whole = audio.decode(path, pcm, from_ms=part.decode_from_ms, to_ms=part.to_ms)
    except audio.EndsBefore:
        return np.zeros(0, np.float32), 0
    found = parts.trim(part, pcm, whole)
    return np.fromfile(pcm, "<f4"), found.offset_ms * parts.PER_MS


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(61_000, 200_000), min_size=1, max_size=4))
def test_every_sample_is_in_one_part(talk: Path, tmp_path: Path, lengths: list[int]) -> None:
    """Also when the header promised more than there is: then the last parts are empty."""
    places: list[int | None] = [None, *itertools.accumulate(lengths), None]
    audio.decode(talk, tmp_path / "whole.f32")
    whole = np.fromfile(tmp_path / "whole.f32", "<f4")
    at = 0
    for begin, end in itertools.pairwise(places):
        samples, first = decoded(talk, Part(WORDS, begin, end), tmp_path)
        if len(samples):
            assert first == at, "it begins where the one before ended"
            assert np.array_equal(samples, whole[at : at + len(samples)])
        at += len(samples)
    assert at == len(whole)


def test_a_cut_is_in_silence(talk: Path, tmp_path: Path) -> None:
    samples, _ = decoded(talk, Part(WORDS, None, 200_000), tmp_path)
    assert 140_000 <= len(samples) / 16 <= 200_000
    assert np.abs(samples[-800:]).max() == 0.0
    after, _ = decoded(talk, Part(WORDS, 200_000, None), tmp_path)
    assert np.abs(after[:800]).max() == 0.0


def joined(job: Any, made: Any) -> Any:
    tasks = tasks_of(job, [len(task) for task in made.tasks])
    (state,) = account.items(made, tasks, {})
    assert (state.state, state.is_cut) == ("done", True)
    outcome = join.join(made, 0)
    assert outcome.state == "done", outcome.why
    return outcome


def test_nothing_is_lost_or_doubled_at_the_seams(talk: Path, tmp_path: Path) -> None:
    """Tasks may be done in any order, by anybody; the engine says a sentence for each 30 s."""
    made = jobs_made.planned(tmp_path / "out", engine="null", word_times=True)
    one = jobs_made.item(talk)
    batch = jobs_made.batch(made, [one], [[piece] for piece in reversed(jobs_made.cut(one.length_ms, 3))])
    job = jobs_made.folder(tmp_path / "jobs", batch)
    assert jobs_made.do(job, batch) == [0, 0, 0]
    assert not (tmp_path / "out" / "talk å.json").exists(), "nothing is written before all of it is there"
    outcome = joined(job, batch)
    read = master.read_master(tmp_path / "out" / "talk å.json")
    assert read.segments[0].start_ms == 0 and read.segments[-1].end_ms == 400_000
    assert all(a.end_ms == b.start_ms for a, b in itertools.pairwise(read.segments))
    assert read.audio.duration_ms == 400_000 and outcome.audio_ms == 400_000
    assert read.provenance is not None and read.provenance.key == made.key_for(read.audio.sha256)
    assert list((tmp_path / "out" / ".kuulo" / "partial").iterdir())
    join.forget(batch, 0)
    assert not list((tmp_path / "out" / ".kuulo" / "partial").iterdir())
    assert join.join(batch, 0).state == "skipped", "it is done"


def test_a_part_that_is_missing_is_said(talk: Path, tmp_path: Path) -> None:
    made = jobs_made.planned(tmp_path / "out", engine="null")
    one = jobs_made.item(talk)
    batch = jobs_made.batch(made, [one], [jobs_made.cut(one.length_ms, 3)])
    job = jobs_made.folder(tmp_path / "jobs", batch)
    assert jobs_made.do(job, batch) == [0]
    next((tmp_path / "out" / ".kuulo" / "partial").iterdir()).unlink()
    outcome = join.join(batch, 0)
    assert outcome.state == "failed" and outcome.why == "1 of its 3 parts are not there"


def test_from_and_to_hold_for_the_whole(talk: Path, tmp_path: Path) -> None:
    made = jobs_made.planned(tmp_path / "out", engine="null", **{"from": "30", "to": "390"})
    one = jobs_made.item(talk)
    pieces = [
        dataclasses.replace(piece, from_ms=piece.from_ms + 30_000, to_ms=piece.to_ms + 30_000)
        for piece in jobs_made.cut(360_000, 2)
    ]
    batch = jobs_made.batch(made, [one], [pieces])
    job = jobs_made.folder(tmp_path / "jobs", batch)
    assert jobs_made.do(job, batch) == [0]
    joined(job, batch)
    read = master.read_master(tmp_path / "out" / "talk å.json")
    assert (read.segments[0].start_ms, read.segments[-1].end_ms) == (30_000, 390_000)


def test_a_real_engine_hears_the_same_words(miniature: Miniature, tmp_path: Path) -> None:
    """Five minutes of speech in two parts, joined: the same words and speakers as whole, but for the seam."""
    samples, said = long_recording(miniature.clip("held_out_en"), 300)
    path = recordings.wav(tmp_path / "talk.wav", samples)
    options = {"engine": "faster-whisper", "model": "miniature", "language": "en", "speakers": "1-2"}
    options |= {"condition_on_previous_text": False}
    report = run.Run(jobs_made.planned(tmp_path / "whole", **options), [audio.Recording(path)], [], Nobody()).go()
    assert report.count("done") == 1
    made = jobs_made.planned(tmp_path / "out", **options)
    one = jobs_made.item(path)
    batch = jobs_made.batch(made, [one], [jobs_made.cut(one.length_ms, 2, turns=True)])
    job = jobs_made.folder(tmp_path / "jobs", batch)
    assert jobs_made.do(job, batch) == [0]
    joined(job, batch)
    first = master.read_master(tmp_path / "whole" / "talk.json")
    second = master.read_master(tmp_path / "out" / "talk.json")
    words = [bare(" ".join(segment.text for segment in read.segments)) for read in (first, second)]
    assert errors(*words) <= 0.02 * len(words[0])
    found = lost_and_repeated(said, heard_parts(second.segments))
    assert sum(found.values()) <= 1, found
    assert [speaker.id for speaker in second.speakers] == [speaker.id for speaker in first.speakers]
    assert first.provenance is not None and second.provenance is not None
    assert [step.task for step in second.provenance.steps] == [step.task for step in first.provenance.steps]
    assert second.provenance.key == first.provenance.key


def test_a_part_goes_on_inside(talk: Path, tmp_path: Path) -> None:
    """A part that was killed is not heard from its beginning again."""
    made = jobs_made.planned(tmp_path / "out", engine="null", engine_option=("fail_at_ms=60000",))
    one = jobs_made.item(talk)
    batch = jobs_made.batch(made, [one], [jobs_made.cut(one.length_ms, 2)])
    job = jobs_made.folder(tmp_path / "jobs", batch)
    assert jobs_made.do(job, batch) == [1]
    kept = list((tmp_path / "out" / ".kuulo" / "partial").iterdir())
    assert len(kept) == 2
    events = [json.loads(line)["type"] for path in kept for line in path.read_text().splitlines()]
    assert events.count("segment") == 4 and "end" not in events


def test_preparation_tells_the_seams_to_nobody(talk: Path, tmp_path: Path) -> None:
    """The decoded part in scratch is no longer than the part."""
    made = jobs_made.planned(tmp_path / "out", engine="null")
    results = Results(made)
    results.make_folder()
    job = run.Run(made, [audio.Recording(talk, stem=Path("x"), part=Part(WORDS, 120_000, 200_000))], [], Nobody())
    (one,) = job.works
    heard = threading.Event()
    ready = Preparation(made, results, tmp_path, expected=lambda: None, answer=lambda *_: heard.set())
    ready.start(job.works, 1)
    assert heard.wait(20)
    ready.stop()
    assert one.pcm is not None and one.pcm.stat().st_size == one.samples * 4
    assert 60_000 <= one.offset_ms <= 120_000 and 140_000 <= one.offset_ms + one.length_ms <= 200_000
    assert isinstance(one.journal, Journal) and "words-120000-200000" in one.journal.path.name
