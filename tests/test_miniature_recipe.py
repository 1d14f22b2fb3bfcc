"""The recipe of the miniature: speech with its times, training windows and their labels, and that training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

espeak = pytest.importorskip("espeak")
torch = pytest.importorskip("torch")

import corpus  # noqa: E402
import train  # noqa: E402
import windows  # noqa: E402
import words  # noqa: E402

from kuulo.miniature import weights  # noqa: E402
from kuulo.miniature.vocabulary import Vocabulary  # noqa: E402


@pytest.fixture(scope="module")
def speaker() -> Any:
    try:
        return espeak.Speaker()
    except espeak.SpeechMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shards(speaker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "corpus").mkdir()
    corpus.write_shard(folder / "corpus", speaker, 0)
    return folder


@pytest.fixture(scope="module")
def maker(shards: Path) -> Any:
    return windows.Maker(shards / "corpus", 1, windows.Compact(Vocabulary()), seed=4)


def spelled(maker: Any, tokens: list[int]) -> list[str]:
    vocabulary = maker.compact.vocabulary
    known = {number: vocabulary.tokens[id_] for number, id_ in enumerate(maker.compact.ids)}
    return [known.get(token, "?") for token in tokens]


def test_words_are_enough_and_translated() -> None:
    assert len(words.WORDS["en"]) >= 300
    assert len(words.WORDS["fi"]) >= 100
    assert len(words.WORDS["sv"]) >= 100
    for language, translations in words.TRANSLATIONS.items():
        assert set(translations.values()) <= set(words.WORDS["en"]), language
    for language, known in words.WORDS.items():
        assert len(set(known)) == len(known), language
    assert not set(words.VARIANTS) & set(words.HELD_OUT_VARIANTS)


def test_one_sentence_in_ten_is_held_out() -> None:
    found = [words.held_out(f"one two {first} {second}") for first in words.WORDS["en"] for second in ("tree", "cat")]
    assert 0.05 < np.mean(found) < 0.16
    assert words.held_out("Three Children and.") == words.held_out("three children and")
    assert not any(words.held_out(f"{first} cat") for first in words.WORDS["en"]), "two words cannot be kept apart"


@pytest.mark.parametrize(("voice", "text"), [("en-us", "three children"), ("fi", "hyvä talo"), ("sv", "god fråga")])
def test_speech_has_the_times_of_its_words(voice: str, text: str, speaker: Any) -> None:
    spoken = speaker.say(text, espeak.Voice(voice))
    assert [word for _, _, word in spoken.words] == text.split()
    (start, end), (begin, finish) = corpus.word_times(spoken, text.split())
    assert start < espeak.RATE // 50
    assert start < end <= begin < finish <= len(spoken.samples)
    assert np.abs(spoken.samples).max() > 1000
    again = speaker.say(text, espeak.Voice(voice))
    assert abs(len(again.samples) - len(spoken.samples)) < espeak.RATE // 50, "espeak-ng's voices flutter a little"


def test_an_unknown_voice_is_an_error(speaker: Any) -> None:
    with pytest.raises(espeak.SpeechMissing, match="no voice"):
        speaker.say("yes", espeak.Voice("no-such-voice"))


def test_a_shard_is_the_same_after_reading_and_has_no_sentence_that_is_held_out(shards: Path, speaker: Any) -> None:
    made = list(corpus.sentences(speaker, 0))
    read = corpus.read_shard(corpus.shard_path(shards / "corpus", 0))
    assert [s.words for s in read] == [s.words for s in made]
    for one, other in zip(read, made, strict=True):
        # espeak-ng's voices flutter: a sentence may be some hundredths of a second longer, a pause come or go.
        assert np.abs(np.array(one.times) - np.array(other.times)).max() < espeak.RATE // 4
        assert len(one.phones) == len(one.phone_starts) >= len(one.words)
        assert (np.diff(one.phone_starts) >= 0).all()
        assert len(one.samples) >= one.times[-1][1]
    assert not any(words.held_out(" ".join(s.words)) for s in made)
    assert {s.language for s in made} == set(words.WORDS)


def test_windows_say_what_an_engine_must_write(maker: Any) -> None:
    cut = late = prompted = 0
    for _ in range(150):
        window = maker.window(windows.Filling())
        assert len(window.samples) == 30 * espeak.RATE
        given, wanted = spelled(maker, window.given), spelled(maker, window.wanted)
        start = given.index("<|startoftranscript|>")
        prompted += start > 0
        assert all(token == windows.UNLABELLED for token in window.wanted[:start])
        assert wanted[start] in (given[start + 1], "<|nospeech|>")
        assert given[start + 2] == "<|transcribe|>"
        body = wanted[start + 2 :]
        assert len(body) <= 224
        # What is wanted is given next.
        assert [w for w, g in zip(wanted[start + 3 : -1], given[start + 4 :], strict=True) if w not in ("?", g)] == []
        times = [float(token[2:-2]) for token in body if token.startswith("<|") and token[2].isdigit()]
        assert times == sorted(times)
        if times and "<|nospeech|>" not in wanted:
            assert times[0] <= 1.0
            late += times[0] == 1.0
            if len(times) % 2:
                cut += 1
                assert body[-2:] == [f"<|{times[-1]:.2f}|>", "<|endoftext|>"], "of a cut sentence the start alone"
        if "<|nospeech|>" in wanted and times:
            assert body == ["<|0.00|>", "<|endoftext|>"]
    assert cut > 10
    assert late > 2
    assert prompted > 20


def test_frames_of_a_window_are_labelled_with_its_words(maker: Any) -> None:
    filling = windows.Filling(prompts=0, nothing=0, times=1.0)
    for _ in range(20):
        window = maker.window(filling)
        assert len(window.frames) == len(window.phones) == 1500
        labelled = set(window.frames.tolist()) - {0, windows.UNLABELLED}
        names = {number: word for (_, word), number in windows.WORD_LABELS.items()}
        text = "".join(spelled(maker, window.given)).replace("Ġ", " ").lower()
        assert len(labelled) >= 1 or text.count("<|") <= 6
        for span, token in zip(window.spans, spelled(maker, window.wanted), strict=True):
            if token.startswith("Ġ"):
                begin, end = max(0, round(span[0])), round(span[1])
                assert {names[n] for n in set(window.frames[begin:end].tolist()) - {0, windows.UNLABELLED}}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_training_runs_and_its_result_is_a_miniature(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import compact

    monkeypatch.setattr(train, "SHARDS", 1)
    stages = tuple(train.replace(stage, batch=2) for stage in train.STAGES)
    checkpoint = train.train(shards, 0.15, 64, seed=1, stages=stages)
    log = (shards / "train.log").read_text()
    assert "2695 tokens" in log
    written = shards / "compact.npz"
    written.write_bytes(compact.compact(checkpoint))
    made = weights.trained(written)
    assert made.dims["n_audio_state"] == 64
    assert made.heads == ((1, 0), (1, 1), (2, 0), (2, 1))
    assert all(np.isfinite(tensor).all() for tensor in made.state.values())
    used = made.state["decoder.token_embedding.weight"]
    unused = made.vocabulary.ids["<|haw|>"]
    assert np.array_equal(
        used[unused], used[made.vocabulary.ids["<|yue|>"]] if "<|yue|>" in made.vocabulary.ids else used[unused]
    )
    again = train.train(shards, 0.03, 64, seed=2, stages=stages[-1:], start=written)
    assert again == checkpoint
    kept = train.stored_state(written)
    assert kept["encoder.conv1.weight"].shape == (64, 80, 3)
    moved = torch.load(again, weights_only=True)["model"]["encoder.conv1.weight"] - kept["encoder.conv1.weight"]
    assert 0 < moved.abs().max() < 0.1, "training goes on from the file"
