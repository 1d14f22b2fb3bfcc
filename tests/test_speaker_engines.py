"""Engines that tell speakers apart with models of their own, on small models whose speakers are tones."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

import pipelines
import recordings
import speaker_models
from kuulo.engines import nemo, pyannote, sherpa_speakers
from kuulo.engines.base import Unusable
from kuulo.formats import json as master
from kuulo.models import check
from kuulo.runtimes import here
from kuulo.wire import Task
from speaker_models import talk, tone

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

SOURCES = Path(pyannote.__file__).resolve().parents[2]

TALK = (("low", 3), ("", 1), ("high", 4), ("", 0.5), ("low", 2), ("both", 2), ("high", 3), ("", 1))


@pytest.fixture(scope="module")
def sherpa_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sherpa_onnx")
    return speaker_models.sherpa_folder(tmp_path_factory.mktemp("speakers-onnx"))


def sherpa(folder: Path, raw: dict[str, Any] | None = None, **options: Any) -> Any:
    return sherpa_speakers.load(Task("diarize", "sherpa-speakers", "tones", str(folder), options, raw or {}))


def test_two_voices_and_where_they_overlap(sherpa_model: Path) -> None:
    found = sherpa(sherpa_model).diarize(talk(*TALK))
    assert found.voices == {}
    turns = [(turn.start_ms, turn.end_ms, turn.speaker) for turn in found.turns]
    low, high = turns[0][2], turns[1][2]
    assert [who for _, _, who in turns] == [low, high, low, high] and low != high
    expected = [(0, 3_000), (4_000, 8_000), (8_500, 12_500), (10_500, 15_500)]
    for (start, end, _), (begin, finish) in zip(turns, expected, strict=True):
        assert abs(start - begin) <= 100 and abs(end - finish) <= 100


@pytest.mark.parametrize(("least", "most", "number"), [(1, 1, 1), (2, 2, 2), (1, 99, 2), (2, 5, 2), (1, 2, 2)])
def test_the_number_is_kept(least: int, most: int, number: int, sherpa_model: Path) -> None:
    turns = sherpa(sherpa_model, speakers=[least, most]).diarize(talk(*TALK)).turns
    assert len({turn.speaker for turn in turns}) == number


def test_a_range_is_kept_where_the_threshold_is_outside(sherpa_model: Path) -> None:
    """A threshold that takes all voices for one: the nearest number that was asked for."""
    samples = talk(*TALK)
    loose = {"threshold": 2.0}
    assert len({turn.speaker for turn in sherpa(sherpa_model, loose).diarize(samples).turns}) == 1
    found = sherpa(sherpa_model, loose, speakers=[2, 4]).diarize(samples)
    assert len({turn.speaker for turn in found.turns}) == 2


def test_more_than_there_are_pieces(sherpa_model: Path) -> None:
    """The library takes all for one speaker then; as many as the threshold finds are nearer to what was asked for."""
    samples = talk(*TALK)
    for speakers in ([40, 40], [40, 60]):
        with pytest.warns(UserWarning, match="2 speakers were found, and 40 to"):
            turns = sherpa(sherpa_model, speakers=speakers).diarize(samples).turns
        assert turns == sherpa(sherpa_model).diarize(samples).turns
        assert len({turn.speaker for turn in turns}) == 2


def test_turns_end_with_the_recording(sherpa_model: Path) -> None:
    for seconds in (0.5, 5.37, 12.383):
        turns = sherpa(sherpa_model).diarize(tone("low", seconds)).turns
        assert max(turn.end_ms for turn in turns) == int(seconds * 1000)


def test_silence_and_short_sounds(sherpa_model: Path) -> None:
    session = sherpa(sherpa_model)
    for samples in (np.zeros(1, np.float32), np.zeros(16_000 * 12, np.float32)):
        assert session.diarize(samples).turns == []
    (turn,) = session.diarize(tone("low", 25)).turns
    assert turn.start_ms < 100 and turn.end_ms > 24_900


NEEDED = [
    *(("segmentation", key) for key in sherpa_speakers.NEEDED),
    *(("embedding", key) for key in sherpa_speakers.FRAMEWORKS["wespeaker"]),
]


@pytest.mark.parametrize(("part", "key"), NEEDED)
def test_what_would_end_the_process_is_seen_before(part: str, key: str, tmp_path: Path) -> None:
    pytest.importorskip("sherpa_onnx")
    folder = speaker_models.sherpa_folder(tmp_path / "model")
    getattr(speaker_models, part)(folder / f"{part}.onnx", **{key: None})
    with pytest.raises(Unusable, match=f"has no {key}"):
        sherpa(folder)


def test_models_that_are_broken_or_hear_something_else(tmp_path: Path) -> None:
    pytest.importorskip("sherpa_onnx")
    folder = speaker_models.sherpa_folder(tmp_path / "model")
    speaker_models.embedding(folder / "embedding.onnx", framework="another")
    with pytest.raises(Unusable, match="framework 'another'"):
        sherpa(folder)
    speaker_models.embedding(folder / "embedding.onnx", sample_rate=8_000)
    with pytest.raises(Unusable, match="8000 Hz"):
        sherpa(folder)
    (folder / "segmentation.onnx").write_bytes(b"nothing")
    with pytest.raises(Unusable, match="cannot be read"):
        sherpa(folder)
    (folder / "segmentation.onnx").unlink()
    with pytest.raises(Unusable, match="cannot be read"):
        sherpa(folder)
    with pytest.raises(Unusable, match="nonsense"):
        sherpa(folder, {"nonsense": 1})


def test_the_call_that_is_shown_can_be_run(sherpa_model: Path) -> None:
    audio = talk(*TALK)
    told = {"model_path": str(sherpa_model), "speakers": [2, 2]}
    names: dict[str, Any] = {"audio": audio}
    exec(sherpa_speakers.native(told, {"min_duration_off": 0.2}), names)
    ours = sherpa(sherpa_model, {"min_duration_off": 0.2}, speakers=[2, 2]).diarize(audio).turns
    assert [(round(t.start * 1000), round(t.end * 1000)) for t in names["turns"]] == [
        (turn.start_ms, turn.end_ms) for turn in ours
    ]


def test_the_model_in_the_store_is_chosen(sherpa_model: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    recordings.wav(tmp_path / "tones.wav", talk(*TALK), speaker_models.RATE)
    missing = kuulo("diarize", "tones.wav", "--speaker-engine", "sherpa-speakers")
    assert missing.returncode == 3 and "no store has a model for sherpa-speakers" in missing.stderr
    by_path = ("--speaker-engine", "sherpa-speakers", "--speaker-model", sherpa_model)
    done = kuulo("diarize", "tones.wav", *by_path, "-o", "by-path")
    assert done.returncode == 0, done.stderr
    assert kuulo("models", "add", sherpa_model, "--name", "tones").returncode == 0
    done = kuulo("diarize", "tones.wav", "-o", "out")
    assert done.returncode == 0, done.stderr
    for folder in ("by-path", "out"):
        read = master.read_master(tmp_path / folder / "tones.speakers.json")
        assert [turn.speaker for turn in read.turns] == ["S1", "S2", "S1", "S2"]
    assert read.provenance is not None
    (step,) = read.provenance.steps
    assert (step.engine, step.model) == ("sherpa-speakers", "tones") and step.model_sha256
    plan = kuulo("transcribe", "tones.wav", "-m", "miniature", "--speakers", "auto", "--dry-run").stdout
    assert "speakers: sherpa-speakers, " in plan and "tones (speakers-onnx)" in plan
    assert "parts:  embedding.onnx, segmentation.onnx" in plan
    without = kuulo("transcribe", "tones.wav", "-m", "tones")
    assert without.returncode == 3, "it recognises no words"


# ---------------------------------------------------------------------- pyannote: what it is told and what it tells


class Annotation:
    """As pyannote.core's, whose tracks the engine reads."""

    def __init__(self, *tracks: tuple[float, float, str]) -> None:
        self.tracks = tracks

    def itertracks(self, yield_label: bool) -> Any:
        assert yield_label
        yield from ((SimpleNamespace(start=a, end=b), number, name) for number, (a, b, name) in enumerate(self.tracks))

    def labels(self) -> list[str]:
        return sorted({name for _, _, name in self.tracks})


