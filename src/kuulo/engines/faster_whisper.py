"""faster-whisper: Whisper on CTranslate2. The default engine as soon as its model is in the store.

Recordings given to `transcribe` at the same time (the worker uses `parallel` threads) are each decoded by
faster-whisper's own sequential loop, unchanged, so that the words are those of one-by-one decoding. What the loops
ask of the model meanwhile is collected by `batcher.Batcher` and done in batches across the recordings, which saves
a good part of the decoding.

Parses on Python 3.9; imports faster-whisper inside functions.
"""

from __future__ import annotations

import copy
import inspect
import threading
from typing import Any, Dict, Iterator, List, Mapping, Optional

from kuulo.engines.base import (
    AUDIO,
    Checkpoint,
    CommandLine,
    EngineSpec,
    Language,
    Native,
    Progress,
    Said,
    Session,
    Unusable,
)
from kuulo.engines.batcher import Batcher
from kuulo.engines.whisper_text import (
    check_raw,
    confidence,
    fallback_flags,
    flags,
    milliseconds,
    refuse_by_model,
    split_device,
)
from kuulo.transcript import Decoding, Segment, Word
from kuulo.wire import Task

SPEC = EngineSpec(
    name="faster-whisper",
    summary="Whisper on CTranslate2: fast on CPU and NVIDIA GPUs, small memory.",
    url="https://github.com/SYSTRAN/faster-whisper",
    licence="MIT",
    package="faster-whisper",
    module="faster_whisper",
    install="faster-whisper",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    model_formats=("ct2",),
    packages=("ctranslate2", "tokenizers", "numpy"),
    section_ms=2 * 3600 * 1000,
    options={
        "language": Native("language", "None to detect, on the first 30 s"),
        "task": Native("task"),
        "beam_size": Native("beam_size", "best_of=5 replaces it at temperatures above 0"),
        "temperature": Native("temperature", "with --batch-size above 1 the first alone is used"),
        "initial_prompt": Native("initial_prompt"),
        "hotwords": Native("hotwords"),
        "condition_on_previous_text": Native("condition_on_previous_text", "not with --batch-size above 1"),
        "word_times": Native("word_timestamps"),
        "batch_size": Native("BatchedInferencePipeline(batch_size)", "more than 1: windows cut by speech detection"),
        "compute_type": Native("WhisperModel(compute_type)"),
        "device": Native("WhisperModel(device, device_index)"),
        "threads": Native("WhisperModel(cpu_threads)"),
    },
    by_clip=(
        "language",
        "task",
        "beam_size",
        "temperature",
        "initial_prompt",
        "hotwords",
        "condition_on_previous_text",
        "word_times",
    ),
    differs=(
        "--compute-type auto is what CTranslate2 finds fastest here, so that words may differ between machines",
        "sampling above temperature 0 cannot be seeded: a window that falls back may read otherwise the next time",
        "windows of several recordings are decoded together; the words are those of one by one",
    ),
    # faster-whisper's README, 13 min of sound: large-v2, beam 5, on an RTX 3070 Ti; small on 8 cores of an i7-12700K.
    speeds={"cuda": 12.4, "cuda batched": 46, "cpu": 7.6, "cpu batched": 15},
)

BATCHED_SECTION_MS = 10 * 60 * 1000
"""In batched mode a whole section's windows are prepared before the first is decoded; this bounds their memory and
is how much a killed run has to do again."""

