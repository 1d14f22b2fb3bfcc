"""Who said what: turns over words, the encoder against PyTorch, conversations of one to four voices, `--speakers`."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recordings
from kuulo import audio, speakers
from kuulo.engines import resemblyzer
from kuulo.engines.base import Diarization
from kuulo.errors import UsageError
from kuulo.evaluation import turns as scoring
from kuulo.evaluation.lines import Line
from kuulo.formats import json as master
from kuulo.transcript import Audio, Segment, Transcript, Turn, Word
from kuulo.wire import Task

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
RATE = 16_000
HERE = Path(__file__).resolve().parent
SPEECH = HERE.parent / "examples" / "jfk.flac"

TIMES = st.integers(0, 4000)


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    made, at = [], 0
    for _ in range(draw(st.integers(0, 4))):
        words = []
        for _ in range(draw(st.integers(0, 5))):
            start = at + draw(st.integers(0, 300))
            at = start + draw(st.integers(0, 600))
            words.append(Word(draw(st.sampled_from([" yes", " no", "n't"])), start, at))
        start = words[0].start_ms if words else at
        at = words[-1].end_ms if words else at + draw(st.integers(0, 900))
        made.append(Segment(start, at, "".join(w.text for w in words) or " text", tuple(words)))
    return made


TURNS = st.lists(st.builds(lambda a, n, who: Turn(a, a + n, who), TIMES, st.integers(1, 2000), st.sampled_from("XYZ")))


@given(segments(), TURNS)
def test_no_word_is_lost_doubled_or_moved(said: list[Segment], turns: list[Turn]) -> None:
    laid, names = speakers.lay(said, turns)
    assert [(w.text, w.start_ms, w.end_ms) for s in laid for w in s.words] == [
        (w.text, w.start_ms, w.end_ms) for s in said for w in s.words
    ]
    assert "".join(s.text for s in laid) == "".join(s.text for s in said)
    assert [s.start_ms for s in laid] == sorted(s.start_ms for s in laid)
    assert all(s.start_ms <= s.end_ms for s in laid)
    assert all(w.speaker == s.speaker for s in laid for w in s.words)
    assert [name.id for name in names] == [f"S{n + 1}" for n in range(len(names))]
    first = list(dict.fromkeys(s.speaker for s in laid if s.speaker))
    assert first == [name.id for name in names], "S1 is who speaks first"
    assert speakers.lay(said, list(reversed(turns))) == (laid, names), "whatever the order of the turns"
    if not turns:
        assert laid == tuple(said)


def words(*spans: tuple[int, int]) -> Segment:
    made = tuple(Word(f" w{n}", start, end) for n, (start, end) in enumerate(spans))
    return Segment(spans[0][0], spans[-1][1], "".join(w.text for w in made), made)


def owners(segment: Segment, *turns: Turn) -> list[str | None]:
    laid, _ = speakers.lay([segment], turns)
    return [w.speaker for s in laid for w in s.words]


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    laid, names = speakers.lay([words((0, 400), (500, 900), (1000, 1500))], [Turn(0, 950, "b"), Turn(950, 2000, "a")])
    assert [(s.text, s.start_ms, s.end_ms, s.speaker) for s in laid] == [
        (" w0 w1", 0, 900, "S1"), (" w2", 1000, 1500, "S2"),
    ]  # fmt: skip
    assert [(name.id, name.label) for name in names] == [("S1", "b"), ("S2", "a")]


def test_overlap_ties_gaps_and_words_outside() -> None:
    one, two = Turn(0, 1000, "a"), Turn(600, 2000, "b")
    assert owners(words((0, 500), (550, 950), (1000, 1900)), one, two) == ["S1", "S1", "S2"], "who has most of it"
    assert owners(words((700, 900)), Turn(600, 1000, "b"), Turn(500, 950, "a")) == ["S1"]
    both = words((0, 500), (600, 1000))
    assert owners(both, one, two) == ["S1", "S1"], "a tie goes to who spoke before"
    near = speakers.NEAR_MS
    assert owners(words((1000 + near, 1300 + near)), one) == ["S1"]
    assert owners(words((1001 + near, 1300 + near)), one) == [None]


def test_a_piece_that_is_too_short_stays_with_its_neighbour() -> None:
    said = words((0, 400), (400, 500), (500, 900))
    assert owners(said, Turn(0, 400, "a"), Turn(400, 500, "b"), Turn(500, 900, "a")) == ["S1", "S1", "S1"]
    at_the_beginning = words((0, 100), (100, 600))
    assert owners(at_the_beginning, Turn(0, 100, "a"), Turn(100, 900, "b")) == ["S1", "S1"]


def test_a_segment_without_words_is_not_cut() -> None:
    laid, _ = speakers.lay([Segment(0, 1000, " x")], [Turn(0, 300, "a"), Turn(300, 1000, "b")])
    assert [(s.text, s.speaker) for s in laid] == [(" x", "S1")]


def test_what_can_be_asked_for() -> None:
    assert speakers.parse("none") is None
    assert speakers.parse(" Auto ") == speakers.Wanted(1, speakers.MOST)
    assert speakers.parse("2") == speakers.Wanted(2, 2) and speakers.parse("2-5") == speakers.Wanted(2, 5)
    for text in ("", "0", "5-2", "two", "-3", "1-", "100"):
        with pytest.raises(UsageError):
            speakers.parse(text)


# ---------------------------------------------------------------------- the encoder


def test_a_worker_s_numpy_has_one_thread() -> None:
    """Several workers whose products had several threads took six times as long. It counts when NumPy is loaded."""
    code = (
        "import os, sys, kuulo.worker\n"
        "from kuulo import engines, wire\n"
        "engine = engines.module('resemblyzer')\n"
        "assert 'numpy' not in sys.modules\n"
        "engine.load(wire.Task('diarize', 'resemblyzer', 'its own', None, {}, {}))\n"
        "import threadpoolctl\n"
        "print([one['num_threads'] for one in threadpoolctl.threadpool_info() if one['internal_api'] == 'openblas'])\n"
    )
    pytest.importorskip("threadpoolctl")
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": str(HERE.parent / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {1}


def test_the_encoder_is_that_of_pytorch() -> None:
    """The same weights in PyTorch's own LSTM, which the original uses."""
    torch = pytest.importorskip("torch")
    with np.load(resemblyzer.WEIGHTS) as stored:
        state = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}
    lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
    lstm.load_state_dict({n.removeprefix("lstm."): t for n, t in state.items() if n.startswith("lstm.")})
    bands = np.abs(np.random.default_rng(3).normal(0, 1, (3, 160, 40))).astype(np.float32)
    with torch.no_grad():
        last = lstm(torch.from_numpy(bands))[1][0][-1]
        expected = torch.relu(last @ state["linear.weight"].T + state["linear.bias"]).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(resemblyzer.Encoder()(bands) - expected).max() < 1e-4