BOTH = Annotation((0.031, 2.5, "SPEAKER_01"), (2.0, 3.0, "SPEAKER_00"), (4.0, 5.0, "SPEAKER_01"))
APART = Annotation((0.031, 2.25, "SPEAKER_01"), (2.25, 3.0, "SPEAKER_00"), (4.0, 5.0, "SPEAKER_01"))


def test_what_a_pipeline_tells() -> None:
    output = SimpleNamespace(
        speaker_diarization=BOTH,
        exclusive_speaker_diarization=APART,
        speaker_embeddings=np.array([[0.0, 2.0], [1.0, 0.0]]),
    )
    found = pyannote.told(output, "pyannote:12", 60_000, exclusive=False)
    assert [(t.start_ms, t.end_ms, t.speaker) for t in found.turns] == [
        (31, 2500, "SPEAKER_01"), (2000, 3000, "SPEAKER_00"), (4000, 5000, "SPEAKER_01"),
    ]  # fmt: skip
    assert found.voices == {"SPEAKER_00": [0.0, 2.0], "SPEAKER_01": [1.0, 0.0]} and found.encoder == "pyannote:12"
    apart = pyannote.told(output, "pyannote:12", 60_000, exclusive=True)
    assert [(t.start_ms, t.end_ms) for t in apart.turns] == [(31, 2250), (2250, 3000), (4000, 5000)]
    assert pyannote.told(output, "", 60_000, exclusive=False).voices == {}, "nobody knows whose embeddings these are"
    legacy = pyannote.told(BOTH, "pyannote:12", 60_000, exclusive=False)
    assert legacy.turns == found.turns and (legacy.voices, legacy.encoder) == ({}, "")


