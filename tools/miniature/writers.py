"""Writes one Whisper in each engine's format. numpy alone, but `ct2` needs ctranslate2 and `pt` needs torch.

Every writer has the signature (path, dims, state, vocabulary) -> None; see WRITERS.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from vocabulary import Vocabulary
from weights import Dims, State

END_OF_TEXT = "<|endoftext|>"
BLANK = 220  # the token of one space: never the first, as in openai-whisper's SuppressBlank

# openai-whisper's parts of a name -> those of transformers; applied in this order
HF_NAMES = (
    ("blocks", "layers"),
    ("mlp.0", "fc1"),
    ("mlp.2", "fc2"),
    ("mlp_ln", "final_layer_norm"),
    (".cross_attn_ln", ".encoder_attn_layer_norm"),
    (".cross_attn", ".encoder_attn"),
    (".attn_ln", ".self_attn_layer_norm"),
    (".attn.", ".self_attn."),
    ("query", "q_proj"),
    ("key", "k_proj"),
    ("value", "v_proj"),
    (".out.", ".out_proj."),
    ("decoder.ln.", "decoder.layer_norm."),
    ("encoder.ln_post", "encoder.layer_norm"),
    ("token_embedding", "embed_tokens"),
    ("encoder.positional_embedding", "encoder.embed_positions.weight"),
    ("decoder.positional_embedding", "decoder.embed_positions.weight"),
)

GGML_MAGIC = 0x67676D6C


def write_hf(folder: Path, dims: Dims, state: State, vocabulary: Vocabulary) -> None:
    """A Hugging Face folder with safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", {hf_name(name): array for name, array in state.items()})
    _write_json(folder / "config.json", hf_config(dims, vocabulary))
    _write_json(folder / "generation_config.json", hf_generation(dims, vocabulary))
    _write_json(folder / "tokenizer.json", vocabulary.tokenizer_json())
    _write_json(folder / "tokenizer_config.json", hf_tokenizer(vocabulary))
    _write_json(folder / "preprocessor_config.json", preprocessor(dims))


def write_ct2(folder: Path, dims: Dims, state: State, vocabulary: Vocabulary, quantization: str | None = None) -> None:
    """A CTranslate2 folder as faster-whisper reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    # quantising works in place
    spec = ct2_spec(dims, {name: array.copy() for name, array in state.items()})
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [BLANK, vocabulary.ids[END_OF_TEXT]]
    spec.config.lang_ids = [vocabulary.ids[f"<|{code}|>"] for code in vocabulary.languages]
    spec.config.alignment_heads = alignment_heads(dims)
    spec.register_vocabulary(vocabulary.tokens)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))
    _write_json(folder / "tokenizer.json", vocabulary.tokenizer_json())
    _write_json(folder / "preprocessor_config.json", preprocessor(dims))


def write_ct2_int8(folder: Path, dims: Dims, state: State, vocabulary: Vocabulary) -> None:
    """The same with 8-bit weights."""
    write_ct2(folder, dims, state, vocabulary, quantization="int8")


def write_pt(file: Path, dims: Dims, state: State, _: Vocabulary) -> None:
    """openai-whisper's checkpoint in float16, as OpenAI's own are."""
    import torch

    tensors = {name: torch.from_numpy(array.astype(np.float16)) for name, array in state.items()}
    torch.save({"dims": dims, "model_state_dict": tensors}, file)


def write_ggml(file: Path, dims: Dims, state: State, vocabulary: Vocabulary) -> None:
    """whisper.cpp's file with float16 weights; the layout is that of its models/convert-pt-to-ggml.py."""
    header = ("n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_text_ctx",
              "n_text_state", "n_text_head", "n_text_layer", "n_mels")  # fmt: skip
    filters = mel_filters(dims["n_mels"])
    with file.open("wb") as out:
        out.write(struct.pack("<i11i", GGML_MAGIC, *(dims[key] for key in header), 1))
        out.write(struct.pack("<ii", *filters.shape) + filters.tobytes())
        out.write(struct.pack("<i", len(vocabulary.bytes)))
        for token in vocabulary.bytes:
            out.write(struct.pack("<i", len(token)) + token)
        for name, array in state.items():
            out.write(ggml_tensor(name, array))


def ggml_tensor(name: str, array: Any) -> bytes:
    """One tensor with its header: biases, norms and positions in float32, the rest in float16."""
    array = np.squeeze(array)
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        array = array.reshape(-1, 1)
        half = False
    else:
        half = array.ndim >= 2 and not name.endswith("positional_embedding")
    label = name.encode()
    shape = array.shape[::-1]
    head = struct.pack(f"<iii{len(shape)}i", array.ndim, len(label), int(half), *shape)
    return head + label + np.ascontiguousarray(array, np.float16 if half else np.float32).tobytes()


def write_safetensors(file: Path, tensors: State) -> None:
    """Float32 tensors in the safetensors layout: length, JSON header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes],
        }  # fmt: skip
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            out.write(np.ascontiguousarray(array, np.float32).tobytes())


def hf_name(name: str) -> str:
    """The name that transformers gives to openai-whisper's tensor `name`."""
    for ours, theirs in HF_NAMES:
        name = name.replace(ours, theirs)
    return f"model.{name}"


