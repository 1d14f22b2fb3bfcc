"""whisper.cpp through pywhispercpp: small, no PyTorch, segments as they are found.

whisper.cpp gives back an empty transcript where others raise, so this adapter reads its log while a model is loaded
and its return codes. Parses on Python 3.9; imports pywhispercpp inside functions.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import tempfile
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
    Token,
    check_raw,
    confidence,
    ladder,
    refuse_by_model,
    split_device,
    streamed,
    tidy,
    words_from,
)
from kuulo.transcript import Segment
from kuulo.wire import Task

SPEC = EngineSpec(
    name="whisper-cpp",
    summary="Whisper in plain C++: small, quantised models, no PyTorch.",
    url="https://github.com/ggml-org/whisper.cpp",
    licence="MIT",
    package="pywhispercpp",
    module="pywhispercpp",
    install="pywhispercpp",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    model_formats=("ggml",),
    packages=("numpy",),
    files=("vad_model_path",),
    # It does not say where its next window will begin, so that a stopped run goes on at sections alone.
    section_ms=5 * 60 * 1000,
    options={
        "language": Native("language", "auto: auto_detect_language on the first 30 s"),
        "task": Native("translate"),
        "beam_size": Native("beam_search", "best_of=5 replaces it at temperatures above 0; 1 is greedy"),
        "temperature": Native("temperature, temperature_inc", "one, or equal steps up to 1"),
        "initial_prompt": Native("initial_prompt", "not without --condition-on-previous-text"),
        "condition_on_previous_text": Native("n_max_text_ctx", "0 turns it off"),
        "word_times": Native("context_params (dtw_token_timestamps)", "turns flash attention off"),
        "compute_type": Native("", "auto alone: the model file fixes it"),
        "device": Native("context_params (use_gpu, gpu_device)", "cuda where it was built for it"),
        "threads": Native("n_threads"),
    },
    differs=(
        "the number format is that of the model file: a quantised model instead of --compute-type",
        "recordings are handed over in sections of five minutes, cut at quiet places",
        "word times come from its own alignment, as near the truth as openai-whisper's, not equal to them",
        "it gives no no-speech probability",
    ),
    # faster-whisper's README, 13 min of sound: large-v2, beam 5, on an RTX 3070 Ti; small on 8 cores of an i7-12700K.
    speeds={"cuda": 12.0, "cpu": 6.2},
)

BEST_OF = 5  # whisper-cli's default
DETECT_SAMPLES = 30 * SAMPLE_RATE
SHORTEST = SAMPLE_RATE // 10
"""Samples; whisper.cpp does not look at less than 100 ms."""

GREEDY, BEAM = 0, 1
N_TOP_MOST = "WHISPER_AHEADS_N_TOP_MOST"
HEADS: Dict[str, Tuple[str, int]] = {
    "tiny.en": ("WHISPER_AHEADS_TINY_EN", 4),
    "tiny": ("WHISPER_AHEADS_TINY", 4),
    "base.en": ("WHISPER_AHEADS_BASE_EN", 6),
    "base": ("WHISPER_AHEADS_BASE", 6),
    "small.en": ("WHISPER_AHEADS_SMALL_EN", 12),
    "small": ("WHISPER_AHEADS_SMALL", 12),
    "medium.en": ("WHISPER_AHEADS_MEDIUM_EN", 24),
    "medium": ("WHISPER_AHEADS_MEDIUM", 24),
    "large-v1": ("WHISPER_AHEADS_LARGE_V1", 32),
    "large-v2": ("WHISPER_AHEADS_LARGE_V2", 32),
    "large-v3": ("WHISPER_AHEADS_LARGE_V3", 32),
    "large-v3-turbo": ("WHISPER_AHEADS_LARGE_V3_TURBO", 4),
    "turbo": ("WHISPER_AHEADS_LARGE_V3_TURBO", 4),
}
"""whisper_alignment_heads_preset and the decoder's layers, by the model's name (whisper.h)."""

CONTEXT = ("use_gpu", "flash_attn", "gpu_device", "dtw_token_timestamps", "dtw_aheads_preset", "dtw_n_top")
BROKEN = re.compile(r"failed|invalid|error|not all tensors|bad magic|unknown tensor|wrong (?:shape|size)", re.I)


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """What whisper.cpp cannot do, and what the model does not know."""
    refused = refuse_by_model(options)
    if options.get("compute_type") not in (None, "auto"):
        refused["compute_type"] = "the model file fixes it: take a quantised model instead"
    if options.get("temperature") and ladder(tuple(options["temperature"])) is None:
        refused["temperature"] = "it takes one temperature, or equal steps up to 1, such as 0,0.2,0.4,0.6,0.8,1"
    if options.get("initial_prompt") and options.get("condition_on_previous_text") is False:
        refused["initial_prompt"] = "without --condition-on-previous-text it drops every prompt"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with pywhispercpp itself."""
    context, parameters = _context(options, raw), _parameters(options, raw)
    constructor = f"params_sampling_strategy={_strategy(options)}, context_params={context!r}"
    language = options.get("language")
    lines = [
        "from pywhispercpp.model import Model",
        f"model = Model({options.get('model_path')!r}, {constructor})",
    ]
    if language in (None, "auto"):
        lines.append("(language, probability), _ = model.auto_detect_language(audio[:480000])")
    shown = {"language": "LANGUAGE", **{key: repr(value) for key, value in parameters.items()}}
    shown["language"] = "language" if language in (None, "auto") else repr(language)
    arguments = ", ".join(f"{key}={value}" for key, value in shown.items())
    return "\n".join([*lines, f"segments = model.transcribe(audio, {arguments})"])


