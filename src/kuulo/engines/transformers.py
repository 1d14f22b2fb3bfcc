"""transformers: Whisper as Hugging Face's PyTorch library has it, with its own long-form decoding.

Parses on Python 3.9; imports PyTorch inside functions.
"""

from __future__ import annotations

import inspect
import os
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from kuulo.engines.base import SAMPLE_RATE, EngineSpec, Language, Native, Progress, Said, Session, Unusable
from kuulo.engines.whisper_text import (
    Tell,
    Token,
    check_raw,
    compression_ratio,
    confidence,
    milliseconds,
    refuse_by_model,
    split_device,
    streamed,
    tidy,
    torch_device,
    words_from,
)
from kuulo.transcript import Decoding, Segment
from kuulo.wire import Task

SPEC = EngineSpec(
    name="transformers",
    summary="Whisper in Hugging Face's library on PyTorch: fine-tuned models as they are published.",
    url="https://github.com/huggingface/transformers",
    licence="Apache-2.0",
    package="transformers",
    module="transformers",
    install="transformers torch",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    model_formats=("hf",),
    packages=("torch", "tokenizers", "safetensors", "numpy"),
    section_ms=5 * 60 * 1000,
    options={
        "language": Native("generate(language)", "auto: from the first 30 s"),
        "task": Native("generate(task)"),
        "beam_size": Native("generate(num_beams)", "one sample replaces it at temperatures above 0"),
        "temperature": Native("generate(temperature)"),
        "initial_prompt": Native("generate(prompt_ids)", "not without --condition-on-previous-text"),
        "condition_on_previous_text": Native("generate(condition_on_prev_tokens)", "not with --batch-size above 1"),
        "word_times": Native("generate(return_token_timestamps)"),
        "batch_size": Native(
            "generate on several parts of 5 minutes at once", "at most 10; parts are cut at quiet places"
        ),
        "compute_type": Native("from_pretrained(dtype)", "float32, float16 or bfloat16"),
        "device": Native("to(device)"),
        "threads": Native("torch.set_num_threads"),
    },
    differs=(
        "decodes long recordings by its own rules: compression is measured on tokens, with a threshold of 1.35",
        "segments come when a section of five minutes has been heard, not as it is heard",
    ),
    # faster-whisper's README: large-v2 on an RTX 3070 Ti, 13 min of sound; on a CPU taken as openai-whisper.
    speeds={"cuda": 7.0, "cpu": 1.9},
)

PRECISIONS = ("auto", "float32", "float16", "bfloat16")
SHORTEST_PART_MS = 30_000
MOST_PARTS = 10
PROMPT_TOKENS = 223  # half of the decoder's positions, less one

THRESHOLDS: Dict[str, Any] = {
    "compression_ratio_threshold": 1.35,  # of tokens, where openai-whisper's 2.4 is of text
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
}

