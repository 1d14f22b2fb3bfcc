"""Engines that are programs: what they write is read, what fails is told, and their own command lines are theirs.

The programs here are stand-ins: scripts that look at their arguments as the originals do and write what those wrote
(tests/captured/README.md). The originals need a GPU (insanely-fast-whisper) or repositories and models
that are not here (whisper-diarization).
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kuulo import commands, engines
from kuulo.engines import insanely_fast_whisper, programs, whisper_diarization
from kuulo.engines.base import AUDIO, Language, Progress, Session, Unusable
from kuulo.engines.programs import Failed
from kuulo.transcript import Segment
from kuulo.wire import Task
from models_fixture import Miniature

CAPTURED = Path(__file__).parent / "captured"
SAMPLES = 36 * 16_000


def text(name: str) -> str:
    return (CAPTURED / name).read_text(encoding="utf-8-sig")


# ---------------------------------------------------------------------- what is shared


def test_a_wav_is_16_bit_16_khz_mono_and_cut_where_it_is_too_loud(tmp_path: Path) -> None:
    programs.write_wav(np.array([0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0], np.float32), tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as stored:
        assert (stored.getnchannels(), stored.getsampwidth(), stored.getframerate()) == (1, 2, 16_000)
        heard = np.frombuffer(stored.readframes(99), "<i2")
    assert heard.tolist() == [0, 16384, -16384, 32767, -32768, 32767, -32768]


def test_a_program_is_found_beside_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs.find(Path(sys.executable).name) == str(Path(sys.executable).parent / Path(sys.executable).name)
    with pytest.raises(Unusable, match="no program no-such-program"):
        programs.find("no-such-program")
    other = tmp_path / "no-such-program"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert programs.find("no-such-program") == str(other)


def test_a_program_that_fails_is_told_of_with_its_last_lines(tmp_path: Path) -> None:
    code = "import sys\nprint(*range(20), '  ~~~^^', sep='\\n')\nsys.exit('no \\ud7ff memory')"
    with pytest.raises(Failed, match=r"ended with 1: 13 \| .*19 \| no .* memory"):
        programs.run([sys.executable, "-c", code], tmp_path)
    with pytest.raises(Failed, match="was killed by signal 9: it said nothing"):
        programs.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tmp_path)
    assert programs.run([sys.executable, "-c", "import os; print(os.environ['A'])"], tmp_path, {"A": "1"}) == "1\n"


# ---------------------------------------------------------------------- insanely-fast-whisper: what it wrote


def test_chunks_are_segments() -> None:
    found = insanely_fast_whisper.parse(text("insanely-fast-whisper-chunk.json"), words=False, samples=SAMPLES)
    assert [(s.start_ms, s.end_ms, s.text) for s in found] == [
        (240, 1980, " Three children and two people."),
        (2760, 31880, " Good morning mother. Today we study music and language."),
        (31920, 32820, " And language."),  # windows overlap, and it joins them so
        (33500, 35060, " Happy summer cold winter."),
    ]
    assert all(s.words == () and s.confidence is None for s in found)


def test_words_are_sentences() -> None:
    found = insanely_fast_whisper.parse(text("insanely-fast-whisper-word.json"), words=True, samples=SAMPLES)
    assert [s.text for s in found] == [
        " Three children and two people.",
        " Good morning mother.",
        " Today we study music and language.",
        " And language.",
        " Happy summer cold winter.",
    ]
    for segment in found:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(segment.start_ms <= w.start_ms <= w.end_ms <= segment.end_ms for w in segment.words)


def test_a_time_that_is_not_there_is_the_next_or_the_end() -> None:
    chunks = [
        {"text": " A", "timestamp": [None, 1.0]},
        {"text": " B", "timestamp": [2.0, None]},
        {"text": " C", "timestamp": [3.0, None]},
    ]
    found = insanely_fast_whisper.parse(json.dumps({"chunks": chunks}), words=False, samples=5 * 16_000)
    assert [(s.start_ms, s.end_ms) for s in found] == [(0, 1000), (2000, 3000), (3000, 5000)]
    assert insanely_fast_whisper.parse('{"speakers": [], "chunks": [], "text": ""}', words=True, samples=1) == []


@pytest.mark.parametrize("written", ["", "{", "[]", "{}", '{"chunks": [{"text": "a"}]}', '{"chunks": [1]}'])
def test_anything_else_is_a_failure(written: str) -> None:
    with pytest.raises(Failed, match="did not write what it writes"):
        insanely_fast_whisper.parse(written, words=False, samples=1)


# ---------------------------------------------------------------------- insanely-fast-whisper: the session

FAST = """\
import os, shutil, sys, wave
values = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with wave.open(values["--file-name"]) as audio:
    assert audio.getframerate() == 16000 and audio.getnframes() == int(os.environ["FRAMES"])
