"""sherpa-onnx: Whisper on ONNX Runtime, as k2-fsa's library decodes it: greedy, one window of 30 s at a time.

The library hears the first 30 s of what it is given and drops the rest, so that recordings are cut here, at quiet
places. It ends the process where others raise (a language that the model lacks, metadata that a file lacks), goes on
with the CPU where there is no GPU, and cannot say a token that is part of a character. Each is looked at before.
Parses on Python 3.9; imports sherpa-onnx inside functions.
"""

from __future__ import annotations

import base64
import inspect
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from kuulo.engines import onnx_file
from kuulo.engines.base import (
    AUDIO,
    SAMPLE_RATE,
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
from kuulo.engines.whisper_text import Token, check_raw, milliseconds, refuse_by_model, split_device, tidy, words_from
from kuulo.transcript import Segment
from kuulo.wire import Task

SPEC = EngineSpec(
    name="sherpa-onnx",
    summary="Whisper on ONNX Runtime: a small library for many kinds of machines, int8 models.",
    url="https://github.com/k2-fsa/sherpa-onnx",
    licence="Apache-2.0",
    package="sherpa-onnx",
    module="sherpa_onnx",
    install="sherpa-onnx",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    model_formats=("onnx",),
    packages=("sherpa-onnx-core", "numpy"),
    files=("hr_dict_dir", "hr_lexicon", "hr_rule_fsts", "rule_fars", "rule_fsts"),
    options={
        "language": Native("language", "empty to detect, on the first window; it does not say how sure it is"),
        "task": Native("task"),
        "word_times": Native("enable_token_timestamps", "for models exported with attention outputs alone"),
        "compute_type": Native("", "auto alone: the model's files fix it"),
        "device": Native("provider", "cuda where it was built for it, the first GPU alone"),
        "threads": Native("num_threads"),
    },
    differs=(
        "always greedy: no beam, no sampling, no second try when a window goes wrong",
        "each window is decoded alone, cut at a quiet place: no prompt, nothing carries over",
        "no test for speech: on noise and music it writes words; --speech-detection leaves those out",
        "it does not say how sure it is, of words, of segments or of the language",
        "digital silence is left out before it hears anything",
    ),
    # No figures are published: taken as openai-whisper.
    speeds={"cpu": 1.9},
)

WINDOW_MS = 29_400
"""The longest window. The library takes less than 2950 frames of 10 ms and fills up to 30 s."""

PADDED = 471_840
"""Samples (29.49 s) that each window is filled up to with silence, since Whisper was trained on 30 s."""

LOOK_BACK_MS = 10_000
"""A window ends at the quietest place of its last 10 s."""

PER_MS = SAMPLE_RATE // 1000
LEAD_MS = 200
"""Silence that stays before the first sound of a window."""

NOTHING = 2.0**-15
"""One step of 16 bits: what is below is digital silence, in which Whisper hears words that nobody said, and after
which it misses some."""

_OURS = """
encoder decoder tokens language task num_threads provider decoding_method enable_token_timestamps
enable_segment_timestamps rule_fsts rule_fars hr_dict_dir hr_rule_fsts hr_lexicon
"""
OURS = frozenset(_OURS.split())
"""Arguments of `from_whisper` that raw options may not have: the adapter fills them, or (the last five) they rewrite
the text of tokens one by one, and a token is bytes here."""

USUAL = onnx_file.WhisperFiles("encoder.onnx", "decoder.onnx", "tokens.txt", int8=False)
"""What a model's files are called in a call that is shown while no folder is known."""

ATTENTION = "cross_attention_weights"
"""The decoder's output that word times are read from."""


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Number formats, since the files fix them, other GPUs than the first, and what the model does not know."""
    refused = refuse_by_model(options)
    if options.get("compute_type") not in (None, "auto"):
        refused["compute_type"] = "the model's files fix it: int8 where they are named so, else float32"
    if str(options.get("device") or "").partition(":")[2] not in ("", "0"):
        refused["device"] = "it takes the first GPU that it sees: set CUDA_VISIBLE_DEVICES"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with sherpa-onnx itself."""
    path = str(options.get("model_path"))
    files = _names(path) or USUAL
    shown = [f"{part}=folder + {'/' + getattr(files, part)!r}" for part in ("encoder", "decoder", "tokens")]
    shown += [f"{key}={value!r}" for key, value in _arguments(options, raw).items()]
    return "\n".join(
        [
            "import sherpa_onnx",
            f"folder = {path!r}",
            f"recognizer = sherpa_onnx.OfflineRecognizer.from_whisper({', '.join(shown)})",
            f"for start, end in windows:  # at most {WINDOW_MS / 1000} s each, cut at quiet places",
            "    stream = recognizer.create_stream()",
            f"    stream.accept_waveform(16000, numpy.pad(audio[start:end], (0, {PADDED} - (end - start))))",
            "    recognizer.decode_stream(stream)",
            "    texts, starts = stream.result.segment_texts, stream.result.segment_timestamps",
        ]
    )


def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine:
    """The command line of sherpa-onnx-offline (sherpa-onnx/csrc/offline-whisper-model-config.cc), which the Python
    package does not bring."""
    path = str(options.get("model_path"))
    files = _names(path) or USUAL
    arguments = _arguments(options, raw)
    pairs = {
        "whisper-encoder": f"{path}/{files.encoder}",
        "whisper-decoder": f"{path}/{files.decoder}",
        "tokens": f"{path}/{files.tokens}",
        "whisper-language": arguments["language"],
        "whisper-task": arguments["task"],
        "whisper-enable-segment-timestamps": "true",
        "whisper-enable-token-timestamps": str(arguments["enable_token_timestamps"]).lower(),
        "num-threads": arguments["num_threads"],
        "provider": arguments["provider"],
        **({"whisper-tail-paddings": raw["tail_paddings"]} if "tail_paddings" in raw else {}),
        **({"debug": str(raw["debug"]).lower()} if "debug" in raw else {}),
    }
    words = [f"--{name}={value}" for name, value in pairs.items()]
    notes = ("it hears the first 30 s alone, of WAV files: cut longer recordings before",)
    return CommandLine(("sherpa-onnx-offline", *words, AUDIO), notes)


def _names(path: str) -> Optional[onnx_file.WhisperFiles]:
    """The model's files in the folder; None when there are none."""
    folder = Path(path)
    return onnx_file.whisper_files(entry.name for entry in folder.iterdir()) if folder.is_dir() else None


def _arguments(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """Keyword arguments of `OfflineRecognizer.from_whisper`, without the files."""
    language = options.get("language")
    device = split_device(options.get("device"))[0]
    return {
        "language": "" if language in (None, "auto") else language,
        "task": options.get("task") or "transcribe",
        "num_threads": int(options.get("threads") or 1),
        "provider": "cpu" if device == "auto" else device,
        "enable_segment_timestamps": True,
        "enable_token_timestamps": bool(options.get("word_times")),
        **raw,
    }


def load(task: Task) -> Session:
    """The model in memory, its files looked at before. Raises Unusable for unknown raw options, a GPU that this build
    cannot use, a folder that is no Whisper for sherpa-onnx, a language that the model lacks, and word times of a model
    that cannot give them."""
    import sherpa_onnx

    known = set(inspect.signature(sherpa_onnx.OfflineRecognizer.from_whisper).parameters)
    check_raw(SPEC.name, task.raw, known - OURS)
    options = {**task.options, "device": provider_for(task.options.get("device"), Path(sherpa_onnx.__file__).parent)}
    folder = Path(task.model_path or "").absolute()
    files = _names(str(folder))
    if files is None:
        raise Unusable(f"no encoder.onnx, decoder.onnx and tokens.txt in {folder}", "check it: kuulo models verify")
    languages = _look_at(folder, files, options)
    arguments = _arguments(options, task.raw)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tokens = _bytes_as_characters(folder / files.tokens, Path(scratch) / "tokens.txt")
            recognizer = sherpa_onnx.OfflineRecognizer.from_whisper(
                encoder=str(folder / files.encoder),
                decoder=str(folder / files.decoder),
                tokens=str(tokens),
                **arguments,
            )
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Unusable(f"sherpa-onnx does not load the model: {first}", "check it: kuulo models verify") from error
    except TypeError as error:
        values = ", ".join(f"{key}={value!r}" for key, value in task.raw.items())
        raise Unusable(
            f"sherpa-onnx does not take these values: {values}", "correct them or leave --engine-option out"
        ) from error
    return Windows(recognizer, arguments, languages, "int8" if files.int8 else "float32")


def provider_for(asked: Any, package: Path) -> str:
    """`cpu` or `cuda`; `auto` is the GPU where this build can use one and the machine has one. Raises Unusable."""
    name = split_device(asked)[0]
    built = any((package / "lib").glob("*onnxruntime_providers_cuda*"))
    if name == "cuda" and not built:
        raise Unusable(
            "this sherpa-onnx was built without CUDA, and would go on with the CPU",
            "try --device cpu, or install a build for CUDA: https://k2-fsa.github.io/sherpa/onnx/python/install.html",
        )
    if name == "auto":
        return "cuda" if built and Path("/dev/nvidiactl").exists() else "cpu"
    return name


def _look_at(folder: Path, files: onnx_file.WhisperFiles, options: Mapping[str, Any]) -> Tuple[str, ...]:
    """The model's languages, none when it knows English alone. Raises Unusable for what would end the process."""
    do = "check it: kuulo models verify"
    try:
        encoder, decoder = (onnx_file.read(folder / name) for name in (files.encoder, files.decoder))
    except onnx_file.Broken as error:
        raise Unusable(str(error), do) from error
    multilingual = encoder.metadata.get(onnx_file.MULTILINGUAL) == "1"
    missing = onnx_file.missing_metadata(encoder.metadata)
    if missing:
        raise Unusable(f"{files.encoder} has no {missing[0]}: it was not exported for sherpa-onnx", do)
    if options.get("word_times") and ATTENTION not in decoder.outputs and len(decoder.outputs) < 4:
        raise Unusable(
            "the model's decoder does not give the attention that word times are read from",
            "take a model exported with sherpa-onnx's scripts/whisper/export-onnx-with-attention.py, or another engine",
        )
    languages = tuple(encoder.metadata[onnx_file.LANGUAGES].split(",")) if multilingual else ()
    asked = options.get("language")
    if asked not in (None, "auto", *(languages or ("en",))):
        raise Unusable(f"the model does not know the language {asked!r}", f"it knows {', '.join(languages) or 'en'}")
    return languages


def _bytes_as_characters(tokens: Path, path: Path) -> Path:
    """A list of tokens in which each byte is a character, so that every token is text by itself: `bytes_of` is the way
    back. (A token may be part of a character; the library fails to hand such a one over, and drops it in texts.)"""
    lines = []
    for line in tokens.read_text(encoding="ascii").splitlines():
        text, _, number = line.strip().partition(" ")
        as_text = base64.b64decode(text + "==").decode("latin-1").encode("utf-8")
        lines.append(f"{base64.b64encode(as_text).decode('ascii') or '='} {number}\n")
    path.write_text("".join(lines), encoding="ascii")
    return path


def bytes_of(text: str) -> bytes:
    """What a text of the library stands for. (It writes no other characters.)"""
    return text.encode("latin-1", errors="ignore")


def windows(samples: Any, at_ms: int = 0) -> Iterator[Tuple[int, int]]:
    """(start, end) in ms of the windows from `at_ms` on, at most WINDOW_MS each: cut at quiet places, digital silence
    before them left out. One at least."""
    from kuulo import speech

    length_ms = -(-len(samples) // PER_MS)
    start, one = _sound(samples, at_ms), False
    while start is not None or not one:
        begin = at_ms if start is None else start
        piece = samples[begin * PER_MS : (begin + WINDOW_MS + 1) * PER_MS]
        end = min(begin + speech.quiet_cuts(piece, WINDOW_MS, LOOK_BACK_MS)[0][1], length_ms)
        yield begin, end
        one = True
        start = _sound(samples, end)


def _sound(samples: Any, at_ms: int) -> Optional[int]:
    """Where a window from `at_ms` on begins: LEAD_MS before the first sound; None when there is none."""
    import numpy as np

    for block in range(at_ms * PER_MS, len(samples), SAMPLE_RATE):
        loud = np.flatnonzero(np.abs(np.asarray(samples[block : block + SAMPLE_RATE])) >= NOTHING)
        if len(loud):
            return max(at_ms, (block + int(loud[0])) // PER_MS - LEAD_MS)
    return None


class Windows(Session):
    """A recogniser that hears one window after the other. A checkpoint's state is {"at_ms", "language"}."""

    def __init__(
        self, recognizer: Any, arguments: Mapping[str, Any], languages: Tuple[str, ...], compute_type: str
    ) -> None:
        self.device = str(arguments["provider"])
        self.compute_type = compute_type
        self._recognizer = recognizer
        self._asked = str(arguments["language"])
        self._words = bool(arguments["enable_token_timestamps"])
        self._languages = languages

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        state = state or {}
        language = self._asked or str(state.get("language") or "")
        length_ms = len(samples) * 1000 // SAMPLE_RATE
        told = False
        for start, end in windows(samples, int(state.get("at_ms", 0))):
            self._speak(language)
            window = samples[start * PER_MS : end * PER_MS]
            result = self._decode(window)
            language = language or self._detected(result)
            if not told:
                yield Language(language)
                told = True
            for segment in self._segments(result, len(window), language):
                yield segment.shifted(start)
            yield Progress(min(end, length_ms))
            if end < length_ms:
                yield Checkpoint(end, {"at_ms": end, "language": language})

    def _speak(self, language: str) -> None:
        """Have the next window be of this language; of any, when it is empty."""
        config = self._recognizer.config
        if config.model_config.whisper.language != language and self._languages:
            config.model_config.whisper.language = language
            self._recognizer.recognizer.set_config(config)

    def _decode(self, window: Any) -> Any:
        import numpy as np

        stream = self._recognizer.create_stream()
        audio = np.zeros(PADDED, np.float32)
        audio[: len(window)] = window
        stream.accept_waveform(SAMPLE_RATE, audio)
        self._recognizer.decode_stream(stream)
        return stream.result

    def _detected(self, result: Any) -> str:
        if not self._languages:
            return "en"
        if not result.lang:  # it wrote what ONNX Runtime complained of, and gave an empty result
            raise RuntimeError("sherpa-onnx could not decode a window")
        return str(result.lang)

    def _segments(self, result: Any, samples: int, language: str) -> List[Segment]:
        """Segments with times from the start of a window of `samples` samples."""
        tokens = _tokens(result, samples) if self._words else []
        segments = []
        for text, start, duration in zip(result.segment_texts, result.segment_timestamps, result.segment_durations):
            raw = bytes_of(text)
            begin = milliseconds(start, samples)
            end = max(begin, milliseconds(start + duration, samples))
            words = words_from(_take(tokens, len(raw)), language) if self._words else ()
            said = raw.decode("utf-8", errors="replace")
            if said.strip():
                segments.append(tidy(Segment(begin, end, said, words)))
        return segments


def _tokens(result: Any, samples: int) -> List[Token]:
    """Every token of a window, in order; times from its start."""
    times = zip(result.tokens, result.timestamps, result.durations)
    return [
        Token(bytes_of(text), milliseconds(start, samples), milliseconds(start + duration, samples))
        for text, start, duration in times
    ]


def _take(tokens: List[Token], length: int) -> List[Token]:
    """The first tokens, which have `length` bytes together, taken out of the list."""
    taken: List[Token] = []
    while tokens and length > 0:
        taken.append(tokens.pop(0))
        length -= len(taken[-1].text)
    return taken
