"""Other programs' command lines: what their own parsers make of a line, what they write, and what Kuulo does."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Kuulo
from kuulo import commands, engines, options
from kuulo.commands import base, shims, translation, writers
from kuulo.commands.base import Argument, Common, Idle, Own, Program, Raw, Refused, Stop
from kuulo.transcript import Decoding, Segment

# ---------------------------------------------------------------------- the originals' own parsers


class Captured(Exception):
    """What the original's parser understood."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values


def _captured(run: Callable[[], Any]) -> Callable[[], Mapping[str, Any]]:
    """Runs a program that parses at its beginning, as far as that."""

    def parse() -> Mapping[str, Any]:
        original = argparse.ArgumentParser.parse_args

        def capture(self: argparse.ArgumentParser, *arguments: Any) -> Any:
            raise Captured(vars(original(self, *arguments)))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", capture)
            try:
                run()
            except Captured as captured:
                return captured.values
        raise AssertionError("it did not parse")

    return parse


def _whisper() -> Callable[[], Mapping[str, Any]]:
    return _captured(pytest.importorskip("whisper.transcribe").cli)


def _whisper_ctranslate2() -> Callable[[], Mapping[str, Any]]:
    line = pytest.importorskip("src.whisper_ctranslate2.commandline").CommandLine
    return lambda: dict(line.read_command_line())


def _whisperx() -> Callable[[], Mapping[str, Any]]:
    return _captured(pytest.importorskip("whisperx.__main__").cli)


def _insanely_fast_whisper() -> Callable[[], Mapping[str, Any]]:
    cli = pytest.importorskip("insanely_fast_whisper.cli")
    cli.parser.prog = "insanely-fast-whisper"  # made when it is imported, and named after whoever did that
    return _captured(cli.main)


ORIGINALS = {
    "whisper": _whisper,
    "whisper-ctranslate2": _whisper_ctranslate2,
    "whisperx": _whisperx,
    "insanely-fast-whisper": _insanely_fast_whisper,
}


