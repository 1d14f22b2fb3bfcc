"""whisperX: faster-whisper on windows cut by a speech detector, then words' times from an alignment model.

What its program does is done here with its own functions, so that nothing is fetched: the speech detector is the one
inside its package, an alignment model is a folder that the user names, and NLTK's data is looked for before whisperX
would download it. Parses on Python 3.9; imports whisperX inside functions.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

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
from kuulo.engines.whisper_text import (
    Tell,
    check_raw,
    confidence,
    flags,
    milliseconds,
    refuse_by_model,
    split_device,
    streamed,
    tidy,
    torch_device,
)
from kuulo.transcript import Segment, Word
from kuulo.wire import Task

SPEC = EngineSpec(
    name="whisperx",
    summary="faster-whisper in batches of windows that a speech detector cuts, with words' times by alignment.",
    url="https://github.com/m-bain/whisperX",
    licence="BSD-2-Clause",
    package="whisperx",
    module="whisperx",
    install="whisperx",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    model_formats=("ct2",),
    packages=("faster-whisper", "ctranslate2", "pyannote-audio", "torch", "transformers", "nltk", "numpy"),
    options={
        "language": Native("language", "auto: from the first 30 s, speech or not"),
        "task": Native("task"),
        "beam_size": Native("asr_options.beam_size"),
        "initial_prompt": Native("asr_options.initial_prompt", "before every window"),
        "hotwords": Native("asr_options.hotwords", "before every window"),
        "word_times": Native("align(...)", "with --engine-option align_model=FOLDER, a wav2vec2 model"),
        "batch_size": Native("transcribe(batch_size)", "whisperX's own default is 8"),
        "compute_type": Native("compute_type", "auto: float16 on a GPU, float32 on a CPU"),
        "device": Native("device, device_index"),
        "threads": Native("threads", "of CTranslate2 and of PyTorch"),
    },
    words_need="align_model",
    files=("align_model", "nltk_data"),
    differs=(
        "its speech detection (pyannote) is always on: what it takes for no speech is never heard",
        "a segment is a window of up to 30 s; with alignment it is a sentence",
        "each window is decoded alone, at temperature 0: nothing carries over, and nothing is tried again",
        "there are no thresholds: its program takes them, and --temperature and --best_of, and ignores them",
        "words' times are an alignment model's, which is fetched by its program and never by Kuulo",
    ),
    # Its README names 60 to 70 in batches; here as faster-whisper's.
    speeds={"cuda": 46},
)

DECODING = (
    "length_penalty", "no_repeat_ngram_size", "patience", "prefix", "repetition_penalty", "suppress_blank",
    "suppress_numerals", "suppress_tokens",
)  # fmt: skip
"""Raw options that its decoding looks at (asr.py, generate_segment_batched); it takes others and does not."""

DETECTION = ("chunk_size", "vad_offset", "vad_onset")
ALIGNMENT = ("align_model", "interpolate_method", "nltk_data")
INTERPOLATION = ("nearest", "linear")
NO_SPACES = ("ja", "zh")
"""Languages whose words whisperX does not part by spaces (alignment.py)."""

OF_PROGRAM = (
    "align_model", "chunk_size", "interpolate_method", "length_penalty", "patience", "vad_offset", "vad_onset",
)  # fmt: skip
SAID = (*OF_PROGRAM, "suppress_numerals", "suppress_tokens")
"""Raw options that its program has too."""

PROGRAM_PRECISIONS = ("default", "float16", "float32", "int8")
THREADS = 4
WINDOW = 30
"""Seconds of a window, as whisperX has them; and its threads where nobody says how many."""

SHORTEST = 1600
"""Samples (0.1 s). The shortest speech that its detector keeps; it fails on less than a frame."""

NLTK_HELP = (
    "give --engine-option nltk_data=FOLDER; where there is a network, python -m nltk.downloader -d FOLDER punkt_tab "
    "fills it"
)


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """What the model does not know, and words' times of a translation, which has no sound to be aligned with."""
    refused = refuse_by_model(options)
    if options.get("word_times") and options.get("task") == "translate":
        refused["word_times"] = "a translation cannot be aligned with what was said"
    if options.get("compute_type") == "float16" and options.get("device") == "cpu":
        refused["compute_type"] = "float16 needs a GPU; float32 and int8 work on a CPU"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with whisperX itself."""
    name, index = split_device(options.get("device"))
    device = "cuda" if name == "auto" else name
    loading = {
        "device": device,
        "device_index": index,
        "compute_type": _precision(options),
        "local_files_only": True,
        "threads": options.get("threads") or THREADS,
    }
    shown = [f"{key}={value!r}" for key, value in loading.items()]
    shown.append(f"asr_options={_dict(_decoding(options, raw))}")
    shown.append(f"vad_options={_dict(_picked(raw, DETECTION))}")
    lines = [
        "import whisperx",
        f"model = whisperx.load_model({options.get('model_path')!r}, {', '.join(shown)})",
    ]
    if name == "auto":
        lines[1] += "  # device: cpu where there is no GPU"
    call = {"language": _asked(options), **_call(options, raw)}
    lines.append(f"result = model.transcribe(audio, {', '.join(f'{k}={v!r}' for k, v in call.items())})")
    if options.get("word_times"):
        if "nltk_data" in raw:
            lines.append(f"import nltk; nltk.data.path.insert(0, {raw['nltk_data']!r})")
        found = f"result['language'], {device!r}, model_name={raw.get('align_model', 'FOLDER')!r}"
        given = "".join(f", {k}={v!r}" for k, v in _picked(raw, ("interpolate_method",)).items())
        lines.append(f"aligner, about = whisperx.load_align_model({found}, model_cache_only=True)")
        lines.append(f"result = whisperx.align(result['segments'], aligner, about, audio, {device!r}{given})")
    return "\n".join(lines)


def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine:
    """The command line of `whisperx`."""
    name, index = split_device(options.get("device"))
    words = bool(options.get("word_times"))
    tokens = raw.get("suppress_tokens")
    pairs = {
        "model": options.get("model_path"),
        "model_cache_only": True,
        "language": _asked(options),
        "task": options.get("task") or "transcribe",
        "beam_size": options.get("beam_size") or 5,
        "initial_prompt": options.get("initial_prompt"),
        "hotwords": options.get("hotwords"),
        "batch_size": int(options.get("batch_size") or 1),
        "compute_type": _precision(options),
        "device": None if name == "auto" else name,
        "device_index": index or None,
        "threads": options.get("threads"),
        **_picked(raw, OF_PROGRAM),
        "suppress_tokens": None if tokens is None else ",".join(str(token) for token in tokens),
    }
    switches = [] if words else ["--no_align"]
    if raw.get("suppress_numerals"):
        switches.append("--suppress_numerals")
    notes = [f"{key} has no option in it" for key in DECODING if key in raw and key not in SAID]
    if _precision(options) not in PROGRAM_PRECISIONS:
        notes.append(f"it takes no --compute_type {_precision(options)}")
    if words and not _asked(options):
        notes.append("where it finds another language than English it fetches an alignment model of its own")
    if words and "align_model" not in raw:
        notes.append("without --align_model it fetches one")
    if words:
        notes.append("its alignment reads NLTK's punkt_tab, from NLTK_DATA or fetched")
    if not _asked(options):
        notes.append("the language in its json is en, whatever it finds")
    return CommandLine(("whisperx", AUDIO, *flags(pairs), *switches), tuple(notes))


def _picked(raw: Mapping[str, Any], names: Tuple[str, ...]) -> Dict[str, Any]:
    return {key: raw[key] for key in names if key in raw}


def _dict(values: Mapping[str, Any]) -> str:
    return f"dict({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def _asked(options: Mapping[str, Any]) -> Optional[str]:
    language = options.get("language")
    return None if language in (None, "auto") else str(language)


def _precision(options: Mapping[str, Any]) -> str:
    precision = options.get("compute_type") or "auto"
    return "default" if precision == "auto" else str(precision)


def _decoding(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """`asr_options`: what its decoding looks at, and nothing that it ignores."""
    return {
        "beam_size": int(options.get("beam_size") or 5),
        "initial_prompt": options.get("initial_prompt"),
        "hotwords": options.get("hotwords"),
        **_picked(raw, DECODING),
    }


def _call(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """Keyword arguments of `transcribe`, without the language."""
    return {
        "task": options.get("task") or "transcribe",
        "batch_size": int(options.get("batch_size") or 1),
        "chunk_size": raw.get("chunk_size", WINDOW),
    }


def load(task: Task) -> Session:
    """The model, the detector and, for words' times, the alignment model in memory, from files of this machine alone.
    Raises Unusable for raw options that whisperX has not or does not look at, for a device or a model that is not
    there, and for words' times without an alignment model or NLTK's data."""
    check_raw(SPEC.name, task.raw, (*DECODING, *DETECTION, *ALIGNMENT))
    options, raw = task.options, task.raw
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
    os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
    path = _folder(task.model_path or "", ("model.bin", "config.json", "tokenizer.json"), "kuulo models verify")
    words = bool(options.get("word_times"))
    aligner = _aligner_folder(raw) if words else None
    import torch
    import whisperx

    device = torch_device(options.get("device"), torch)
    name, index = split_device(device)
    if options.get("threads"):
        torch.set_num_threads(int(options["threads"]))
    try:
        model = whisperx.load_model(
            str(path),
            device=name,
            device_index=index,
            compute_type=_precision(options),
            asr_options=_decoding(options, raw),
            vad_options=_picked(raw, DETECTION),
            local_files_only=True,
            threads=int(options.get("threads") or THREADS),
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise Unusable(
            f"whisperX cannot load the model on {device}: {error}",
            "check it: kuulo models verify; another --compute-type or --device; the values of --engine-option",
        ) from error
    align = _Aligner(aligner, device, raw) if aligner else None
    return Windows(model, align, options, raw, device)


def _folder(path: str, needed: Tuple[str, ...], do: str) -> Path:
    """The folder; raises Unusable where it or one of its files is not there: whisperX would look on the network."""
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise Unusable(f"there is no folder {folder}", do)
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise Unusable(f"there is no {missing[0]} in {folder}", do)
    return folder


def _aligner_folder(raw: Mapping[str, Any]) -> Path:
    if not raw.get("align_model"):
        raise Unusable(
            "words' times need an alignment model, and none was given",
            "give --engine-option align_model=FOLDER, a Hugging Face folder of a wav2vec2 model for the language "
            "(whisperx/alignment.py names one for each), or leave --word-times out",
        )
    if raw.get("interpolate_method", INTERPOLATION[0]) not in INTERPOLATION:
        raise Unusable(f"interpolate_method is one of {', '.join(INTERPOLATION)}", "correct or leave it out")
    return _folder(str(raw["align_model"]), ("config.json",), "give a folder of a Wav2Vec2ForCTC model")


class _Aligner:
    """An alignment model, for whatever language: whether it fits is the user's affair."""

    def __init__(self, folder: Path, device: str, raw: Mapping[str, Any]) -> None:
        import nltk
        import whisperx

        if raw.get("nltk_data"):
            nltk.data.path.insert(0, str(Path(str(raw["nltk_data"])).absolute()))
        self._device = device
        self._method = raw.get("interpolate_method", INTERPOLATION[0])
        try:
            self._model, about = whisperx.load_align_model("en", device, model_name=str(folder), model_cache_only=True)
        except Exception as error:  # whatever a folder that is not what it should be makes of it
            raise Unusable(
                f"not an alignment model: {folder}: {error}", "give a folder of a Wav2Vec2ForCTC model"
            ) from error
        self._dictionary = about["dictionary"]
        _find_punkt("en")

    def __call__(self, result: Mapping[str, Any], audio: Any, tell: Callable[[float], None]) -> List[Dict[str, Any]]:
        """Sentences with words. whisperX fetches NLTK's data where it finds none, so that is looked for before."""
        import whisperx

        language = result["language"]
        _find_punkt(language)
        about = {"language": language, "dictionary": self._dictionary, "type": "huggingface"}
        found = whisperx.align(
            result["segments"],
            self._model,
            about,
            audio,
            self._device,
            interpolate_method=self._method,
            progress_callback=tell,
        )
        return list(found["segments"])