def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine:
    """whisper-cli's command line (whisper.cpp, examples/cli/cli.cpp); the package pywhispercpp does not bring it."""
    first, step = ladder(tuple(options.get("temperature") or (0.0,))) or (0.0, 0.0)
    name, index = split_device(options.get("device"))
    language = options.get("language")
    words = ["whisper-cli", "-m", str(options.get("model_path")), "-f", AUDIO]
    words += ["-l", "auto" if language in (None, "auto") else str(language)]
    words += ["-tr"] if options.get("task") == "translate" else []
    words += ["-bs", str(options.get("beam_size") or 5), "-bo", str(BEST_OF), "-tp", f"{first:g}"]
    words += ["-tpi", f"{step:g}"] if step else ["-nf"]
    words += ["-mc", "0"] if options.get("condition_on_previous_text") is False else []
    words += ["--prompt", str(options["initial_prompt"])] if options.get("initial_prompt") else []
    words += ["-t", str(options["threads"])] if options.get("threads") else []
    words += ["-ng"] if name == "cpu" else ["-dev", str(index)] if index else []
    notes = ["whisper-cli hears the whole recording at once, Kuulo hands over five minutes at a time"]
    if options.get("word_times"):
        preset = _aligning(str(options.get("model")), str(options.get("model_path") or ""))["dtw_aheads_preset"]
        known = {heads: model for model, (heads, _) in reversed(list(HEADS.items()))}
        if preset in known:
            words += ["-dtw", known[preset].replace("-v", ".v").replace("-turbo", ".turbo"), "-nfa", "-ojf"]
        else:
            notes.append("word times of this model need -dtw with heads that whisper-cli does not know")
    spelled = {"entropy_thold": "-et", "logprob_thold": "-lpt", "no_speech_thold": "-nth", "audio_ctx": "-ac"}
    for key, value in raw.items():
        if key in spelled:
            words += [spelled[key], str(value)]
        else:
            notes.append(f"{key} is not said here")
    return CommandLine(tuple(words), tuple(notes))


def _strategy(options: Mapping[str, Any]) -> int:
    return BEAM if int(options.get("beam_size") or 5) > 1 else GREEDY


