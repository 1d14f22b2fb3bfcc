"""Results never overwrite each other."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePath

from hypothesis import given
from hypothesis import strategies as st

from kuulo import naming


def free(stem: PurePath, path: Path) -> bool:
    return False


def stems(*paths: str, base: str | None = None) -> list[str]:
    recordings = [(Path(p), Path(base) if base else None) for p in paths]
    return [str(s) for s in naming.stems(recordings, free)]


def test_a_recording_gives_its_stem() -> None:
    assert stems("/data/interview.m4a") == ["interview"]
    assert stems("/data/interview.2024-05-01.m4a") == ["interview.2024-05-01"]
    assert stems("-") == ["stdin"]


def test_a_folder_is_mirrored() -> None:
    assert stems("/i/anna.wav", "/i/day 1/anna.wav", base="/i") == ["anna", "day 1/anna"]


def test_same_stem_keeps_the_extension() -> None:
    assert stems("a.wav", "a.mp3", "b.mp3") == ["a.wav", "a.mp3", "b"]


def test_same_name_in_two_folders_keeps_the_folders() -> None:
    assert stems("/data/d1/x.wav", "/data/d2/x.wav") == ["d1/x", "d2/x"]
    assert stems("/data/d1/x.wav", "/data/d2/deep/x.wav") == ["d1/x", "d2/deep/x"]


def test_case_and_spelling_of_umlauts_are_no_difference() -> None:
    composed, apart = unicodedata.normalize("NFC", "häme"), unicodedata.normalize("NFD", "häme")
    names = stems(f"/d/{composed}.wav", f"/d/{apart}.wav", "/d/A.wav", "/d/a.wav")
    assert len({unicodedata.normalize("NFC", n).casefold() for n in names}) == 4


def test_names_of_results_that_are_not_a_recordings_are_kept_free() -> None:
    assert stems("report.wav", "Report.mp3", "report") == ["report.wav", "Report.mp3", "report (recording)"]
    assert stems("x.wav", "x.whisper.wav") == ["x", "x.whisper.wav"]
    assert stems("x.whisper") == ["x"]


def test_a_stem_that_another_recording_has_taken_is_not_used() -> None:
    for taken, free_one in (
        ({"a"}, "a.mp3"),
        ({"a", "a.mp3"}, "a.mp3 (2)"),
        ({"a", "a.mp3", "a.mp3 (2)"}, "a.mp3 (3)"),
    ):
        chosen = naming.stems([(Path("a.mp3"), None)], lambda stem, path, taken=taken: str(stem) in taken)
        assert chosen == [PurePath(free_one)]


segment = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda s: s not in (".", "..")
)


@given(
    st.lists(
        st.tuples(segment, segment, st.sampled_from([".wav", ".mp3", ""])),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_no_two_results_are_one(parts: list[tuple[str, str, str]]) -> None:
    recordings = [(Path("/data") / folder / (name + suffix), None) for folder, name, suffix in parts]
    unique = list(dict.fromkeys(recordings))
    chosen = naming.stems(unique, free)
    keys = {unicodedata.normalize("NFC", str(s)).casefold() for s in chosen}
    assert len(keys) == len(unique)
    assert not {"report"} & {str(s).casefold() for s in chosen}
    assert all(not s.is_absolute() and ".." not in s.parts for s in chosen)


def test_names_are_shown_on_one_line_whatever_their_bytes() -> None:
    name = os.fsdecode(b"caf\xe9\nnew\tline")
    assert naming.shown(name) == "caf\\xe9\\nnew\\tline"
    assert naming.shown("häme 'x' \"y\"") == "häme 'x' \"y\""
