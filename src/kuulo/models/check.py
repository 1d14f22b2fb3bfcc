"""Whether model files are what they should be, without loading them.

Headers and sizes are read, never whole files, and nothing is unpickled: some milliseconds. That the bytes are
the right ones is for `store.verify`, which hashes them.

| format | what it is | module |
|---|---|---|
| ct2 | a CTranslate2 folder | ct2.py |
| ggml | a whisper.cpp file | ggml.py |
| gguf | a llama.cpp file | gguf.py |
| hf | a Hugging Face folder with a Whisper | hf.py |
| hf-text | a Hugging Face folder with a text model | hf_text.py |
| nemo | a NeMo file that tells speakers apart | nemo.py |
| onnx | a folder of ONNX files | onnx.py |
| pt | an openai-whisper file | pt.py |
| pyannote | pyannote.audio's speaker pipeline, a folder with sub-folders | pyannote.py |
| speakers-onnx | sherpa-onnx's speaker pipeline, a folder of ONNX files | speakers_onnx.py |

`nemo`, `pyannote` and `speakers-onnx` tell speakers apart and know no words; `gguf` and `hf-text` are language models;
the others are Whispers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo.models import ct2, ggml, gguf, hf, hf_text, nemo, onnx, pt, pyannote, speakers_onnx
from kuulo.models.binary import Damaged
from kuulo.models.shape import Shape

# In the order in which they are tried: hf before ct2, because both have a config.json
FORMATS: dict[str, Any] = {
    "ggml": ggml,
    "gguf": gguf,
    "pt": pt,
    "hf": hf,
    "hf-text": hf_text,
    "ct2": ct2,
    "onnx": onnx,
    "pyannote": pyannote,
    "speakers-onnx": speakers_onnx,
    "nemo": nemo,
}
FOLDERS = frozenset({"ct2", "hf", "hf-text", "onnx", "pyannote", "speakers-onnx"})
"""Formats that are a folder; the others are one file."""

NESTED = frozenset({"pyannote"})
"""Formats whose files may lie in sub-folders of the folder."""

DIARIZING = frozenset({"nemo", "pyannote", "speakers-onnx"})
"""Formats of models that tell speakers apart."""

CHATTING = frozenset({"gguf", "hf-text"})
"""Formats of language models. What is in neither of these sets recognises words."""

SUFFIX = {"ggml": ".bin", "gguf": ".gguf", "pt": ".pt"}


@dataclass(frozen=True)
class ModelFacts:
    """What the files tell of a model. `translates`: trained to translate into English."""

    multilingual: bool | None
    translates: bool | None
    n_mels: int | None
    vocabulary: int | None
    encoder_layers: int | None
    decoder_layers: int | None
    size_bytes: int


def task_of(format_: str) -> str:
    """What a model of the format is for, as engines name their tasks: `transcribe`, `diarize` or `chat`."""
    if format_ in CHATTING:
        return "chat"
    return "diarize" if format_ in DIARIZING else "transcribe"


def detect_format(path: Path) -> str | None:
    """The format of a folder or file, by what it looks like; None when it is none of them."""
    for name, module in FORMATS.items():
        if path.is_dir() == (name in FOLDERS) and path.exists() and module.matches(path):
            return name
    return None


def problems(format_: str, path: Path) -> list[str]:
    """What is wrong with a model's files, a clause each; empty when nothing is."""
    if not path.exists():
        return [f"{path.name} is missing"]
    if path.is_dir() != (format_ in FOLDERS):
        return [f"{path.name} is a {'folder' if path.is_dir() else 'file'}; {FORMATS[format_].NAME} is not"]
    try:
        found: list[str] = FORMATS[format_].problems(path)
    except OSError as error:
        return [f"{Path(error.filename or path).name} cannot be read: {error.strerror}"]
    return found


def describe(format_: str, path: Path) -> ModelFacts:
    """What the files tell; None where they are damaged and do not."""
    try:
        shape: Shape = FORMATS[format_].shape(path)
    except (Damaged, OSError):
        shape = Shape()
    return ModelFacts(
        multilingual=shape.multilingual,
        translates=shape.translates,
        n_mels=shape.mels,
        vocabulary=shape.vocabulary,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        size_bytes=sum(file.stat().st_size for file in files(format_, path)),
    )


def text_shape(format_: str, path: Path) -> Any:
    """What its files tell of a language model, a `llm.memory.Shape`; None of other models, and where the files are
    damaged."""
    if format_ not in CHATTING:
        return None
    try:
        return FORMATS[format_].text_shape(path)
    except (Damaged, OSError):
        return None


def files(format_: str, path: Path) -> list[Path]:
    """The files that make the model, sorted by name: of a folder, those that the format uses."""
    if format_ not in FOLDERS:
        return [path]
    return [path / name for name in names(format_, path)]


def names(format_: str, path: Path) -> list[str]:
    """Names of those files in the model's folder, with sub-folders: `segmentation/pytorch_model.bin`."""
    if format_ not in FOLDERS:
        return [path.name]
    if format_ in NESTED:
        found: list[str] = FORMATS[format_].names(path)
        return found
    return wanted(format_, [entry.name for entry in path.iterdir() if entry.is_file()])


def wanted(format_: str, names: list[str]) -> list[str]:
    """Those of a folder's or repository's file names that the format uses, sorted."""
    if format_ == "ct2":
        return sorted(name for name in names if name in ct2.WANTED)
    found: list[str] = FORMATS[format_].wanted(names)
    return found