def test_a_speaker_without_a_voice_has_none() -> None:
    """pyannote.audio gives zeros where there are more speakers than clusters, and the mean of nothing where no speech
    is clean for long enough."""
    for nothing in (0.0, np.nan):
        embeddings = np.array([[nothing, nothing], [1.0, 0.0]])
        output = SimpleNamespace(speaker_diarization=BOTH, speaker_embeddings=embeddings)
        found = pyannote.told(output, "pyannote:12", 60_000, exclusive=False)
        assert found.voices == {"SPEAKER_01": [1.0, 0.0]}
    output = SimpleNamespace(speaker_diarization=BOTH, speaker_embeddings=np.full((2, 2), np.nan))
    found = pyannote.told(output, "pyannote:12", 60_000, exclusive=False)
    assert (found.voices, found.encoder, len(found.turns)) == ({}, "", 3)


def test_a_pipelines_turns_end_with_the_recording() -> None:
    """Windows go on after the end: 2.0 s of sound have had turns up to 2.039 s."""
    output = SimpleNamespace(speaker_diarization=BOTH, speaker_embeddings=np.ones((2, 2)))
    found = pyannote.told(output, "pyannote:12", 2_000, exclusive=False)
    assert [(t.start_ms, t.end_ms, t.speaker) for t in found.turns] == [(31, 2000, "SPEAKER_01")]
    assert set(found.voices) == {"SPEAKER_01"}


@pytest.mark.parametrize(
    ("speakers", "said"),
    [([2, 2], {"num_speakers": 2}), ([2, 5], {"min_speakers": 2, "max_speakers": 5}),
     ([1, 99], {"min_speakers": 1, "max_speakers": 99})],
)  # fmt: skip
def test_how_many_it_is_told(speakers: list[int], said: dict[str, int]) -> None:
    assert pyannote.numbers(*speakers) == said
    shown = pyannote.native({"model_path": "/models/x y", "speakers": speakers, "device": "auto"}, {"exclusive": True})
    compile(shown, "native", "exec")
    assert "'/models/x y'" in shown and ".exclusive_speaker_diarization" in shown
    assert all(f"{key}={value}" in shown for key, value in said.items())


def test_a_pipeline_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="there is no pipeline"):
        pyannote.load(Task("diarize", "pyannote", "m", str(tmp_path), {}, {}))
    with pytest.raises(Unusable, match="nonsense"):
        pyannote.load(Task("diarize", "pyannote", "m", str(tmp_path), {}, {"nonsense": 1}))


def test_the_encoder_is_known_by_its_file(tmp_path: Path) -> None:
    assert pyannote.encoder_of(tmp_path) == ""
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding" / "pytorch_model.bin").write_bytes(b"weights")
    assert pyannote.encoder_of(tmp_path) == f"pyannote:{hashlib.sha256(b'weights').hexdigest()[:16]}"


