"""That every Whisper engine hears: what the miniature writes, held against what was said and when.

The clips `held_out_*` are sentences and voices that the miniature was not trained on. An engine that cuts, pads, aligns
or prompts in another way than Whisper was made for is seen here, by words or times that are wrong.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scores import Part, Score, bare, errors, heard_parts, lost_and_repeated

from kuulo import engines
from kuulo.engines.base import Language, Session
from kuulo.miniature import weights
from kuulo.transcript import Segment
from models_fixture import CLIPS, WRITERS, Miniature, long_recording, said
from sessions import UNCLOSED, task

SPECS = {spec.name: spec for spec in engines.specs() if set(spec.model_formats) & set(WRITERS)}
RATE = 16_000
WORDS_WRONG = 0.06
"""Share of the words of the held out clips that may be wrong."""

LOST, LONG_WRONG = 1, 0.1
"""Of five minutes: sentences that may be lost or written twice, share of the words that may be wrong."""

WORD_MS, END_MS = 150, 200
"""How far nine in ten words' times and sentence ends may be from the truth."""

WORD_MS_OF = {"sherpa-onnx": 220}
"""Engines whose words' times are less exact."""

pytestmark = UNCLOSED


class Ears:
    """Engines with the miniature, loaded once for each set of options."""

    def __init__(self, miniature: Miniature) -> None:
        self.miniature = miniature
        self.session = cache(self._session)

    def _session(self, name: str, changes: tuple[tuple[str, Any], ...]) -> Session:
        spec = SPECS[name]
        for option, _ in changes:
            if option not in spec.options:
                pytest.skip(f"{name} has no {option}")
        asked = task(self.miniature, name, **dict(changes))
        about = {"model": "x", "multilingual": True, "translates": True}
        refused = engines.module(name).refuse({**asked.options, **about})
        assert not refused, refused
        return engines.module(name).load(asked)

    def hear(self, name: str, samples: Any, **changes: Any) -> tuple[str, list[Part]]:
        """(language, what was heard)."""
        said = list(self.session(name, tuple(sorted(changes.items()))).transcribe(samples))
        (language,) = {s.code for s in said if isinstance(s, Language)}
        return language, heard_parts(s for s in said if isinstance(s, Segment) and s.text.strip())


def text(parts: list[Part]) -> str:
    return "".join(part.text for part in parts).strip()


@pytest.fixture(scope="module")
def ears(miniature: Miniature) -> Ears:
    return Ears(miniature)


HELD_OUT = ("held_out_en", "held_out_fi", "held_out_sv")


@pytest.mark.parametrize("name", SPECS)
def test_hears_sentences_and_voices_that_were_not_trained_on(name: str, ears: Ears, miniature: Miniature) -> None:
    score = Score()
    for clip in map(miniature.clip, HELD_OUT):
        language, heard = ears.hear(name, clip.samples())
        score.add(said(clip.name), heard, language == clip.language)
    figures = score.figures()
    assert figures["language_right"] == 1, figures
    assert figures["word_error_rate"] <= WORDS_WRONG, figures
    assert figures["sentences_as_said"] >= 0.6, figures
    assert figures["end_error_s"][1] <= END_MS / 1000, figures


@pytest.mark.parametrize("name", SPECS)
def test_word_times_are_near_the_truth(name: str, ears: Ears, miniature: Miniature) -> None:
    if "word_times" not in SPECS[name].options:
        pytest.skip(f"{name} has no word times")
    away: list[float] = []
    for clip in map(miniature.clip, ("three_children", "two_sentences", "finnish", "swedish", "two_windows")):
        _, heard = ears.hear(name, clip.samples(), word_times=True)
        score = Score()
        score.add(said(clip.name), heard)
        assert score.words, (clip.name, text(heard))
        away += score.words
    assert np.percentile(away, 90) <= WORD_MS_OF.get(name, WORD_MS) / 1000, np.percentile(away, (50, 90))


@pytest.mark.parametrize("clip", ["silence", "music"])
@pytest.mark.parametrize("name", SPECS)
def test_without_speech_there_are_no_words(name: str, clip: str, ears: Ears, miniature: Miniature) -> None:
    assert ears.hear(name, miniature.clip(clip).samples())[1] == []


def test_the_engines_write_the_same_words(ears: Ears, miniature: Miniature) -> None:
    """Each rounds in its own way, so a word that was nearly another may be that in one of them, no more."""
    clips = [miniature.clip(name) for name in HELD_OUT]
    reference: dict[str, list[str]] = {}
    for name, spec in SPECS.items():
        if not engines.installed(spec):
            continue
        for clip in clips:
            heard = bare(text(ears.hear(name, clip.samples())[1]))
            expected = reference.setdefault(clip.name, heard)
            assert errors(expected, heard) <= 3, (name, clip.name)


@pytest.mark.parametrize("name", SPECS)
def test_translation_is_refused_with_a_model_that_was_not_trained_to(name: str) -> None:
    """It would write words of the language spoken, and call them English."""
    refuse = engines.module(name).refuse
    about = {"model": "miniature", "multilingual": True}
    assert "task" in refuse({"task": "translate", **about, "translates": weights.trained().translates})
    if SPECS[name].options["task"].name:  # else it cannot translate, whatever the model
        assert "task" not in refuse({"task": "translate", **about, "translates": True})


@pytest.mark.parametrize("name", SPECS)
def test_the_text_before_gives_its_style(name: str, ears: Ears, miniature: Miniature) -> None:
    """The miniature writes without capitals and full stops after a text that has none, as Whisper does."""
    samples = miniature.clip("three_children").samples()
    prompt = "good morning mother we need coffee and milk today"
    _, heard = ears.hear(name, samples, initial_prompt=prompt, condition_on_previous_text=True)
    assert text(heard) == "three children and two people"
    assert text(ears.hear(name, samples)[1]) == "Three children and two people."


@pytest.mark.parametrize("name", SPECS)
def test_five_minutes_without_a_lost_or_repeated_sentence(name: str, ears: Ears, miniature: Miniature) -> None:
    """The same six sentences come again and again: as text before a window they would tempt it to go on with them, as
    they do any Whisper, so that is off. (Of ever new sentences, with it on, none is lost: the recipe's evaluation.)"""
    samples, expected = long_recording(miniature.clip("held_out_en"), 300)
    on = {"condition_on_previous_text": False} if "condition_on_previous_text" in SPECS[name].options else {}
    language, heard = ears.hear(name, samples, **on)
    assert language == "en"
    score = Score()
    score.add(expected, heard)
    found = lost_and_repeated(expected, heard)
    assert sum(found.values()) <= LOST, found
    assert score.figures()["word_error_rate"] <= LONG_WRONG, score.figures()


def test_the_clips_are_those_of_the_recipe() -> None:
    said_ = json.loads((CLIPS / "texts.json").read_text(encoding="utf-8"))
    assert {path.stem for path in Path(CLIPS).glob("*.flac")} == set(said_)