def understood(parse: Callable[[], Mapping[str, Any]]) -> tuple[Mapping[str, Any] | int, str]:
    """The values or the exit code, and the last line that was said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            values = parse()
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            return stop.code, said.getvalue().strip().rpartition("\n")[2]
    return values, ""


@pytest.fixture(scope="module", params=ORIGINALS)
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Program, Callable[[], Mapping[str, Any]]]]:
    original = ORIGINALS[request.param]()
    yield commands.program(request.param), original


VALUES = st.sampled_from(
    ["True", "False", "true", "None", "0", "1", "5", "-1", "0.4", "1e-3", "en", "Finnish", "fi", "tlh", "small",
     "turbo", "medium.en", "nonesuch", "all", "srt", "aud", "translate", "int8", "float16", "cpu", "cuda", "auto",
     "word", "a b", "ä\n", "", "'\"$(x)", "--language", "-"]
)  # fmt: skip
FILES = st.sampled_from(["a.wav", "my talk.mp3", "ä.flac", 'it\'s "q".m4a', "a\nb.wav", "--", "-x.wav", "./-x.wav"])


def valid(argument: Argument) -> st.SearchStrategy[str]:
    """Values that an option takes."""
    if argument.choices:
        return st.sampled_from(list(argument.choices))
    if argument.type in (int, float) or "int" in getattr(argument.type, "__name__", ""):
        return st.sampled_from(["1", "3", "7"])
    return st.sampled_from(["True", "False", "0.5", "text", "None"])


@st.composite
def lines(draw: st.DrawFn, program: Program) -> list[str]:
    """Command lines, most of them right: flags whole, shortened, with `=`, in any order among recordings."""
    words: list[str] = []
    for _ in range(draw(st.integers(0, 5))):
        argument = draw(st.sampled_from(program.arguments))
        flag = draw(st.sampled_from(argument.flags))
        if not flag.startswith("-"):
            words.append(draw(FILES))
            continue
        if flag.startswith("--") and draw(st.integers(0, 4)) == 0:
            flag = flag[: draw(st.integers(3, len(flag)))]
        value = draw(valid(argument)) if draw(st.integers(0, 3)) else draw(VALUES)
        if argument.is_switch or argument.action == "version":
            words.append(flag)
        elif draw(st.booleans()):
            words += [flag, value]
        else:
            words.append(f"{flag}={value}" if flag.startswith("--") else flag + value)
    if draw(st.integers(0, 5)):
        required = next((a.flags[0] for a in program.arguments if a.required), None)
        words += [required, draw(FILES)] if required else [draw(FILES)]
    return words


@given(data=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_line_means_what_the_original_makes_of_it(both: Any, data: st.DataObject) -> None:
    program, original = both
    line = data.draw(lines(program))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program.name, *line])
        theirs, their_words = understood(original)
    ours, our_words = understood(lambda: program.parse(line, lambda name: False).values)
    if isinstance(theirs, int) or isinstance(ours, int):
        assert ours == theirs, (line, our_words, their_words)
        if theirs:
            assert our_words == their_words
        return
    known = {a.name for a in program.arguments if a.action != "version"}
    assert set(theirs) == known
    typed = program.parse(line, lambda name: False).typed
    for name in known:
        if name == "device" and name not in typed:  # theirs looks for a GPU
            continue
        assert repr(ours[name]) == repr(theirs[name]), name


# ---------------------------------------------------------------------- the tables


@pytest.mark.parametrize("program", commands.programs(), ids=lambda p: p.name)
def test_a_table_names_what_there_is(program: Program) -> None:
    for argument in program.arguments:
        match argument.becomes:
            case Common(option=option):
                assert option in options.BY_NAME, argument.flag
            case Raw(names=names, values=values, instead=instead):
                assert set(values) <= set(names) <= set(engines.MODULES), argument.flag
                assert instead is None or instead in options.BY_NAME
            case Idle(note=note) | Refused(note=note):
                assert note, f"{argument.flag}: why?"
            case Own(note=note):
                assert note or argument.action == "version", argument.flag
    assert program.engine in engines.MODULES


RAW_NAMES = [
    pytest.param(program, argument, engine, name, id=f"{program.name}-{argument.flag}-{engine}")
    for program in commands.programs()
    for argument in program.arguments
    if isinstance(argument.becomes, Raw)
    for engine, name in argument.becomes.names.items()
]


def known_raw(engine: str) -> set[str]:
    """The raw options of an engine, by its own signatures."""
    import dataclasses
    import inspect

    if engine == base.FASTER_WHISPER:
        from faster_whisper import WhisperModel

        return set(inspect.signature(WhisperModel.transcribe).parameters)
    if engine == base.OPENAI_WHISPER:
        whisper = pytest.importorskip("whisper")
        return {f.name for f in dataclasses.fields(whisper.DecodingOptions)} | set(
            inspect.signature(whisper.transcribe).parameters
        )
    if engine == base.TRANSFORMERS:
        transformers = pytest.importorskip("transformers")
        return set(inspect.signature(transformers.WhisperForConditionalGeneration.generate).parameters)
    bindings = pytest.importorskip("_pywhispercpp")
    strategy = bindings.whisper_sampling_strategy(0)
    return set(dir(bindings.whisper_full_default_params(strategy)))


@pytest.mark.parametrize(("program", "argument", "engine", "name"), RAW_NAMES)
def test_engines_have_the_options_that_tables_name(
    program: Program, argument: Argument, engine: str, name: str
) -> None:
    assert name in known_raw(engine)


# ---------------------------------------------------------------------- whisper.cpp's parser


def cli_values(*words: str) -> Mapping[str, Any]:
    return commands.program("whisper-cli").parse(words, lambda name: False).values


def test_whisper_clis_parser() -> None:
    values = cli_values("-l", "FI", "a.wav", "-f", "-b.wav", "-of", "x", "-t", "8threads", "-", "-osrt", "-of", "y")
    assert values["language"] == "fi"
    assert values["file"] == ("a.wav", "-b.wav", "-")
    assert values["output_file"] == ("x", "y")
    assert values["threads"] == 8
    assert values["output_srt"] and not values["output_txt"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--nonesuch"], 0, "error: unknown argument: --nonesuch"),
        (["-l"], 0, "error: argument -l requires value"),
        (["--threads=4"], 0, "error: unknown argument: --threads=4"),
        (["-t", "many"], 134, "no number"),
        (["-h"], 0, "usage: whisper-cli"),
        (["@nonesuch"], 1, "error: response file 'nonesuch' not found"),
    ],
)
def test_whisper_cli_ends_as_the_original(words: list[str], code: int, said: str) -> None:
    with pytest.raises(Stop) as stop:
        cli_values(*words)
    assert (stop.value.code, said in stop.value.stderr) == (code, True)


# ---------------------------------------------------------------------- times


@given(seek=st.integers(0, 100_000), first=st.integers(0, 1400), steps=st.integers(0, 100), form=st.booleans())
def test_times_are_the_programs_own(seek: int, first: int, steps: int, form: bool) -> None:
    """What openai/whisper and faster-whisper compute, found again from milliseconds and tokens."""
    offset = writers.of_openai if form else writers.of_faster_whisper
    start, end = offset(seek) + first * 0.02, offset(seek) + (first + steps) * 0.02
    tokens = (50364 + first, 100, 50364 + first + steps)
    ours = Segment(round(start * 1000), round(end * 1000), " x", decoding=Decoding(seek, tokens))
    assert writers.seconds(ours, offset) == (start, end)


def test_an_end_after_the_recordings_end_is_found_again() -> None:
    cut = Segment(500, 1900, " x", decoding=Decoding(0, (50389, 100, 50464)))
    assert writers.to_its_end(cut, 1900).end_ms == 2000
    assert writers.to_its_end(cut, 3000).end_ms == 1900


# ---------------------------------------------------------------------- the same files

SCRIPTS = Path(sys.executable).parent
FLAT = ["--temperature_increment_on_fallback", "None", "--threads", "1"]


def original(name: str, words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    script = SCRIPTS / name
    if not script.exists():
        pytest.skip(f"{name} is not installed")
    return subprocess.run(
        [script, *words], cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C.UTF-8"}
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def compare(
    kuulo: Kuulo, tmp_path: Path, name: str, engine: str, words: Sequence[str], model: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, bytes], str]:
    """What the original wrote and printed must be what Kuulo wrote and printed; gives both folders' files."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    done = original(name, [*words, *model, "-o", str(theirs)], tmp_path)
    assert done.returncode == 0, done.stderr
    answer = kuulo("as", name, "--engine", engine, "--", *words, *model, "-o", str(ours))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == done.stdout.replace(str(theirs), str(ours))
    return contents(theirs), contents(ours), answer.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--language", "en"],
        ["--word_timestamps", "True", "--max_line_width", "12", "--max_line_count", "1", "-p", "True"],
        ["--word_timestamps", "True", "--highlight_words", "True", "--language", "English", "--beam_size", "1"],
        ["--vad_filter", "True", "--vad_min_silence_duration_ms", "300", "--verbose", "False"],
        ["--batched", "True", "--batch_size", "2", "--initial_prompt", "We need coffee and milk today.", "-f", "json"],
    ],
    ids=lambda words: words[0].lstrip("-"),
)
def test_whisper_ctranslate2_and_kuulo_write_the_same(
    words: list[str], kuulo: Kuulo, tmp_path: Path, miniature: Any
) -> None:
    model = ["--model_directory", str(miniature.path("ct2")), "--local_files_only", "True", "--device", "cpu"]
    clip = str(miniature.clip("two_sentences").path)
    theirs, ours, said = compare(
        kuulo, tmp_path, "whisper-ctranslate2", base.FASTER_WHISPER, [clip, *words, *FLAT], model
    )
    assert theirs and ours == theirs
    assert "--verbose" in words or "-->" in said


