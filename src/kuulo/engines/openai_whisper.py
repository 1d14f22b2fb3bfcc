"""openai-whisper: the original implementation, on PyTorch.

Takes numpy arrays, so no `ffmpeg` program is needed. Parses on Python 3.9; imports PyTorch inside functions.
"""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from kuulo.engines.base import AUDIO, CommandLine, EngineSpec, Language, Native, Progress, Said, Session, Unusable
from kuulo.engines.whisper_text import (
    check_raw,
    confidence,
    fallback_flags,
    flags,
    milliseconds,
    refuse_by_model,
    split_device,
    tidy,
    torch_device,
)
from kuulo.transcript import Decoding, Segment, Word
from kuulo.wire import Task

SPEC = EngineSpec(
    name="openai-whisper",
    summary="OpenAI's own implementation on PyTorch: the reference for the words.",
    url="https://github.com/openai/whisper",
    licence="MIT",
    package="openai-whisper",
    module="whisper",
    install="openai-whisper",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    model_formats=("pt",),
    packages=("torch", "tiktoken", "numba", "numpy"),
    section_ms=5 * 60 * 1000,
    options={
        "language": Native("language", "None to detect, on the first 30 s"),
        "task": Native("task"),
        "beam_size": Native("beam_size", "best_of=5 replaces it at temperatures above 0; 1 is greedy"),
        "temperature": Native("temperature"),
        "initial_prompt": Native("initial_prompt"),
        "condition_on_previous_text": Native("condition_on_previous_text"),
        "word_times": Native("word_timestamps"),
        "compute_type": Native("fp16", "float16 or float32; auto is float16 on a GPU"),
        "device": Native("load_model(device)"),
        "threads": Native("torch.set_num_threads"),
    },
    differs=(
        "what the others are compared with; slow on a CPU, in float32 alone",
        "recordings are handed over in sections of five minutes, cut at quiet places; a stopped run goes on there",
    ),
    # faster-whisper's README, 13 min of sound: large-v2, beam 5, on an RTX 3070 Ti; small on 8 cores of an i7-12700K.
    speeds={"cuda": 5.5, "cpu": 1.9},
)

PRECISIONS = ("auto", "float16", "float32")
BEST_OF = 5  # the original command line's default
OURS = frozenset({"self", "model", "audio", "verbose", "decode_options", "prompt", "prefix", "fp16"})
"""Arguments that raw options may not have: the adapter or the original itself fills them."""


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Number formats that PyTorch's Whisper does not compute in, and what the model does not know."""
    refused = refuse_by_model(options)
    precision = options.get("compute_type") or "auto"
    if precision not in PRECISIONS:
        refused["compute_type"] = f"it computes in float16 or float32, not {precision}"
    elif precision == "float16" and split_device(options.get("device"))[0] == "cpu":
        refused["compute_type"] = "on a CPU it computes in float32 alone"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with openai-whisper itself."""
    device = options.get("device") or "auto"
    where = "" if device == "auto" else f", device={device!r}"
    precision = options.get("compute_type") or "auto"
    shown = {"auto": "torch.cuda.is_available()", "float16": "True", "float32": "False"}[precision]
    arguments = ", ".join(f"{key}={value!r}" for key, value in _arguments(options, raw).items())
    lines = ["import torch, whisper"]
    if options.get("threads"):
        lines.append(f"torch.set_num_threads({options['threads']})")
    lines.append(f"model = whisper.load_model({options.get('model_path')!r}{where})")
    lines.append(f"result = whisper.transcribe(model, audio, fp16={shown}, {arguments})")
    return "\n".join(lines)


def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine:
    """The command line of its own program, `whisper`; that one needs the program ffmpeg."""
    notes: List[str] = []
    said = _arguments(options, {})
    device = options.get("device") or "auto"
    half = {"auto": split_device(device)[0] != "cpu", "float16": True, "float32": False}
    pairs = {
        "model": options.get("model_path"),
        "language": said["language"],
        "task": said["task"],
        "beam_size": str(said["beam_size"]),
        "best_of": str(said["best_of"]),
        **fallback_flags(options, notes),
        "initial_prompt": said["initial_prompt"],
        "condition_on_previous_text": said["condition_on_previous_text"],
        "word_timestamps": said["word_timestamps"],
        "device": None if device == "auto" else device,
        "fp16": half[options.get("compute_type") or "auto"],
        "threads": options.get("threads"),
        **{key: value for key, value in raw.items() if key in PROGRAM_OPTIONS},
    }
    notes += [f"{key} has no option in it" for key in raw if key not in PROGRAM_OPTIONS]
    return CommandLine(("whisper", AUDIO, *flags(pairs)), tuple(notes))


PROGRAM_OPTIONS = frozenset(
    {
        "best_of", "patience", "length_penalty", "suppress_tokens", "carry_initial_prompt",
        "compression_ratio_threshold", "logprob_threshold", "no_speech_threshold", "prepend_punctuations",
        "append_punctuations", "hallucination_silence_threshold", "clip_timestamps",
    }
)  # fmt: skip
"""Raw options that the program has too, by the same names."""


def _arguments(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """Keyword arguments of `whisper.transcribe`."""
    language = options.get("language")
    temperatures = tuple(options.get("temperature") or (0.0,))
    beam_size = int(options.get("beam_size") or 5)
    return {
        "language": None if language in (None, "auto") else language,
        "task": options.get("task") or "transcribe",
        "beam_size": beam_size if beam_size > 1 else None,
        "best_of": BEST_OF if max(temperatures) > 0 else None,
        "temperature": temperatures if len(temperatures) > 1 else temperatures[0],
        "initial_prompt": options.get("initial_prompt"),
        "condition_on_previous_text": options.get("condition_on_previous_text") is not False,
        "word_timestamps": bool(options.get("word_times")),
        **raw,
    }


def load(task: Task) -> Session:
    """The model in memory; no pickled code is run. Raises Unusable for unknown raw options, a device or number
    format that is not there, and a file that is not a Whisper checkpoint."""
    import torch
    import whisper

    decoding = {field.name for field in dataclasses.fields(whisper.DecodingOptions)}
    check_raw(SPEC.name, task.raw, (set(inspect.signature(whisper.transcribe).parameters) | decoding) - OURS)
    options = task.options
    device = torch_device(options.get("device"), torch)
    half = _half(options.get("compute_type"), device)
    if options.get("threads"):
        torch.set_num_threads(int(options["threads"]))
    model = _read(task, device, torch, whisper)
    return Original(model, {**_arguments(options, task.raw), "fp16": half}, device, half)


def _half(precision: Any, device: str) -> bool:
    if precision == "float16" and device == "cpu":
        raise Unusable("openai-whisper computes in float32 alone on a CPU", "try --compute-type float32")
    return device != "cpu" if precision in (None, "auto") else precision == "float16"


def _read(task: Task, device: str, torch: Any, whisper: Any) -> Any:
    """The checkpoint at the task's path. A path and never a name, which `load_model` would download."""
    if int(torch.__version__.split(".")[0]) < 2:
        raise Unusable(f"PyTorch {torch.__version__} may run code from a model file", "install PyTorch 2 or newer")
    path = Path(task.model_path or "").absolute()
    if not path.is_file():
        raise Unusable(f"there is no file {path}", "kuulo models list")
    try:
        model = whisper.load_model(str(path), device=device)
    except pickle.UnpicklingError as error:
        what = "not a Whisper checkpoint: it holds more than tensors, and might run code"
        raise Unusable(what, "check it: kuulo models verify") from error
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Unusable(f"not a Whisper checkpoint: {first}", "check it: kuulo models verify") from error
    # `load_model` knows which heads follow the words for its own models' names, but not for their paths.
    heads = getattr(whisper, "_ALIGNMENT_HEADS", {}).get(task.model)
    if heads is not None and _fits(heads, model):
        model.set_alignment_heads(heads)
    return model