def test_the_bands_are_those_of_librosa() -> None:
    """transformers' filters are made to be librosa's."""
    utils = pytest.importorskip("transformers.audio_utils")
    expected = utils.mel_filter_bank(201, 40, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney").T
    assert np.abs(resemblyzer.Encoder()._filters - expected).max() < 1e-6


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Real speech, float32 (n,), 16 kHz."""
    pcm = tmp_path_factory.mktemp("speech") / "out.f32"
    audio.decode(SPEECH, pcm)
    return np.fromfile(pcm, "<f4")


def test_embeddings_are_those_of_the_original(speech: Any) -> None:
    """Of the package resemblyzer with librosa, made once: the file says how."""
    encoder = resemblyzer.Encoder()
    for start, expected in json.loads((HERE / "golden" / "resemblyzer.json").read_text())["embeddings"].items():
        found = encoder(encoder.bands(speech, int(start), int(start) + resemblyzer.WINDOW)[None])[0]
        assert np.abs(found - np.array(expected)).max() < 1e-3


def test_loudness_makes_no_difference(speech: Any) -> None:
    encoder = resemblyzer.Encoder()
    window = (400, 400 + resemblyzer.WINDOW)
    usual = encoder.bands(speech, *window)
    for gain in (0.01, 0.3, 2.0):
        assert np.allclose(encoder.bands(speech * np.float32(gain), *window), usual, rtol=1e-3, atol=1e-9)
    assert not encoder.bands(np.zeros(RATE, np.float32), 0, 50).any(), "silence stays silence"


def test_the_usual_voice_is_a_mean_of_embeddings() -> None:
    usual = resemblyzer.usual()
    assert usual.shape == (resemblyzer.WIDTH,)
    assert usual.min() >= 0
    assert 0.5 < np.linalg.norm(usual) < 1, "shorter than each, since they differ"


def test_windows_cover_speech_and_pieces_cover_windows() -> None:
    speech = [(0, 400), (1000, 2600), (3000, 9000), (9500, 9505)]
    stretches = [resemblyzer.windows_in(stretch) for stretch in speech]
    windows = [window for stretch in stretches for window in stretch]
    for start_ms, end_ms in speech:
        inside = [w for w in windows if start_ms // 10 <= w[0] < max(end_ms // 10, start_ms // 10 + 1)]
        assert inside[0][0] == start_ms // 10 and inside[-1][1] == max(end_ms // 10, start_ms // 10 + 1)
        assert all(end - start <= resemblyzer.WINDOW for start, end in inside)
    pieces = resemblyzer.pieces_of([len(stretch) for stretch in stretches])
    assert [number for piece in pieces for number in piece] == list(range(len(windows)))
    for piece in pieces:
        assert (
            len({next(n for n, s in enumerate(speech) if s[0] // 10 <= windows[w][0] <= s[1] // 10) for w in piece})
            == 1
        )


# ---------------------------------------------------------------------- grouping


def voices(count: int, pieces: int, apart: float = 0.6, own: float = 0.08, drift: float = 0.05) -> tuple[Any, Any]:
    """Means (pieces, 256) of length 1 and whose each is, in turn. Voices are `apart` (cosine distance), their pieces
    `own` from where the voice is at that time, and a voice goes `drift` to each side in the course of the recording."""
    draw = np.random.default_rng(count * 10_000 + pieces)

    def direction(*shape: int) -> Any:
        return draw.normal(0, 1, (*shape, 256)) / 16

    centres = np.sqrt(1 - apart) * direction() + np.sqrt(apart) * direction(count)
    whose = np.arange(pieces) % count
    ways = np.sqrt(2 * drift) * direction(count)
    moved = np.cos(np.linspace(0, np.pi, pieces))[:, None] * ways[whose]
    points = centres[whose] + moved + np.sqrt(2 * own) * direction(pieces)
    return points / np.linalg.norm(points, axis=1, keepdims=True), whose


def same_groups(one: Any, other: Any) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def grouped(means: Any, least: int = 1, most: int = 99, windows: float = 8.0) -> Any:
    return resemblyzer.grouped(means, np.full(len(means), windows), least, most, resemblyzer.THRESHOLD)


@pytest.mark.parametrize("pieces", [12, 40, 400, 1600])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_as_many_groups_as_voices_however_long_it_is(count: int, pieces: int) -> None:
    means, whose = voices(count, pieces)
    assert same_groups(grouped(means), whose)


def test_one_voice_that_varies_much_stays_one() -> None:
    """Each allowance is in proportion to how far pieces are from their centres."""
    means, whose = voices(1, 400, own=0.2, drift=0.1)
    assert same_groups(grouped(means), whose)
    means, whose = voices(2, 400, apart=0.8, own=0.2, drift=0.1)
    assert same_groups(grouped(means), whose)


def test_who_says_almost_nothing_is_a_speaker_only_where_the_number_is_given() -> None:
    means, whose = voices(2, 400)
    kept = (whose == 0) | (np.arange(400) < 8)
    assert grouped(means[kept]).max() == 0, "4 pieces of 204"
    assert same_groups(grouped(means[kept], 2, 2), whose[kept])


def test_numbers_of_groups_that_are_given() -> None:
    means, whose = voices(3, 60)
    for least, most in ((1, 1), (2, 2), (3, 3), (4, 4), (7, 9), (1, 2)):
        assert least <= grouped(means, least, most).max() + 1 <= most
    assert same_groups(grouped(means, 2, 5), whose)
    assert grouped(means[:2], 5, 5).max() + 1 == 2, "no more than there are pieces"
    assert grouped(means[:1]).tolist() == [0]


def test_short_answers_make_no_speaker_unless_one_is_missing() -> None:
    means, whose = voices(2, 60)

    def found(long: Any, least: int, most: int) -> int:
        pieces = np.full(60, 8.0)
        chosen, groups = resemblyzer.speakers_of(means, pieces, long, least, most, resemblyzer.THRESHOLD)
        assert len(groups) == chosen.sum()
        return int(groups.max()) + 1

    assert found(whose == 0, 1, 99) == 1
    assert found(whose == 0, 2, 2) == 2
    assert found(np.zeros(60, bool), 1, 99) == 2, "there is nothing else"


# ---------------------------------------------------------------------- conversations

LINES = (
    "Good morning, thank you for coming to this interview today.",
    "Thank you for having me, I am happy to talk about my work.",
    "Could you tell me how you started working at the hospital?",
    "I began as a nurse about twenty years ago, and later I moved into management.",
    "What has changed the most since you started?",
    "The technology changed everything, but the patients are still the same people.",
    "Do you think that the new systems help you?",
    "Sometimes they help and sometimes they make simple things very complicated.",
    "That is interesting, can you give me an example?",
    "Last week the computer was down for three hours and nobody could find the records.",
    "And what did you do in that situation?",
    "We went back to paper and pencil, like in the old days, and it worked quite well.",
)


ANSWERS = ("Yes.", "No, I do not.", "Really?", "That is true.", "Well.", "I see.", "And then?")


def conversation(
    voices: Sequence[str], lines: Sequence[str] = LINES, gap_s: float = 0.5, quieter_db: float = 0.0
) -> tuple[Any, list[Line]]:
    """Voices in turn: (samples, who speaks when). Every second time a voice is `quieter_db` less loud."""
    espeak = pytest.importorskip("espeak")
    try:
        speaker = espeak.Speaker()
    except espeak.SpeechMissing as error:
        pytest.skip(str(error))
    draw = random.Random(1)
    sound, truth, at = [np.zeros(4800, np.float32)], [], 4800
    for number, line in enumerate(lines):
        voice = voices[number % len(voices)]
        spoken = speaker.say(line, espeak.Voice(voice, 160)).samples.astype(np.float32) / 32768
        spoken *= 10 ** (-quieter_db * (number // len(voices) % 2) / 20)
        pause = np.zeros(int(draw.uniform(gap_s, gap_s + 0.4) * RATE), np.float32)
        truth.append(Line(None, voice, at * 1000 // RATE, (at + len(spoken)) * 1000 // RATE))
        sound += [spoken, pause]
        at += len(spoken) + len(pause)
    return np.concatenate(sound), truth


def session(**options: Any) -> Any:
    return resemblyzer.load(Task("diarize", "resemblyzer", "its own", None, options))


def assert_right(truth: Sequence[Line], found: Sequence[Turn]) -> None:
    """The right number of speakers, and a diarization error rate of 10 % at most."""
    assert len({turn.speaker for turn in found}) == len({line.speaker for line in truth})
    heard = [Line(None, turn.speaker, turn.start_ms, turn.end_ms) for turn in found]
    rate = scoring.compare(truth, heard).rate
    assert rate is not None and rate <= 0.1, rate


@pytest.mark.parametrize(
    "voices",
    [("m1",), ("linda",), ("m1", "f1"), ("m5", "linda"), ("m1", "f1", "Michael"), ("m1", "f1", "linda", "Michael")],
    ids=lambda voices: "+".join(voices),
)
def test_conversations_of_one_to_four_voices(voices: tuple[str, ...]) -> None:
    samples, truth = conversation([f"en-us+{voice}" for voice in voices])
    diarized = session().diarize(samples)
    found = diarized.turns
    assert_right(truth, found)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(found)), "in order and apart"
    assert found[0].speaker == "S1"
    for voice in diarized.voices.values():
        assert min(voice) >= 0 and abs(np.linalg.norm(voice) - 1) < 1e-6, "as the encoder gives them, for a roster"


@pytest.mark.parametrize("voices", [("m1",), ("f4",), ("m3", "belinda")], ids=lambda voices: "+".join(voices))
def test_who_speaks_more_quietly_stays_the_same(voices: tuple[str, ...]) -> None:
    samples, truth = conversation([f"en-us+{voice}" for voice in voices], quieter_db=15.0)
    assert_right(truth, session().diarize(samples).turns)


def test_ten_minutes_of_two_voices_are_two_speakers() -> None:
    lines = [*LINES, *ANSWERS] * 10
    samples, truth = conversation(["en-us+m1", "en-us+f1"], lines)
    assert len(samples) > 600 * RATE
    found = session()
    turns = found.diarize(samples).turns
    assert_right(truth, turns)
    shorter = samples[: 20 * RATE]
    assert found.diarize(shorter) == found.diarize(shorter), "the same each time"


def test_one_real_speaker_is_one(speech: Any) -> None:
    assert {turn.speaker for turn in session().diarize(speech).turns} == {"S1"}


def test_a_number_that_is_given_is_kept() -> None:
    samples, _ = conversation(["en-us+m1", "en-us+f1"])
    for least, most in ((1, 1), (2, 2), (3, 3), (3, 4), (2, 5)):
        number = len({turn.speaker for turn in session(speakers=[least, most]).diarize(samples).turns})
        assert least <= number <= most, (least, most, number)


def test_without_speech_nobody_speaks() -> None:
    assert session().diarize(np.zeros(RATE * 5, np.float32)) == Diarization([])
    assert session().diarize(np.zeros(1, np.float32)) == Diarization([])


# ---------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = ["good morning mother", "we need coffee and milk today", "three children and two people",
             "happy summer cold winter", "today we study music and language", "always good coffee"]  # fmt: skip
    samples, _ = conversation(["en-us", "en-us+f2"], lines, gap_s=0.8)
    return recordings.wav(tmp_path_factory.mktemp("talk") / "talk.wav", samples, RATE)


@pytest.mark.parametrize("engine", ["faster-whisper", "whisper-cpp"])
def test_transcribe_with_speakers(engine: str, talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    asked = ("-m", "miniature", "-e", engine, "--speakers", "2", "-f", "txt,srt")
    done = kuulo("transcribe", talk, *asked, "-o", "out", "--print")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [who for who, _ in itertools.groupby(line[:3] for line in lines)] == ["S1:", "S2:"] * 3
    read = master.read_master(tmp_path / "out" / "talk.json")
    assert [speaker.id for speaker in read.speakers] == ["S1", "S2"]
    assert all(not segment.words for segment in read.segments), "words were not asked for"
    assert read.provenance is not None
    assert [(step.task, step.engine) for step in read.provenance.steps] == [
        ("transcribe", engine), ("diarize", "resemblyzer"),
    ]  # fmt: skip
    again = kuulo("transcribe", talk, *asked, "-o", "out")
    assert "skipped" in again.stderr
    without = kuulo("transcribe", talk, "-m", "miniature", "-e", engine, "-o", "out", "--print")
    assert "S1" not in without.stdout, "another plan: it is done again"


def test_several_recordings_and_one_that_is_broken(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(talk.read_bytes())
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    done = kuulo(
        "transcribe", "a.wav", "b.wav", "c.wav", "broken.wav", "-m", "miniature", "--speakers", "auto", "-o", "out"
    )
    assert done.returncode == 1
    for name in "abc":
        read = master.read_master(tmp_path / "out" / f"{name}.json")
        assert all(segment.speaker for segment in read.segments)


def test_names(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    kuulo("transcribe", talk, "-m", "miniature", "--speakers", "2", "-f", "txt,vtt", "-o", "out")
    listed = kuulo("speakers", "list", "out/talk.json").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["S1", "S2"]
    done = kuulo("speakers", "rename", "out/talk.json", "S1=Anna", 'S2=Äiti <von> der "Haustür"')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "talk.txt").read_text(encoding="utf-8").startswith("Anna: Good morning mother.")
    assert "Anna" in (tmp_path / "out" / "talk.vtt").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out" / "talk.json").read_text())["speakers"][0] == {"id": "S1", "label": "Anna"}
    (tmp_path / "out" / "talk.txt").write_text("my own words")
    again = kuulo("speakers", "rename", "out/talk.json", "S1=Bea")
    assert again.returncode == 0 and "left alone, edited or of another layout: out/talk.txt" in again.stderr
    assert (tmp_path / "out" / "talk.txt").read_text() == "my own words"
    assert "Bea" in (tmp_path / "out" / "talk.vtt").read_text(encoding="utf-8")
    assert kuulo("speakers", "rename", "out/talk.json", "S1=Bea", "--overwrite").returncode == 0
    assert (tmp_path / "out" / "talk.txt").read_text(encoding="utf-8").startswith("Bea: Good morning")
    for wrong in ("S3=Ben", "S1", "S1="):
        assert kuulo("speakers", "rename", "out/talk.json", wrong).returncode == 2


def test_the_command_line_of_whisper_diarization(talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    (tmp_path / "my talk.wav").write_bytes(talk.read_bytes())
    done = kuulo("as", "whisper-diarization", "--", "-a", "my talk.wav", "--whisper-model", "miniature", "--no-stem")
    assert done.returncode == 0, done.stderr
    paragraphs = (tmp_path / "my talk.txt").read_text(encoding="utf-8-sig").split("\n\n")
    assert [paragraph.partition(":")[0] for paragraph in paragraphs] == ["Speaker 0", "Speaker 1"] * 3
    assert paragraphs[0].endswith("mother. ")
    cues = (tmp_path / "my talk.srt").read_text(encoding="utf-8-sig").split("\n\n")
    assert cues[0].startswith("1\n00:00:0") and "Speaker 0: Good morning mother." in cues[0]
    assert (tmp_path / "my talk.srt").read_bytes().startswith(b"\xef\xbb\xbf")


def test_rename_is_pure() -> None:
    laid, names = speakers.lay([words((0, 400))], [Turn(0, 500, "x")])
    made = Transcript(Audio("a", "0" * 64, 500), laid, speakers=names)
    assert speakers.rename(made, {"S1": "Anna"}).speakers[0].label == "Anna"
    assert made.speakers[0].label == "x"
    with pytest.raises(UsageError, match="no speaker S2"):
        speakers.rename(made, {"S2": "Ben"})
