"""A Hugging Face folder with safetensors, as transformers reads it; its tokenizer files are ct2's too."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from kuulo.miniature.vocabulary import Vocabulary
from kuulo.miniature.weights import Dims, State, Whisper

END_OF_TEXT = "<|endoftext|>"
BLANK = 220  # the token of one space: never the first, as in openai-whisper's SuppressBlank

# openai-whisper's parts of a name -> those of transformers; applied in this order
NAMES = (
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


def write(folder: Path, whisper: Whisper) -> None:
    """The folder with float32 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {tensor_name(name): array for name, array in whisper.state.items()}
    write_safetensors(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", config(whisper.dims, whisper.vocabulary))
    write_json(folder / "generation_config.json", generation(whisper))
    write_json(folder / "tokenizer.json", whisper.vocabulary.tokenizer_json())
    write_json(folder / "tokenizer_config.json", tokenizer(whisper.vocabulary))
    write_json(folder / "preprocessor_config.json", preprocessor(whisper.dims))


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


def tensor_name(name: str) -> str:
    """The name that transformers gives to openai-whisper's tensor `name`."""
    for ours, theirs in NAMES:
        name = name.replace(ours, theirs)
    return f"model.{name}"


def config(dims: Dims, vocabulary: Vocabulary) -> dict[str, Any]:
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


def generation(whisper: Whisper) -> dict[str, Any]:
    dims, vocabulary = whisper.dims, whisper.vocabulary
    ids = vocabulary.ids
    end = ids[END_OF_TEXT]
    return {
        "alignment_heads": whisper.alignment_heads,
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


def tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
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


def write_json(file: Path, value: dict[str, Any]) -> None:
    """The file, as compact JSON."""
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