_OURS = """
self input_features generation_config attention_mask language task prompt_ids return_segments return_timestamps
return_dict_in_generate monitor_progress kwargs is_multilingual force_unique_generate_call
"""
OURS = frozenset(_OURS.split())
"""Arguments of `generate` that raw options may not have: the adapter fills them."""


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """What its long-form decoding cannot do, and what the model does not know."""
    refused = refuse_by_model(options)
    precision = options.get("compute_type") or "auto"
    batch = int(options.get("batch_size") or 1)
    if precision not in PRECISIONS:
        refused["compute_type"] = f"it computes in float32, float16 or bfloat16, not {precision}"
    elif precision == "float16" and split_device(options.get("device"))[0] == "cpu":
        refused["compute_type"] = "float16 needs a GPU; bfloat16 and float32 work on a CPU"
    if batch > MOST_PARTS:
        refused["batch_size"] = f"it decodes at most {MOST_PARTS} parts together"
    if batch > 1 and options.get("condition_on_previous_text"):
        refused["condition_on_previous_text"] = "with --batch-size above 1 every part is decoded alone"
    if options.get("initial_prompt") and options.get("condition_on_previous_text") is False:
        refused["initial_prompt"] = "without --condition-on-previous-text it would go before every window"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with transformers itself."""
    precision, device = options.get("compute_type") or "auto", options.get("device") or "auto"
    path = options.get("model_path")
    arguments = {**_languages(options, None), **_arguments(options, raw)}
    if options.get("initial_prompt"):
        prompt = f"processor.get_prompt_ids({options['initial_prompt']!r}, return_tensors='pt')"
    else:
        prompt = "None"
    shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    lines = [
        "import torch",
        "from transformers import WhisperForConditionalGeneration, WhisperProcessor",
        f"processor = WhisperProcessor.from_pretrained({path!r}, local_files_only=True)",
        f"model = WhisperForConditionalGeneration.from_pretrained({path!r}, local_files_only=True, "
        f"use_safetensors=True)  # to dtype {precision}, device {device}",
    ]
    if options.get("threads"):
        lines.append(f"torch.set_num_threads({options['threads']})")
    if options.get("language") in (None, "auto"):
        lines.append("# language: the most probable of the language tokens on the first 30 s")
    lines.append(
        "features = processor.feature_extractor(audio, sampling_rate=16000, truncation=False, "
        "padding='do_not_pad', return_tensors='pt').input_features"
    )
    lines.append(f"out = model.generate(features, prompt_ids={prompt}, {shown})")
    return "\n".join(lines)


def _languages(options: Mapping[str, Any], detected: Optional[str]) -> Dict[str, Any]:
    """Language and task, always both: with the task left out transformers would not say which to the model."""
    language = options.get("language")
    code = detected or (None if language in (None, "auto") else language)
    return {"language": code, "task": options.get("task") or "transcribe"}


def _arguments(options: Mapping[str, Any], raw: Mapping[str, Any]) -> Dict[str, Any]:
    """Keyword arguments of `generate`, without language, task and prompt."""
    temperatures = tuple(float(t) for t in options.get("temperature") or (0.0,))
    batched = int(options.get("batch_size") or 1) > 1
    return {
        "num_beams": int(options.get("beam_size") or 5),
        "temperature": temperatures if len(temperatures) > 1 else temperatures[0],
        "condition_on_prev_tokens": options.get("condition_on_previous_text") is not False and not batched,
        "return_token_timestamps": bool(options.get("word_times")),
        "return_timestamps": True,
        "return_segments": True,
        **THRESHOLDS,
        **raw,
    }


def load(task: Task) -> Session:
    """The model in memory, from its folder alone and from safetensors alone. Raises Unusable for unknown raw
    options, a device or number format that is not there, and a folder that is not a Whisper model."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
    import torch
    from transformers import GenerationConfig, WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options = task.options
    generate = set(inspect.signature(WhisperForConditionalGeneration.generate).parameters)
    settings = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    check_raw(SPEC.name, task.raw, (generate | settings) - OURS)
    device = torch_device(options.get("device"), torch)
    precision = _precision(options.get("compute_type"), device)
    if options.get("threads"):
        torch.set_num_threads(int(options["threads"]))
    path = Path(task.model_path or "").absolute()
    if not path.is_dir():
        raise Unusable(f"there is no folder {path}", "kuulo models list")
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise Unusable(f"there is no tokenizer.json in {path}", "check it: kuulo models verify")
    model, processor = _read(str(path), bool(options.get("word_times")))
    model = model.to(device=device, dtype=getattr(torch, precision)).eval()
    return Generator(model, processor, options, _arguments(options, task.raw), device, precision)


def _read(path: str, words: bool) -> Tuple[Any, Any]:
    from transformers import WhisperProcessor

    try:
        processor = WhisperProcessor.from_pretrained(path, local_files_only=True)
        model = _model_class().from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=True,
            # the fast kernels do not give the attention that word times are read from
            attn_implementation="eager" if words else "sdpa",
        )
    except Exception as error:  # whatever a file that is not what it should be makes of it
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Unusable(f"not a Whisper model: {first}", "check it: kuulo models verify") from error
    if not getattr(model.generation_config, "no_timestamps_token_id", None):
        raise Unusable("its generation_config.json does not say how it writes times", "kuulo models pull gives one")
    return model, processor


def _precision(asked: Any, device: str) -> str:
    if asked == "float16" and device == "cpu":
        raise Unusable("float16 needs a GPU", "try --compute-type float32 or bfloat16")
    return str(asked) if asked not in (None, "auto") else ("float16" if device != "cpu" else "float32")


