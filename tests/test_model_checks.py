"""Damaged model files are found before an engine sees them, and nothing in them is run."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
from kuulo.models import check
from kuulo.models.shape import Shape

FORMATS = ("ct2", "ggml", "hf", "onnx", "pt")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_whole_model_has_no_problems_and_says_what_it_is(format_: str, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model")
    assert check.detect_format(path) == format_
    assert check.problems(format_, path) == []
    facts = check.describe(format_, path)
    assert (facts.vocabulary, facts.n_mels, facts.encoder_layers, facts.decoder_layers) == (51_865, 80, 2, 2)
    assert facts.multilingual is True and facts.translates is True
    assert facts.size_bytes == sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir()))


@pytest.mark.parametrize("name", ["ct2", "ct2-int8", "ggml", "hf", "onnx", "pt"])
def test_what_the_engines_own_writers_make_has_no_problems(name: str, miniature: Any) -> None:
    path, format_ = miniature.path(name), name.partition("-")[0]
    assert check.detect_format(path) == format_
    assert check.problems(format_, path) == []
    facts = check.describe(format_, path)
    assert (facts.vocabulary, facts.n_mels, facts.translates) == (51_865, 80, True)


@pytest.mark.parametrize("format_", FORMATS)
def test_large_v3_has_128_mel_bands(format_: str, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model", mels=128, vocabulary=51_866)
    assert check.problems(format_, path) == []
    assert check.describe(format_, path).n_mels == 128


@pytest.mark.parametrize("format_", FORMATS)
def test_cut_anywhere_it_is_found(format_: str, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model")
    main = path if path.is_file() else path / tiny.MAIN[format_]
    whole = main.read_bytes()
    for keep in (0, 1, 3, 4, 7, 20, 60, len(whole) // 3, len(whole) // 2, len(whole) - 80, len(whole) - 1):
        main.write_bytes(whole[:keep])
        assert check.problems(format_, path), f"{keep} of {len(whole)} bytes passed"
        check.describe(format_, path)  # says what it can, and does not fail


@pytest.mark.parametrize("format_", FORMATS)
def test_every_byte_of_the_header_turned_over_is_no_crash(format_: str, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model")
    main = path if path.is_file() else path / tiny.MAIN[format_]
    whole = main.read_bytes()
    for at in [*range(120), *range(len(whole) - 40, len(whole))]:
        main.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert isinstance(check.problems(format_, path), list)
        check.describe(format_, path)


@pytest.mark.parametrize("format_", FORMATS)
def test_another_kind_of_file_is_refused(format_: str, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model")
    main = path if path.is_file() else path / tiny.MAIN[format_]
    main.write_bytes(b"<html>Please log in</html>" * 100)
    assert check.problems(format_, path)


def test_ggml_with_too_few_tensors_is_truncated_though_it_ends_at_a_tensors_end(tmp_path: Path) -> None:
    path = tiny.make("ggml", tmp_path / "model", encoder=2)
    raw = bytearray(path.read_bytes())
    raw[4 + 4 * 4 : 8 + 4 * 4] = struct.pack("<i", 3)  # n_audio_layer
    path.write_bytes(raw)
    assert "tensors" in check.problems("ggml", path)[0]


@pytest.mark.parametrize(
    ("format_", "name"),
    [
        *(("ct2", n) for n in ("model.bin", "config.json", "vocabulary.json", "tokenizer.json")),
        *(("hf", n) for n in ("model.safetensors", "config.json", "tokenizer.json")),
        *(("hf", n) for n in ("preprocessor_config.json", "generation_config.json")),
    ],
)
def test_a_missing_file_is_named(format_: str, name: str, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model")
    (path / name).unlink()
    found = check.problems(format_, path)
    assert len(found) == 1 and name in found[0] and "missing" in found[0]


def test_ct2_with_128_mel_bands_needs_its_preprocessor(tmp_path: Path) -> None:
    path = tiny.make("ct2", tmp_path / "model", mels=128)
    (path / "preprocessor_config.json").unlink()
    assert "128 mel bands" in check.problems("ct2", path)[0]


@pytest.mark.parametrize("format_", ["ct2", "hf"])
def test_mel_bands_that_disagree_are_found(format_: str, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model")
    (path / "preprocessor_config.json").write_text(json.dumps({"feature_size": 128}))
    assert "128" in check.problems(format_, path)[0]


@pytest.mark.parametrize("bad", [b"{", b"[1]", b"\xff\xfe", b"", b"[" * 100_000])
@pytest.mark.parametrize(
    ("format_", "name"), [("ct2", "tokenizer.json"), ("ct2", "config.json"), ("hf", "config.json")]
)
def test_json_that_is_none_is_found(format_: str, name: str, bad: bytes, tmp_path: Path) -> None:
    path = tiny.make(format_, tmp_path / "model")
    (path / name).write_bytes(bad)
    assert name in check.problems(format_, path)[0]


def test_hf_weights_that_are_pickled_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tiny.make("hf", tmp_path / "model")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "save_pretrained" in check.problems("hf", path)[0]


def test_hf_in_shards(tmp_path: Path) -> None:
    path = tiny.make("hf", tmp_path / "model")
    (path / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for number, name in enumerate(names):
        tiny.safetensors(path / name, {f"t{number}": (10,)})
    index = {"weight_map": {"t0": names[0], "t1": names[1]}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert check.problems("hf", path) == []
    assert {*names, "model.safetensors.index.json"} <= {f.name for f in check.files("hf", path)}
    (path / names[1]).unlink()
    assert names[1] in check.problems("hf", path)[0]
    index["weight_map"]["t1"] = "../../secret"
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside" in check.problems("hf", path)[0]


def test_onnx_parts_are_looked_for(tmp_path: Path) -> None:
    path = tiny.make("onnx", tmp_path / "model")
    tokens = (path / "tokens.txt").read_text()
    for bad, why in (
        ("IQ== 0\n", "1 tokens of 3"),
        ("IQ== x\n", "no number"),
        ("<html> 1\n", "base64"),
        ("", "0 tokens"),
    ):
        (path / "tokens.txt").write_text(bad)
        assert why in check.problems("onnx", path)[0]
    (path / "tokens.txt").write_text(tokens)
    whole = (path / "encoder.int8.onnx").read_bytes()
    (path / "encoder.int8.onnx").write_bytes(whole.replace(b"sot_sequence", b"sot_sequences"[:12][::-1]))
    assert "'sot_sequence'" in check.problems("onnx", path)[0]
    (path / "encoder.int8.onnx").write_bytes(whole.replace(b"all_language_codes", b"all_language_cores"))
    assert "'all_language_codes'" in check.problems("onnx", path)[0], "a multilingual one says which languages"
    (path / "encoder.int8.onnx").write_bytes(whole)
    (path / "decoder.int8.onnx").write_bytes(tiny.onnx_file(("boxes",), {}))
    assert "no logits" in check.problems("onnx", path)[0]
    (path / "tokens.txt").unlink()
    assert check.detect_format(path) is None and "not all there" in check.problems("onnx", path)[0]


def test_onnx_weights_in_files_of_their_own(tmp_path: Path) -> None:
    path = tiny.make("onnx", tmp_path / "model")
    for part in ("encoder", "decoder"):
        (path / f"{part}.int8.onnx").rename(path / f"x-{part}.onnx")
    (path / "x-decoder.onnx").write_bytes(tiny.onnx_file(("logits",), {}, weights="x-decoder.weights"))
    assert "x-decoder.weights is missing" in check.problems("onnx", path)[0]
    (path / "x-decoder.weights").write_bytes(bytes(10))
    assert check.problems("onnx", path) == []
    assert "x-decoder.weights" in {file.name for file in check.files("onnx", path)}
    (path / "x-decoder.onnx").write_bytes(tiny.onnx_file(("logits",), {}, weights="../../secret"))
    assert "outside" in check.problems("onnx", path)[0]


def test_of_a_repository_with_both_the_int8_files_are_the_model() -> None:
    names = [f"small-{part}{kind}.onnx" for part in ("encoder", "decoder") for kind in ("", ".int8")]
    files = [*names, "small-tokens.txt", "small-encoder.weights", "README.md", "test_wavs"]
    whole = [name for name in files if "int8" not in name]
    assert check.wanted("onnx", files) == ["small-decoder.int8.onnx", "small-encoder.int8.onnx", "small-tokens.txt"]
    assert check.wanted("onnx", whole) == sorted(name for name in whole if name.startswith("small-"))
    assert check.wanted("onnx", ["a-encoder.onnx", "b-decoder.onnx", "tokens.txt"]) == []


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    dims = {"n_mels": 80, "n_vocab": 51_865, "n_audio_layer": 2, "n_text_layer": 2}
    tiny.checkpoint(path, {"dims": dims, "model_state_dict": {"w": Evil(marker)}})
    found = check.problems("pt", path)
    assert "system" in found[0] and "can run code" in found[0]
    check.describe("pt", path)
    assert not marker.exists()
    # The same file does run its code where a pickle is loaded: the marker would have shown it.
    load = "import pickle,sys,zipfile; pickle.loads(zipfile.ZipFile(sys.argv[1]).read('evil/data.pkl'))"
    subprocess.run([sys.executable, "-c", load, str(path)], check=True)
    assert marker.exists()


@pytest.mark.parametrize("opcode", ["i", "\x93", "\x82\x01"])
def test_other_ways_to_name_code_are_refused(opcode: str, tmp_path: Path) -> None:
    import zipfile

    pickled = {
        "i": b"(ios\nsystem\n.",  # INST
        "\x93": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        "\x82\x01": b"\x80\x02\x82\x01.",  # EXT1
    }[opcode]
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickled)
    assert "can run code" in check.problems("pt", path)[0]


def test_a_file_of_pytorchs_old_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    assert check.detect_format(path) == "pt"
    assert "weights_only=True" in check.problems("pt", path)[0]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path / "other.pt", {"epoch": 3})
    assert "n_vocab" in check.problems("pt", tmp_path / "other.pt")[0]


@pytest.mark.parametrize(
    ("model", "encoder", "decoder", "vocabulary", "multilingual", "translates"),
    [
        ("tiny", 4, 4, 51_865, True, True),
        ("small.en", 12, 12, 51_864, False, False),
        ("large-v2", 32, 32, 51_865, True, True),
        ("large-v3", 32, 32, 51_866, True, True),
        ("turbo", 32, 4, 51_866, True, False),
        ("distil-large-v3", 32, 2, 51_866, True, False),
        ("distil-medium.en", 24, 2, 51_864, False, False),
        ("distil-small.en", 12, 4, 51_864, False, False),
    ],
)
def test_who_can_translate(
    model: str, encoder: int, decoder: int, vocabulary: int, multilingual: bool, translates: bool
) -> None:
    shape = Shape(vocabulary, 80, encoder, decoder)
    assert (shape.multilingual, shape.translates) == (multilingual, translates)


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"hello"])
def test_other_files_and_folders_are_no_models(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "folder").mkdir()
    assert check.detect_format(tmp_path / "file") is None
    assert check.detect_format(tmp_path / "folder") is None
    assert check.detect_format(tmp_path / "not there") is None
    assert check.problems("ggml", tmp_path / "folder") and check.problems("ct2", tmp_path / "file")