assert os.path.isfile(values["--model-name"] + "/config.json"), values
print(sorted(values.items()))
if os.environ["WHAT"] == "fail":
    sys.exit("RuntimeError: Found no NVIDIA driver on your system.")
if os.environ["WHAT"] != "nothing":
    shutil.copy(os.environ["WHAT"] + values["--timestamp"] + ".json", values["--transcript-path"])
"""

Start = Callable[..., Session]


@pytest.fixture
def fast(tmp_path: Path, miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A session with the stand-in for the program; `what` it writes, or fails to."""
    script = tmp_path / "it's a program.py"
    script.write_text(FAST)
    monkeypatch.setenv("FRAMES", str(SAMPLES))

    def start(what: str = f"{CAPTURED}/insanely-fast-whisper-", folder: Path | None = None, **options: Any) -> Session:
        monkeypatch.setenv("WHAT", what)
        program = [sys.executable, str(script)]
        return insanely_fast_whisper.Started(program, folder or miniature.path("hf"), options, {})

    return start


def test_the_program_hears_a_wav_and_its_chunks_come_back(fast: Start, capfd: pytest.CaptureFixture[str]) -> None:
    said = list(fast(language="fi", batch_size=8, device="cuda:1").transcribe(np.zeros(SAMPLES, np.float32)))
    assert said[0] == Language("fi")
    assert [s.text for s in said if isinstance(s, Segment)][-1] == " Happy summer cold winter."
    assert said[-1] == Progress(36_000)
    given = dict(ast.literal_eval(capfd.readouterr().err.splitlines()[0]))
    assert given["--language"] == "fi" and given["--batch-size"] == "8" and given["--device-id"] == "1"
    assert given["--task"] == "transcribe" and "--flash" not in given
    assert not os.path.exists(given["--file-name"]), "nothing stays"  # noqa: PTH110


def test_what_it_found_out_it_does_not_say(fast: Start) -> None:
    said = list(fast(language="auto", word_times=True).transcribe(np.zeros(SAMPLES, np.float32)))
    assert not [s for s in said if isinstance(s, Language)]
    assert all(s.words for s in said if isinstance(s, Segment))


