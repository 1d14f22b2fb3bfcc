"""Which recordings go into which task, and how fast it will be."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs_made
from kuulo import speeds
from kuulo.errors import CannotRun
from kuulo.jobs import measuring, packing, planning
from kuulo.jobs.batch import TURNS, WHOLE, WORDS, Item, Pace
from kuulo.jobs.packing import Aim, Costs
from kuulo.speeds import GUESS, MEASURED, PUBLISHED, Observation, Table, Work

FAST = Pace(10.0, 5.0, 0.2, 10**9, MEASURED, "measured")
TURNS_PACE = Pace(40.0, 2.0, 0.1, 10**8, MEASURED, "measured")
MINUTE = 60_000


def items(*minutes: float) -> list[Item]:
    return [
        Item(Path(f"{n}.wav"), PurePath(str(n)), round(m * MINUTE), round(m * 10**6), 0) for n, m in enumerate(minutes)
    ]


lengths = st.lists(st.floats(0.01, 600), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(lengths, st.integers(1, 40), st.floats(1, 200), st.booleans(), st.booleans())
def test_every_recording_is_heard_once(minutes: list[float], most: int, task: float, cut: bool, turns: bool) -> None:
    given_ = items(*minutes)
    costs = Costs(FAST, TURNS_PACE if turns else None)
    aim = Aim(task * 60, most, cut=cut, from_ms=7000)
    tasks = packing.pack(given_, costs, aim)
    assert tasks == packing.pack(given_, costs, aim), "the same input, the same tasks"
    assert 1 <= len(tasks) <= most and all(tasks)
    pieces = [piece for one in tasks for piece in one]
    for number, item in enumerate(given_):
        mine = sorted((p for p in pieces if p.item == number), key=lambda p: p.part)
        words = [p for p in mine if p.kind == WORDS]
        if not words:
            assert [p.kind for p in mine] == [WHOLE]
            continue
        assert cut and len(words) >= 2
        assert [p.kind for p in mine if p.kind != WORDS] == ([TURNS] if turns else [])
        assert (words[0].from_ms, words[-1].to_ms) == (7000, 7000 + item.length_ms)
        assert all(a.to_ms == b.from_ms for a, b in itertools.pairwise(words))
        assert all(p.to_ms - p.from_ms >= packing.SHORTEST_PART_MS - len(words) for p in words)
        assert {p.parts for p in mine} == {len(words)}


def balance(tasks: list[tuple[packing.Piece, ...]], given_: list[Item], costs: Costs) -> float:
    times = [packing.task_s(task, given_, costs) for task in tasks]
    return max(times) * len(times) / sum(times)


def test_skewed_lengths_end_at_about_the_same_time() -> None:
    drawn = random.Random(5)
    given_ = items(*(drawn.lognormvariate(2.5, 1.2) for _ in range(400)), 300, 500, 900)
    tasks = packing.pack(given_, Costs(FAST), Aim(3600, 1000))
    assert len(tasks) > 5
    assert balance(tasks, given_, Costs(FAST)) <= 1.15


def test_a_task_is_long_enough_to_be_worth_loading() -> None:
    slow = dataclasses.replace(FAST, load_s=600.0)
    assert len(packing.pack(items(*[60] * 10), Costs(slow), Aim(60, 1000, cut=False))) == 1
    assert len(packing.pack(items(*[60] * 10), Costs(FAST), Aim(60, 1000, cut=False))) == 10


def test_no_task_is_longer_than_the_limit_where_it_can_be() -> None:
    given_ = items(*[30] * 40, 400)
    tasks = packing.pack(given_, Costs(FAST), Aim(7200, 1000, limit_s=900))
    assert max(packing.task_s(task, given_, Costs(FAST)) for task in tasks) <= 900 * 1.15


def test_a_recording_of_unknown_length_goes_by_its_size_and_is_not_cut() -> None:
    (one,) = items(600)
    unknown = dataclasses.replace(one, length_ms=0, bytes=16 * 600 * MINUTE)
    assert packing.length_ms(unknown) == 600 * MINUTE
    ((piece,),) = packing.pack([unknown], Costs(FAST), Aim(60, 100))
    assert piece.kind == WHOLE


def test_nothing_gives_no_tasks() -> None:
    assert packing.pack([], Costs(FAST), Aim(60, 100)) == []


# ---------------------------------------------------------------------- speeds


WORK = Work("faster-whisper", "small", "cpu", 8)


def seen(speed: float, place: str = "batch", **work: object) -> Observation:
    return Observation(dataclasses.replace(WORK, **work), speed, 4.0, 10**9, 600.0, place, "EPYC", "2026-11-23")  # type: ignore[arg-type]


def test_what_was_measured_counts_and_is_taken_carefully() -> None:
    table = Table(tuple(seen(s) for s in (10.0, 8.0, 12.0, 20.0)))
    pace = speeds.estimate(WORK, [table], "batch", 0)
    assert (pace.speed, pace.source, pace.why) == (10.0, MEASURED, "measured 4 times there")
    elsewhere = speeds.estimate(WORK, [table], "gpu", 0)
    assert elsewhere.why == "measured 4 times on batch"
    fewer = speeds.estimate(dataclasses.replace(WORK, cpus=4), [table], "batch", 0)
    assert fewer.speed == 5.0, "half the cores, half the speed"
    more = speeds.estimate(dataclasses.replace(WORK, cpus=16), [table], "batch", 0)
    assert 10.0 < more.speed < 20.0


def test_what_is_alike_in_name_alone_does_not_count() -> None:
    table = Table((seen(10.0, model="medium"), seen(10.0, diarizer="pyannote"), seen(10.0, batch_size=8)))
    assert speeds.estimate(WORK, [table], "batch", 0).source == PUBLISHED


@pytest.mark.parametrize(
    ("work", "speed", "source"),
    [
        (WORK, 3.8, PUBLISHED),  # 13 min in 1 min 42 s on eight cores, halved
        (Work("faster-whisper", "large-v3", "cuda", 4), 6.2, PUBLISHED),
        (Work("faster-whisper", "large-v3", "cuda", 4, batch_size=8), 23.0, PUBLISHED),
        (Work("openai-whisper", "medium", "cpu", 8), 0.475, PUBLISHED),
        (Work("whisper-cpp", "my-own", "cpu", 8), 0.775, GUESS),
        (Work("something", "large", "cuda", 8), 0.25, GUESS),
        (Work("pyannote", "community-1", "cuda", 8), 48.5, PUBLISHED),
        (Work("resemblyzer", "", "cpu", 8), 30.0, PUBLISHED),
    ],
)
def test_published_figures_are_halved_and_a_guess_is_called_one(work: Work, speed: float, source: str) -> None:
    pace = speeds.estimate(work, [], "batch", 10**9)
    assert math.isclose(pace.speed, speed, rel_tol=0.02) and pace.source == source
    assert source in pace.why or "guess" in pace.why


def test_the_least_sure_of_two_counts() -> None:
    guess = dataclasses.replace(FAST, source=GUESS)
    assert speeds.least_sure(FAST, None) == MEASURED
    assert speeds.least_sure(FAST, dataclasses.replace(FAST, source=PUBLISHED)) == PUBLISHED
    assert speeds.least_sure(guess, FAST) == GUESS


def test_the_words_of_what_was_measured_with_speakers() -> None:
    both = dataclasses.replace(FAST, speed=8.0)
    words = speeds.without(both, TURNS_PACE)
    assert math.isclose(1 / words.speed + 1 / TURNS_PACE.speed, 1 / 8.0)
    assert speeds.without(dataclasses.replace(FAST, speed=100.0), TURNS_PACE).speed == 200.0


def test_a_table_is_kept_and_forgets_what_is_old(tmp_path: Path) -> None:
    path = tmp_path / "x" / "speeds.json"
    assert speeds.read(path) == Table()
    table = Table().with_([seen(float(n)) for n in range(30)] + [seen(5.0, "gpu")])
    assert len(table.observations) == speeds.KEPT + 1
    assert table.observations[0].speed == 10.0
    speeds.write(path, table)
    assert speeds.read(path) == table
    path.write_text(json.dumps({"observations": [{"speed": 1}]}))
    with pytest.raises(CannotRun, match="damaged"):
        speeds.read(path)


def test_too_little_sound_says_nothing() -> None:
    said = {"elapsed_s": 9.0, "load_s": 1.0, "memory_bytes": 1, "place": "x", "at": ""}
    assert speeds.observation(WORK, audio_s=5.0, **said) is None  # type: ignore[arg-type]
    made = speeds.observation(WORK, audio_s=80.0, **said)  # type: ignore[arg-type]
    assert made is not None and made.speed == 10.0


def test_more_is_asked_for_where_less_is_known() -> None:
    assert planning.minutes_for(3600, MEASURED) == 80
    assert planning.minutes_for(3600, PUBLISHED) == planning.minutes_for(3600, GUESS) == 125


# ---------------------------------------------------------------------- what jobs took


def test_hours_are_those_of_the_tasks() -> None:
    one = measuring.Taken(1, 2, 3, 1, 2.0, 8.0, 0.0, 0.5, 1800.0, 3600.0, 1.0, 2.0)
    both = measuring.total([one, one])
    assert (both.jobs, both.audio_h, both.time, both.memory) == (2, 4.0, 0.5, 0.5)
    assert measuring.Taken().time is None


def test_as_many_workers_as_cores_and_memory_allow() -> None:
    large = jobs_made.planned(Path("out"), model="miniature")
    assert large.model is not None
    large = dataclasses.replace(large, model=dataclasses.replace(large.model, bytes=3 * 10**9))
    need = planning.worker_bytes(large)
    assert need == 6_700_000_000
    assert planning.workers_on(large, 8, None) == (8 * planning.BYTES_PER_CPU - planning.BASE_BYTES) // need == 5
    assert planning.workers_on(large, 8, 8000) == 1, "a laptop's memory"
    assert planning.workers_on(large, 2, 64_000) == 2