def hf_config(dims: Dims, vocabulary: Vocabulary) -> dict[str, Any]:
    end = vocabulary.ids[END_OF_TEXT]
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": dims["n_vocab"],
        "num_mel_bins": dims["n_mels"],
        "d_model": dims["n_audio_state"],
        "encoder_layers": dims["n_audio_layer"],
        "decoder_layers": dims["n_text_layer"],
        "num_hidden_layers": dims["n_audio_layer"],
        "encoder_attention_heads": dims["n_audio_head"],
        "decoder_attention_heads": dims["n_text_head"],
        "encoder_ffn_dim": 4 * dims["n_audio_state"],
        "decoder_ffn_dim": 4 * dims["n_text_state"],
        "max_source_positions": dims["n_audio_ctx"],
        "max_target_positions": dims["n_text_ctx"],
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": vocabulary.ids["<|startoftranscript|>"],
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "activation_function": "gelu",
        "torch_dtype": "float32",
        "tie_word_embeddings": True,
    }


def hf_generation(dims: Dims, vocabulary: Vocabulary) -> dict[str, Any]:
    ids = vocabulary.ids
    end = ids[END_OF_TEXT]
    return {
        "alignment_heads": alignment_heads(dims),
        "begin_suppress_tokens": [BLANK, end],
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in vocabulary.languages},
        "max_initial_timestamp_index": 50,
        "max_length": dims["n_text_ctx"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": [],
        "task_to_id": {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
    }


def hf_tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "tokenizer_class": "WhisperTokenizer",
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_max_length": 1024,
        "processor_class": "WhisperProcessor",
        "additional_special_tokens": vocabulary.special,
    }


def preprocessor(dims: Dims) -> dict[str, Any]:
    return {
        "chunk_length": 30,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": dims["n_mels"],
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480_000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "WhisperProcessor",
        "return_attention_mask": False,
        "sampling_rate": 16_000,
    }


def alignment_heads(dims: Dims) -> list[list[int]]:
    """All heads of the upper half of the decoder, as openai-whisper takes when a model names none."""
    layers, heads = dims["n_text_layer"], dims["n_text_head"]
    return [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]


def mel_filters(bands: int, rate: int = 16_000, fft: int = 400) -> Any:
    """Triangular filters on Slaney's mel scale, float32 (bands, fft // 2 + 1), as in openai-whisper."""
    linear_step, log_start, log_step = 200 / 3, 1000.0, np.log(6.4) / 27
    knee = log_start / linear_step
    top = knee + np.log(rate / 2 / log_start) / log_step
    mels = np.linspace(0.0, top, bands + 2)
    points = np.where(mels >= knee, log_start * np.exp(log_step * (mels - knee)), linear_step * mels)
    widths = np.diff(points)
    ramps = points[:, None] - np.fft.rfftfreq(fft, 1 / rate)[None]
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    return (weights * (2.0 / (points[2:] - points[:-2]))[:, None]).astype(np.float32)


def ct2_spec(dims: Dims, state: State) -> Any:
    """CTranslate2's WhisperSpec filled from openai-whisper's tensors."""
    from ctranslate2.converters import utils
    from ctranslate2.specs import common_spec, whisper_spec

    spec = whisper_spec.WhisperSpec(
        dims["n_audio_layer"], dims["n_audio_head"], dims["n_text_layer"], dims["n_text_head"]
    )

    def linear(part: Any, name: str) -> None:
        part.weight = state[f"{name}.weight"]
        if f"{name}.bias" in state:
            part.bias = state[f"{name}.bias"]

    def norm(part: Any, name: str) -> None:
        part.gamma, part.beta = state[f"{name}.weight"], state[f"{name}.bias"]

    def attention(part: Any, name: str, first: int) -> None:
        """`first`: how many of query, key and value are fused into the first matrix (3: self, 1: cross)."""
        projections = [common_spec.LinearSpec() for _ in range(3)]
        for projection, key in zip(projections, ("query", "key", "value"), strict=True):
            linear(projection, f"{name}.{key}")
        utils.fuse_linear(part.linear[0], projections[:first])
        if first == 1:
            utils.fuse_linear(part.linear[1], projections[first:])
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
    spec.decoder.embeddings.weight = state["decoder.token_embedding.weight"]
    spec.decoder.projection.weight = state["decoder.token_embedding.weight"]
    spec.decoder.scale_embeddings = False
    return spec


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


Writer = Callable[[Path, Dims, State, Vocabulary], None]

# format: (name in the output folder, writer)
WRITERS: dict[str, tuple[str, Writer]] = {
    "ct2": ("ct2", write_ct2),
    "ct2-int8": ("ct2-int8", write_ct2_int8),
    "ggml": ("ggml.bin", write_ggml),
    "hf": ("hf", write_hf),
    "pt": ("pt.pt", write_pt),
}
