"""whisperX: what it says as ours, and, where it is installed, the miniature through it with and without alignment.

The alignment model has random weights (aligners.py), so that its times mean nothing and the path is all that is
tested; the words are those of the miniature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aligners
from kuulo import engines
from kuulo.engines import whisperx
from kuulo.engines.base import Language, Progress, Unusable
from kuulo.transcript import Segment, Word
from kuulo.wire import Task
from models_fixture import Miniature
from sessions import task

NAME = "whisperx"
TEN_S = 160_000


def test_aligned_words_have_their_spaces() -> None:
    said = {
        "start": 0.031,
        "end": 1.5,
        "text": "Good morning.",
        "words": [
            {"word": "Good", "start": 0.1, "end": 0.5, "score": 0.91},
            {"word": "morning.", "start": 0.6, "end": 1.2},
        ],
        "avg_logprob": -0.1,
    }
    words = (Word(" Good", 100, 500, 0.91), Word(" morning.", 600, 1200, None))
    assert whisperx.segment_of(said, "en", TEN_S) == Segment(31, 1500, " Good morning.", words, confidence=0.9048)


def test_languages_without_spaces_have_none() -> None:
    words = [{"word": c, "start": n / 10, "end": n / 10 + 0.1, "score": 0.5} for n, c in enumerate("你好")]
    found = whisperx.segment_of({"start": 0.0, "end": 0.2, "text": "你好", "words": words}, "zh", TEN_S)
    assert found.text == "你好" and [w.text for w in found.words] == ["你", "好"]


def test_what_could_not_be_aligned_has_no_words() -> None:
    said = {"start": 1.0, "end": 2.0, "text": " 42", "words": [{"word": "42"}]}
    assert whisperx.segment_of(said, "en", TEN_S) == Segment(1000, 2000, " 42")
    assert whisperx.segment_of({"start": 9.0, "end": 11.0, "text": "x"}, "en", TEN_S).end_ms == 10_000


def test_the_native_call_shows_alignment() -> None:
    raw = {"align_model": "/models/wav2vec2", "nltk_data": "/nltk", "vad_onset": 0.4}
    text = whisperx.native({"model_path": "/m", "word_times": True, "language": "fi", "device": "cpu"}, raw)
    assert "model_name='/models/wav2vec2', model_cache_only=True" in text
    assert "vad_options=dict(vad_onset=0.4)" in text and "'/nltk'" in text


def test_words_need_a_model_that_is_given(miniature: Miniature, tmp_path: Path) -> None:
    """Without whisperX too: nothing of it is asked before."""

    def load(**raw: Any) -> None:
        whisperx.load(Task("transcribe", NAME, "m", str(miniature.path("ct2")), {"word_times": True}, raw))

    with pytest.raises(Unusable, match="need an alignment model") as caught:
        load()
    assert "align_model=FOLDER" in caught.value.do and "--word-times" in caught.value.do
    with pytest.raises(Unusable, match="there is no folder"):
        load(align_model="jonatasgrosman/wav2vec2-large-xlsr-53-finnish")
    with pytest.raises(Unusable, match=r"no config\.json"):
        load(align_model=str(tmp_path))
    with pytest.raises(Unusable, match="nearest, linear"):
        load(align_model=str(tmp_path), interpolate_method="ignore")


@pytest.mark.parametrize("option", ["best_of", "no_speech_threshold", "vad_method", "temperatures"])
def test_what_it_parses_and_ignores_is_no_option(option: str, miniature: Miniature) -> None:
    with pytest.raises(Unusable, match=option) as caught:
        whisperx.load(Task("transcribe", NAME, "m", str(miniature.path("ct2")), {}, {option: 1}))
    assert "patience" in caught.value.do


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json"])
def test_a_model_without_a_file_is_not_looked_for_on_the_network(
    missing: str, miniature: Miniature, tmp_path: Path
) -> None:
    for path in miniature.path("ct2").iterdir():
        if path.name != missing:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(Unusable, match=missing):
        whisperx.load(Task("transcribe", NAME, "m", str(tmp_path), {}, {}))


# ---------------------------------------------------------------------- with whisperX


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("whisperx")
    return aligners.wav2vec2(tmp_path_factory.mktemp("wav2vec2"))


@pytest.fixture(scope="module")
def punkt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aligners.punkt(tmp_path_factory.mktemp("nltk"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("clip", ["two_sentences", "finnish"])
def test_words_are_aligned(clip: str, miniature: Miniature, aligner: Path, punkt: Path) -> None:
    raw = {"align_model": str(aligner), "nltk_data": str(punkt)}
    known = miniature.clip(clip)
    session = engines.module(NAME).load(task(miniature, NAME, raw, word_times=True))
    said = list(session.transcribe(known.samples()))
    assert isinstance(said[0], Language) and said[0].code == known.language
    segments = [s for s in said if isinstance(s, Segment)]
    assert [s.text for s in segments] == [" " + text for _, _, text in known.segments], "sentences now"
    for segment in segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert len(segment.words) == len(segment.text.split())
        assert all(segment.start_ms <= w.start_ms <= w.end_ms <= segment.end_ms for w in segment.words)
        assert all(0.0 <= (w.confidence or 0.0) <= 1.0 for w in segment.words)
    done = [s.done_ms for s in said if isinstance(s, Progress)]
    assert done == sorted(done) and done[-1] == len(known.samples()) // 16
    assert not [s for s in session.transcribe(np.zeros(32_000, np.float32)) if isinstance(s, Segment)]


@pytest.mark.filterwarnings("ignore")
def test_nltk_s_data_is_looked_for_and_not_fetched(
    miniature: Miniature, aligner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    raw = {"align_model": str(aligner), "nltk_data": str(tmp_path)}
    with pytest.raises(Unusable, match="punkt_tab for english") as caught:
        engines.module(NAME).load(task(miniature, NAME, raw, word_times=True))
    assert "nltk_data=FOLDER" in caught.value.do


@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_is_no_aligner_is_told_of(miniature: Miniature, tmp_path: Path, punkt: Path) -> None:
    pytest.importorskip("whisperx")
    (tmp_path / "config.json").write_text("{}")
    raw = {"align_model": str(tmp_path), "nltk_data": str(punkt)}
    with pytest.raises(Unusable, match="not an alignment model"):
        engines.module(NAME).load(task(miniature, NAME, raw, word_times=True))