PARALLEL = {"cpu": 8, "cuda": 16}


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """What batched mode and some models cannot do (faster_whisper/transcribe.py, BatchedInferencePipeline)."""
    refused = refuse_by_model(options)
    if int(options.get("batch_size") or 1) > 1:
        if options.get("condition_on_previous_text"):
            refused["condition_on_previous_text"] = "with --batch-size above 1 every window is decoded alone"
        if len(options.get("temperature") or ()) > 1:
            refused["temperature"] = "with --batch-size above 1 the first temperature alone is used: give one"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with faster-whisper itself."""
    name, index = split_device(options.get("device"))
    lines = [
        "from faster_whisper import BatchedInferencePipeline, WhisperModel",
        f"model = WhisperModel({options.get('model_path')!r}, device={name!r}, device_index={index}, "
        f"compute_type={options.get('compute_type') or 'auto'!r}, cpu_threads={options.get('threads') or 0}, "
        "local_files_only=True)",
    ]
    batched = int(options.get("batch_size") or 1) > 1
    call = "BatchedInferencePipeline(model)" if batched else "model"
    arguments = ", ".join(f"{k}={v!r}" for k, v in _arguments(options, raw).items())
    lines.append(f"segments, info = {call}.transcribe(audio, {arguments})")
    return "\n".join(lines)


_SAID = """
best_of patience length_penalty repetition_penalty no_repeat_ngram_size no_speech_threshold compression_ratio_threshold
prompt_reset_on_temperature prefix suppress_blank prepend_punctuations append_punctuations
hallucination_silence_threshold vad_filter multilingual
"""
SAID = {name: name for name in _SAID.split()}
SAID["log_prob_threshold"] = "logprob_threshold"
"""Arguments of `transcribe`, and what the program whisper-ctranslate2 calls them."""


def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine:
    """whisper-ctranslate2's command line: the program that people use this library by."""
    notes: List[str] = []
    name, index = split_device(options.get("device"))
    language, batch = options.get("language"), int(options.get("batch_size") or 1)
    pairs = {
        "model_directory": options.get("model_path"),
        "local_files_only": True,
        "language": None if language in (None, "auto") else language,
        "task": options.get("task") or "transcribe",
        "beam_size": options.get("beam_size") or 5,
        **fallback_flags(options, notes),
        "initial_prompt": options.get("initial_prompt"),
        "hotwords": options.get("hotwords"),
        "condition_on_previous_text": None if batch > 1 else options.get("condition_on_previous_text") is not False,
        "word_timestamps": bool(options.get("word_times")),
        "device": name,
        "device_index": index or None,
        "compute_type": options.get("compute_type") or "auto",
        "threads": options.get("threads"),
        **({"batched": True, "batch_size": batch} if batch > 1 else {}),
        **{SAID[key]: value for key, value in raw.items() if key in SAID},
    }
    notes += [f"{key} has no option in it" for key in raw if key not in SAID]
    if batch > 1:
        notes.append("it has batches without times inside a window, and segments as long as one")
    return CommandLine(("whisper-ctranslate2", AUDIO, *flags(pairs)), tuple(notes))


