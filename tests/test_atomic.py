from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuulo import atomic


def test_the_file_holds_the_data_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic.write_bytes(target, b"one")
    atomic.write_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "name",
    ["ä" * 127, "n" * 255, "-rf", "quote\"'; $(x)", "line\nbreak", os.fsdecode(b"not \xff\xfe UTF-8"), ".hidden"],
)
def test_any_name_that_the_file_system_takes(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    atomic.write_bytes(target, b"data")
    assert target.read_bytes() == b"data"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_what_was_there_and_no_temporary_file(tmp_path: Path) -> None:
    folder = tmp_path / "in the way"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    with pytest.raises(OSError, match="directory"):
        atomic.write_bytes(folder, b"data")
    assert [p.name for p in tmp_path.rglob("*")] == ["in the way", "kept"]
    with pytest.raises(FileNotFoundError):
        atomic.write_bytes(tmp_path / "missing" / "a", b"data")
    with pytest.raises(TypeError):
        atomic.write_bytes(tmp_path / "a", "text")  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["in the way"]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_json_is_readable_text(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"name": "Äiti", "n": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "name": "Äiti",\n "n": [\n  1\n ]\n}\n'


def test_numbers_that_json_cannot_hold_become_null() -> None:
    data = {"a": [math.nan, 1.5, (math.inf,)], "b": {"c": -math.inf}}
    assert json.loads(atomic.encode_json(data)) == {"a": [None, 1.5, [None]], "b": {"c": None}}


@given(st.text(st.characters(categories=None), max_size=20))
def test_any_text_survives_json_with_half_surrogates(text: str) -> None:
    # Two halves that make a pair are one character in JSON.
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert json.loads(atomic.encode_json([text])) == [expected]
