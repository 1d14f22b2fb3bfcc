"""The miniature's writers: what each engine's own library makes of the files, and what its own writer would write."""

from __future__ import annotations

import filecmp
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kuulo.miniature import ct2, ggml, hf, onnx, pt, weights
from kuulo.miniature.weights import Whisper
from kuulo.miniature.writers import WRITERS
from kuulo.models import check
from models_fixture import Miniature


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    return weights.trained()


@pytest.fixture
def small() -> Whisper:
    """Random weights, few and small, with alignment heads of their own."""
    import untrained

    from kuulo.miniature.vocabulary import Vocabulary

    dims = untrained.dimensions(16, 2, 2, 2)
    return Whisper(dims, untrained.random_state(dims), Vocabulary(), ((0, 1), (1, 0), (1, 1)))


@pytest.mark.parametrize("format_", sorted(set(check.FORMATS) & set(WRITERS)))
def test_what_is_written_passes_the_checks_of_its_format(format_: str, miniature: Miniature) -> None:
    path = miniature.path(format_)
    assert check.detect_format(path) == format_ and check.problems(format_, path) == []
    facts = check.describe(format_, path)
    assert (facts.multilingual, facts.n_mels, facts.vocabulary) == (True, 80, 51_865)


def compact(whisper: Whisper, path: Path, **more: Any) -> Path:
    """A compact file as training writes it: without the encoder's positions."""
    tokens = np.array([50_258, 7, 300], np.int32)
    state = {name: array.astype(np.float16) for name, array in whisper.state.items() if name != weights.POSITIONS}
    state[weights.TOKENS] = np.concatenate([state[weights.TOKENS][tokens], state[weights.TOKENS][:1]])
    np.savez_compressed(path, __dims__=json.dumps(whisper.dims), tokens=tokens, **state, **more)
    return path


def test_a_compact_file_is_expanded(small: Whisper, tmp_path: Path) -> None:
    found = weights.trained(compact(small, tmp_path / "a.npz"))
    assert found.dims == small.dims and set(found.state) == set(small.state)
    assert np.array_equal(found.state[weights.POSITIONS], weights.sinusoids(1500, 16))
    rows, given = found.state[weights.TOKENS], small.state[weights.TOKENS].astype(np.float16)
    assert np.array_equal(rows[[7, 300, 50_258]], given[[7, 300, 50_258]])
    assert np.array_equal(rows[[8, 50_000]], given[[0, 0]]) and rows.dtype == np.float32
    assert found.alignment_heads == ((1, 0), (1, 1))  # the upper half, as openai-whisper takes
    heads = np.array([[0, 1], [1, 1]])
    more = weights.trained(compact(small, tmp_path / "b.npz", alignment_heads=heads, translates=1))
    assert more.alignment_heads == ((0, 1), (1, 1))
    assert (found.translates, more.translates) == (False, True)


def test_the_encoders_positions_are_those_of_the_trained_weights(whisper: Whisper) -> None:
    width = whisper.dims["n_audio_state"]
    assert np.allclose(whisper.state[weights.POSITIONS], weights.sinusoids(1500, width), atol=1e-3)


def test_alignment_heads_are_told_where_there_is_a_place(small: Whisper, tmp_path: Path) -> None:
    heads = [[0, 1], [1, 0], [1, 1]]
    ct2.write(tmp_path / "ct2", small)
    hf.write(tmp_path / "hf", small)
    assert json.loads((tmp_path / "ct2" / "config.json").read_bytes())["alignment_heads"] == heads
    assert json.loads((tmp_path / "hf" / "generation_config.json").read_bytes())["alignment_heads"] == heads
    assert onnx.metadata(small)["n_alignment_heads"] == 3


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_ct2_is_byte_for_byte_what_ctranslate2_writes(
    quantization: str | None, whisper: Whisper, miniature: Miniature, tmp_path: Path
) -> None:
    spec = reference(whisper)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(tmp_path))
    ours = miniature.path("ct2-int8" if quantization else "ct2")
    for name in ("model.bin", "config.json", "vocabulary.json"):
        assert filecmp.cmp(tmp_path / name, ours / name, shallow=False), name