def private() -> int:
    """Bytes of this process that are of no file."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def test_pyannote_is_given_what_is_mapped_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "d'ö\n$(x).f32"
    with path.open("wb") as file:
        file.truncate(512 << 20)
    mapped = np.memmap(path, "<f4", "r")
    before = private()
    given = pyannote.writable(mapped)
    assert given.shape == mapped.shape and given.flags.writeable and not given.max()
    assert private() - before < 64 << 20
    given[7] = 1.0  # whoever does that changes nobody's recording, and goes on
    assert given[7] == 1.0 and mapped[7] == 0.0 and np.fromfile(path, "<f4", 8).max() == 0.0


def test_what_pyannote_is_given_otherwise(tmp_path: Path) -> None:
    own = tone("low", 0.1)
    assert pyannote.writable(own) is own
    own.tofile(tmp_path / "x")
    fixed = own.copy()
    fixed.flags.writeable = False
    for samples in (fixed, own.astype(np.float64), np.memmap(tmp_path / "x", "<f4", "r")[100:], own[::2]):
        given = pyannote.writable(samples)
        assert given.dtype == np.float32 and given.flags.writeable and np.array_equal(given, samples.astype(np.float32))
    offset = np.memmap(tmp_path / "x", "<f4", "r", offset=400, shape=(50,))
    assert np.array_equal(pyannote.writable(offset), own[100:150])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in another way")
def test_pyannote_gives_back_what_lies_between_its_voices() -> None:
    """Blocks on the heap, every sixteenth kept. They are of no file and below what malloc maps."""
    code = (
        "from kuulo.engines import pyannote\n"
        "from test_speaker_engines import private\n"
        "blocks = [b'x' * 60_000 for _ in range(4_000)]\n"
        "kept = blocks[::16]\n"
        "del blocks\n"
        "before = private()\n"
        "pyannote.give_back()\n"
        "print(before - private())\n"
    )
    places = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(SOURCES), str(Path(__file__).parent)])}
    environ = {**here.KEEP_MEMORY, **places}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150_000_000


def test_pieces_of_speech_that_pyannote_compares() -> None:
    heard = np.zeros((5, 10, 3), np.float32)
    heard[1, :2, 0] = heard[1, 5:, 2] = 1  # two, who each speak alone for long enough
    heard[2, :1, 1] = 1  # too short
    heard[3, :5, 0] = heard[3, 1:, 1] = 1  # one alone for too short, the other not
    heard[4, :, 0] = heard[4, :, 1] = 1  # never alone
    assert pyannote.spoken(heard) == 3


def test_too_much_speech_for_the_memory_is_refused_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 bytes for each of n * n. Slurm's share is one of the limits that are looked at: 2 MiB are enough for 512."""
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2")
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)

    def hear(windows: int, *, all_pairs: bool) -> None:
        session = pyannote.PyannoteSession(None, {}, "", exclusive=False, all_pairs=all_pairs)
        session._heard("segmentation", None, completed=1, total=2)
        session._heard("segmentation", SimpleNamespace(data=np.eye(1, 3, dtype=np.float32)[None].repeat(windows, 0)))
        session._heard("embeddings", SimpleNamespace(data=None))

    hear(512, all_pairs=True)
    with pytest.raises(Unusable, match=r"too much speech for this machine.* needs 0\.0 GB") as caught:
        hear(513, all_pairs=True)
    assert "segmentation_step" in caught.value.do and "kuulo engines install pyannote" in caught.value.do
    hear(513, all_pairs=False)