def _find_punkt(language: str) -> None:
    import nltk
    from whisperx.utils import PUNKT_LANGUAGES

    name = PUNKT_LANGUAGES.get(language, "english")
    try:
        nltk.data.find(f"tokenizers/punkt_tab/{name}/")
    except LookupError as error:
        raise Unusable(f"alignment needs NLTK's data punkt_tab for {name}, and it is not here", NLTK_HELP) from error


class Windows(Session):
    """A pipeline of whisperX."""

    def __init__(
        self,
        pipeline: Any,
        align: Optional[_Aligner],
        options: Mapping[str, Any],
        raw: Mapping[str, Any],
        device: str,
    ) -> None:
        self.device = device
        self.compute_type = str(pipeline.model.model.compute_type)
        self._pipeline = pipeline
        self._align = align
        self._language = _asked(options)
        self._arguments = _call(options, raw)

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        """See Session. Segments come when all has been heard; Progress, by windows, meanwhile."""
        import numpy as np

        audio = np.array(samples, dtype=np.float32)
        language, probability = self._spoken(audio, state or {})
        yield Language(language, probability)
        if len(audio) >= SHORTEST:
            yield from streamed(lambda tell, stop: self._hear(audio, language, tell, stop))
        yield Progress(len(audio) * 1000 // SAMPLE_RATE)

    def _spoken(self, audio: Any, state: Mapping[str, Any]) -> Tuple[str, Optional[float]]:
        """The language, and how probable it is where it was detected: what `detect_language` of whisperX logs."""
        from whisperx.audio import N_SAMPLES, log_mel_spectrogram

        model = self._pipeline.model
        if not model.model.is_multilingual:
            return "en", None
        if state.get("language") or self._language:
            return str(state.get("language") or self._language), None
        window = audio[:N_SAMPLES]
        bands = model.feat_kwargs.get("feature_size") or 80
        features = log_mel_spectrogram(window, n_mels=bands, padding=N_SAMPLES - len(window))
        token, probability = model.model.detect_language(model.encode(features))[0][0]
        return str(token).strip("<|>"), round(float(probability), 4)

    def _hear(self, audio: Any, language: str, tell: Tell, stop: threading.Event) -> None:
        share = 0.5 if self._align else 1.0

        def progress(done: float, share: float, percent: float) -> None:
            if stop.is_set():
                raise RuntimeError("nobody listens any longer")
            tell(Progress(milliseconds((done + share * percent / 100) * len(audio) / SAMPLE_RATE, len(audio))))

        result = self._pipeline.transcribe(
            audio, language=language, progress_callback=lambda p: progress(0.0, share, p), **self._arguments
        )
        said = result["segments"]
        if self._align and said:
            said = self._align(result, audio, lambda p: progress(0.5, share, p))
        for segment in sorted(said, key=lambda s: (float(s["start"]), float(s["end"]))):
            tell(segment_of(segment, language, len(audio)))


def segment_of(said: Mapping[str, Any], language: str, samples: int) -> Segment:
    """whisperX's segment as ours. Words that alignment found no times for at all leave it without words."""
    between = "" if language in NO_SPACES else " "
    start, end = milliseconds(said["start"], samples), milliseconds(said["end"], samples)
    words: Tuple[Word, ...] = ()
    found = said.get("words") or ()
    if all("start" in word and "end" in word for word in found):
        words = tuple(
            Word(
                between + word["word"],
                milliseconds(word["start"], samples),
                milliseconds(word["end"], samples),
                None if word.get("score") is None else round(min(1.0, max(0.0, float(word["score"]))), 4),
            )
            for word in found
        )
    text = "".join(word.text for word in words) or between + str(said["text"]).strip()
    logprob = said.get("avg_logprob")
    sure = None if logprob is None else confidence(float(logprob))
    return tidy(Segment(start, max(start, end), text, words, confidence=sure))