def reference(whisper: Whisper) -> Any:
    """CTranslate2's own WhisperSpec with these weights."""
    pytest.importorskip("ctranslate2")
    from ctranslate2.converters import utils
    from ctranslate2.specs import common_spec, whisper_spec

    dims, tokens = whisper.dims, whisper.vocabulary
    state = {name: array.copy() for name, array in whisper.state.items()}  # quantising works in place
    spec = whisper_spec.WhisperSpec(
        dims["n_audio_layer"], dims["n_audio_head"], dims["n_text_layer"], dims["n_text_head"]
    )

    def linear(part: Any, name: str) -> Any:
        part.weight = state[f"{name}.weight"]
        if f"{name}.bias" in state:
            part.bias = state[f"{name}.bias"]
        return part

    def norm(part: Any, name: str) -> None:
        part.gamma, part.beta = state[f"{name}.weight"], state[f"{name}.bias"]

    def attention(part: Any, name: str, first: int) -> None:
        parts = [linear(common_spec.LinearSpec(), f"{name}.{key}") for key in ("query", "key", "value")]
        utils.fuse_linear(part.linear[0], parts[:first])
        if first == 1:
            utils.fuse_linear(part.linear[1], parts[first:])
        linear(part.linear[-1], f"{name}.out")
        norm(part.layer_norm, f"{name}_ln")

    for side in ("encoder", "decoder"):
        getattr(spec, side).position_encodings.encodings = state[f"{side}.positional_embedding"]
        for number, layer in enumerate(getattr(spec, side).layer):
            block = f"{side}.blocks.{number}"
            attention(layer.self_attention, f"{block}.attn", first=3)
            if side == "decoder":
                attention(layer.attention, f"{block}.cross_attn", first=1)
            linear(layer.ffn.linear_0, f"{block}.mlp.0")
            linear(layer.ffn.linear_1, f"{block}.mlp.2")
            norm(layer.ffn.layer_norm, f"{block}.mlp_ln")
    linear(spec.encoder.conv1, "encoder.conv1")
    linear(spec.encoder.conv2, "encoder.conv2")
    norm(spec.encoder.layer_norm, "encoder.ln_post")
    norm(spec.decoder.layer_norm, "decoder.ln")
    spec.decoder.embeddings.weight = spec.decoder.projection.weight = state["decoder.token_embedding.weight"]
    spec.decoder.scale_embeddings = False
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [hf.BLANK, tokens.ids[hf.END_OF_TEXT]]
    spec.config.lang_ids = [tokens.ids[f"<|{code}|>"] for code in tokens.languages]
    spec.config.alignment_heads = [list(pair) for pair in whisper.alignment_heads]
    spec.register_vocabulary(tokens.tokens)
    return spec


def test_pt_is_what_pytorch_reads_without_running_anything(small: Whisper, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pt.write(tmp_path / "a.pt", small)
    read = torch.load(tmp_path / "a.pt", weights_only=True)
    assert read["dims"] == small.dims and list(read["model_state_dict"]) == list(small.state)
    for name, tensor in read["model_state_dict"].items():
        assert tensor.dtype == torch.float16
        assert np.array_equal(tensor.numpy(), small.state[name].astype(np.float16)), name
    torch.save(read, tmp_path / "b.pt")
    again = torch.load(tmp_path / "b.pt", weights_only=True)["model_state_dict"]
    assert all(torch.equal(again[name], tensor) for name, tensor in read["model_state_dict"].items())


def test_safetensors_reads_the_weights_of_hf(small: Whisper, tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    hf.write(tmp_path, small)
    read = numpy.load_file(tmp_path / "model.safetensors")
    assert {hf.tensor_name(name) for name in small.state} == set(read)
    assert all(np.array_equal(read[hf.tensor_name(name)], array) for name, array in small.state.items())


def test_the_mel_filters_of_ggml_are_openai_whispers() -> None:
    found = importlib.util.find_spec("whisper")
    if found is None or found.origin is None:
        pytest.skip("openai-whisper is not installed")
    with np.load(Path(found.origin).parent / "assets" / "mel_filters.npz") as stored:
        for bands in (80, 128):
            assert np.allclose(ggml.mel_filters(bands), stored[f"mel_{bands}"], atol=1e-7)


SHERPA = """
import json, sys
import numpy, sherpa_onnx

folder, *clips = sys.argv[1:]
recognizer = sherpa_onnx.OfflineRecognizer.from_whisper(
    encoder=folder + "/encoder.onnx", decoder=folder + "/decoder.onnx", tokens=folder + "/tokens.txt", language="",
    enable_segment_timestamps=True, enable_token_timestamps=True)
for clip in clips:
    samples = numpy.load(clip)
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, numpy.pad(samples, (0, 480000 - len(samples))))
    recognizer.decode_stream(stream)
    said = stream.result
    print(json.dumps([said.text, said.lang, list(said.segment_timestamps), list(said.timestamps)]))
"""


def test_sherpa_onnx_hears_the_clips(miniature: Miniature, tmp_path: Path) -> None:
    """In a process of its own: it brings another ONNX Runtime."""
    if importlib.util.find_spec("sherpa_onnx") is None:
        pytest.skip("sherpa-onnx is not installed")
    clips = [clip for clip in miniature.clips() if len(clip.samples()) <= 480_000]
    for clip in clips:
        np.save(tmp_path / f"{clip.name}.npy", clip.samples())
    files = [str(tmp_path / f"{clip.name}.npy") for clip in clips]
    command = [sys.executable, "-c", SHERPA, str(miniature.path("onnx")), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for clip, line in zip(clips, done.stdout.splitlines(), strict=True):
        text, language, starts, times = json.loads(line)
        assert text.strip() == clip.text
        if clip.text:
            assert language == clip.language and len(times) >= len(clip.text.split())
            for start, (begin_ms, _, _) in zip(starts, clip.segments, strict=True):
                assert abs(start * 1000 - begin_ms) <= 350
