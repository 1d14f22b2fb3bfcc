"""Damaged model files are found before an engine sees them, and nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import pipelines
import tiny
from kuulo.engines import nemo_file
from kuulo.models import check, pickled
from kuulo.models.binary import Damaged
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


# Speaker pipelines


def community(folder: Path, **replaced: str) -> Path:
    """A pipeline of pyannote.audio with some words of its config.yaml replaced."""
    config = pipelines.CONFIG
    for old, new in replaced.items():
        assert old in config
        config = config.replace(old, new)
    return pipelines.pyannote(folder, config)


def test_a_whole_pipeline_has_no_problems_and_is_for_speakers(tmp_path: Path) -> None:
    made = {"pyannote": pipelines.pyannote(tmp_path / "p"), "speakers-onnx": pipelines.speakers_onnx(tmp_path / "s")}
    for format_, path in made.items():
        assert check.detect_format(path) == format_ and check.task_of(format_) == "diarize"
        assert check.problems(format_, path) == []
        facts = check.describe(format_, path)
        assert facts.multilingual is None and facts.translates is None
        assert facts.size_bytes == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert check.names("pyannote", made["pyannote"]) == list(pipelines.FILES)
    assert {check.task_of(format_) for format_ in FORMATS} == {"transcribe"}
    assert check.problems("speakers-onnx", pipelines.speakers_onnx(tmp_path / "n", embedding=pipelines.NEMO)) == []


@pytest.mark.parametrize("name", pipelines.FILES)
def test_each_file_of_a_pipeline_missing_cut_or_turned_over_is_found(name: str, tmp_path: Path) -> None:
    path = pipelines.pyannote(tmp_path / "p")
    whole = (path / name).read_bytes()
    for keep in (0, 1, 4, 20, len(whole) // 3, len(whole) // 2, len(whole) - 30):
        (path / name).write_bytes(whole[:keep])
        assert check.problems("pyannote", path), f"{keep} of {len(whole)} bytes passed"
        check.describe("pyannote", path)
    for at in [*range(0, 120, 5), *range(len(whole) - 40, len(whole), 3)]:
        (path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert isinstance(check.problems("pyannote", path), list)
        check.describe("pyannote", path)
    (path / name).unlink()
    assert f"{name} is missing" in check.problems("pyannote", path)[0]


@pytest.mark.parametrize(
    ("replaced", "why"),
    [
        ({"pyannote.audio.pipelines.SpeakerDiarization": "subprocess.Popen"}, "the class 'subprocess.Popen'"),
        ({"pyannote.audio.pipelines.SpeakerDiarization": "[os, system]"}, "the class"),
        ({"dependencies:": "preprocessors:\n  audio:\n    name: os.system\ndependencies:"}, "'preprocessors'"),
        ({"clustering: VBx": "token: hf_x\n    clustering: VBx"}, "'token'"),
        ({"$model/segmentation": "$model/../segmentation"}, "names the segmentation"),
        ({"$model/segmentation": "$model//etc"}, "names the segmentation"),
        ({"$model/segmentation": "$model/"}, "names the segmentation"),
        ({"$model/segmentation": "$model/segmentation@main"}, "names the segmentation"),
        ({"$model/embedding": "/etc"}, "names the embedding '/etc'"),
        ({"$model/embedding": "embedding"}, "does not look for beside it"),
        ({"$model/embedding": "{checkpoint: x}"}, "names the embedding"),
        ({"    plda: $model/plda\n": ""}, "names no plda"),
        ({"$model/plda": "$model/elsewhere"}, "elsewhere/xvec_transform.npz is missing"),
        ({"VBxClustering": "!!python/object/apply:os.system [id]"}, "not valid YAML"),
        ({"0.6": "&a [*a, *a]"}, "not valid YAML"),
        ({"pipeline:": "x: "}, "names no pipeline"),
    ],
)
def test_a_config_that_would_import_fetch_or_leave_the_folder_is_refused(
    replaced: dict[str, str], why: str, tmp_path: Path
) -> None:
    path = community(tmp_path / "p", **replaced)
    assert why in "; ".join(check.problems("pyannote", path))
    check.describe("pyannote", path)


def test_a_sub_folder_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    path = pipelines.pyannote(tmp_path / "p")
    (path / "plda").rename(tmp_path / "plda")
    (path / "plda").symlink_to(tmp_path / "plda")
    assert "outside the folder" in check.problems("pyannote", path)[0]
    assert "plda/plda.npz" not in check.names("pyannote", path)


def segmentation(path: Path, raw: bytes, more: dict[str, bytes] | None = None) -> list[str]:
    """The problems of a pipeline with this pickle in its segmentation."""
    pipelines.archive(path / "segmentation" / "pytorch_model.bin", raw, more)
    return check.problems("pyannote", path)


PYANNET = ("pyannote.audio.models.segmentation.PyanNet", "PyanNet")


def test_a_checkpoint_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", pipelines.pyannote(tmp_path / "p")
    raw = pipelines.pickled(pipelines.checkpoint(*PYANNET, callbacks=Evil(marker)))
    (found,) = segmentation(path, raw)
    assert "system" in found and "can run code" in found and not marker.exists()
    # What would have run: the same bytes without the names of packages that are not here.
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({pickle.dumps(Evil(marker))!r})"], check=True)
    assert marker.exists()


def test_what_a_checkpoint_has_pyannote_import_is_looked_at(tmp_path: Path) -> None:
    path = pipelines.pyannote(tmp_path / "p")
    for module, name, why in (
        ("antigravity", "x", "must be in pyannote.audio.models.segmentation"),
        ("pyannote.audio.models.segmentationx", "x", "must be in"),
        ("pyannote.audio.models.embedding.wespeaker", "WeSpeakerResNet34", "must be in"),
        ("pyannote.audio.models.segmentation.a b", "x", "names no class"),
        ("pyannote.audio.models.segmentation", "x.y", "names no class"),
    ):
        assert why in segmentation(path, pipelines.pickled(pipelines.checkpoint(module, name)))[0]
    made = pipelines.checkpoint(*PYANNET, hyper_parameters={"_instantiator": "os.system"})
    assert "can run code" in segmentation(path, pipelines.pickled(made))[0]
    for content in ({"epoch": 3}, [1], pipelines.checkpoint(*PYANNET, state_dict={})):
        assert "no checkpoint of a model of pyannote.audio" in segmentation(path, pipelines.pickled(content))[0]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        (b"(ios\nsystem\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"cbuiltins\neval\n.", "builtins.eval"),
        (b"c__builtin__\ngetattr\n.", "__builtin__.getattr"),
        (b"\x80\x02Nr\xff\xff\xff\xff.", "memo"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02NR.", "damaged"),
    ],
)
def test_other_ways_to_code_and_damage_in_a_pickle_are_refused(raw: bytes, why: str, tmp_path: Path) -> None:
    assert why in segmentation(pipelines.pyannote(tmp_path / "p"), raw)[0]


def test_the_pickle_that_is_checked_is_the_one_that_pytorch_loads(tmp_path: Path) -> None:
    path = pipelines.pyannote(tmp_path / "p")
    raw = pipelines.pickled(pipelines.checkpoint(*PYANNET))
    # PyTorch looks names up without regard to case, and takes the first entry's folder.
    for more in ({"archive/DATA.pkl": raw}, {"other/data.pkl": raw}, {"Archive/data.pkl": raw}):
        assert "twice, or in several folders" in segmentation(path, raw, more)[0]
    assert "TorchScript" in segmentation(path, raw, {"archive/constants.pkl": b""})[0]
    assert "TorchScript" in segmentation(path, raw, {"archive/CONSTANTS.PKL": b""})[0]
    assert segmentation(path, raw, {"archive/data/0": bytes(40), "archive/byteorder": b"little"}) == []


def test_what_pytorch_itself_saves_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    saved = {"state_dict": {"a": torch.ones(3), "b": torch.nn.Parameter(torch.zeros(2, 2))}, "epoch": 3}
    torch.save(saved, tmp_path / "x.bin")
    found = pickled.values(tmp_path / "x.bin", pickled.TENSOR_GLOBALS)
    assert found["epoch"] == 3 and set(found["state_dict"]) == {"a", "b"}
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "x.bin")
    with pytest.raises(Damaged, match="can run code"):
        pickled.values(tmp_path / "x.bin", pickled.TENSOR_GLOBALS)


@pytest.mark.parametrize("part", ["segmentation", "wespeaker", "nemo"])
def test_metadata_without_which_sherpa_onnx_ends_its_process(part: str, tmp_path: Path) -> None:
    said = {"segmentation": pipelines.SEGMENTATION, "wespeaker": pipelines.WESPEAKER, "nemo": pipelines.NEMO}[part]

    def problems(metadata: dict[str, Any]) -> str:
        which = "segmentation" if part == "segmentation" else "embedding"
        path = pipelines.speakers_onnx(tmp_path / "s", **{which: metadata})
        return "; ".join(check.problems("speakers-onnx", path))

    for key, value in said.items():
        if key != "feature_normalize_type":
            assert repr(key) in problems({k: v for k, v in said.items() if k != key})
            assert repr(key) in problems({**said, key: ""})
        if isinstance(value, int) and key != "normalize_samples":
            for wrong in ("0", "-1", "x", "1" * 10, "1.5", "²"):
                assert repr(key) in problems({**said, key: wrong})


def test_metadata_that_sherpa_onnx_takes_and_fails_over_later(tmp_path: Path) -> None:
    for wrong, why in (
        ({"num_classes": 6}, "3 speakers make 7"),  # it writes beyond its memory
        ({"powerset_max_classes": 3}, "knows 2 alone"),
        ({"sample_rate": 8000}, "8000 Hz"),
    ):
        path = pipelines.speakers_onnx(tmp_path / "s", {**pipelines.SEGMENTATION, **wrong})
        assert why in check.problems("speakers-onnx", path)[0]
    for wrong, why in (
        ({"framework": "speechbrain"}, "knows wespeaker, 3d-speaker, nemo"),  # it crashes at the first recording
        ({"feature_normalize_type": "own"}, "'own'"),
    ):
        path = pipelines.speakers_onnx(tmp_path / "s", embedding={**pipelines.WESPEAKER, **wrong})
        assert why in check.problems("speakers-onnx", path)[0]


@pytest.mark.parametrize("name", ["segmentation.onnx", "embedding.onnx"])
def test_an_onnx_part_that_is_missing_cut_or_not_whole_is_found(name: str, tmp_path: Path) -> None:
    path = pipelines.speakers_onnx(tmp_path / "s")
    whole = (path / name).read_bytes()
    for keep in (0, 1, 20, len(whole) // 2, len(whole) - 80, len(whole) - 1):
        (path / name).write_bytes(whole[:keep])
        assert check.problems("speakers-onnx", path), f"{keep} of {len(whole)} bytes passed"
    metadata = pipelines.SEGMENTATION if name.startswith("s") else pipelines.WESPEAKER
    (path / name).write_bytes(tiny.onnx_file(("y",), dict(metadata), weights="y.weights"))
    assert "weights in another file" in check.problems("speakers-onnx", path)[0]
    (path / name).unlink()
    assert check.problems("speakers-onnx", path) == [f"{name} is missing"]
    assert check.detect_format(path) is None


# NeMo's Sortformer


def replaced(**parts: Any) -> str:
    """The configuration of a Sortformer with other values; those of a part are added to its own."""
    config: dict[str, Any] = {**pipelines.SORTFORMER, "target": pipelines.TARGET}
    for name, value in parts.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) and name in config else value
    return json.dumps({name: value for name, value in config.items() if value is not None})  # which YAML has within


def nemo_problems(path: Path, config: str | None = None, **more: Any) -> str:
    found = check.problems("nemo", pipelines.nemo(path / "x.nemo", config, **more))
    check.describe("nemo", path / "x.nemo")
    return "; ".join(found)


def test_a_whole_sortformer_has_no_problems_and_is_for_speakers(tmp_path: Path) -> None:
    path = pipelines.nemo(tmp_path / "x.nemo")
    assert check.detect_format(path) == "nemo" and check.problems("nemo", path) == []
    assert check.task_of("nemo") == "diarize"
    assert check.describe("nemo", path).size_bytes == path.stat().st_size
    renamed = path.rename(tmp_path / "sortformer")
    assert check.detect_format(renamed) == "nemo"
    # What the published ones also have: sections for training, an offline model's names, and references to values.
    more = {"optim": {"name": "adamw", "sched": {"name": "x"}}, "train_ds": {"manifest_filepath": None}, "lr": 0.1}
    more["validation_ds"] = {"_x": 1, "target": None, "optim": {"_target_": "torch.optim.AdamW"}}
    assert nemo_problems(tmp_path, replaced(**more, spec_augment={"_target_": "nemo.collections.asr.modules.X"})) == ""
    assert nemo_problems(tmp_path, replaced(preprocessor={"sample_rate": "${sample_rate}"})) == ""
    assert nemo_problems(tmp_path, more={"./tokenizer.model": b"x"}) == ""


def test_a_sortformer_missing_cut_or_turned_over_anywhere_is_found(tmp_path: Path) -> None:
    path = pipelines.nemo(tmp_path / "x.nemo")
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        *_, last = archive
    content_end = last.offset_data + last.size
    for keep in (0, 1, 100, 511, 512, 600, 1_024, len(whole) // 3, content_end - 600, content_end - 1, content_end):
        path.write_bytes(whole[:keep])
        assert check.problems("nemo", path), f"{keep} of {len(whole)} bytes passed"
        check.describe("nemo", path)
    for at in range(0, content_end, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert isinstance(check.problems("nemo", path), list)
    path.write_bytes(b"<html>Please log in</html>" * 100)
    assert check.detect_format(path) == "nemo" and "no whole archive" in check.problems("nemo", path)[0]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"target": "os.system"}, "the class 'os.system'"),
        ({"target": None}, "the class None"),
        ({"target": ["os.system"]}, "the class ['os.system']"),
        ({"target": "nemo.collections.asr.models.EncDecCTCModel"}, "SortformerEncLabelModel alone is accepted"),
        ({"encoder": {"_target_": "os.system"}}, "the class 'os.system' as encoder"),
        ({"encoder": {"_target_": "nemo.collections.asr.modules.ConformerEncoder.__init__"}}, "as encoder"),
        ({"encoder": {"_target_": "torch.nn.Linear"}}, "'torch.nn.Linear' as encoder"),
        ({"loss": {"_target_": "torch.hub.load"}}, "'torch.hub.load' as loss"),
        ({"preprocessor": None}, "has no preprocessor"),
        ({"encoder": {"dropout": {"_target_": "os.system"}}}, "'_target_' in encoder"),
        ({"encoder": {"att_context_size": [[{"_target_": "os.system"}]]}}, "'_target_' in encoder"),
        ({"encoder": {"_partial_": True}}, "'_partial_' in encoder"),
        ({"encoder": {"_args_": ["x"]}}, "'_args_' in encoder"),
        ({"encoder": {"dropout": {"cls": "os.system", "params": {}}}}, "'cls' in encoder"),
        ({"train_ds": {"_target_": "os.system"}}, "'_target_' in train_ds"),
        ({"train_ds": {"dataset": [{"_target_": "subprocess.Popen"}]}}, "'_target_' in train_ds"),
        ({"model_defaults": {"_target_": "nemo.collections.asr.modules.X"}}, "'_target_' in model_defaults"),
        ({"lr": "${oc.env:HOME}"}, "could call a function"),
        ({"encoder": {"dropout": "${a}${oc.create:{}}"}}, "could call a function"),
        ({"preprocessor": {"sample_rate": 8000}}, "8000 Hz"),
        ({"max_num_of_spks": 0}, "0 speakers"),
        ({"max_num_of_spks": "many"}, "many speakers"),
        ({"max_num_of_spks": True}, "True speakers"),
    ],
)
def test_a_configuration_that_makes_anything_else_is_refused(parts: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in nemo_problems(tmp_path, replaced(**parts))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("!!python/object/apply:os.system [id]", "not valid YAML"),
        ("a: &a [1]\nb: *a", "not valid YAML"),
        ("- 1", "no configuration of a model"),
        ("", "no configuration of a model"),
        ("\0", "not valid YAML"),
        ("[" * 3_000, "not valid YAML"),
        ("# " + "x" * 1_000_000, "far more than NeMo writes"),
    ],
)
def test_a_configuration_that_is_none_is_refused(config: str, why: str, tmp_path: Path) -> None:
    assert why in nemo_problems(tmp_path, config)


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"../x": b""}, "outside the archive's folder"),
        ({"/etc/x": b""}, "outside the archive's folder"),
        ({"a/../../x": b""}, "outside the archive's folder"),
        ({"a\\x": b""}, "outside the archive's folder"),
        ({"x": link("x", "/etc/passwd", tarfile.SYMTYPE)}, "no plain file"),
        ({"x": link("x", "model_config.yaml", tarfile.LNKTYPE)}, "no plain file"),
        ({"x": link("x", "", tarfile.FIFOTYPE)}, "no plain file"),
        ({"model_config.yaml": b"target: os.system"}, "twice"),
        ({f"{n}": b"" for n in range(70)}, "more than 64 files"),
        ({"./model_weights.ckpt": b""}, "not a zip archive"),
    ],
)
def test_an_archive_with_more_than_plain_files_is_refused(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in nemo_problems(tmp_path, more=more)


def test_a_sortformer_whose_checkpoint_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    found = nemo_problems(tmp_path, raw=pipelines.pickled({**pipelines.STATE, "x": Evil(marker)}))
    assert "system" in found and "can run code" in found and not marker.exists()
    assert "STACK_GLOBAL" in nemo_problems(tmp_path, raw=b"\x80\x04\x8c\x02os\x8c\x06system\x93.")
    some = {name: value for name, value in pipelines.STATE.items() if not name.startswith("sortformer")}
    assert "no weights of sortformer_modules" in nemo_problems(tmp_path, raw=pipelines.pickled(some))
    assert "no weights of encoder" in nemo_problems(tmp_path, raw=pipelines.pickled([1]))


def test_what_nemo_is_given_is_of_its_own_classes_alone() -> None:
    config = json.loads(replaced(optim={"name": "x"}, spec_augment={"_target_": "nemo.x"}))
    config["encoder"]["_target_"] = nemo_file.PARTS["encoder"][1]
    assert nemo_file.problems(config) == []
    taken = nemo_file.taken(config)
    assert set(taken) == {*pipelines.SORTFORMER, "target"}
    assert {part: taken[part]["_target_"] for part in nemo_file.PARTS} == {p: c[0] for p, c in nemo_file.PARTS.items()}