def _arguments(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """Keyword arguments of faster-whisper's `transcribe`."""
    language = options.get("language")
    arguments: Dict[str, Any] = {
        "language": None if language in (None, "auto") else language,
        "task": options.get("task") or "transcribe",
        "beam_size": options.get("beam_size") or 5,
        "temperature": list(options.get("temperature") or [0.0]),
        "initial_prompt": options.get("initial_prompt"),
        "hotwords": options.get("hotwords"),
        "word_timestamps": bool(options.get("word_times")),
    }
    if int(options.get("batch_size") or 1) > 1:
        arguments["batch_size"] = options["batch_size"]
        arguments["temperature"] = arguments["temperature"][0]
        arguments["without_timestamps"] = False
        arguments["vad_filter"] = True
    else:
        arguments["condition_on_previous_text"] = options.get("condition_on_previous_text") is not False
    return {**arguments, **raw}


def load(task: Task) -> Session:
    """The model in memory. Raises Unusable for raw options that faster-whisper does not have or the device cannot do,
    and when CTranslate2 cannot load the model on the device."""
    import ctranslate2
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    options, raw = dict(task.options), dict(task.raw)
    constructor = set(inspect.signature(WhisperModel.__init__).parameters) - {
        "self", "model_size_or_path", "device", "device_index", "compute_type", "download_root",
        "local_files_only", "files", "revision", "use_auth_token", "model_kwargs",
    }  # fmt: skip
    constructor |= {"flash_attention"}
    batched = int(options.get("batch_size") or 1) > 1
    method = BatchedInferencePipeline.transcribe if batched else WhisperModel.transcribe
    callable_ = set(inspect.signature(method).parameters) - {"self", "audio"}
    check_raw(SPEC.name, raw, constructor | callable_)
    name, index = split_device(options.get("device"))
    if name == "auto":
        name = "cuda" if ctranslate2.get_cuda_device_count() > 0 else "cpu"
    keywords = {k: raw.pop(k) for k in list(raw) if k in constructor}
    if name == "cpu" and keywords.get("flash_attention"):
        raise Unusable(
            "flash attention needs an NVIDIA GPU, and the device is cpu",
            "leave --engine-option flash_attention out, or give --device cuda where there is one",
        )
    asked = sorted(keywords)
    keywords.setdefault("cpu_threads", options.get("threads") or 0)
    try:
        model = _model_class()(
            task.model_path,
            device=name,
            device_index=index,
            compute_type=options.get("compute_type") or "auto",
            local_files_only=True,
            **keywords,
        )
    except TypeError as error:
        if not asked:
            raise
        raise Unusable(
            f"faster-whisper does not take these values: {', '.join(f'{k}={keywords[k]!r}' for k in asked)}",
            "correct them or leave --engine-option out",
        ) from error
    except (RuntimeError, ValueError) as error:
        raise Unusable(
            f"CTranslate2 cannot load the model on {name}: {error}",
            _remedy(str(error), name, options.get("compute_type")),
        ) from error
    arguments = _arguments(options, raw)
    session = _Batched(model, name, arguments) if batched else _Sequential(model, name, arguments)
    session.options, session.raw = options, raw
    return session


def _remedy(error: str, device: str, compute_type: Any) -> str:
    """What to do when CTranslate2 does not load a model."""
    import ctranslate2

    if "FlashAttention" in error:  # the GPU is too old for it
        return "leave --engine-option flash_attention out"
    if device != "cpu":
        return "try --device cpu, or another --compute-type"
    can = ctranslate2.get_supported_compute_types(device)
    if compute_type not in (None, "auto", *can):
        return f"on this CPU --compute-type is one of auto, {', '.join(sorted(can))}"
    return "check it: kuulo models verify"


class _Whisper(Session):
    """A model with the arguments of its calls."""

    options: Mapping[str, Any] = {}
    raw: Mapping[str, Any] = {}
    _arguments: Dict[str, Any]

    def told(self, options: Mapping[str, Any]) -> Session:
        other = copy.copy(self)
        other._arguments = _arguments({**self.options, **options}, self.raw)
        return other


class _Sequential(_Whisper):
    """faster-whisper's sequential decoding, several recordings at a time."""

    def __init__(self, model: Any, device: str, arguments: Dict[str, Any]) -> None:
        self.device = device
        self.compute_type = model.model.compute_type
        self.parallel = PARALLEL.get(device, 8)
        self._model = model
        self._arguments = arguments

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        """See Session. A checkpoint's state is the window to decode next: {"seek": frames of 10 ms, "tokens": what
        the decoder is told was said before, "spoke": when speech last ended (s), "language"}. The state
        {"prompt": text} starts a recording's next section."""
        with self._model.batcher.taking_part():
            yield from self._sequential(samples, state or {})

    def _sequential(self, samples: Any, state: Dict[str, Any]) -> Iterator[Said]:
        arguments, window = dict(self._arguments), self._model.window
        if state.get("language"):
            arguments["language"] = state["language"]
        if "seek" in state:
            arguments["clip_timestamps"] = [state["seek"] / 100]
            arguments["initial_prompt"] = state["tokens"]
        elif state.get("prompt") and arguments["condition_on_previous_text"]:
            arguments["initial_prompt"] = state["prompt"]
        window.spoke = state.get("spoke", 0.0)
        segments, info = self._model.transcribe(samples, **arguments)
        detected = arguments["language"] is None
        yield Language(info.language, float(info.language_probability) if detected else None)
        seek = -1
        for said in segments:
            if said.seek != seek:
                if seek >= 0:
                    yield Progress(said.seek * 10)
                seek = said.seek
                point = {
                    "seek": seek,
                    "tokens": list(window.previous),
                    "spoke": window.spoke_before,
                    "language": info.language,
                }
                yield Checkpoint(seek * 10, point)
            yield _segment(said, len(samples))


class _Batched(_Whisper):
    """BatchedInferencePipeline: windows of one recording decoded together."""

    section_ms = BATCHED_SECTION_MS

    def __init__(self, model: Any, device: str, arguments: Dict[str, Any]) -> None:
        from faster_whisper import BatchedInferencePipeline

        self.device = device
        self.compute_type = model.model.compute_type
        model.model = model.alone  # what the pipeline asks of it are batches already
        self._pipeline = BatchedInferencePipeline(model)
        self._arguments = arguments

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        arguments = dict(self._arguments)
        if state and state.get("language"):
            arguments["language"] = state["language"]
        segments, info = self._pipeline.transcribe(samples, **arguments)
        detected = arguments["language"] is None
        yield Language(info.language, float(info.language_probability) if detected else None)
        for said in segments:
            yield _segment(said, len(samples))
            yield Progress(milliseconds(said.end, len(samples)))


def _segment(said: Any, samples: int) -> Segment:
    """faster-whisper's segment as ours; no time is after the end of the audio."""
    words = tuple(
        Word(w.word, milliseconds(w.start, samples), milliseconds(w.end, samples), float(w.probability))
        for w in said.words or ()
    )
    start, end = milliseconds(said.start, samples), milliseconds(said.end, samples)
    decoding = Decoding(
        seek=int(said.seek),
        tokens=tuple(int(t) for t in said.tokens),
        temperature=float(said.temperature or 0.0),
        avg_logprob=float(said.avg_logprob),
        compression_ratio=float(said.compression_ratio),
        no_speech_prob=float(said.no_speech_prob),
    )
    sure = confidence(decoding.avg_logprob)
    return Segment(start, max(start, end), said.text, words, confidence=sure, decoding=decoding)


def _model_class() -> Any:
    """WhisperModel with its calls of CTranslate2 going through a Batcher, and a note of each window's state."""
    import numpy as np
    from faster_whisper import WhisperModel
    from faster_whisper.feature_extractor import FeatureExtractor

    class Features(FeatureExtractor):  # type: ignore[misc]
        """The same log-mel spectrogram, computed in blocks: the original needs 1 GB for each hour of audio."""

        block = 3000  # frames

        def __call__(self, waveform: Any, padding: int = 160, chunk_length: Optional[int] = None) -> Any:
            frames = (len(waveform) + padding) // self.hop_length
            if chunk_length is not None or frames <= self.block or len(waveform) <= self.n_fft:
                return super().__call__(waveform, padding, chunk_length)
            window = np.hanning(self.n_fft + 1)[:-1].astype("float32")
            out = np.empty((self.mel_filters.shape[0], frames), np.float32)
            for first in range(0, frames, self.block):
                last = min(first + self.block, frames)
                stft = self.stft(
                    self._piece(waveform, padding, first, last), self.n_fft, self.hop_length, window=window,
                    center=False, return_complex=True,
                ).astype("complex64")  # fmt: skip
                out[:, first:last] = self.mel_filters @ (np.abs(stft) ** 2)
            np.log10(np.clip(out, 1e-10, None, out=out), out=out)
            np.maximum(out, out.max() - 8.0, out=out)
            out += 4.0
            out /= 4.0
            return out

        def _piece(self, waveform: Any, padding: int, first: int, last: int) -> Any:
            """Samples under frames first..last, with the reflection at both ends that the original pads with."""
            half, total = self.n_fft // 2, len(waveform) + padding
            start, end = first * self.hop_length - half, (last - 1) * self.hop_length + half
            piece = np.asarray(waveform[max(0, start) : min(len(waveform), end)], dtype=np.float32)
            if end > len(waveform):
                zeros = np.zeros(min(end, total) - max(len(waveform), start, 0), np.float32)
                piece = np.concatenate([piece, zeros])
            return np.pad(piece, (max(0, -start), max(0, end - total)), mode="reflect")

    class Model(WhisperModel):  # type: ignore[misc]
        model: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.feature_extractor = Features(**self.feat_kwargs)
            self.alone = self.model
            self.batcher = Batcher(self.model)
            self.model = self.batcher
            self.window = threading.local()

        def get_prompt(self, tokenizer: Any, previous_tokens: List[int], *args: Any, **kwargs: Any) -> Any:
            self.window.previous = previous_tokens
            self.window.spoke_before = getattr(self.window, "spoke", 0.0)
            return super().get_prompt(tokenizer, previous_tokens, *args, **kwargs)

        def add_word_timestamps(self, segments: Any, *args: Any, **kwargs: Any) -> Any:
            if "last_speech_timestamp" not in kwargs:  # the batched mode, in which every window stands alone
                return super().add_word_timestamps(segments, *args, **kwargs)
            last = max(float(kwargs.pop("last_speech_timestamp")), getattr(self.window, "spoke", 0.0))
            last = super().add_word_timestamps(segments, *args, last_speech_timestamp=last, **kwargs)
            ends = [w["end"] for segment in segments for part in segment for w in part.get("words") or ()]
            if ends:
                self.window.spoke = float(ends[-1])
            return last

    return Model
