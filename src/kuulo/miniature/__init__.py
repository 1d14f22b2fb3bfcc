"""The miniature: a real Whisper, small enough to come with Kuulo, that hears synthetic speech.

| file | what it is |
|---|---|
| `clip.flac` | a recording that it hears: engines are tried on it |
| `compact.npz` | the trained weights (see `weights.py`); recipe and model card: `tools/miniature/` |
| `multilingual.tiktoken.gz` | Whisper's vocabulary, openai-whisper's own file (MIT: see NOTICE) |
| `vocabulary.py` | tokens and tokenizer files |
| `weights.py` | the weights, expanded |
| `ct2.py` `ggml.py` `hf.py` `onnx.py` `pt.py` | one writer for each format, with numpy alone: no engine is needed |
| `graph.py` | what `onnx.py` builds |
| `writers.py` | the table of writers |

`models/built_in.py` puts it into a store when somebody asks for it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

NAME = "miniature"

NOTE = "The miniature is a demonstration: it knows only its few hundred words, as synthetic voices say them."

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "compact.npz"
CLIP = FOLDER / "clip.flac"
CLIP_WORDS = "good morning mother always good coffee"
"""What the clip says."""
VOCABULARY = FOLDER / "multilingual.tiktoken.gz"


def digest() -> str:
    """sha256 over the weights, the vocabulary and the code that writes them: equal digests, equal model files."""
    joined = hashlib.sha256()
    for path in sorted([WEIGHTS, VOCABULARY, *FOLDER.glob("*.py")]):
        joined.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return joined.hexdigest()


def size() -> int:
    """Bytes that it takes in the installed package."""
    return WEIGHTS.stat().st_size + VOCABULARY.stat().st_size
