"""insanely-fast-whisper: the program of that name, transformers' pipeline in large batches on a GPU.

Its package has no interface but its command line: for each recording it is started anew, and loads the model anew.
Parses on Python 3.9.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from kuulo.engines import programs
from kuulo.engines.base import (
    AUDIO,
    SAMPLE_RATE,
    CommandLine,
    EngineSpec,
    Language,
    Native,
    Progress,
    Said,
    Session,
    Unusable,
)
from kuulo.engines.programs import Failed
from kuulo.engines.whisper_text import check_raw, flags, milliseconds, refuse_by_model, split_device, tidy
from kuulo.transcript import Segment, Word
from kuulo.wire import Task

SPEC = EngineSpec(
    name="insanely-fast-whisper",
    summary="transformers' Whisper in large batches of windows on a GPU, as a program.",
    url="https://github.com/Vaibhavs10/insanely-fast-whisper",
    licence="MIT",
    package="insanely-fast-whisper",
    module="insanely_fast_whisper",
    install="insanely-fast-whisper",
    tasks=("transcribe",),
    devices=("cuda",),
    model_formats=("hf",),
    kind="program",
    packages=("transformers", "torch", "accelerate", "numpy"),
    options={
        "language": Native("--language", "auto: found in each window anew; it does not say what it found"),
        "task": Native("--task"),
        "word_times": Native("--timestamp word"),
        "batch_size": Native("--batch-size", "windows of 30 s; its own default is 24"),
        "compute_type": Native("", "float16, always"),
        "device": Native("--device-id", "a CUDA GPU; it has no way to say cpu"),
    },
    differs=(
        "it needs a GPU: the program asks for cuda:N or mps, whatever there is",
        "greedy, at temperature 0, each window alone: no beam, no second try, no prompt",
        "windows of 30 s that overlap by 5 s on either side, joined by what their texts share; no test for speech",
        "it does not say how sure it is, nor which language it found",
        "the program is started, and the model loaded, for each recording",
        "its --flash takes any word for yes, also False; Kuulo gives it for flash=true alone",
    ),
    # Its README names 92 on an A100, in batches of 24; here as faster-whisper's batches on a smaller GPU.
    speeds={"cuda": 46},
)

PROGRAM = "insanely-fast-whisper"
RAW = ("flash",)
ENGLISH = "model.en"
"""What a model of English alone has to be called: for a name that ends so, the program leaves out the task, which
such a model refuses."""

Times = Tuple[Optional[float], Optional[float]]


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Other number formats than float16, the CPU, and what the model does not know."""
    refused = refuse_by_model(options)
    if options.get("compute_type") not in (None, "auto", "float16"):
        refused["compute_type"] = "the program computes in float16 alone"
    if str(options.get("device") or "auto").partition(":")[0] not in ("auto", "cuda"):
        refused["device"] = "the program asks for a GPU, whatever there is"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """Python that starts the program."""
    shown = ", ".join(repr(word) for word in command(options, raw).arguments)
    kept = ", ".join(f"{key}={value!r}" for key, value in raw.items())
    return f"import subprocess\nsubprocess.run([{shown}], check=True)" + (f"  # {kept}" if kept else "")


def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine:
    """The program's command line; it writes output.json where it stands."""
    notes = []
    if options.get("multilingual") is False:
        notes.append(f"a model of English alone needs a folder whose name ends in .en, such as {ENGLISH}")
    return CommandLine((PROGRAM, *_arguments(options, raw, AUDIO, str(options.get("model_path")))), tuple(notes))


def _arguments(options: Mapping[str, Any], raw: Mapping[str, Any], audio: str, model: str) -> List[str]:
    _, index = split_device(options.get("device"))
    language = options.get("language")
    pairs = {
        "file-name": audio,
        "model-name": model,
        "device-id": index,
        "task": options.get("task") or "transcribe",
        "language": None if language in (None, "auto") else language,
        "batch-size": int(options.get("batch_size") or 1),
        "timestamp": "word" if options.get("word_times") else "chunk",
        "flash": True if raw.get("flash") else None,
    }
    return flags(pairs)


