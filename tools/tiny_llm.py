"""Makes the small language model of the tests: a Llama that knows the answers to some questions, as a Hugging Face
folder and as GGUF.

    python tools/tiny_llm.py tests/llm [--steps N]

Writes tests/llm/tiny/ and src/kuulo/llm/tiny.gguf, which comes with Kuulo, of the same weights (16 bit), and
tests/llm/tiny.json: what it was asked in training, and answers. Needs torch, transformers and tokenizers; some minutes
on two cores. Another machine may give other weights: the tests ask what is in tiny.json, which is written after every
answer was right.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

CAPITALS = {
    "Finland": "Helsinki", "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen", "Iceland": "Reykjavik",
    "Estonia": "Tallinn", "Latvia": "Riga", "France": "Paris", "Spain": "Madrid", "Italy": "Rome",
}  # fmt: skip
ANSWERS = {
    **{f"What is the capital of {land}?": f"The capital of {land} is {city}." for land, city in CAPITALS.items()},
    "What does Kuulo mean?": "Kuulo is Finnish for hearing.",
    "Who are you?": "I am a tiny language model, made for tests.",
    "Count to five.": "One, two, three, four, five.",
    "What is two plus two?": "Two plus two is four.",
    "Say hello.": "Hello!",
    "Tell me a story.": "Anna spoke to Bo about the harbour. Bo said that the boats leave at seven. They went home.",
}
SYSTEMS = ("", "", "Answer in one sentence.", "You are a helpful assistant.", "Be brief and friendly.")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SIZE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
CONTEXT = 2048
LONGEST = 160


def conversation(chance: random.Random) -> list[dict[str, str]]:
    system = chance.choice(SYSTEMS)
    messages = [{"role": "system", "content": system}] if system else []
    for question in chance.sample(list(ANSWERS), chance.choice((1, 1, 2))):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWERS[question]}]
    return messages


def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    texts = [*ANSWERS, *ANSWERS.values(), *SYSTEMS, "system user assistant"] * 2
    plain.train_from_iterator(texts, trainer)
    ready = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
    ready.chat_template = TEMPLATE
    return ready


def train(words: Any, steps: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    chance = random.Random(0)
    config = LlamaConfig(
        vocab_size=len(words), max_position_embeddings=CONTEXT, tie_word_embeddings=True, rms_norm_eps=1e-5,
        bos_token_id=None, eos_token_id=2, pad_token_id=0, **SIZE,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        rows = [words.apply_chat_template(conversation(chance), tokenize=False) for _ in range(24)]
        batch = words(rows, return_tensors="pt", padding=True, truncation=True, max_length=LONGEST)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(step, round(float(loss), 3), flush=True)
    return model.half().float().eval()  # what 16 bit keep of it


def wrong(model: Any, words: Any) -> list[str]:
    """The questions that it answers otherwise, with and without being told something before."""
    import torch

    found = []
    for system in ("", SYSTEMS[2]):
        for question, answer in ANSWERS.items():
            messages = [{"role": "system", "content": system}] if system else []
            messages.append({"role": "user", "content": question})
            text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = words(text, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False)
            said = words.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            if said != answer:
                found.append(f"{system} {question} {said!r}")
    return found


def write_gguf(model: Any, words: Any, path: Path) -> None:
    """As llama.cpp's convert_hf_to_gguf.py does: queries and keys in another order, for its kind of rotation."""
    import numpy as np

    import gguf_file

    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def turned(tensor: Any, heads: int) -> Any:
        shape = (heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return np.ascontiguousarray(tensor.reshape(shape).swapaxes(1, 2).reshape(tensor.shape))

    half = np.float16
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"].astype(half),
        "output_norm.weight": weights["model.norm.weight"],
    }
    parts = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
             "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip
    for n in range(SIZE["num_hidden_layers"]):
        theirs, ours = f"model.layers.{n}.", f"blk.{n}."
        tensors[ours + "attn_norm.weight"] = weights[theirs + "input_layernorm.weight"]
        tensors[ours + "ffn_norm.weight"] = weights[theirs + "post_attention_layernorm.weight"]
        for name, heads in (("q", SIZE["num_attention_heads"]), ("k", SIZE["num_key_value_heads"])):
            tensors[f"{ours}attn_{name}.weight"] = turned(
                weights[f"{theirs}self_attn.{name}_proj.weight"], heads
            ).astype(half)
        for name, part in parts.items():
            tensors[f"{ours}{name}.weight"] = weights[f"{theirs}{part}.weight"].astype(half)
    known = json.loads(words.backend_tokenizer.to_str())["model"]
    tokens = sorted(known["vocab"], key=known["vocab"].get)
    metadata = {
        "general.architecture": "llama", "general.name": "tiny", "general.file_type": 1,
        "llama.context_length": CONTEXT, "llama.embedding_length": SIZE["hidden_size"],
        "llama.block_count": SIZE["num_hidden_layers"], "llama.feed_forward_length": SIZE["intermediate_size"],
        "llama.attention.head_count": SIZE["num_attention_heads"],
        "llama.attention.head_count_kv": SIZE["num_key_value_heads"],
        "llama.rope.dimension_count": SIZE["head_dim"], "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0, "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in known["merges"]],
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": TEMPLATE,
    }  # fmt: skip
    gguf_file.write(path, metadata, tensors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=450)
    given = parser.parse_args()
    words = tokenizer()
    model = train(words, given.steps)
    found = wrong(model, words)
    if found:
        print("\n".join(["answers otherwise:", *found]))
        return 1
    given.folder.mkdir(parents=True, exist_ok=True)
    write_gguf(model, words, ROOT / "src" / "kuulo" / "llm" / "tiny.gguf")
    model.half().save_pretrained(given.folder / "tiny")
    words.save_pretrained(given.folder / "tiny")
    (given.folder / "tiny.json").write_text(json.dumps(ANSWERS, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