@pytest.mark.parametrize(
    "words",
    [
        ["--language", "en"],
        ["--word_timestamps", "True", "--language", "English", "--beam_size", "1", "--max_words_per_line", "2"],
    ],
    ids=["plain", "words"],
)
def test_openais_whisper_and_kuulo_write_the_same(
    words: list[str], kuulo: Kuulo, tmp_path: Path, miniature: Any, needs_program: Any
) -> None:
    needs_program("ffmpeg")  # with which it reads recordings
    model = ["--model", str(miniature.path("pt")), "--fp16", "False"]
    clip = str(miniature.clip("two_sentences").path)
    theirs, ours, _ = compare(kuulo, tmp_path, "whisper", base.OPENAI_WHISPER, [clip, *words, *FLAT], model)
    assert theirs and ours == theirs


def test_the_words_of_a_whisper_modules_users(kuulo: Kuulo, tmp_path: Path, miniature: Any) -> None:
    """As they stand, through the shim, with file names that break programs."""
    folder = tmp_path / "bin"
    assert kuulo("shims", "install", str(folder), "whisper-ctranslate2").returncode == 0
    names = ["my talk.flac", 'it\'s "q" $(x).flac', "a\nb.flac", "Äänite.flac", "-x.flac"]
    for name in names:
        (tmp_path / name).write_bytes(miniature.clip("two_sentences").path.read_bytes())
    line = '"$1" "$2" "$3" "$4" "./$5" --model_directory $medium --local_files_only True --language en'
    done = subprocess.run(
        ["sh", "-c", f"whisper-ctranslate2 {line}", "sh", *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "KUULO_STORE": str(tmp_path / "models"),
            "PYTHONPATH": str(Path(commands.__file__).parents[2]),
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "medium": str(miniature.path("ct2")),
            "LANG": "C.UTF-8",
        },
    )
    assert done.returncode == 0, done.stderr
    text = miniature.clip("two_sentences").text.split()
    for name in names:
        for ending in ("txt", "srt", "vtt", "tsv", "json"):
            assert (tmp_path / f"{name.removesuffix('.flac')}.{ending}").is_file(), (name, done.stdout, done.stderr)
        assert len((tmp_path / f"{name.removesuffix('.flac')}.txt").read_text().split()) == len(text)
    heads = [line for line in done.stdout.splitlines() if line.startswith("File: ")]
    assert [h.removeprefix("File: '").removeprefix("./")[:2] for h in heads] == [n[:2].strip() for n in names]