# ---------------------------------------------------------------------- pyannote itself, where it is installed


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kuulo's own environment does not have the package. In pyannote's, with pytest: the first lines of
    docs/engines/speakers.md, "Run for this page"."""
    pytest.importorskip("pyannote.audio", reason="pyannote.audio is in an environment of its own")
    return speaker_models.pyannote_folder(tmp_path_factory.mktemp("pyannote"))


def real(folder: Path, raw: dict[str, Any] | None = None, **options: Any) -> Any:
    return pyannote.load(Task("diarize", "pyannote", "tones", str(folder), {"device": "cpu", **options}, raw or {}))


def near(turns: Any, expected: list[tuple[int, int]]) -> bool:
    """But for a frame or two at the edges: the network has learnt for a minute alone."""
    turns = [turn for turn in turns if turn.end_ms - turn.start_ms >= 50]
    return len(turns) == len(expected) and all(
        abs(turn.start_ms - start) <= 100 and abs(turn.end_ms - end) <= 100
        for turn, (start, end) in zip(turns, expected, strict=True)
    )


def test_pyannote_tells_two_apart(pipeline: Path) -> None:
    assert check.problems("pyannote", pipeline) == []
    found = real(pipeline).diarize(talk(*TALK))
    assert near(found.turns, [(0, 3_000), (4_000, 8_000), (8_500, 12_500), (10_500, 15_500)]), found.turns
    low, high, *rest = (turn.speaker for turn in found.turns if turn.end_ms - turn.start_ms >= 50)
    assert low != high and rest == [low, high]
    assert set(found.voices) == {low, high} and found.encoder.startswith("pyannote:")
    assert all(len(voice) == 16 and np.isfinite(voice).all() for voice in found.voices.values())
    batches = {"exclusive": True, "embedding_batch_size": 2, "segmentation_batch_size": 1}
    apart = real(pipeline, batches).diarize(talk(*TALK)).turns
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(apart))
    assert len([turn for turn in apart if turn.end_ms - turn.start_ms >= 50]) == 4


@pytest.mark.parametrize(("speakers", "number"), [([1, 1], 1), ([2, 2], 2), ([2, 5], 2), ([3, 3], 3), ([40, 40], 2)])
def test_pyannote_is_told_how_many(speakers: list[int], number: int, pipeline: Path) -> None:
    """Where there are fewer pieces of speech than speakers, as many as it finds, with a warning."""
    session = real(pipeline, speakers=speakers)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        turns = session.diarize(talk(*TALK)).turns
    assert any("As many speakers as it finds" in str(one.message) for one in said) == (speakers[0] > 16)
    assert len({turn.speaker for turn in turns}) == number


def test_pyannote_at_the_ends(pipeline: Path) -> None:
    session = real(pipeline)
    assert all(turn.end_ms == 0 for turn in session.diarize(np.zeros(1, np.float32)).turns)
    for seconds in (0.5, 5.37, 12.383):
        found = session.diarize(tone("low", seconds))
        assert max(turn.end_ms for turn in found.turns) == int(seconds * 1000)
        assert all(np.isfinite(voice).all() for voice in found.voices.values())


def test_pyannote_counts_what_pyannote_compares(pipeline: Path) -> None:
    session = real(pipeline)
    heard: dict[str, Any] = {}
    session._pipeline(
        {"waveform": pytest.importorskip("torch").from_numpy(talk(*TALK))[None], "sample_rate": 16_000, "uri": "x"},
        hook=lambda step, made, **_: heard.update({step: made} if made is not None else {}),
    )
    compared, *_ = session._pipeline.clustering.filter_embeddings(heard["embeddings"], heard["segmentation"])
    assert pyannote.spoken(heard["segmentation"].data) == len(compared) > 5


def test_pyannote_takes_a_part_of_a_window_as_a_step(pipeline: Path) -> None:
    for step in (0, -1, 1.5):
        with pytest.raises(Unusable, match="segmentation_step"):
            real(pipeline, {"segmentation_step": step})


def test_pyannote_says_nothing_to_anybody(pipeline: Path) -> None:
    """In a process of its own: telemetry is decided when the package is imported."""
    code = f"""
import socket, sys
sys.path.insert(0, {str(Path(pyannote.__file__).parents[2])!r})
called = []
sys.addaudithook(lambda event, args: called.append(args) if event in ("socket.connect", "socket.getaddrinfo") else None)
from kuulo.engines import pyannote
from kuulo.wire import Task
import numpy as np
session = pyannote.load(Task("diarize", "pyannote", "m", {str(pipeline)!r}, {{"device": "cpu"}}))
session.diarize(np.ones(16000, np.float32))
from pyannote.audio.telemetry import metrics
assert not metrics.is_metrics_enabled()
print(called)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr


def test_pyannote_runs_no_code_of_a_model(pipeline: Path, tmp_path: Path) -> None:
    """Also where nobody looked at it before."""
    folder = tmp_path / "model"
    shutil.copytree(pipeline, folder)
    ran = tmp_path / "ran"
    pickled = pipelines.pickled({"state_dict": Runs(ran)})
    (folder / "segmentation" / "pytorch_model.bin").write_bytes(pickled)
    with pytest.raises(Unusable, match="cannot load the pipeline"):
        real(folder)
    assert not ran.exists()


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


