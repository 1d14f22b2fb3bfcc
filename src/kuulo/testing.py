"""Kuulo's contract for the engines of other packages, to be run by their own tests with pytest:

    from kuulo.testing import EngineContract

    class TestContract(EngineContract):
        engine = "my-engine"                # the name of the entry point

        def clip(self):
            return samples, "what is said in them"

Every method `test_*` is a test. What an engine owes is in `kuulo/engines/base.py`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kuulo import engines, options
from kuulo.engines.base import SAMPLE_RATE, Checkpoint, EngineSpec, Language, Progress, Session, Unusable
from kuulo.transcript import Segment
from kuulo.wire import Task

HEAVY = ("av", "ctranslate2", "numpy", "onnxruntime", "torch")
"""What no engine's module imports at its top."""

NO_SUCH = "no_such_option"


class EngineContract:
    """What every engine owes. Subclasses set `engine` and write `clip`.

    `model`: the path of a model, for an engine that takes one. `options`: common options to load it with, beside the
    defaults. `raw`: an option for `--engine-option` that it takes, and a value."""

    engine: str = ""
    model: str | None = None
    options: Mapping[str, Any] = {}
    raw: Mapping[str, Any] = {}

    def clip(self) -> tuple[Any, str]:
        """A recording (numpy float32, shape (n,), 16 kHz, -1 to 1), and the words that the engine hears in it."""
        raise NotImplementedError

    @property
    def spec(self) -> EngineSpec:
        return engines.spec(self.engine)

    def load(self, raw: Mapping[str, Any] | None = None, **changes: Any) -> Session:
        """The engine, with the defaults of the options that it honours."""
        told = {o.name: o.default for o in options.OPTIONS if o.name in self.spec.options}
        told |= {"device": "cpu", **self.options, **changes}
        loaded: Session = engines.module(self.engine).load(
            Task("transcribe", self.engine, "the model", self.model, told, dict(raw or {}))
        )
        return loaded

    def said(self, samples: Any, **changes: Any) -> list[Any]:
        return list(self.load(**changes).transcribe(samples))

    # What can be known without the engine.

    def test_it_is_found_by_its_entry_point(self) -> None:
        assert [str(t) for t in engines.troubles() if t.name == self.engine] == []
        assert self.engine in engines.names(), "install the package that names it in the group kuulo.engines"

    def test_its_spec_is_filled(self) -> None:
        spec = self.spec
        assert spec.summary.endswith("."), "the summary is a sentence"
        assert spec.url.startswith("https://") and spec.licence and spec.install
        assert "transcribe" in spec.tasks and "cpu" in spec.devices
        for needed in ("language", "task", "device"):
            assert needed in spec.options, f"options has no {needed}: every engine says what it makes of it"
        for name in spec.options:
            assert name in options.BY_NAME and options.BY_NAME[name].engine, f"{name} is no option for engines"
        assert spec.model_formats or spec.quality_note, "without models, a quality_note says what to expect of it"
        assert engines.installed(spec), f"the module {spec.module} is not here"

    def test_its_module_is_light(self) -> None:
        """The command line reads every engine's SPEC; what takes long is imported in `load`."""
        code = f"import sys, {engines.module(self.engine).__name__}; print([m for m in {HEAVY!r} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "[]", "import these inside functions"

    def test_its_module_parses_on_python_3_9(self) -> None:
        """An engine's environment may have an older Python than the command line."""
        file = engines.module(self.engine).__file__
        ast.parse(Path(file).read_text(encoding="utf-8"), feature_version=(3, 9))

    def test_it_refuses_nothing_of_the_defaults(self) -> None:
        defaults = {o.name: o.default for o in options.OPTIONS if o.name in self.spec.options}
        about = {"model": "x", "multilingual": None, "translates": None}
        assert engines.module(self.engine).refuse({**defaults, **about}) == {}

    def test_its_native_call_is_python(self) -> None:
        told = {**self.options, "model_path": "/models/it's here"}
        text = engines.module(self.engine).native(told, dict(self.raw))
        ast.parse(text)
        assert all(repr(value) in text for value in self.raw.values()), "the call shows what was asked"

    # What it does.

    def test_it_hears_the_words(self) -> None:
        samples, text = self.clip()
        heard = "".join(s.text for s in self.said(samples) if isinstance(s, Segment))
        assert heard.split() == text.split()
        assert heard.startswith(" ") or not heard, "text is as Whisper writes it, with a space before each word"

    def test_events_come_in_order(self) -> None:
        samples, _ = self.clip()
        length_ms = len(samples) * 1000 // SAMPLE_RATE
        said = self.said(samples)
        assert [isinstance(s, Language) for s in said] == [True] + [False] * (len(said) - 1), "one Language, first"
        segments = [s for s in said if isinstance(s, Segment)]
        starts = [s.start_ms for s in segments]
        assert starts == sorted(starts)
        assert all(0 <= s.start_ms <= s.end_ms <= length_ms for s in segments)
        for times in (
            [s.done_ms for s in said if isinstance(s, Progress)],
            [s.at_ms for s in said if isinstance(s, Checkpoint)],
        ):
            assert times == sorted(times) and all(0 <= ms <= length_ms for ms in times)

    def test_it_says_the_same_again(self) -> None:
        samples, _ = self.clip()
        session = self.load()
        assert list(session.transcribe(samples)) == list(session.transcribe(samples))

    def test_words_are_inside_their_segments(self) -> None:
        if "word_times" not in self.spec.options:
            return
        samples, _ = self.clip()
        for segment in [s for s in self.said(samples, word_times=True) if isinstance(s, Segment)]:
            assert "".join(word.text for word in segment.words) == segment.text
            at = segment.start_ms
            for word in segment.words:
                assert at <= word.start_ms <= word.end_ms <= segment.end_ms
                assert word.confidence is None or 0.0 <= word.confidence <= 1.0
                at = word.start_ms
        without = [s for s in self.said(samples, word_times=False) if isinstance(s, Segment)]
        assert all(not s.words for s in without), "no words without --word-times"

    def test_silence_has_no_words(self) -> None:
        import numpy as np

        for samples in (1, 160, 1600, 3 * SAMPLE_RATE):
            said = self.said(np.zeros(samples, np.float32))
            assert isinstance(said[0], Language)
            assert not [s for s in said if isinstance(s, Segment) and s.text.strip()]

    def test_it_goes_on_from_its_checkpoints(self) -> None:
        samples, _ = self.clip()
        said = self.said(samples)
        for index, point in [(i, s) for i, s in enumerate(said) if isinstance(s, Checkpoint)]:
            after = [s for s in self.load().transcribe(samples, point.state) if isinstance(s, Segment)]
            assert after == [s for s in said[index:] if isinstance(s, Segment)]

    def test_raw_options_are_taken_or_named(self) -> None:
        try:
            self.load({NO_SUCH: 1})
        except Unusable as error:
            assert NO_SUCH in error.what
            assert all(name in error.do for name in self.raw), "`do` names the options that there are"
        else:
            raise AssertionError("an option that it does not have is an error, not nothing")
        if self.raw:
            self.load(self.raw)

    def test_kuulo_transcribes_with_it(self) -> None:
        """Through the command line and a worker, as people have it."""
        import numpy as np

        samples, text = self.clip()
        with tempfile.TemporaryDirectory() as folder:
            with wave.open(str(Path(folder) / "clip.wav"), "wb") as out:
                out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
                out.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
            command = [sys.executable, "-m", "kuulo", "transcribe", "clip.wav", "-e", self.engine, "-o", "out"]
            command += ["-m", self.model] if self.model else []
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ)
            assert done.returncode == 0, done.stderr
            assert (Path(folder) / "out" / "clip.txt").read_text(encoding="utf-8").split() == text.split()
