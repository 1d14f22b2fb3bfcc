"""GGUF files: what their headers tell, and files that are not what they should be."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import gguf_file
from conftest import Kuulo
from kuulo.models import check, gguf
from kuulo.models.binary import Damaged


def test_a_header_tells_what_the_model_is(tmp_path: Path) -> None:
    path = gguf_file.small(tmp_path / "größe $(x).gguf", layers=3, context=4096)
    assert check.detect_format(path) == "gguf" and check.task_of("gguf") == "chat"
    assert check.problems("gguf", path) == []
    shape = gguf.text_shape(path)
    assert (shape.architecture, shape.quantisation, shape.context, shape.layers) == ("llama", "F16", 4096, 3)
    assert (shape.vocabulary, shape.embedding, shape.template) == (3, 64, True)
    assert shape.key_value == 2 * (16 + 16), "two KV heads of 16, keys and values"
    assert shape.parameters == 3 * 64 * 64 + 3 * 64 and shape.weights_bytes == path.stat().st_size
    assert gguf.template(path) == "{{ messages }}"


def test_facts_that_are_missing_or_of_other_kinds_are_not_told(tmp_path: Path) -> None:
    more = {
        "tokenizer.chat_template": None,
        "llama.attention.head_count_kv": [2, 2],  # one for each layer
        "general.file_type": None,
        "some.flag": True,
        "some.lists": ["a", "ö"],
        "some.number": -1,
        "some.floats": [0.5, 1.5],
    }
    path = gguf_file.small(tmp_path / "m.gguf", **more)
    shape = gguf.text_shape(path)
    assert shape.template is False and gguf.template(path) is None
    assert shape.key_value == 4 * 32, "rather too much than too little: as if every head had its own"
    assert shape.quantisation == "F16", "by the tensors, where the file does not say"
    read = gguf.read(path)
    assert read.metadata["some.lists"] == gguf.Length(2) and read.metadata["some.flag"] is True


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = gguf_file.small(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(4, 600, 7), len(whole) // 2, len(whole) - 64]:
        cut.write_bytes(whole[:length])
        (problem,) = check.problems("gguf", cut)
        assert "truncated" in problem and "cut.gguf" in problem, length
        assert check.text_shape("gguf", cut) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: b"XXXX" + d[4:], "does not begin like a GGUF file"),
        (lambda d: d[:4] + struct.pack("<I", 9) + d[8:], "of version 9"),
        (lambda d: d[:8] + struct.pack("<Q", 1 << 60) + d[16:], "cannot be"),
        (lambda d: d[:16] + struct.pack("<Q", 1 << 60) + d[24:], "cannot be"),
        (lambda d: d[:24] + struct.pack("<Q", 1 << 62) + d[32:], "truncated"),
    ],
)
def test_headers_that_cannot_be_are_refused(change: object, said: str, tmp_path: Path) -> None:
    path = gguf_file.small(tmp_path / "m.gguf")
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    (problem,) = check.problems("gguf", path)
    assert said in problem


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"general.architecture": None}, "does not say its architecture"),
        ({"tokenizer.ggml.tokens": None}, "no language model"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"general.alignment": 0}, "alignment"),
    ],
)
def test_files_that_are_no_whole_language_model_are_refused(more: dict[str, object], said: str, tmp_path: Path) -> None:
    (problem,) = check.problems("gguf", gguf_file.small(tmp_path / "m.gguf", **more))
    assert said in problem


def test_a_vocabulary_alone_and_unknown_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    gguf_file.write(path, {"general.architecture": "llama", "tokenizer.ggml.tokens": ["a"]}, {})
    assert "a vocabulary alone" in check.problems("gguf", path)[0]
    gguf_file.write(path, {"general.architecture": "llama"}, {"t": np.zeros(4, np.float32)})
    data = bytearray(path.read_bytes())
    place = data.rindex(struct.pack("<QI", 4, 0))  # extents, kind
    data[place + 8 : place + 12] = struct.pack("<I", 200)
    path.write_bytes(bytes(data))
    with pytest.raises(Damaged, match="not known"):
        gguf.read(path)


def test_the_store_takes_it_lists_it_and_recognition_never_sees_it(kuulo: Kuulo, tmp_path: Path) -> None:
    gguf_file.small(tmp_path / "small.gguf")
    added = kuulo("models", "add", "./small.gguf")
    assert added.returncode == 0, added.stderr
    (row,) = json.loads(kuulo("models", "list", "--json").stdout)["models"]
    assert (row["task"], row["format"], row["engines"]) == ("chat", "gguf", ["llama-cpp"])
    assert row["text"]["context"] == 2048
    shown = kuulo("models", "list").stdout
    assert "llama" in shown and "context 2048" in shown
    planned = json.loads(kuulo("transcribe", "--dry-run", "--json", "x.wav").stdout)
    assert (planned["engine"], planned["model"]) == ("pocketsphinx", None)
    by_path = kuulo("explain", "-m", "./small.gguf")
    assert by_path.returncode != 0 and "GGUF (llama.cpp)" in by_path.stderr
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "small.gguf").read_bytes()[:-5000])
    told = kuulo("models", "add", cut)
    assert told.returncode == 3 and "truncated" in told.stderr and "copy or download it again" in told.stderr
