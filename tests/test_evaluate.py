"""`kuulo evaluate`: figures that were counted by hand or by the programs that the field uses, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kuulo import formats
from kuulo.evaluation import evaluation, lines, texts, turns
from kuulo.evaluation.evaluation import Options
from kuulo.evaluation.lines import Line
from kuulo.evaluation.page import page, rows
from kuulo.evaluation.texts import Errors, Piece
from kuulo.formats import Layout
from kuulo.transcript import Segment, Speaker
from test_formats import ANNA_AND_BO

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

WORDS = st.lists(st.sampled_from(["yes", "no", "maybe", "ä", "that's"]), max_size=9)


def test_words_are_compared_without_case_and_punctuation() -> None:
    said = "\u201cWell\u201d, that\u2019s It\u2026 9\u201310 o'clock (maybe), 'quoted' ÄITI na\u00efve 50 %!"
    found = ["well", "that's", "it", "9", "10", "o'clock", "maybe", "quoted", "äiti", "naïve", "50"]
    assert texts.words(said) == found
    assert texts.words("ｆｕｌｌ e\u0301") == ["full", "é"], "NFKC"
    assert texts.words(said, "none") == said.split()
    assert texts.words(" ... ") == []


@pytest.mark.parametrize("format_", ["eaf", "textgrid"])
def test_the_tiers_of_elan_and_praat_are_speakers(format_: str, tmp_path: Path) -> None:
    said = (
        Segment(0, 1_000, " Good morning.", (), "S1"),
        Segment(900, 2_000, " Oh, yes.", (), "S2"),
        Segment(2_500, 3_000, " Nobody knows.", ()),
    )
    path = tmp_path / f"talk{formats.spec(format_).extension}"
    transcript = replace(ANNA_AND_BO, segments=said, speakers=(Speaker("S1", "Anna"), Speaker("S2", "Bo")))
    path.write_bytes(formats.render(format_, transcript, Layout()))
    assert lines.read(path) == [
        Line("Good morning.", "Anna", 0, 1_000), Line("Oh, yes.", "Bo", 900, 2_000),
        Line("Nobody knows.", "", 2_500, 3_000),
    ]  # fmt: skip


def errors(reference: str, heard: str) -> Errors:
    return texts.errors_of(texts.align(reference.split(), heard.split()))


def test_errors_of_an_alignment() -> None:
    assert errors("a b c d", "a x c d e") == Errors(substitutions=1, insertions=1, count=4)
    assert errors("a b c", "") == Errors(deletions=3, count=3)
    assert errors("", "a b") == Errors(insertions=2) and errors("", "a b").rate is None
    assert errors("", "") == Errors()
    assert errors("a b c d", "a d").rate == 0.5
    assert texts.character_errors(["ab", "c"], ["abc"]) == Errors(deletions=1, count=4), "a space is a character"


@given(WORDS, WORDS)
def test_an_alignment_has_every_word_in_order_and_no_errors_between_equals(ours: list[str], theirs: list[str]) -> None:
    pieces = texts.align(ours, theirs)
    assert [word for piece in pieces for word in piece.reference] == ours
    assert [word for piece in pieces for word in piece.heard] == theirs
    found = texts.errors_of(pieces)
    assert found.count == len(ours)
    assert abs(len(ours) - len(theirs)) <= found.wrong <= max(len(ours), len(theirs))
    assert (found.wrong == 0) == (ours == theirs)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS)
def test_errors_by_line_add_up(split: list[list[str]], theirs: list[str]) -> None:
    pieces = texts.align([word for line in split for word in line], theirs)
    units = evaluation.by_line(pieces, [len(line) for line in split])
    assert [unit.count for unit in units] == [len(line) for line in split]
    assert sum(units, Errors()) == texts.errors_of(pieces)


SPOKEN: list[tuple[dict[str, str], dict[str, str], int]] = [
    ({"A": "a b c", "B": "d e"}, {"1": "d e", "2": "a b c"}, 0),
    ({"A": "a b c", "B": "d e"}, {"1": "a b c d e"}, 4),
    ({"A": "a b c"}, {"1": "a b", "2": "c", "3": "x y"}, 4),
    ({"A": "a b c d", "B": "a b c x"}, {"1": "a b c x", "2": "a b y d"}, 1),
    ({"A": "a b"}, {}, 2),
]
"""Reference, transcript, and how many words are wrong in meeteval's cp_word_error_rate (0.4.3). It has to be
compiled: it was run by hand on these and on 200 drawn ones, with equal counts."""


@pytest.mark.parametrize(("reference", "heard", "wrong"), SPOKEN)
def test_cpwer_is_that_of_meeteval(reference: dict[str, str], heard: dict[str, str], wrong: int) -> None:
    def split(texts_: dict[str, str]) -> dict[str, list[str]]:
        return {name: text.split() for name, text in texts_.items()}

    found = texts.cp_errors(split(reference), split(heard))
    assert found.wrong == wrong
    assert found.count == sum(len(text.split()) for text in reference.values())


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("ABC"), WORDS, max_size=3), st.dictionaries(st.sampled_from("123"), WORDS))
def test_cpwer_does_not_depend_on_names(ours: dict[str, list[str]], theirs: dict[str, list[str]]) -> None:
    found = texts.cp_errors(ours, theirs)
    assert found.wrong == texts.cp_errors(dict(reversed(ours.items())), dict(reversed(theirs.items()))).wrong
    assert texts.cp_errors(ours, {f"x{name}": said for name, said in ours.items()}).wrong == 0


def turn(speaker: str, start: float, end: float) -> Line:
    return Line(None, speaker, round(start * 1000), round(end * 1000))


def test_who_spoke_when() -> None:
    """10 s of speech: 1 s missed, 2 s of the other speaker, 0.5 s too much."""
    reference = [turn("Anna", 0, 5), turn("Ben", 5, 10)]
    heard = [turn("S1", 1, 7), turn("S2", 7, 10.5)]
    found = turns.compare(reference, heard)
    assert (found.missed, found.confused, found.false, found.total) == pytest.approx((1, 2, 0.5, 10))
    assert found.rate == pytest.approx(0.35)
    # S1 is Anna's: of 7 s that either has, 4 are both's; S2 Ben's: 3 of 5.5.
    assert found.jaccard == pytest.approx(((1 - 4 / 7) + (1 - 3 / 5.5)) / 2)
    assert turns.compare(reference, reference).rate == 0
    assert turns.compare(reference, []).rate == 1
    assert turns.compare([], heard).rate is None
    inside = turns.compare(reference, heard, collar_s=2.0)
    assert inside.total == pytest.approx(6), "one second before and after each border does not count"
    together = [turn("Anna", 0, 6), turn("Ben", 4, 10)]
    assert turns.compare(together, []).total == pytest.approx(12)
    assert turns.compare(together, [], skip_overlap=True).total == pytest.approx(8)


# ---------------------------------------------------------------------- files


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


STM = """;; a comment
talk A anna 0.00 2.50 <o,f0,female> good morning
talk A inter_segment_gap 2.50 3.00
talk A ben 3.0 5.25 yes coffee
"""
RTTM = "SPEAKER talk 1 0.000 2.500 <NA> <NA> anna <NA> <NA>\nSPKR-INFO talk 1 <NA> <NA> <NA> unknown anna <NA> <NA>\n"
CTM = "talk 1 0.10 0.40 good 0.98\ntalk 1 0.60 0.50 morning\n"


def test_files_as_lines(tmp_path: Path) -> None:
    assert lines.read(write(tmp_path / "a.stm", STM)) == [
        Line("good morning", "anna", 0, 2500), Line("yes coffee", "ben", 3000, 5250),
    ]  # fmt: skip
    assert lines.read(write(tmp_path / "a.rttm", RTTM)) == [Line(None, "anna", 0, 2500)]
    assert lines.read(write(tmp_path / "a.ctm", CTM)) == [Line("good", "", 100, 500), Line("morning", "", 600, 1100)]
    assert lines.read(write(tmp_path / "a.TXT", "\ufeffone\n\n two \n")) == [Line("one"), Line("two")]
    whisper = {"text": "x", "segments": [{"start": 0.5, "end": 1, "text": " Hello.", "speaker": "SPEAKER_00"}]}
    assert lines.read(write(tmp_path / "a.json", json.dumps(whisper))) == [Line("Hello.", "SPEAKER_00", 500, 1000)]
    master = {
        "schema": 1, "audio": {"name": "a", "sha256": "0" * 64, "duration_ms": 9},
        "speakers": [{"id": "S1", "label": "Anna"}],
        "segments": [{"start_ms": 1, "end_ms": 2, "text": " Hi", "speaker": "S1"}],
    }  # fmt: skip
    assert lines.read(write(tmp_path / "b.json", json.dumps(master))) == [Line("Hi", "Anna", 1, 2)]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.stm", "talk A anna 0.00\n", "4 fields"),
        ("a.stm", "talk A anna zero 1 x\n", "no time"),
        ("a.rttm", "SPEAKER talk 1 -1 2 <NA> <NA> anna\n", "no time"),
        ("a.json", "{", "not what its name says"),
        ("a.doc", "", "cannot be compared"),
        ("missing.txt", None, "cannot be read"),
    ],
)
def test_files_that_are_not_what_they_seem(name: str, text: str | None, why: str, kuulo: Kuulo, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path / name, text)
    done = kuulo("evaluate", name, write(tmp_path / "heard.txt", "x"))
    assert done.returncode in (1, 2) and why in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_the_command_tells_all_rates(kuulo: Kuulo, tmp_path: Path) -> None:
    heard = {
        "segments": [
            {"start": 0, "end": 2.5, "text": " Good evening.", "speaker": "S1"},
            {"start": 3, "end": 5.25, "text": " Yes, coffee!", "speaker": "S2"},
        ]
    }
    write(tmp_path / "a.stm", STM)
    write(tmp_path / "a.json", json.dumps(heard))
    done = kuulo("evaluate", "a.stm", "a.json", "--json", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    (file,) = found["files"]
    assert file["wer"] == {"rate": 0.25, "substitutions": 1, "deletions": 0, "insertions": 0, "of": 4}
    assert file["cpwer"]["rate"] == 0.25 and file["der"]["rate"] == 0 and 0 < file["cer"]["rate"] < 0.5
    assert found["total"]["wer"]["rate"] == 0.25
    shown = kuulo("evaluate", "a.stm", "a.json").stdout
    assert shown.splitlines()[0].split() == ["file", "words", "WER", "95", "%", "CER", "cpWER", "DER", "JER"]
    assert shown.splitlines()[1].split()[:4] == ["a.json", "4", "25.0", "%"]
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<del>morning</del>" in html and "<ins>evening</ins>" in html and "1 of 4 words wrong" in html
    plain = kuulo("evaluate", "a.stm", "a.json", "--normalise", "none", "--json")
    assert json.loads(plain.stdout)["total"]["wer"]["rate"] == 1.0


def test_folders_are_compared_by_name_and_a_missing_transcript_is_an_error(kuulo: Kuulo, tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / "references" / f"{number}.txt", "one two three four")
        write(tmp_path / "out" / f"{number}.txt", "one two three" if number % 2 else "one two three four")
    write(tmp_path / "out" / "report.json", "{}")
    found = json.loads(kuulo("evaluate", "references", "out", "--json").stdout)["total"]["wer"]
    assert found["rate"] == pytest.approx(0.125) and found["interval_unit"] == "recordings"
    low, high = found["interval_95"]
    assert 0.02 < low < 0.125 < high < 0.25
    (tmp_path / "out" / "3.txt").unlink()
    done = kuulo("evaluate", "references", "out")
    assert done.returncode == 2 and "no transcript of 3" in done.stderr
    assert kuulo("evaluate", "references", "out/1.txt").returncode == 2
    write(tmp_path / "out" / "3.txt", "x")
    write(tmp_path / "out" / "3.stm", "")
    assert "which of the two" in kuulo("evaluate", "references", "out").stderr


def test_a_master_copy_goes_before_what_was_made_of_it(tmp_path: Path) -> None:
    write(tmp_path / "out" / "a.txt", "one")
    write(tmp_path / "out" / "a.json", json.dumps({"segments": []}))
    write(tmp_path / "references" / "a.stm", "")
    assert evaluation.pairs(tmp_path / "references", tmp_path / "out")[0][1].name == "a.json"


def test_what_has_nothing_in_common_is_refused(kuulo: Kuulo, tmp_path: Path) -> None:
    done = kuulo("evaluate", write(tmp_path / "a.rttm", RTTM), write(tmp_path / "a.txt", "x"))
    assert done.returncode == 2 and "nothing in common" in done.stderr


def test_an_interval_needs_enough_and_is_the_same_each_time() -> None:
    units = [Errors(substitutions=number % 3, count=10) for number in range(30)]
    assert evaluation.interval(units[:9]) is None
    low_high = evaluation.interval(units)
    assert low_high == evaluation.interval(units) and low_high is not None
    assert low_high[0] < 0.1 < low_high[1]
    assert evaluation.interval([Errors(count=0)] * 30) is None


def test_a_page_is_of_the_words_alone(tmp_path: Path) -> None:
    nasty = "<script>alert('x')</script>"
    pieces = (
        Piece("equal", ("a",) * 20, ("a",) * 20),
        Piece("substitute", (nasty,), ("&",)),
        Piece("insert", (), ("b",)),
    )
    assert len(rows(pieces)) == 2
    made = page([evaluation.Result(nasty, words=Errors(count=1), pieces=pieces)])
    assert "<script" not in made and "&lt;script&gt;" in made and "<ins>&amp;</ins> <ins>b</ins>" in made
    assert "http" not in made


def test_texts_of_nothing(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "some.txt", "one two")
    assert evaluation.evaluate(tmp_path / "empty.txt", tmp_path / "empty.txt", Options()).words == Errors()
    assert evaluation.evaluate(tmp_path / "some.txt", tmp_path / "empty.txt", Options()).words == Errors(0, 2, 0, 2)
    silent = evaluation.evaluate(write(tmp_path / "a.rttm", RTTM), write(tmp_path / "b.rttm", ""), Options())
    assert silent.words is None and silent.turns is not None and silent.turns.rate == 1
    assert kuulo("evaluate", "empty.txt", "some.txt").returncode == 0
    assert evaluation.evaluate(tmp_path / "some.txt", tmp_path / "some.txt", Options()).words == Errors(count=2)