def test_other_programs_write_their_files(kuulo: Kuulo, tmp_path: Path, miniature: Any) -> None:
    clip = tmp_path / "talk 1.flac"
    clip.write_bytes(miniature.clip("two_sentences").path.read_bytes())
    done = kuulo("as", "whisperx", "--", clip.name, "--model", "miniature", "--language", "en", "-o", "x")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "x" / "talk 1.json").read_text())
    assert data["word_segments"] and set(data["segments"][0]) == {"start", "end", "text", "words"}
    done = kuulo(
        "as",
        "whisper-cli",
        "--engine",
        base.FASTER_WHISPER,
        "--",
        "-m",
        "miniature",
        clip.name,
        "-osrt",
        "-oj",
        "-ocsv",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\n[00:00:00.")
    assert (tmp_path / "talk 1.flac.srt").read_text().startswith("1\n00:00:00,")
    assert json.loads((tmp_path / "talk 1.flac.json").read_text())["result"] == {"language": "en"}
    done = kuulo(
        "as", "insanely-fast-whisper", "-e", base.FASTER_WHISPER, "--file-name", clip.name, "--model-name", "miniature",
        "--timestamp", "word",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("output.json\n")
    assert json.loads((tmp_path / "output.json").read_text())["chunks"]


# ---------------------------------------------------------------------- refusals and exit codes


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["whisper-ctranslate2", "--", "a.wav", "--live_transcribe", "True"], 2, "--live_transcribe"),
        (["whisper-ctranslate2", "--"], 0, "You need to specify one or more audio files"),
        (["whisper-ctranslate2", "--", "a.wav", "--model_directory", "none"], 0, "does not exists"),
        (["whisper-ctranslate2", "--", "a.wav", "--model", "nonesuch"], 2, "invalid choice: 'nonesuch'"),
        (["whisper", "--", "a.wav", "--model="], 2, "invalid valid_model_name value"),
        (["whisper", "--", "a.wav", "--model", "nonesuch"], 2, "invalid valid_model_name value"),
        (["whisper", "--", "a.wav", "--highlight_words", "True"], 2, "requires --word_timestamps True"),
        (["whisper", "--", "a.wav", "--clip_timestamps", "1,2,3,4"], 2, "one clip"),
        (["whisper", "--", "nonesuch.wav", "--model", "miniature"], 0, "there is no such file"),
        (["whisperx", "--", "a.wav", "--diarize", "--speaker_embeddings"], 2, "nobody's voice"),
        (["whisperx", "--", "a.wav", "--model", "miniature", "--diarize", "--min_speakers", "3", "--max_speakers", "2"],
         2, "no number of speakers"),
        (["whisper-cli", "--", "-tdrz", "-"], 2, "tdrz"),
        (["whisper-cli", "--", "-di", "-"], 2, "name a file"),
        (["whisper-cli", "--", "-m", "miniature", "nonesuch.wav"], 2, "input file not found"),
        (["whisper-cli", "--", "--what"], 0, "unknown argument"),
        (["diarize.py", "--", "-a", "nonesuch.wav", "--whisper-model", "miniature"], 1, "there is no such file"),
        (["whsper", "--", "a.wav"], 2, "did you mean whisper"),
        (["whisper", "--engine", base.FASTER_WHISPER, "--", "a.wav", "--model", "miniature",
          "--carry_initial_prompt", "True"], 2, "has nothing like it"),
    ],
)  # fmt: skip
def test_what_is_refused_and_how_it_ends(words: list[str], code: int, said: str, kuulo: Kuulo) -> None:
    done = kuulo("as", *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------- translate-command


def test_translate_command_says_what_has_no_equivalent(kuulo: Kuulo) -> None:
    done = kuulo(
        "translate-command",
        "whisperx 'a b.wav' --compute_type int8 --diarize --min_speakers 2 --suppress_numerals --hf_token SECRET",
    )
    assert done.returncode == 0, done.stderr
    assert "SECRET" not in done.stdout
    assert "--suppress_numerals  ->  -\n      no equivalent: " in done.stdout
    assert "--diarize  ->  --speakers auto" in done.stdout
    assert "--compute_type int8  ->  --compute-type int8" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "whisper a.wav --model small --language Finnish --temperature 0.2 --max_line_width 40 --word_timestamps True",
        "whisper-ctranslate2 'my talk.wav' --model_directory /m/ct2 --local_files_only True --vad_filter True",
        "whisperx a.wav --compute_type int8 --batch_size 4 --no_align -f srt",
        "whisper-ctranslate2 ./-a.wav --batched True --prefix 'Well, yes' -o out",
        "whisperx a.wav --diarize --max_speakers 4",
    ],
)
def test_the_translation_is_a_command_of_kuulos(line: str, kuulo: Kuulo, tmp_path: Path) -> None:
    """Its words are parsed by Kuulo's own command line; what it wants is there or is not, but it is understood."""
    import click

    from kuulo.cli import cli

    done = kuulo("translate-command", "--json", *shlex.split(line))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["complete"]
    words = shlex.split(found["command"])
    command = cli.get_command(click.Context(cli), words[1])
    assert command is not None
    parsed = command.make_context(words[1], words[2:]).params
    assert parsed["inputs"]
    for name, value in parsed.items():
        option = options.BY_NAME.get(name.removeprefix("option_"))
        if option and name.startswith("option_") and value not in (None, ()):
            options.parse(option, value)