def _context(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """How the model is loaded."""
    name, index = split_device(options.get("device"))
    context: Dict[str, Any] = {"use_gpu": name != "cpu", "gpu_device": index}
    if options.get("word_times"):
        context.update(_aligning(str(options.get("model")), str(options.get("model_path") or "")))
    return {**context, **{key: value for key, value in raw.items() if key in CONTEXT}}


def _aligning(model: str, path: str) -> Dict[str, Any]:
    """How words are aligned by attention: by the heads known for OpenAI's models, else by the decoder's upper half."""
    layers = _decoder_layers(path)
    preset, deep = HEADS.get(re.sub(r"-q\d.*$", "", model), (N_TOP_MOST, 0))
    if deep != layers:
        preset = N_TOP_MOST
    aligning = {"flash_attn": False, "dtw_token_timestamps": True, "dtw_aheads_preset": preset}
    return {**aligning, "dtw_n_top": max(1, layers // 2)} if preset == N_TOP_MOST else aligning


def _preset(name: str, pw: Any) -> Any:
    try:
        return pw.whisper_alignment_heads_preset.__members__[name]
    except KeyError as error:
        valid = ", ".join(sorted(pw.whisper_alignment_heads_preset.__members__))
        raise Unusable(f"whisper.cpp has no alignment heads {name!r}", f"it has {valid}") from error


def _decoder_layers(path: str) -> int:
    """How many layers the decoder in a ggml file has; 0 when there is no such file."""
    try:
        with Path(path).open("rb") as file:
            return int(struct.unpack("<12i", file.read(48))[9])
    except (OSError, struct.error):
        return 0


def _parameters(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """whisper_full_params of a recording, without its language and prompt."""
    first, step = ladder(tuple(options.get("temperature") or (0.0,))) or (0.0, 0.0)
    parameters: Dict[str, Any] = {
        "translate": options.get("task") == "translate",
        "temperature": first,
        "temperature_inc": step,
        "greedy": {"best_of": BEST_OF},
        "no_context": True,  # between recordings; within one, n_max_text_ctx decides
        "print_progress": False,
        "print_realtime": False,
    }
    if _strategy(options) == BEAM:
        parameters["beam_search"] = {"beam_size": int(options.get("beam_size") or 5), "patience": -1.0}
    if options.get("condition_on_previous_text") is False:
        parameters["n_max_text_ctx"] = 0
    if options.get("initial_prompt"):
        parameters["initial_prompt"] = options["initial_prompt"]
    if options.get("threads"):
        parameters["n_threads"] = int(options["threads"])
    return {**parameters, **{key: value for key, value in raw.items() if key not in CONTEXT}}


def load(task: Task) -> Session:
    """The model in memory. Raises Unusable for unknown raw options, for a GPU that this build cannot use, and for a
    file that whisper.cpp complains about."""
    import _pywhispercpp as pw
    from pywhispercpp.model import Model

    strategy = pw.whisper_sampling_strategy(_strategy(task.options))
    fields = [name for name in dir(pw.whisper_full_default_params(strategy)) if not name.startswith("_")]
    ours = ("language", "detect_language", "strategy", "print_special", "print_timestamps", "offset_ms")
    known = {n for n in fields if "callback" not in n and not n.startswith(("set_", "clear_"))} - set(ours)
    check_raw(SPEC.name, task.raw, known | set(CONTEXT))
    device = _device(task.options.get("device"), str(pw.whisper_print_system_info()))
    path = Path(task.model_path or "").absolute()
    options = {**task.options, "device": device, "model": task.model, "model_path": str(path)}
    if not path.is_file():
        raise Unusable(f"there is no file {path}", "kuulo models list")
    context: Any = _context(options, task.raw)
    if "dtw_aheads_preset" in context:
        context["dtw_aheads_preset"] = _preset(str(context["dtw_aheads_preset"]), pw)
    with _standard_error() as log:
        model: Any = Model(
            str(path),
            params_sampling_strategy=_strategy(options),
            redirect_whispercpp_logs_to=False,
            context_params=context,
        )
    complaints = [line.strip() for line in log() if BROKEN.search(line)]
    if complaints:
        model._ctx = None  # there is nothing behind it to be freed
        raise Unusable(f"whisper.cpp does not load the model: {complaints[0]}", "check it: kuulo models verify")
    return Cpp(model, options, task.raw)


@contextlib.contextmanager
def _standard_error() -> Iterator[Callable[[], List[str]]]:
    """Meanwhile what is written to standard error goes into a file; afterwards the answer gives its lines."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        lines: List[str] = []
        try:
            yield lambda: lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode("utf-8", errors="replace").splitlines()


def _device(asked: Any, built_with: str) -> str:
    name, index = split_device(asked)
    cuda = re.search(r"CUDA\s*(?:=\s*1|:)", built_with) is not None
    if name == "cuda" and not cuda:
        raise Unusable("this pywhispercpp was built without CUDA", "try --device cpu")
    if name == "auto":
        return "cuda" if cuda else "cpu"
    return f"{name}:{index}" if index else name


class Cpp(Session):
    """A model of whisper.cpp. Sections come with the state {"prompt": text said before, "language": code}."""

    def __init__(self, model: Any, options: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
        self.device = str(options["device"])
        self._model = model
        self._strategy = _strategy(options)
        self._parameters = _parameters(options, raw)
        self._words = bool(options.get("word_times"))
        language = options.get("language")
        self._language = None if language in (None, "auto") else str(language)

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        import _pywhispercpp as pw
        import numpy as np

        state = state or {}
        audio = np.ascontiguousarray(samples, dtype=np.float32)
        code, probability = state.get("language") or self._language, None
        if code is None:
            code, probability = self._detect(audio)
        yield Language(code, probability)
        length_ms = len(audio) * 1000 // SAMPLE_RATE
        if len(audio) > SHORTEST:
            parameters = {**self._parameters, "language": code}
            if state.get("prompt") and parameters.get("n_max_text_ctx") != 0:
                parameters["initial_prompt"] = state["prompt"]
            self._model._params = pw.whisper_full_default_params(pw.whisper_sampling_strategy(self._strategy))
            self._model._set_params(parameters)
            heard = _Heard(self._model._ctx, code, length_ms, parameters, self._words)
            yield from streamed(lambda tell, stop: heard.run(self._model._params, audio, tell, stop))
        yield Progress(length_ms)

    def _detect(self, audio: Any) -> Tuple[str, Optional[float]]:
        import _pywhispercpp as pw
        import numpy as np

        if not pw.whisper_is_multilingual(self._model._ctx):
            return "en", None
        start = audio[:DETECT_SAMPLES]
        if len(start) < DETECT_SAMPLES:
            start = np.concatenate([start, np.zeros(DETECT_SAMPLES - len(start), np.float32)])
        (code, probability), _ = self._model.auto_detect_language(start)
        return str(code), round(float(probability), 4)


class _Heard:
    """One run of whisper_full over a recording."""

    def __init__(self, context: Any, language: str, length_ms: int, parameters: Mapping[str, Any], words: bool) -> None:
        self._context = context
        self._language = language
        self._length_ms = length_ms
        self._words = words
        self._told = 0
        self._error: Optional[BaseException] = None

    def run(self, parameters: Any, audio: Any, tell: Tell, stop: threading.Event) -> None:
        """Tells segments and progress; raises RuntimeError when whisper.cpp gives an error code."""
        import _pywhispercpp as pw

        def new_segments(*_: Any) -> None:
            try:
                self._tell_new(tell)
            except BaseException as error:  # must not pass through C++; raised below
                self._error = error

        pw.assign_new_segment_callback(parameters, new_segments)
        pw.assign_abort_callback(parameters, lambda: stop.is_set() or self._error is not None)
        code = pw.whisper_full(self._context, parameters, audio, audio.size)
        if self._error is not None:
            raise self._error
        if code != 0 and not stop.is_set():
            raise RuntimeError(f"whisper_full failed with code {code}")
        self._tell_new(tell)

    def _tell_new(self, tell: Tell) -> None:
        import _pywhispercpp as pw

        while self._told < pw.whisper_full_n_segments(self._context):
            segment = self._segment(self._told)
            self._told += 1
            if segment.text.strip():
                tell(segment)
            tell(Progress(segment.end_ms))

    def _segment(self, index: int) -> Segment:
        import _pywhispercpp as pw

        start = self._ms(pw.whisper_full_get_segment_t0(self._context, index))
        end = max(start, self._ms(pw.whisper_full_get_segment_t1(self._context, index)))
        text = pw.whisper_full_get_segment_text(self._context, index).decode("utf-8", errors="replace")
        spelled: List[Tuple[bytes, int, float]] = []
        logprobs = []
        for number in range(pw.whisper_full_n_tokens(self._context, index)):
            data = pw.whisper_full_get_token_data(self._context, index, number)
            logprobs.append(math.log(max(float(data.p), 1e-10)))
            if data.id < pw.whisper_token_eot(self._context):
                text_bytes = pw.whisper_token_to_bytes(self._context, data.id)
                spelled.append((text_bytes, self._ms(data.t_dtw), float(data.p)))
        # whisper.cpp's t_dtw is where the alignment steps on to the next token: the token's end. (Its rows begin with
        # the token before the text, whose attention is on the first token of the text.)
        begins = [start] + [done for _, done, _ in spelled[:-1]]
        tokens = [Token(text_bytes, begin, done, p) for (text_bytes, done, p), begin in zip(spelled, begins)]
        words = words_from(tokens, self._language) if self._words else ()
        sure = confidence(sum(logprobs) / len(logprobs)) if logprobs else None
        return tidy(Segment(start, end, text, words, confidence=sure))

    def _ms(self, hundredths: int) -> int:
        return max(0, min(int(hundredths) * 10, self._length_ms))