def test_a_model_of_english_alone_is_called_so(
    fast: Start, tmp_path: Path, miniature: Miniature, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "english"
    folder.mkdir()
    for path in miniature.path("hf").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text('{"is_multilingual": false}')
    said = list(fast(folder=folder, language="en").transcribe(np.zeros(SAMPLES, np.float32)))
    assert said[0] == Language("en")
    given = dict(ast.literal_eval(capfd.readouterr().err.splitlines()[0]))
    assert given["--model-name"].endswith("/model.en") and "--language" not in given


def test_its_failures_are_those_of_the_recording(fast: Start, tmp_path: Path) -> None:
    samples = np.zeros(SAMPLES, np.float32)
    with pytest.raises(Failed, match="no NVIDIA driver"):
        list(fast("fail").transcribe(samples))
    with pytest.raises(Failed, match=r"wrote no out\.json"):
        list(fast("nothing").transcribe(samples))
    (tmp_path / "chunk.json").write_text('{"chunks": [')
    with pytest.raises(Failed, match="did not write what it writes"):
        list(fast(f"{tmp_path}/").transcribe(samples))


def test_no_model_and_no_such_option(tmp_path: Path) -> None:
    def load(raw: dict[str, Any]) -> None:
        insanely_fast_whisper.load(Task("transcribe", "insanely-fast-whisper", "m", str(tmp_path), {}, raw))

    with pytest.raises(Unusable, match="no_such_option"):
        load({"no_such_option": 1})
    with pytest.raises(Unusable, match=r"no config\.json"):
        load({})


# ---------------------------------------------------------------------- whisper-diarization: what it writes


def test_sentences_have_speakers() -> None:
    found = whisper_diarization.parse(text("whisper-diarization.srt"), SAMPLES)
    assert [(s.start_ms, s.end_ms, s.speaker, s.text) for s in found] == [
        (210, 1930, "S1", " Three children and two people."),
        (2800, 3800, "S2", " Good -> morning: mother."),
        (30500, 32830, "S1", " Today we study music and language."),
        (33500, 36000, "S3", " Happy summer cold winter."),  # no later than the recording
    ]


def test_what_the_program_wrote_is_read() -> None:
    """With models of random weights, so the speakers and the question marks mean nothing."""
    found = whisper_diarization.parse(text("whisper-diarization-three-children.srt"), 42_176)
    assert [(s.start_ms, s.end_ms, s.speaker, s.text) for s in found] == [
        (0, 1092, "S1", " Three?"),
        (1218, 1365, "S1", " children?"),
        (1554, 1680, "S1", " and two?"),
        (2625, 2636, "S2", " people."),  # its times run past the end of a short recording
    ]
    found = whisper_diarization.parse(text("whisper-diarization-finnish.srt"), SAMPLES)
    assert [s.text for s in found] == [" Hyvä kysymys hyvä vastaus.", " Yksi kaksi kolme."]


def test_no_cues_are_a_failure() -> None:
    with pytest.raises(Failed, match="no cue"):
        whisper_diarization.parse("<html>", SAMPLES)


# ---------------------------------------------------------------------- whisper-diarization: the session

DIARIZE = """\
import argparse, os, sys
import helpers
parser = argparse.ArgumentParser()
parser.add_argument("-a", "--audio", required=True)
parser.add_argument("--no-stem", action="store_false", dest="stemming", default=True)
parser.add_argument("--suppress_numerals", action="store_true", default=False)
parser.add_argument("--whisper-model", dest="model_name", default="medium.en")
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--language", default=None)
parser.add_argument("--device", default="cpu")
args = parser.parse_args()
print(vars(args), os.environ.get("HF_HUB_CACHE"), os.environ.get("NEMO_CACHE_DIR"))
os.makedirs("temp_outputs")
helpers.write(os.path.splitext(args.audio)[0] + ".srt", os.environ["WHAT"], args)
"""
HELPERS = """\
import os, shutil, sys
def write(path, what, args):
    if what == "silent":
        raise AssertionError("Empty transcript")
    if what == "no speech":
        raise ValueError("All files present in manifest contains silence, aborting next steps")
    if what == "fail":
        raise IndexError("list index out of range")
    if args.language is None:
        print("WARNING:root:Punctuation restoration is not available for fi language. Using the original punctuation.")
    if args.stemming:
        assert os.path.samefile(os.path.dirname(shutil.which("python")), os.path.dirname(sys.executable))
        print("ModuleNotFoundError: no voices")
        print("WARNING:root:Source splitting failed, using original audio file.")
        print("and goes on")
    if what != "nothing":
        shutil.copy(what, path)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A stand-in for a clone of the repository: its argument parser, and a helper beside the script."""
    folder = tmp_path / "a clone's folder"
    (folder / "diarization").mkdir(parents=True)
    (folder / "diarize.py").write_text(DIARIZE)
    (folder / "helpers.py").write_text(HELPERS)
    return folder


@pytest.fixture
def diarize(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as a worker has it
    monkeypatch.setenv("HF_HUB_CACHE", "/scratch/huggingface/hub")

    def start(what: str = f"{CAPTURED}/whisper-diarization.srt", *, raw: Any = None, **options: Any) -> Session:
        monkeypatch.setenv("WHAT", what)
        program = [sys.executable, str(clone / "diarize.py")]
        return whisper_diarization.Started(program, Path("/models/a model"), "cpu", options, raw or {})

    return start


def test_the_program_hears_a_wav_and_its_sentences_come_back(
    diarize: Start, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    raw = {"hf_home": str(tmp_path), "nemo_cache": "/nemo", "suppress_numerals": True}
    said = list(diarize(raw=raw, language="fi", batch_size=4).transcribe(np.zeros(SAMPLES, np.float32)))
    assert said[0] == Language("fi")
    assert [s.speaker for s in said if isinstance(s, Segment)] == ["S1", "S2", "S1", "S3"]
    assert said[-1] == Progress(36_000)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert line.endswith(f"}} {tmp_path}/hub /nemo")
    given = ast.literal_eval(line[: line.index("}") + 1])
    assert Path(given.pop("audio")).name == "audio.wav"
    assert given == {
        "stemming": False,
        "suppress_numerals": True,
        "model_name": "/models/a model",
        "batch_size": 4,
        "language": "fi",
        "device": "cpu",
    }


def test_the_language_is_what_the_program_tells_of(diarize: Start, capfd: pytest.CaptureFixture[str]) -> None:
    said = list(diarize(batch_size=1).transcribe(np.zeros(SAMPLES, np.float32)))
    assert said[0] == Language("fi")
    assert "'batch_size': 0" in capfd.readouterr().err, "one window after the other"


def test_silence_has_no_words_and_other_failures_are_told(diarize: Start) -> None:
    samples = np.zeros(SAMPLES, np.float32)
    said = list(diarize("silent", language="en").transcribe(samples))
    assert said == [Language("en"), Progress(36_000)]
    with pytest.raises(Failed, match="NeMo heard no speech where faster-whisper heard words"):
        list(diarize("no speech").transcribe(samples))
    with pytest.raises(Failed, match="list index out of range"):
        list(diarize("fail").transcribe(samples))
    with pytest.raises(Failed, match=r"wrote no audio\.srt"):
        list(diarize("nothing").transcribe(samples))
    with pytest.raises(Failed, match=r"demucs did not separate .*no voices \| WARNING:root:$"):
        list(diarize(raw={"stemming": True}).transcribe(samples))


NEMO_CODE = """\
class Model:
    def list_available_models(cls):
        return [
            PretrainedModelInfo(pretrained_model_name="another", location="", description=""),
            PretrainedModelInfo(
                pretrained_model_name="{name}",
                location="https://api.ngc.nvidia.com/v2/models/nvidia/nemo/"
                "{name}/files/{name}.nemo",
                description="For details",
            ),
        ]
"""
INSTALLED = {
    "ctc_forced_aligner/__init__.py": "",
    "ctc_forced_aligner/alignment_utils.py": "def get_alignments(emissions, tokens, tokenizer): ...",
    "deepmultilingualpunctuation/__init__.py": "",
    "deepmultilingualpunctuation/punctuationmodel.py": "def predict(self, words, chunk_size=230): ...",
    "nemo/__init__.py": "raise ImportError('it is read and not imported')",
    **{
        f"nemo/collections/asr/models/{file}": NEMO_CODE.format(name=name)
        for name, file in whisper_diarization.NEMO.items()
    },
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def nemo_files() -> dict[str, str]:
    named = {
        name: f"https://api.ngc.nvidia.com/v2/models/nvidia/nemo/{name}/files/{name}.nemo"
        for name in whisper_diarization.NEMO
    }
    digests = {name: hashlib.md5(f"{address}For details".encode()).hexdigest() for name, address in named.items()}
    return {f"{name}/{digest}/{name}.nemo": "" for name, digest in digests.items()}


@pytest.fixture
def load(clone: Path, tmp_path: Path, miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    """load() of the stand-in with all that it needs, but for what a test takes away; no PyTorch is needed."""
    monkeypatch.delenv(whisper_diarization.VARIABLE, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr(whisper_diarization, "torch_device", lambda asked, torch: "cpu")
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    write(tmp_path / "packages", INSTALLED)
    for name in (whisper_diarization.ALIGNER, whisper_diarization.PUNCTUATION):
        write(tmp_path / "hf", {f"hub/models--{name.replace('/', '--')}/snapshots/1/config.json": "{}"})
    write(tmp_path / "nemo-cache", nemo_files())

    def start(language: str = "auto", **raw: Any) -> Session:
        given = {"repository": str(clone), "hf_home": f"{tmp_path}/hf", "nemo_cache": f"{tmp_path}/nemo-cache", **raw}
        kept = {key: value for key, value in given.items() if value is not None}
        options = {"device": "cpu", "language": language}
        task = Task("transcribe", "whisper-diarization", "m", str(miniature.path("ct2")), options, kept)
        return whisper_diarization.load(task)

    return start


def test_the_clone_is_looked_for(load: Callable[..., Session], clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().device == "cpu"
    with pytest.raises(Unusable, match="nobody said where") as caught:
        load(repository=None)
    assert "git clone" in caught.value.do and "repository=" in caught.value.do
    with pytest.raises(Unusable, match=r"no diarize\.py in"):
        load(repository=str(clone.parent))
    with pytest.raises(Unusable, match="clone is not a whole path"):
        load(repository="clone")
    monkeypatch.setenv(whisper_diarization.VARIABLE, str(clone))
    load(repository=None)
    (clone / "diarization").rmdir()
    with pytest.raises(Unusable, match="older than July 2025"):
        load()
    with pytest.raises(Unusable, match="no_such_option"):
        load(no_such_option=1)


def test_so_are_packages_of_its_requirements_and_not_others_of_their_names(
    load: Callable[..., Session], tmp_path: Path
) -> None:
    def refused(match: str, **raw: Any) -> str:
        with pytest.raises(Unusable, match=f"needs {match} of its repository, which is not installed") as caught:
            load(**raw)
        return caught.value.do

    assert "MahmoudAshraf97/demucs" in refused("demucs", stemming=True)
    # Both are on the package index too: one by others, one older and of the same version.
    write(tmp_path / "packages", {"deepmultilingualpunctuation/punctuationmodel.py": "def predict(self, words): ..."})
    assert "oliverguhr/deepmultilingualpunctuation" in refused("deepmultilingualpunctuation")
    (tmp_path / "packages" / "ctc_forced_aligner" / "alignment_utils.py").unlink()
    assert "MahmoudAshraf97/ctc-forced-aligner" in refused("ctc_forced_aligner")


def test_so_are_models_which_it_would_fetch(load: Callable[..., Session], tmp_path: Path) -> None:
    for key in ("hf_home", "nemo_cache"):
        with pytest.raises(Unusable, match=f"nobody said where: --engine-option {key}="):
            load(**{key: None})
        with pytest.raises(Unusable, match=r"a/b.* is not a whole path"):
            load(**{key: "a/b"})
    shutil.rmtree(tmp_path / "hf" / "hub" / "models--kredor--punctuate-all")
    load("fi")
    for language in ("en", "auto"):
        with pytest.raises(Unusable, match="the model kredor/punctuate-all is not in"):
            load(language)
    for name in nemo_files():
        (tmp_path / "nemo-cache" / name).rename(tmp_path / "aside")
        with pytest.raises(Unusable, match=f"NeMo's model is not at .*/nemo-cache/{name}"):
            load("fi")
        (tmp_path / "aside").rename(tmp_path / "nemo-cache" / name)
    write(tmp_path / "packages", {"demucs/__init__.py": "", "demucs/separate.py": ""})
    with pytest.raises(Unusable, match="nobody said where: --engine-option torch_home="):
        load("fi", stemming=True)
    with pytest.raises(Unusable, match=rf"demucs's model is not at .*/{whisper_diarization.SEPARATOR}"):
        load("fi", stemming=True, torch_home=f"{tmp_path}/torch")
    write(tmp_path / "torch" / "hub" / "checkpoints", {whisper_diarization.SEPARATOR: ""})
    load("fi", stemming=True, torch_home=f"{tmp_path}/torch")
    shutil.rmtree(tmp_path / "hf" / "hub")
    with pytest.raises(Unusable, match="the model MahmoudAshraf/mms-300m-1130-forced-aligner is not in"):
        load("fi")


# ---------------------------------------------------------------------- command lines, there and back

BACK: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("whisperx", {"language": "fi", "beam_size": 3, "batch_size": 4, "compute_type": "int8", "threads": 2}, {}),
    ("whisperx", {"task": "translate", "initial_prompt": "it's; $(a)", "hotwords": "Kuulo", "device": "cuda:1"}, {}),
    ("whisperx", {"compute_type": "auto", "device": "auto", "language": "auto"}, {"patience": 2.0, "chunk_size": 20}),
    ("insanely-fast-whisper", {"language": "fi", "word_times": True, "batch_size": 24, "device": "cuda:1"}, {}),
    ("insanely-fast-whisper", {"task": "translate", "language": "auto", "batch_size": 1}, {}),
    ("whisper-diarization", {"language": "fi", "batch_size": 8, "device": "cpu"}, {}),
    ("whisper-diarization", {"language": "auto", "batch_size": 1, "device": "cuda"}, {}),
]


@pytest.mark.parametrize(("name", "given", "raw"), BACK, ids=lambda v: str(v))
def test_the_command_line_means_what_was_asked(
    name: str, given: dict[str, Any], raw: dict[str, Any], tmp_path: Path
) -> None:
    """Kuulo's own reading of the programs' command lines, which the originals' parsers were compared with."""
    assert engines.module(name).refuse(given) == {}
    model = tmp_path / "it's here"
    model.mkdir()
    line = engines.module(name).command({**given, "model_path": str(model)}, raw)
    program = commands.program(name)
    words = list(line.arguments)
    start = next(n for n, word in enumerate(words) if word == name or word.endswith("diarize.py"))
    wanted = program.understand(program.parse(words[start + 1 :], has_model=lambda name: False))
    assert wanted.audio == (AUDIO,)
    assert wanted.options["model"] == str(model)
    for option, value in given.items():
        if value == "auto":
            assert wanted.options.get(option) in (None, "auto")
        elif option == "batch_size" and value == 1:
            assert wanted.options.get(option, 1) == 1
        elif (option, value) == ("task", "transcribe"):
            assert wanted.options.get(option, value) == value
        else:
            assert wanted.options[option] == value, option
    assert {argument.name: value for argument, value in wanted.raw} == raw
    for said in ("speech_detection", "condition_on_previous_text"):
        assert wanted.options.get(said) in ((True, None) if said == "speech_detection" else (False, None))


def test_what_a_command_line_cannot_say_is_noted() -> None:
    def notes(name: str, given: dict[str, Any], raw: dict[str, Any]) -> str:
        return "; ".join(engines.module(name).command({"model_path": "M", **given}, raw).notes)

    assert "repetition_penalty" in notes("whisperx", {}, {"repetition_penalty": 1.1})
    assert "is en, whatever it finds" in notes("whisperx", {}, {})
    assert "int8_float16" in notes("whisperx", {"compute_type": "int8_float16"}, {})
    assert "fetches one" in notes("whisperx", {"word_times": True, "language": "en"}, {})
    assert ".en" in notes("insanely-fast-whisper", {"multilingual": False}, {})
    assert "HF_HUB_CACHE='a b/hub'" in notes("whisper-diarization", {}, {"hf_home": "a b"})
