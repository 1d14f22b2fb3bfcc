"""Text models in Hugging Face folders: weights in safetensors files, a configuration that names an architecture which
continues text, a tokenizer. Whispers are `hf.py`'s.

Nothing is taken that would run code: no `auto_map`, no pickled weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kuulo.llm.memory import Shape as TextShape
from kuulo.models import hf
from kuulo.models.binary import Damaged
from kuulo.models.documents import load
from kuulo.models.shape import Shape

NAME = "Hugging Face text model"

# What is kept of a folder or repository, beside the weights
WANTED = (
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "config.json", "generation_config.json",
    "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
)  # fmt: skip

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def matches(path: Path) -> bool:
    """Whether the folder's configuration is of a model that continues text."""
    config, _ = load(path / "config.json")
    return config is not None and _continues_text(config)


def _continues_text(config: dict[str, Any]) -> bool:
    named = config.get("architectures")
    return isinstance(named, list) and any(
        str(name).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in named
    ) and config.get("model_type") != "whisper" and not config.get("is_encoder_decoder")  # fmt: skip


def wanted(names: list[str]) -> list[str]:
    """Those of a repository's files that make the model: one set of weights, the tokenizer, the settings."""
    weights = [hf.WEIGHTS] if hf.WEIGHTS in names else [n for n in names if n == hf.INDEX or _is_shard(n)]
    return sorted([n for n in names if n in WANTED] + weights)


def _is_shard(name: str) -> bool:
    return name.startswith("model-") and name.endswith(".safetensors")


def problems(path: Path) -> list[str]:
    """What is wrong with the folder; empty when nothing is."""
    config, found = load(path / "config.json")
    if config is None:
        return found
    if not _continues_text(config):
        return [f"config.json is of a model of type {config.get('model_type')!r}, which does not continue text"]
    if config.get("auto_map"):
        return ["config.json wants code of the folder to be run (auto_map), and Kuulo never does"]
    try:
        headers = {name: hf.header(path / name) for name in hf.shards(path)}
    except Damaged as error:
        return [str(error)]
    found += hf.weight_problems(path, headers)
    if not any((path / name).is_file() for name in TOKENIZERS):
        found.append("tokenizer.json is missing")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (path / name).is_file():
            found += load(path / name)[1]
    return found


def shape(path: Path) -> Shape:
    """It is no Whisper."""
    return Shape()


def text_shape(path: Path) -> TextShape:
    """What config.json and the weights' sizes tell; raises Damaged."""
    config, found = load(path / "config.json")
    if config is None:
        raise Damaged(found[0])
    config = {**config, **config["text_config"]} if isinstance(config.get("text_config"), dict) else config

    def number(*names: str) -> int | None:
        return next((config[n] for n in names if isinstance(config.get(n), int)), None)

    embedding, heads = number("hidden_size", "n_embd"), number("num_attention_heads", "n_head")
    kv_heads = number("num_key_value_heads") or heads
    size = number("head_dim") or (embedding // heads if embedding and heads else None)
    return TextShape(
        weights_bytes=sum((path / name).stat().st_size for name in hf.shards(path)),
        layers=number("num_hidden_layers", "n_layer"),
        key_value=2 * kv_heads * size if kv_heads and size else None,
        context=number("max_position_embeddings", "n_positions"),
        vocabulary=number("vocab_size"),
        embedding=embedding,
        architecture=str(config.get("model_type", "")),
        quantisation=str(config.get("dtype") or config.get("torch_dtype") or ""),
        template=template(path) is not None,
    )


def template(path: Path) -> str | None:
    """The chat template, where the tokenizer has one."""
    try:
        return (path / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    for name in ("chat_template.json", "tokenizer_config.json"):
        said = load(path / name)[0]
        found = said.get("chat_template") if said else None
        if isinstance(found, list):  # several, by name
            found = next((t.get("template") for t in found if isinstance(t, dict) and t.get("name") == "default"), None)
        if isinstance(found, str):
            return found
    return None