def test_flag_words_are_read_back() -> None:
    for name, value in (("from", 90_500), ("temperature", (0.0, 0.4)), ("word_times", True), ("language", "fi")):
        words = translation.flag_words(name, value)
        option = options.BY_NAME[name]
        assert words[0] == option.flags[0].split("/")[0]
        if len(words) == 2:
            assert options.parse(option, words[1]) == value


# ---------------------------------------------------------------------- shims


def test_shims_never_take_a_real_commands_place(kuulo: Kuulo, tmp_path: Path) -> None:
    folder = tmp_path / "my bin"
    folder.mkdir()
    (folder / "whisperx").write_text("#!/bin/sh\necho real\n")
    done = kuulo("shims", "install", str(folder))
    assert done.returncode == 2
    assert sorted(p.name for p in folder.iterdir()) == ["whisperx"]
    assert kuulo("shims", "install", str(folder), "whisper", "whisper-cli").returncode == 0
    assert kuulo("shims", "install", str(folder), "whisper").returncode == 0, "again is no mistake"
    listed = kuulo("shims", "list", str(folder)).stdout.splitlines()
    assert [Path(line).name for line in listed] == ["whisper", "whisper-cli"]
    assert kuulo("shims", "remove", str(folder)).returncode == 0
    assert (folder / "whisperx").read_text() == "#!/bin/sh\necho real\n"
    assert shims.find(folder) == []
    assert kuulo("shims", "remove", str(folder)).returncode == 2
