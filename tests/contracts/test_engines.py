"""What every engine owes, whatever it is: see `kuulo/engines/base.py`.

Engines that are installed run in this process on the miniature Whisper (tools/miniature); one without a Whisper
model (pocketsphinx) runs on a real voice. An engine that is not installed is skipped, but for what its SPEC says.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kuulo import engines, options
from kuulo.engines.base import Checkpoint, EngineSpec, Language, Progress, Session, Unusable
from kuulo.engines.whisper_text import EARLY_MS
from kuulo.models import check
from kuulo.transcript import Segment
from kuulo.wire import Task
from sessions import GREEDY, UNCLOSED, task

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "kuulo"

SPECS = {spec.name: spec for spec in engines.specs()}
WHISPERS = [name for name, spec in SPECS.items() if spec.model_formats]

SEGMENT_MS = 350
"""How far a segment may be from the truth: the miniature's own error is 0.17 s in the middle, 0.33 s at 90 %."""

pytestmark = UNCLOSED

UNSURE = ("sherpa-onnx",)
"""Engines that do not say how sure they are of a segment or of the language."""

WHOLE_WINDOWS = ("whisperx",)
"""Engines whose segments are windows of up to 30 s, cut where nobody speaks."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """Everything that a session said about one clip, in order."""

    said: tuple[Any, ...]

    @property
    def segments(self) -> list[Segment]:
        return [s for s in self.said if isinstance(s, Segment)]

    @property
    def language(self) -> Language:
        (language,) = [s for s in self.said if isinstance(s, Language)]
        return language

    @property
    def text(self) -> str:
        return "".join(s.text for s in self.segments).strip()


class Loaded:
    """Sessions by engine and options, loaded when first asked for and kept: loading is most of the time."""

    def __init__(self, miniature: Any) -> None:
        self._miniature = miniature
        self._sessions: dict[Any, Session] = {}
        self._heard: dict[Any, Heard] = {}

    def task(self, name: str, raw: Mapping[str, Any] | None = None, **changes: Any) -> Task:
        return task(self._miniature, name, raw, **changes)

    def session(self, name: str, **changes: Any) -> Session:
        key = (name, tuple(sorted(changes.items())))
        if key not in self._sessions:
            self._sessions[key] = engines.module(name).load(self.task(name, **changes))
        return self._sessions[key]

    def hear(self, name: str, clip: str, **changes: Any) -> Heard:
        """What the engine says about a clip of the miniature."""
        key = (name, clip, tuple(sorted(changes.items())))
        if key not in self._heard:
            samples = self._miniature.clip(clip).samples()
            self._heard[key] = Heard(tuple(self.session(name, **changes).transcribe(samples)))
        return self._heard[key]


@pytest.fixture(scope="module")
def loaded(miniature: Any) -> Loaded:
    return Loaded(miniature)


@pytest.fixture(scope="module")
def voice() -> Any:
    """A real voice: 11 s of J. F. Kennedy's inaugural address, 16 kHz mono float32."""
    with av.open(str(ROOT / "examples" / "jfk.flac")) as stored:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
        frames = [f for frame in stored.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


# What a SPEC says, without the engine.


MOST_FILES = 3
"""In how many files of the core an engine's name may stand: its own, the table, and one more."""


@pytest.mark.parametrize("name", [n for n in engines.MODULES if n != "null"])
def test_few_files_name_an_engine(name: str) -> None:
    """Whoever adds an engine touches hardly anything else. (Examples in docstrings and comments do not count, nor does
    a package's or module's name where an engine says what it needs, a program of the same name whose command line Kuulo
    understands, nor a model format of the same name.)"""
    naming = set()
    programs = {SOURCE / "commands" / "__init__.py", SOURCE / "commands" / f"{name.replace('-', '_')}.py"}
    if name in check.FORMATS:
        programs |= {*(SOURCE / "models").rglob("*.py"), SOURCE / "cli" / "models.py"}
    for path in {*SOURCE.rglob("*.py")} - programs:
        constants = {n.value for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Constant)}
        needs = path.parent == SOURCE / "engines" and name in PACKAGES.get(path.stem, ())
        if name in constants and not needs:
            naming.add(str(path.relative_to(SOURCE)))
    assert len(naming) <= MOST_FILES, sorted(naming)


PACKAGES = {
    Path(*engines.MODULES[spec.name].split(".")).name: {spec.package, spec.module, *spec.packages} - {spec.name}
    for spec in engines.every()
    if spec.name in engines.MODULES
}
"""What engines need, by the name of their file."""


