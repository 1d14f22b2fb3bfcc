"""What whisperX needs for words' times, made for tests: an alignment model of random weights, NLTK's data by hand."""

from __future__ import annotations

import json
from pathlib import Path


def wav2vec2(folder: Path) -> Path:
    """A small Wav2Vec2ForCTC for letters, as a Hugging Face folder."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyzäö'"]
    (folder / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), do_lower_case=True)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), **shape, **convolutions)).save_pretrained(folder)
    return folder


def punkt(folder: Path) -> Path:
    """NLTK's punkt_tab for English and Finnish, with nothing learnt."""
    for language in ("english", "finnish"):
        made = folder / "tokenizers" / "punkt_tab" / language
        made.mkdir(parents=True)
        for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
            (made / name).write_text("")
    return folder


def both(folder: Path) -> Path:
    """Both, in `folder`/wav2vec2 and `folder`/nltk."""
    wav2vec2(folder / "wav2vec2")
    punkt(folder / "nltk")
    return folder