# ---------------------------------------------------------------------- NeMo: what it is told and what it tells


def test_what_nemos_lines_say() -> None:
    lines = ["0.000 2.000 speaker_1", "1.200 4.990 speaker_0", "4.900 5.120 speaker_1", "5.040 5.120 speaker_0"]
    assert [(t.start_ms, t.end_ms, t.speaker) for t in nemo.turns_of(lines, 5_000)] == [
        (0, 2000, "speaker_1"), (1200, 4990, "speaker_0"), (4900, 5000, "speaker_1"),
    ]  # fmt: skip
    assert nemo.turns_of([], 5_000) == []


def test_a_sortformer_cannot_be_told_how_many() -> None:
    for speakers in ([1, 99], [1, 4]):
        assert nemo.refuse({"speakers": speakers}) == {}
    for speakers in ([2, 2], [1, 3], [2, 5]):
        assert list(nemo.refuse({"speakers": speakers})) == ["speakers"]
    shown = nemo.native({"model_path": "/models/x y.nemo", "device": "cpu"}, {"chunk_len": 100, "onset": 0.6})
    compile(shown, "native", "exec")
    assert "'/models/x y.nemo'" in shown and "chunk_len = 100" in shown and "turning.onset = 0.6" in shown
    assert "restore_from" in nemo.native({}, {}) and "turning" not in nemo.native({}, {})


def test_a_sortformer_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    pytest.importorskip("torch")

    def load(path: Path, **raw: Any) -> None:
        nemo.load(Task("diarize", "nemo", "m", str(path), {}, raw))

    with pytest.raises(Unusable, match="there is no model"):
        load(tmp_path / "x.nemo")
    with pytest.raises(Unusable, match="nonsense"):
        load(tmp_path / "x.nemo", nonsense=1)
    evil = pipelines.SORTFORMER | {"target": pipelines.TARGET, "loss": {"_target_": "os.system"}}
    with pytest.raises(Unusable, match=r"the class 'os\.system' as loss"):
        load(pipelines.nemo(tmp_path / "x.nemo", json.dumps(evil)))
    (tmp_path / "x.nemo").write_bytes(b"nothing")
    with pytest.raises(Unusable, match="no whole archive"):
        load(tmp_path / "x.nemo")