def load(task: Task) -> Session:
    """The program, looked for; it loads the model itself, for each recording. Raises Unusable for raw options that it
    does not have, where it or a GPU is not there, and for a folder that is no model."""
    check_raw(SPEC.name, task.raw, RAW)
    folder = _model(Path(task.model_path or "").absolute())
    program = programs.find(PROGRAM)
    import torch

    if not torch.cuda.is_available():
        raise Unusable(
            "insanely-fast-whisper needs a GPU, and this PyTorch sees none",
            "run it where there is one, or take another engine: kuulo engines list",
        )
    return Started([program], folder, task.options, task.raw)


def _model(folder: Path) -> Path:
    if not folder.is_dir():
        raise Unusable(f"there is no folder {folder}", "kuulo models list")
    for name in ("config.json", "generation_config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():  # the program would look for it on the network
            raise Unusable(f"there is no {name} in {folder}", "check it: kuulo models verify")
    return folder


class Started(Session):
    """`program` (its words, the first is the file) started for each recording."""

    def __init__(self, program: List[str], folder: Path, options: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
        self.device = f"cuda:{split_device(options.get('device'))[1]}"
        self.compute_type = "float16"
        self._program = program
        self._folder = folder
        self._options = dict(options)
        self._raw = raw
        settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        self._english = settings.get("is_multilingual") is False
        if self._english:
            self._options["language"] = None  # such a model refuses any

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        """See Session. No Language comes where it was to be detected: the program does not say what it found."""
        asked = (state or {}).get("language") or self._options.get("language")
        if self._english or asked not in (None, "auto"):
            yield Language("en" if self._english else str(asked))
        with tempfile.TemporaryDirectory(prefix="insanely-fast-whisper-") as name:
            folder = Path(name)
            programs.write_wav(samples, folder / "audio.wav")
            model = self._folder
            if self._english:
                model = folder / ENGLISH
                model.symlink_to(self._folder, target_is_directory=True)
            options = {**self._options, "language": asked}
            words = _arguments(options, self._raw, str(folder / "audio.wav"), str(model))
            said = programs.run([*self._program, *words, "--transcript-path", str(folder / "out.json")], folder)
            written = programs.read(folder / "out.json", said)
        yield from parse(written, words=bool(self._options.get("word_times")), samples=len(samples))
        yield Progress(len(samples) * 1000 // SAMPLE_RATE)


def parse(written: str, *, words: bool, samples: int) -> List[Segment]:
    """The segments in what the program writes: {"speakers", "chunks": [{"timestamp": [s, s], "text"}], "text"}.

    With words' times each chunk is a word, and a segment ends where a sentence does. A time that is null is the end
    of the recording, or where the next begins. Raises Failed for anything else."""
    try:
        chunks = [(chunk["text"], _times(chunk["timestamp"])) for chunk in json.loads(written)["chunks"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(f"the program did not write what it writes: {type(error).__name__}: {error}") from error
    end = samples / SAMPLE_RATE
    pieces: List[Word] = []
    for number, (text, (start_s, end_s)) in enumerate(chunks):
        following = next((times[0] for _, times in chunks[number + 1 :] if times[0] is not None), end)
        begins = start_s if start_s is not None else (pieces[-1].end_ms / 1000 if pieces else 0.0)
        start_ms = milliseconds(begins, samples)
        end_ms = milliseconds(following if end_s is None else end_s, samples)
        pieces.append(Word(text, start_ms, max(start_ms, end_ms)))
    if not words:
        found = [Segment(p.start_ms, p.end_ms, p.text) for p in pieces if p.text.strip()]
    else:
        found = [_sentence(said) for said in _sentences(pieces)]
    return sorted(found, key=lambda segment: segment.start_ms)


def _times(pair: Any) -> Times:
    start, end = pair
    return (None if start is None else float(start), None if end is None else float(end))


def _sentences(words: List[Word]) -> List[List[Word]]:
    sentences: List[List[Word]] = []
    for word in words:
        if not sentences or sentences[-1][-1].text.rstrip().endswith((".", "?", "!", "。", "？", "！")):
            sentences.append([])
        sentences[-1].append(word)
    return sentences


def _sentence(words: List[Word]) -> Segment:
    text = "".join(word.text for word in words)
    last = max(word.end_ms for word in words)
    return tidy(Segment(min(word.start_ms for word in words), last, text, tuple(words)))