def _model_class() -> Any:
    """WhisperForConditionalGeneration that keeps the numbers of each window, and beam search after a fallback."""
    import copy

    from transformers import WhisperForConditionalGeneration
    from transformers.generation import logits_process

    class Model(WhisperForConditionalGeneration):  # type: ignore[misc]
        def generate_with_fallback(self, *args: Any, generation_config: Any, **kwargs: Any) -> Any:
            # A fallback sets num_beams to 1 in the settings; the next window begins with its own.
            settings = copy.copy(generation_config)
            return super().generate_with_fallback(*args, generation_config=settings, **kwargs)

        def _need_fallback(
            self, tokens: Any, outputs: Any, index: int, processors: Any, settings: Any, vocabulary: int, t: Any
        ) -> Any:
            answer = super()._need_fallback(tokens, outputs, index, processors, settings, vocabulary, t)
            output = outputs[index]
            numbers = {"temperature": float(t or 0.0)}
            if output.get("scores"):
                numbers["avg_logprob"] = float(self._retrieve_avg_logprobs(output["scores"], tokens, t or 0.0))
            for processor in processors or ():
                if isinstance(processor, logits_process.WhisperNoSpeechDetection):
                    numbers["no_speech_prob"] = float(processor.no_speech_prob[index])
            kept = {"token_timestamps"}  # scores and attentions of a section would fill hundreds of megabytes
            for key in [key for key in output if key not in kept]:
                del output[key]
            output["numbers"] = numbers
            return answer

    return Model