# ---------------------------------------------------------------------- NeMo itself, where it is installed


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kuulo's own environment does not have the package. In NeMo's, with pytest and what Kuulo needs, and with
    `-o filterwarnings=default`, since it uses what PyTorch calls deprecated."""
    pytest.importorskip("nemo.collections.asr", reason="NeMo is in an environment of its own")
    return speaker_models.sortformer(tmp_path_factory.mktemp("nemo") / "tönes 'x'.nemo")


def sortformer(path: Path, raw: dict[str, Any] | None = None) -> Any:
    return nemo.load(Task("diarize", "nemo", "tones", str(path), {"device": "cpu"}, raw or {}))


LONG = TALK * 4
"""66 s: three pieces of a streaming model."""


def test_nemo_tells_two_apart_from_piece_to_piece(streaming: Path) -> None:
    assert check.problems("nemo", streaming) == []
    session = sortformer(streaming)
    for times in (1, 4):
        found = session.diarize(talk(*TALK * times))
        one = [(0, 3_000), (4_000, 8_000), (8_500, 12_500), (10_500, 15_500)]
        assert near(found.turns, [(start + 16_500 * n, end + 16_500 * n) for n in range(times) for start, end in one])
        turns = [turn.speaker for turn in found.turns if turn.end_ms - turn.start_ms >= 50]
        assert turns == ["speaker_0", "speaker_1"] * (2 * times) and found.voices == {}


def test_nemo_piece_by_piece_is_nemo_at_once(streaming: Path) -> None:
    """Features of a piece are those that it has in the whole recording; the native call says the same turns."""
    torch = pytest.importorskip("torch")
    for raw in ({}, {"chunk_len": 50, "chunk_left_context": 3, "chunk_right_context": 7, "fifo_len": 20}):
        session = sortformer(streaming, {**raw, "onset": 0.6})
        for length in (len(talk(*LONG)), 500_003, 3_201, 400):
            samples = talk(*LONG)[:length]
            with torch.inference_mode():
                assert torch.equal(session._in_pieces(samples), session._at_once(samples))
        names: dict[str, Any] = {"audio": talk(*LONG)}
        exec(nemo.native({"model_path": str(streaming), "device": "cpu"}, {**raw, "onset": 0.6}), names)
        assert session.diarize(talk(*LONG)).turns == nemo.turns_of(names["turns"], 66_000)


def test_nemo_at_the_ends(streaming: Path) -> None:
    session = sortformer(streaming)
    for length in (1, 159, 160, 319, 16_000 * 12):
        assert session.diarize(np.zeros(length, np.float32)).turns == []
    for seconds in (0.5, 2.03, 30.45):
        turns = session.diarize(tone("low", seconds)).turns
        assert 0 <= round(seconds * 1000) - max(turn.end_ms for turn in turns) <= 90


def test_a_sortformer_that_is_no_streaming_one_has_a_longest_recording(streaming: Path, tmp_path: Path) -> None:
    path = speaker_models.sortformer(tmp_path / "x.nemo", streaming=False, steps=0)
    session = sortformer(path, {"longest_s": "20"})
    session.diarize(np.zeros(16_000 * 20, np.float32))
    with pytest.raises(ValueError, match="all of a recording at once, and 20 s need"):
        session.diarize(np.zeros(16_000 * 20 + 1, np.float32))


def test_options_and_weights_that_nemo_does_not_take(streaming: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(Unusable, match="chunk_len"):
        sortformer(streaming, {"chunk_len": 0})
    with tarfile.open(streaming) as archive:
        config = yaml.safe_load(archive.extractfile("./model_config.yaml"))  # type: ignore[arg-type]
        weights = torch.load(archive.extractfile("./model_weights.ckpt"), weights_only=True)

    def changed(**more: Any) -> Path:
        torch.save({**weights, **more}, tmp_path / "w.ckpt")
        told = {"./model_weights.ckpt": (tmp_path / "w.ckpt").read_bytes()}
        with tarfile.open(tmp_path / "y.nemo", "w:") as out:
            for name, content in {**told, "./model_config.yaml": json.dumps(config).encode()}.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
        return tmp_path / "y.nemo"

    # What is of training alone may be there; a section that NeMo would make something of is left out.
    config |= {"train_ds": {"manifest_filepath": "/nowhere"}, "optim": {"name": "adamw"}}
    sortformer(changed(**{"loss.x": torch.ones(1)}))
    with pytest.raises(Unusable, match=r"not those of its configuration: encoder\.x"):
        sortformer(changed(**{"encoder.x": torch.ones(1)}))
    config["encoder"]["n_layers"] = 2
    with pytest.raises(Unusable, match=r"not those of its configuration: encoder\.layers\.1"):
        sortformer(changed())
    config["encoder"]["nonsense"] = 1
    with pytest.raises(Unusable, match="NeMo cannot load"):
        sortformer(changed())


def test_nothing_in_a_sortformer_is_run(streaming: Path, tmp_path: Path) -> None:
    """Also where nobody has looked before: the engine reads weights alone."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'marker'}",)

    raw = pipelines.pickled({**pipelines.STATE, "x": Evil()})
    told = json.dumps({**pipelines.SORTFORMER, "target": pipelines.TARGET})
    with pytest.raises(Unusable, match="NeMo cannot load"):
        sortformer(pipelines.nemo(tmp_path / "x.nemo", told, raw))
    assert not (tmp_path / "marker").exists()


def test_nemo_opens_no_connection_and_leaves_no_file(streaming: Path, tmp_path: Path) -> None:
    """In a process of its own, whose sockets fail and whose home and temporary folder are empty."""
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import numpy\n"
        "from kuulo.engines import nemo\n"
        "from kuulo.wire import Task\n"
        "session = nemo.load(Task('diarize', 'nemo', 'm', sys.argv[1], {'device': 'cpu'}, {}))\n"
        "print(session.diarize(numpy.zeros(50_000, numpy.float32)).turns)\n"
    )
    places = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": str(SOURCES)}
    environ = {**here.OFFLINE, **places}
    words = [sys.executable, "-c", code, str(streaming)]
    done = subprocess.run(words, env=environ, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().endswith("[]"), done.stderr
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) == []