def _fits(heads: bytes, model: Any) -> bool:
    """Whether the map of alignment heads (base85 of gzip of one byte a head) is for a decoder of this size."""
    import base64
    import gzip

    heads_there: int = model.dims.n_text_layer * model.dims.n_text_head
    return len(gzip.decompress(base64.b85decode(heads))) == heads_there


class Original(Session):
    """A model of openai-whisper. Sections come with the state {"prompt": text said before, "language": code}."""

    def __init__(self, model: Any, arguments: Dict[str, Any], device: str, half: bool) -> None:
        self.device = device
        self.compute_type = "float16" if half else "float32"
        self._model = model
        self._arguments = arguments

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        """See Session. It says nothing before the whole section has been heard."""
        import numpy as np
        import whisper

        state = state or {}
        arguments = dict(self._arguments)
        audio = np.array(samples, dtype=np.float32)
        code, probability = state.get("language") or arguments["language"], None
        if code is None:
            code, probability = self._detect(audio)
        yield Language(code, probability)
        arguments["language"] = code
        if state.get("prompt") and arguments["condition_on_previous_text"]:
            arguments["initial_prompt"] = state["prompt"]
        for said in whisper.transcribe(self._model, audio, **arguments)["segments"]:
            if said["text"].strip():
                yield _segment(said, len(audio))
        yield Progress(milliseconds(len(audio), len(audio)))

    def _detect(self, audio: Any) -> Tuple[str, Optional[float]]:
        """(code, probability) by the steps of `whisper.transcribe`, which keeps the probability to itself."""
        import torch
        from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim

        if not self._model.is_multilingual:
            return "en", None
        mel = log_mel_spectrogram(audio, self._model.dims.n_mels, padding=N_SAMPLES)
        dtype = torch.float16 if self.compute_type == "float16" else torch.float32
        _, probabilities = self._model.detect_language(pad_or_trim(mel, N_FRAMES).to(self._model.device).to(dtype))
        code = max(probabilities, key=probabilities.get)
        return code, round(float(probabilities[code]), 4)


def _segment(said: Mapping[str, Any], samples: int) -> Segment:
    """openai-whisper's segment as ours."""
    start, end = milliseconds(said["start"], samples), milliseconds(said["end"], samples)
    words = tuple(
        Word(
            word["word"],
            milliseconds(word["start"], samples),
            milliseconds(word["end"], samples),
            float(word["probability"]),
        )
        for word in said.get("words") or ()
    )
    decoding = Decoding(
        seek=int(said["seek"]),
        tokens=tuple(int(token) for token in said["tokens"]),
        temperature=float(said["temperature"]),
        avg_logprob=float(said["avg_logprob"]),
        compression_ratio=float(said["compression_ratio"]),
        no_speech_prob=float(said["no_speech_prob"]),
    )
    sure = confidence(decoding.avg_logprob)
    return tidy(Segment(start, max(start, end), said["text"], words, confidence=sure, decoding=decoding))