@pytest.mark.parametrize("name", SPECS)
def test_spec_names_common_options_that_engines_may_honour(name: str) -> None:
    for option in SPECS[name].options:
        assert options.BY_NAME[option].engine, option


@pytest.mark.parametrize("name", SPECS)
def test_spec_is_filled(name: str) -> None:
    spec = SPECS[name]
    assert spec.name == name
    assert spec.url.startswith("https://")
    assert spec.summary.endswith(".")
    assert spec.licence
    assert spec.devices and set(spec.devices) <= {"cpu", "cuda"}
    for needed in ("language", "task", "device"):
        assert needed in spec.options, needed
    if not spec.model_formats:
        assert spec.quality_note, "an engine that brings its own model says what to expect of it"


@pytest.mark.parametrize("name", SPECS)
def test_importing_the_module_imports_no_engine(name: str) -> None:
    module = engines.MODULES[name]
    heavy = sorted({spec.module for spec in SPECS.values()} | {"torch", "numpy", "ctranslate2", "av", "onnxruntime"})
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [p.relative_to(SOURCE) for p in sorted((SOURCE / "engines").glob("*.py"))], ids=str)
def test_engine_files_parse_on_python_3_9(path: Path) -> None:
    ast.parse((SOURCE / path).read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize("name", SPECS)
def test_refuses_nothing_of_the_defaults(name: str) -> None:
    spec = SPECS[name]
    defaults = {o.name: o.default for o in options.OPTIONS if o.name in spec.options}
    assert engines.module(name).refuse({**defaults, "model": "x", "multilingual": None, "translates": None}) == {}


@pytest.mark.parametrize("name", WHISPERS)
def test_refuses_what_the_model_cannot(name: str) -> None:
    refuse = engines.module(name).refuse
    english = {"model": "base.en", "multilingual": False, "translates": False}
    assert "English" in refuse({**english, "language": "fi"})["language"]
    assert "language" not in refuse({**english, "language": "en"})
    assert "task" in refuse({"model": "turbo", "multilingual": True, "translates": False, "task": "translate"})
    if SPECS[name].options["task"].name:  # else it cannot translate, whatever the model
        assert refuse({"model": "small", "multilingual": True, "translates": True, "task": "translate"}) == {}


@pytest.mark.parametrize(
    ("name", "given", "option"),
    [
        ("pocketsphinx", {"language": "fi"}, "language"),
        ("pocketsphinx", {"task": "translate"}, "task"),
        ("pocketsphinx", {"device": "cuda:1"}, "device"),
        ("openai-whisper", {"compute_type": "int8"}, "compute_type"),
        ("openai-whisper", {"compute_type": "float16", "device": "cpu"}, "compute_type"),
        ("whisper-cpp", {"compute_type": "int8"}, "compute_type"),
        ("whisper-cpp", {"temperature": (0.0, 0.5, 0.6)}, "temperature"),
        ("whisper-cpp", {"temperature": (0.0, 0.2)}, "temperature"),
        ("whisper-cpp", {"initial_prompt": "A", "condition_on_previous_text": False}, "initial_prompt"),
        ("sherpa-onnx", {"compute_type": "int8"}, "compute_type"),
        ("sherpa-onnx", {"device": "cuda:1"}, "device"),
        ("whisperx", {"word_times": True, "task": "translate"}, "word_times"),
        ("whisperx", {"compute_type": "float16", "device": "cpu"}, "compute_type"),
        ("insanely-fast-whisper", {"compute_type": "float32"}, "compute_type"),
        ("insanely-fast-whisper", {"device": "cpu"}, "device"),
        ("whisper-diarization", {"task": "translate"}, "task"),
        ("whisper-diarization", {"beam_size": 1}, "beam_size"),
        ("whisper-diarization", {"temperature": (0.0,)}, "temperature"),
        ("whisper-diarization", {"batch_size": 8, "temperature": (0.0, 0.2)}, "temperature"),
        ("whisper-diarization", {"condition_on_previous_text": False}, "condition_on_previous_text"),
        ("whisper-diarization", {"batch_size": 8, "condition_on_previous_text": True}, "condition_on_previous_text"),
        ("whisper-diarization", {"compute_type": "int8", "device": "cuda"}, "compute_type"),
        ("whisper-diarization", {"device": "cuda:1"}, "device"),
        ("transformers", {"compute_type": "int8"}, "compute_type"),
        ("transformers", {"batch_size": 64}, "batch_size"),
        ("transformers", {"batch_size": 2, "condition_on_previous_text": True}, "condition_on_previous_text"),
        ("transformers", {"initial_prompt": "A", "condition_on_previous_text": False}, "initial_prompt"),
    ],
)
def test_refuses_values_that_it_cannot_honour(name: str, given: dict[str, Any], option: str) -> None:
    assert list(engines.module(name).refuse(given)) == [option]


@pytest.mark.parametrize("name", SPECS)
def test_native_call_is_python_and_shows_what_was_asked(name: str) -> None:
    given = {**GREEDY, "model": "base", "model_path": "/models/it's here", "beam_size": 3, "language": "fi"}
    if not SPECS[name].model_formats:
        given["language"] = "en"
    given = {k: v for k, v in given.items() if k in SPECS[name].options or k.startswith("model")}
    for refused in engines.module(name).refuse(given):
        del given[refused]
    text = engines.module(name).native(given, {})
    ast.parse(text)
    if SPECS[name].model_formats:
        assert repr("/models/it's here") in text
        assert "'fi'" in text
        assert "beam_size" not in given or re.search(r"\b3\b", text)


# What it does.


@pytest.mark.parametrize("clip", ["three_children", "two_sentences", "finnish", "two_windows"])
@pytest.mark.parametrize("name", WHISPERS)
def test_hears_the_words(name: str, clip: str, loaded: Loaded, miniature: Any) -> None:
    known, heard = miniature.clip(clip), loaded.hear(name, clip)
    assert heard.text == known.text
    assert heard.language.code == known.language
    texts = [segment.text for segment in heard.segments]
    if name in WHOLE_WINDOWS:
        assert all(text.startswith(" ") for text in texts)
    else:
        assert texts == [" " + text for _, _, text in known.segments], "text is as Whisper writes it, with its space"
    for segment in heard.segments:
        assert segment.confidence is None if name in UNSURE else 0.3 < (segment.confidence or 0) <= 1
        assert segment.words == ()


@pytest.mark.parametrize("clip", ["three_children", "two_sentences", "finnish", "two_windows"])
@pytest.mark.parametrize("name", WHISPERS)
def test_segment_times_are_near_the_truth(name: str, clip: str, loaded: Loaded, miniature: Any) -> None:
    known, heard = miniature.clip(clip), loaded.hear(name, clip)
    if name in WHOLE_WINDOWS:
        pytest.skip(f"{name} has times of windows alone")
    for segment, (start_ms, end_ms, _) in zip(heard.segments, known.segments, strict=True):
        assert abs(segment.start_ms - start_ms) <= SEGMENT_MS
        assert abs(segment.end_ms - end_ms) <= SEGMENT_MS


@pytest.mark.parametrize("name", WHISPERS)
def test_language_is_detected_or_as_asked(name: str, loaded: Loaded) -> None:
    detected = loaded.hear(name, "finnish").language
    assert detected.code == "fi"
    assert detected.confidence is None if name in UNSURE else 0.9 < (detected.confidence or 0) <= 1.0
    assert loaded.hear(name, "finnish", language="fi").language == Language("fi", None)
    assert loaded.hear(name, "finnish", language="fi").text == loaded.hear(name, "finnish").text


@pytest.mark.parametrize("name", list(SPECS))
def test_silence_has_no_words(name: str, loaded: Loaded) -> None:
    assert loaded.hear(name, "silence").text == ""


@pytest.mark.parametrize("samples", [1, 160, 1600])
@pytest.mark.parametrize("name", list(SPECS))
def test_very_short_audio_is_no_failure(name: str, samples: int, loaded: Loaded) -> None:
    said = list(loaded.session(name).transcribe(np.zeros(samples, np.float32)))
    assert isinstance(said[0], Language)
    assert not [s for s in said if isinstance(s, Segment) and s.text.strip()]


NEEDS_ALIGNER = ("whisperx",)
"""Engines whose words' times need a model of their own: tests/test_whisperx.py has them."""


@pytest.mark.parametrize("name", [name for name in WHISPERS if name not in NEEDS_ALIGNER])
def test_word_times(name: str, loaded: Loaded, miniature: Any) -> None:
    for clip in ("three_children", "finnish"):
        heard = loaded.hear(name, clip, word_times=True)
        assert heard.text == miniature.clip(clip).text
        for segment in heard.segments:
            assert "".join(word.text for word in segment.words) == segment.text
            assert len(segment.words) == len(segment.text.split())
            at = segment.start_ms - EARLY_MS
            for word in segment.words:
                assert at <= word.start_ms <= word.end_ms <= segment.end_ms
                at = word.start_ms
                assert word.confidence is None or 0.0 <= word.confidence <= 1.0


@pytest.mark.parametrize("name", [name for name in WHISPERS if name not in NEEDS_ALIGNER])
def test_words_begin_where_openai_whisper_has_them(name: str, loaded: Loaded) -> None:
    """faster-whisper and transformers align as the original does; whisper.cpp and sherpa-onnx by their own means."""
    allowed = 150
    reference = loaded.hear("openai-whisper", "three_children", word_times=True).segments[0].words
    words = loaded.hear(name, "three_children", word_times=True).segments[0].words
    assert [w.text for w in words] == [w.text for w in reference]
    for word, expected in list(zip(words, reference, strict=True))[1:]:
        assert abs(word.start_ms - expected.start_ms) <= allowed, word


@pytest.mark.parametrize("name", list(SPECS))
def test_events_come_in_order(name: str, loaded: Loaded, miniature: Any) -> None:
    said = loaded.hear(name, "two_windows").said
    length_ms = len(miniature.clip("two_windows").samples()) * 1000 // 16_000
    assert isinstance(said[0], Language)
    done = [s.done_ms for s in said if isinstance(s, Progress)]
    assert done == sorted(done)
    assert all(0 <= ms <= length_ms for ms in done)
    points = [s.at_ms for s in said if isinstance(s, Checkpoint)]
    assert points == sorted(points)
    segments = [s for s in said if isinstance(s, Segment)]
    assert [s.start_ms for s in segments] == sorted(s.start_ms for s in segments)
    assert all(0 <= s.start_ms <= s.end_ms <= length_ms for s in segments)


@pytest.mark.parametrize("name", WHISPERS)
def test_goes_on_from_its_checkpoint(name: str, loaded: Loaded, miniature: Any) -> None:
    heard = loaded.hear(name, "two_windows")
    points = [(i, s) for i, s in enumerate(heard.said) if isinstance(s, Checkpoint) and s.at_ms > 0]
    if not points:
        pytest.skip(f"{name} makes no checkpoints inside a section")
    index, point = points[0]
    before = [s.text for s in heard.said[:index] if isinstance(s, Segment)]
    samples = miniature.clip("two_windows").samples()
    after = [s.text for s in loaded.session(name).transcribe(samples, point.state) if isinstance(s, Segment)]
    assert before + after == [s.text for s in heard.segments]


@pytest.mark.parametrize("name", WHISPERS)
def test_a_prompt_is_taken(name: str, loaded: Loaded) -> None:
    prompted = {"initial_prompt": "Children and people.", "condition_on_previous_text": True}
    heard = loaded.hear(name, "three_children", **prompted)
    assert heard.language.code == "en"
    samples = np.zeros(16_000, np.float32)
    state = {"prompt": " " + "People. " * 300, "language": "fi"}
    said = Heard(tuple(loaded.session(name, **prompted).transcribe(samples, state)))
    assert said.language.code == "fi", "a section has the language of the recording"


@pytest.mark.parametrize("name", WHISPERS)
def test_beam_search_and_fallback(name: str, loaded: Loaded, miniature: Any) -> None:
    heard = loaded.hear(name, "three_children", beam_size=2, temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert heard.text == miniature.clip("three_children").text


@pytest.mark.parametrize("name", list(SPECS))
def test_unknown_raw_option_is_an_error_that_names_the_valid_ones(name: str, loaded: Loaded) -> None:
    with pytest.raises(Unusable, match="no_such_option") as caught:
        engines.module(name).load(loaded.task(name, {"no_such_option": 1}))
    assert next(iter(RAW[name])) in caught.value.do


RAW = {
    "faster-whisper": {"patience": 2.0},
    "openai-whisper": {"compression_ratio_threshold": 2.0},
    "whisper-cpp": {"entropy_thold": 2.0},
    "transformers": {"length_penalty": 1.0},
    "pocketsphinx": {"beam": 1e-40},
    "sherpa-onnx": {"tail_paddings": 60},
    "whisperx": {"patience": 2.0},
    "insanely-fast-whisper": {"flash": False},
    "whisper-diarization": {"suppress_numerals": True},
}


@pytest.mark.parametrize("name", list(SPECS))
def test_raw_option_goes_through(name: str, loaded: Loaded, miniature: Any) -> None:
    assert RAW[name], "a raw option for this engine, please"
    session = engines.module(name).load(loaded.task(name, RAW[name]))
    heard = Heard(tuple(session.transcribe(miniature.clip("three_children").samples())))
    assert heard.text
    key, value = next(iter(RAW[name].items()))
    assert f"{key}={value!r}" in engines.module(name).native(dict(GREEDY), RAW[name])


BROKEN = {"ggml": b"lmgg" + b"\0" * 1000, "pt": b"PK\3\4" + b"\0" * 1000}


@pytest.mark.parametrize("name", WHISPERS)
def test_a_broken_model_is_unusable_and_not_an_empty_transcript(name: str, loaded: Loaded, tmp_path: Path) -> None:
    task = loaded.task(name)
    broken = tmp_path / "model"
    if Path(task.model_path or "").is_dir():
        broken.mkdir()
        (broken / "config.json").write_text("{}")
    else:
        broken.write_bytes(BROKEN[SPECS[name].model_formats[0]])
    with pytest.raises(Unusable) as caught:
        engines.module(name).load(dataclasses.replace(task, model_path=str(broken)))
    assert caught.value.do


def test_a_checkpoint_that_would_run_code_is_not_loaded(loaded: Loaded, tmp_path: Path) -> None:
    task, trap, trace = loaded.task("openai-whisper"), tmp_path / "trap.pt", tmp_path / "ran"
    import torch

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (trace,))

    torch.save({"dims": {}, "model_state_dict": Trap()}, trap)
    with pytest.raises(Unusable, match="might run code"):
        engines.module("openai-whisper").load(dataclasses.replace(task, model_path=str(trap)))
    assert not trace.exists()


NEEDS_MORE = [
    ({}, {"flash_attention": True}, "flash attention needs an NVIDIA GPU", "leave --engine-option flash_attention out"),
    ({}, {"num_workers": "many"}, "does not take these values: num_workers='many'", "--engine-option"),
    ({"compute_type": "float16"}, {}, "float16 compute type", "one of auto, "),
]


@pytest.mark.parametrize(("options", "raw", "what", "do"), NEEDS_MORE, ids=["flash attention", "raw", "compute type"])
def test_faster_whisper_says_what_failed_when_it_is_not_the_model(
    options: dict[str, Any], raw: dict[str, Any], what: str, do: str, loaded: Loaded
) -> None:
    name = "faster-whisper"
    if options and "float16" in pytest.importorskip("ctranslate2").get_supported_compute_types("cpu"):
        pytest.skip("this CPU can")
    with pytest.raises(Unusable, match=what) as caught:
        engines.module(name).load(loaded.task(name, raw, **options))
    assert do in caught.value.do and "verify" not in caught.value.do


def test_batch_of_parts_says_the_same_words(loaded: Loaded, miniature: Any) -> None:
    known = miniature.clip("two_windows")
    noise = np.random.default_rng(0).standard_normal(len(known.samples())).astype(np.float32) * 2e-5
    noise[int(29.7 * 16_000) : 30 * 16_000] = 0  # the quietest place: parts are cut here
    heard = Heard(tuple(loaded.session("transformers", batch_size=2).transcribe(known.samples() + noise)))
    assert heard.text == known.text
    for segment, (start_ms, end_ms, _) in zip(heard.segments, known.segments, strict=True):
        assert abs(segment.start_ms - start_ms) <= SEGMENT_MS
        assert abs(segment.end_ms - end_ms) <= SEGMENT_MS


def test_pocketsphinx_hears_a_real_voice(loaded: Loaded, voice: Any) -> None:
    heard = Heard(tuple(loaded.session("pocketsphinx", word_times=True).transcribe(voice)))
    said = set(heard.text.split())
    assert len(said & {"fellow", "country", "can", "do", "for", "you", "not", "what", "your"}) >= 6
    assert re.search(r"\bamerica", heard.text)
    assert heard.language == Language("en", None)
    for segment in heard.segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(segment.start_ms <= w.start_ms <= w.end_ms <= segment.end_ms for w in segment.words)
        assert not re.search(r"[<>\[\]()]", segment.text)


def test_pocketsphinx_does_not_depend_on_what_was_heard_before(loaded: Loaded, voice: Any) -> None:
    session, end = loaded.session("pocketsphinx"), voice[8 * 16_000 :]
    first = list(session.transcribe(end))
    list(session.transcribe(voice[:16_000]))
    assert list(session.transcribe(end)) == first


def test_specs_differ_by_name_alone_in_the_table() -> None:
    assert len(SPECS) == len({spec.module for spec in SPECS.values()})
    assert all(isinstance(spec, EngineSpec) for spec in SPECS.values())