class Generator(Session):
    """A model of transformers. Sections come with the state {"prompt": text said before, "language": code}."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        options: Mapping[str, Any],
        arguments: Dict[str, Any],
        device: str,
        precision: str,
    ) -> None:
        self.device = device
        self.compute_type = precision
        self._model = model
        self._processor = processor
        self._options = options
        self._arguments = arguments
        self._parts = int(options.get("batch_size") or 1)
        self._bytes = _token_bytes(processor.tokenizer)
        settings = model.generation_config
        self._multilingual = bool(getattr(settings, "is_multilingual", hasattr(settings, "lang_to_id")))

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        """See Session. Segments come when the whole section has been heard, progress meanwhile."""
        import numpy as np

        state = state or {}
        audio = np.array(samples, dtype=np.float32)
        language = _languages(self._options, state.get("language"))["language"]
        probability = None
        features = [self._features(audio[a * 16 : b * 16]) for a, b in self._cuts(audio)]
        if not self._multilingual:
            language = "en"
        elif language is None:
            language, probability = self._detect(features[0])
        yield Language(language, probability)
        prompt = self._options.get("initial_prompt")
        if state.get("prompt") and self._arguments["condition_on_prev_tokens"]:
            prompt = state["prompt"]
        yield from streamed(lambda tell, stop: self._generate(audio, features, language, prompt, tell, stop))
        yield Progress(len(audio) * 1000 // SAMPLE_RATE)

    def _cuts(self, audio: Any) -> List[Tuple[int, int]]:
        """(start ms, end ms) of the parts that are decoded together."""
        length_ms = -(-len(audio) * 1000 // SAMPLE_RATE)
        longest = max(SHORTEST_PART_MS, -(-length_ms // self._parts))
        if self._parts == 1 or length_ms <= longest:
            return [(0, length_ms)]
        from kuulo import speech

        return list(speech.quiet_cuts(audio, longest, longest // 2))

    def _features(self, audio: Any) -> Any:
        """Log-mel of the part, float32 (1, bands, frames). Silence goes after it, as in openai-whisper, and is cut."""
        import numpy as np

        extractor = self._processor.feature_extractor
        padded = np.concatenate([audio, np.zeros(extractor.n_samples, np.float32)])
        mel = extractor(
            padded, sampling_rate=SAMPLE_RATE, truncation=False, padding="do_not_pad", return_tensors="pt"
        ).input_features
        return mel[:, :, : max(1, len(audio) // extractor.hop_length)]

    def _detect(self, features: Any) -> Tuple[str, float]:
        import torch

        settings = self._model.generation_config
        window = self._windows([features], self._frames)[:, :, : self._frames]
        start = torch.tensor([[settings.decoder_start_token_id]], device=self._model.device)
        with torch.no_grad():
            logits = self._model(window, decoder_input_ids=start, use_cache=False).logits[0, -1].float()
        ids = list(settings.lang_to_id.values())
        probabilities = logits[ids].softmax(-1)
        best = int(probabilities.argmax())
        code = list(settings.lang_to_id)[best].strip("<|>")
        return code, round(float(probabilities[best]), 4)

    @property
    def _frames(self) -> int:
        """Mel frames of the model's window: 3000."""
        return 2 * int(self._model.config.max_source_positions)

    def _windows(self, features: List[Any], at_least: int) -> Any:
        """The parts as one batch on the model's device, padded to one length."""
        import torch

        length = max(at_least, *(mel.shape[-1] for mel in features), 1)
        padded = [torch.nn.functional.pad(mel, (0, length - mel.shape[-1])) for mel in features]
        return torch.cat(padded).to(device=self._model.device, dtype=self._model.dtype)

    def _generate(
        self, audio: Any, features: List[Any], language: str, prompt: Any, tell: Tell, stop: threading.Event
    ) -> None:
        import torch

        def progress(seen: Any) -> None:
            if stop.is_set():
                raise InterruptedError("nobody listens any longer")
            tell(Progress(int(seen[:, 0].sum()) * 10))

        arguments = dict(self._arguments)
        if self._multilingual:
            arguments.update(_languages(self._options, language))
        if prompt:
            ids = self._processor.get_prompt_ids(prompt, return_tensors="pt")
            ids = torch.cat([ids[:1], ids[1:][-(PROMPT_TOKENS - 1) :]])
            arguments["prompt_ids"] = ids.to(self._model.device)
        # several parts: above one window, so that the parts' own lengths are looked at
        windows = self._windows(features, self._frames + 1 if len(features) > 1 else 1)
        lengths = torch.tensor([mel.shape[-1] for mel in features])
        mask = torch.arange(windows.shape[-1])[None] < lengths[:, None]
        arguments["attention_mask"] = mask.to(windows.device)
        if "monitor_progress" in inspect.signature(self._model.generate).parameters:
            arguments["monitor_progress"] = progress
        with torch.no_grad():
            answer = self._model.generate(windows, **arguments)
        offset = 0
        for mel, segments in zip(features, answer["segments"]):
            for segment in segments:
                self._tell_segment(segment, offset, len(audio), language, tell)
            offset += mel.shape[-1] * 10

    def _tell_segment(self, said: Mapping[str, Any], offset: int, samples: int, language: str, tell: Tell) -> None:
        tokens = [int(token) for token in said["tokens"]]
        spelled = [self._bytes.get(token, b"") for token in tokens]
        text = b"".join(spelled).decode("utf-8", errors="replace")
        if not text.strip():
            return
        start = min(milliseconds(said["start"], samples) + offset, samples * 1000 // SAMPLE_RATE)
        end = min(milliseconds(said["end"], samples) + offset, samples * 1000 // SAMPLE_RATE)
        words: Tuple[Any, ...] = ()
        if "token_timestamps" in said:
            # Each is when the token ends, not when it begins: the attention is that of the token as it is read, to
            # write the next (openai-whisper's is a row earlier). The first token of a segment is a time.
            times = [milliseconds(time, samples) + offset for time in said["token_timestamps"].tolist()]
            words = words_from(map(Token, spelled[1:], times, times[1:]), language)
        numbers = (said.get("result") or {}).get("numbers", {})
        decoding = None
        if "avg_logprob" in numbers:
            decoding = Decoding(tokens=tuple(tokens), compression_ratio=compression_ratio(text), **numbers)
        sure = confidence(decoding.avg_logprob) if decoding else None
        tell(tidy(Segment(start, max(start, end), text, words, confidence=sure, decoding=decoding)))


def _token_bytes(tokenizer: Any) -> Dict[int, bytes]:
    """Text tokens as bytes; special tokens and times are left out. GPT-2's letters stand for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(b): b for b in plain}
    byte_of.update({chr(256 + n): b for n, b in enumerate(others)})
    end = tokenizer.eos_token_id
    spelled = {}
    for token, number in tokenizer.get_vocab().items():
        if number < end and all(letter in byte_of for letter in token):
            spelled[number] = bytes(byte_of[letter] for letter in token)
    return spelled
