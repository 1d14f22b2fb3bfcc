from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import math
import re
import types
import typing
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kuulo import formats, schemas, transcript
from kuulo.cli import export as commands
from kuulo.errors import EXIT_SOME_FAILED, KuuloError, UsageError
from kuulo.formats import Layout
from kuulo.formats.json import read_master
from kuulo.transcript import Audio, Decoding, Provenance, Segment, Speaker, Step, Transcript, Turn, Word

GOLDEN = Path(__file__).parent / "golden" / "formats"
PLAIN = Layout()
AUDIO = Audio("interview.m4a", "0" * 64, 6_001_234, 1_000_000, 1_700_000_000_000_000_000)
QUICK = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])


def said(*segments: Segment, speakers: Sequence[Speaker] = ()) -> Transcript:
    return Transcript(AUDIO, segments, "fi", 0.98, tuple(speakers))


def text_of(name: str, subject: Transcript, layout: Layout = PLAIN) -> str:
    return formats.render(name, subject, layout).decode("utf-8")


def hearing(text: str, start_ms: int, end_ms: int, speaker: str | None = None) -> Segment:
    """A segment whose words share its time evenly."""
    texts = re.findall(r"\s*\S+", text)
    step = (end_ms - start_ms) // max(1, len(texts))
    words = (Word(t, start_ms + i * step, start_ms + (i + 1) * step, 0.9) for i, t in enumerate(texts))
    return Segment(start_ms, end_ms, text, tuple(words), speaker)


EXAMPLE = Transcript(
    AUDIO,
    (
        Segment(0, 2_500, ' Hyvää päivää, "rouva".', (), "S1", "fi", 0.9123),
        Segment(2_500, 4_000, "- Yes; = no, @home", (), "S2", "en", 0.5),
        Segment(4_000, 4_000, "", (), "S2"),
        Segment(4_100, 65_995, " two\nlines\tand a tab", (), None),
        Segment(5_999_996, 6_001_000, " [Music] 🎵 بله\u200cها", (), "S3"),
    ),
    "fi",
    0.98,
    (Speaker("S1", "Anna Änkkä"), Speaker("S2", '=HYPERLINK("x")')),
    Provenance(
        "0.1.0",
        "k" * 64,
        (Step("transcribe", "faster-whisper", "1.2.1", "small", options={"beam_size": 5}, packages={"a": "1"}),),
        "node1",
        "2025-03-01T12:00:00+02:00",
        900,
    ),
)

# ------------------------------------------------------------------ what hypothesis makes

MS = st.integers(0, 400_000_000)
CHARACTERS = st.characters(exclude_categories=["Cs"])
SPOKEN = st.one_of(
    st.text(CHARACTERS, max_size=12),
    st.sampled_from(
        ["", " ", " hei", " sana,", "-->", " a --> b", "\n", "\r\n", "\x00", "\t", " <b>", "&amp;", " 👩‍👩‍👧", " שלום"]
    ),
    st.text("ab ", min_size=1, max_size=60),
)
SHARE = st.floats(0, 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
DECODINGS = st.builds(
    Decoding,
    st.integers(0, 10**6),
    st.lists(st.integers(0, 60_000), max_size=4).map(tuple),
    SHARE,
    FINITE,
    FINITE,
    SHARE,
)
WORDS = st.builds(Word, SPOKEN, MS, MS, SHARE)
NEAR_WORDS = st.builds(
    lambda text, start, length: Word(text, start, start + length, 0.5),
    SPOKEN,
    st.integers(0, 20_000),
    st.integers(0, 900),
)
LAYOUTS = st.builds(
    Layout,
    st.none() | st.integers(1, 60),
    st.none() | st.integers(1, 3),
    st.none() | st.integers(1, 5),
    st.booleans(),
)


@st.composite
def wordless(draw: st.DrawFn) -> Transcript:
    return said(*draw(st.lists(st.builds(Segment, MS, MS, SPOKEN, decoding=DECODINGS), max_size=6)))


@st.composite
def worded(draw: st.DrawFn) -> Transcript:
    """What openai-whisper gives with word times: no words where the text is blank, and words elsewhere."""
    words = draw(st.sampled_from([WORDS, NEAR_WORDS]))
    lists = draw(st.lists(st.lists(words, max_size=9), min_size=1, max_size=5))
    assume(any(lists))
    return said(
        *(Segment(draw(MS), draw(MS), "".join(w.text for w in ws), tuple(ws), decoding=draw(DECODINGS)) for ws in lists)
    )


NAMES = st.none() | st.sampled_from(["S1", "S2", "S9"]) | st.text(max_size=5)
ANY_TEXT = SPOKEN | st.text(st.characters(categories=None), max_size=8)


@st.composite
def anything(draw: st.DrawFn) -> Transcript:
    """Whatever the types allow: speakers, times in any order, characters that no file format likes."""
    word = st.builds(Word, ANY_TEXT, MS, MS, st.none() | SHARE, NAMES)
    segment = st.builds(
        Segment,
        MS,
        MS,
        ANY_TEXT,
        st.lists(word, max_size=4).map(tuple),
        NAMES,
        st.none() | st.sampled_from(["fi", "yue"]),
        st.none() | SHARE,
        st.lists(st.sampled_from(["repeated", "silence"]), max_size=2).map(tuple),
        st.none() | DECODINGS,
    )
    speakers = draw(st.lists(st.builds(Speaker, st.sampled_from(["S1", "S2"]), ANY_TEXT), max_size=2))
    return Transcript(
        dataclasses.replace(AUDIO, name=draw(ANY_TEXT)),
        tuple(draw(st.lists(segment, max_size=4))),
        draw(st.none() | st.sampled_from(["fi", "xx"])),
        draw(st.none() | SHARE),
        tuple(speakers),
        draw(st.sampled_from([None, EXAMPLE.provenance])),
    )


# ------------------------------------------------------------------ equal to openai/whisper's writers


def _openai_writers() -> types.ModuleType | None:
    """whisper/utils.py of the installed openai-whisper. Loaded by itself: the package imports PyTorch, which the
    writers do not use."""
    try:
        importlib.metadata.version("openai-whisper")
    except importlib.metadata.PackageNotFoundError:
        return None
    package = importlib.util.find_spec("whisper")
    assert package and package.submodule_search_locations
    spec = importlib.util.spec_from_file_location(
        "openai_whisper_utils", Path(package.submodule_search_locations[0]) / "utils.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPENAI = _openai_writers()
beside_openai = pytest.mark.skipif(OPENAI is None, reason="openai-whisper is not installed: its writers cannot be run")
OPENAI_NAMES = {"srt": "srt", "tsv": "tsv", "txt": "txt", "vtt": "vtt", "whisper-json": "json"}


def openai_result(subject: Transcript) -> dict[str, Any]:
    """The transcript as openai-whisper's `transcribe` returns it (the order of the keys is its own)."""
    with_words = any(s.words for s in subject.segments)
    segments = []
    for index, segment in enumerate(subject.segments):
        decoding = segment.decoding
        assert decoding is not None
        entry: dict[str, Any] = {
            "id": index,
            "seek": decoding.seek,
            "start": segment.start_ms / 1000,
            "end": segment.end_ms / 1000,
            "text": segment.text,
            "tokens": list(decoding.tokens),
            "temperature": decoding.temperature,
            "avg_logprob": decoding.avg_logprob,
            "compression_ratio": decoding.compression_ratio,
            "no_speech_prob": decoding.no_speech_prob,
        }
        if with_words:
            entry["words"] = [
                {"word": w.text, "start": w.start_ms / 1000, "end": w.end_ms / 1000, "probability": w.confidence}
                for w in segment.words
            ]
        segments.append(entry)
    return {"text": "".join(s["text"] for s in segments), "segments": segments, "language": subject.language}


def openai_bytes(name: str, subject: Transcript, layout: Layout, folder: Path) -> bytes:
    """The file that openai-whisper's own writer makes."""
    assert OPENAI is not None
    OPENAI.get_writer(OPENAI_NAMES[name], str(folder))(openai_result(subject), "talk.wav", dataclasses.asdict(layout))
    return (folder / f"talk.{OPENAI_NAMES[name]}").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openai")


@beside_openai
@pytest.mark.parametrize("name", OPENAI_NAMES)
@given(subject=wordless())
@QUICK
def test_without_words_the_bytes_are_openais(name: str, subject: Transcript, folder: Path) -> None:
    assert formats.render(name, subject, PLAIN) == openai_bytes(name, subject, PLAIN, folder)


@beside_openai
@pytest.mark.parametrize("name", OPENAI_NAMES)
@given(subject=worded(), layout=LAYOUTS)
@settings(QUICK, max_examples=150)
def test_with_words_and_any_layout_the_bytes_are_openais(
    name: str, subject: Transcript, layout: Layout, folder: Path
) -> None:
    # A segment with text and no words: see test_text_without_words_is_not_lost.
    assume(all(s.words or not s.text.strip() for s in subject.segments))
    assert formats.render(name, subject, layout) == openai_bytes(name, subject, layout, folder)


@beside_openai
@pytest.mark.parametrize("name", ["srt", "vtt"])
@pytest.mark.parametrize("layout", [PLAIN, Layout(20, 2), Layout(20), Layout(20, 2, None, True), Layout(None, None, 2)])
def test_long_talks_are_cut_as_openai_cuts_them(name: str, layout: Layout, folder: Path) -> None:
    """More words than openai's limit of 1000 in one segment, pauses of 3 s, which in floating point may be more, and
    hours past 99."""
    long = hearing(" sana" * 1_203, 100_000, 1_303_000)
    paused = [
        Segment(s, s + 500, " a b", (Word(" a", s, s + 100, 0.5), Word(" b", s + 3_000, s + 3_100, 0.5)))
        for s in range(1_001, 60_000, 4_008)
    ]
    late = hearing(" yli sata tuntia", 360_000_000, 360_002_000)
    subject = said(*(dataclasses.replace(s, decoding=Decoding()) for s in (*paused, long, late)))
    assert formats.render(name, subject, layout) == openai_bytes(name, subject, layout, folder)


def test_whisper_json_leaves_out_what_the_engine_did_not_tell() -> None:
    subject = said(Segment(0, 1_500, " hei", (Word(" hei", 0, 1_500),)))
    assert json.loads(text_of("whisper-json", subject)) == {
        "text": " hei",
        "segments": [
            {
                "id": 0,
                "seek": 0,
                "start": 0.0,
                "end": 1.5,
                "text": " hei",
                "words": [{"word": " hei", "start": 0.0, "end": 1.5}],
            }
        ],
        "language": "fi",
    }


# ------------------------------------------------------------------ speakers


ANNA_AND_BO = said(
    hearing(" Hyvää päivää.", 0, 1_000, "S1"),
    hearing(" Kiitos & hei <vaan>.", 1_000, 2_000, "S2"),
    hearing(" ole hyvä", 2_000, 3_000),
    speakers=(Speaker("S1", "Anna"), Speaker("S2", "Bo\n--> <x>")),
)


def test_speakers_in_text_and_subtitles() -> None:
    assert text_of("txt", ANNA_AND_BO) == "Anna: Hyvää päivää.\nBo --> <x>: Kiitos & hei <vaan>.\nole hyvä\n"
    assert text_of("tsv", ANNA_AND_BO).splitlines()[1:] == [
        "0\t1000\tAnna: Hyvää päivää.",
        "1000\t2000\tBo --> <x>: Kiitos & hei <vaan>.",
        "2000\t3000\tole hyvä",
    ]
    assert text_of("srt", ANNA_AND_BO) == (
        "1\n00:00:00,000 --> 00:00:01,000\nAnna: Hyvää päivää.\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\nBo -> <x>: Kiitos & hei <vaan>.\n\n"
        "3\n00:00:02,000 --> 00:00:03,000\nole hyvä\n\n"
    )
    assert text_of("vtt", ANNA_AND_BO) == (
        "WEBVTT\n\n"
        "00:00.000 --> 00:01.000\n<v Anna>Hyvää päivää.\n\n"
        "00:01.000 --> 00:02.000\n<v Bo --&gt; &lt;x&gt;>Kiitos &amp; hei &lt;vaan&gt;.\n\n"
        "00:02.000 --> 00:03.000\nole hyvä\n\n"
    )


def test_a_change_of_speaker_begins_a_cue_and_the_label_has_room() -> None:
    layout = Layout(max_line_width=14, max_line_count=2)
    lines = [cue.split("\n", 2)[2] for cue in text_of("srt", ANNA_AND_BO, layout).strip().split("\n\n")]
    assert lines == ["Anna: Hyvää\npäivää.", "Bo -> <x>: Kiitos\n& hei <vaan>.", "ole hyvä"]


def test_a_highlighted_word_is_underlined_without_the_label() -> None:
    cues = text_of("srt", ANNA_AND_BO, Layout(highlight_words=True))
    assert "Anna: <u>Hyvää</u> päivää." in cues
    assert "Anna: Hyvää <u>päivää.</u>" in cues
    assert "<v Bo --&gt; &lt;x&gt;>Kiitos &amp; hei <u>&lt;vaan&gt;.</u>" in text_of(
        "vtt", ANNA_AND_BO, Layout(highlight_words=True)
    )


def test_a_speaker_without_a_label_stands_for_itself() -> None:
    subject = said(Segment(0, 1, " a", (), "S7"), Segment(1, 2, " b", (), "S1"), speakers=[Speaker("S1", " \n")])
    assert text_of("txt", subject) == "S7: a\nS1: b\n"


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_text_without_words_is_not_lost(name: str) -> None:
    subject = said(hearing(" hyvää päivää", 0, 1_000), Segment(1_000, 2_000, " ilman sanoja"))
    assert "ilman sanoja" in text_of(name, subject)
    assert "päivää ilman" in text_of(name, subject, Layout(40, 2))


# ------------------------------------------------------------------ read by other people's parsers


SPOKEN_LINES = [" Hyvää päivää.", " Mitä kuuluu, rouva Änkkä? 👩‍👩‍👧", " שלום, עולם!"]
TALK = said(*(Segment(i * 3_601_000, i * 3_601_000 + 2_050, text) for i, text in enumerate(SPOKEN_LINES)))


def test_srt_is_read_by_srt_and_pysubs2() -> None:
    srt, pysubs2 = pytest.importorskip("srt"), pytest.importorskip("pysubs2")
    text = text_of("srt", TALK)
    expected = [(s.start_ms, s.end_ms, s.text.strip()) for s in TALK.segments]
    parsed = list(srt.parse(text, ignore_errors=False))
    assert [
        (round(c.start.total_seconds() * 1000), round(c.end.total_seconds() * 1000), c.content) for c in parsed
    ] == (expected)
    assert [(e.start, e.end, e.text) for e in pysubs2.SSAFile.from_string(text, format_="srt")] == expected


def test_vtt_is_read_by_webvtt_and_pysubs2() -> None:
    webvtt, pysubs2 = pytest.importorskip("webvtt"), pytest.importorskip("pysubs2")
    text = text_of("vtt", TALK)
    parsed = webvtt.from_buffer(io.StringIO(text))
    assert [(c.start, c.text) for c in parsed] == [
        ("00:00:00.000", "Hyvää päivää."),
        ("01:00:01.000", "Mitä kuuluu, rouva Änkkä? 👩‍👩‍👧"),
        ("02:00:02.000", "שלום, עולם!"),
    ]
    assert [(e.start, e.text) for e in pysubs2.SSAFile.from_string(text, format_="vtt")] == [
        (s.start_ms, s.text.strip()) for s in TALK.segments
    ]
    voices = list(webvtt.from_buffer(io.StringIO(text_of("vtt", ANNA_AND_BO))))
    assert voices[0].voice == "Anna"
    assert voices[0].text == "Hyvää päivää."


@given(anything(), LAYOUTS)
@settings(QUICK, max_examples=50)
def test_no_transcript_breaks_a_format(subject: Transcript, layout: Layout) -> None:
    """Nothing crashes, all is UTF-8, and each strict format is read back by a parser."""
    docx = pytest.importorskip("docx")
    for name in formats.FORMATS:
        try:
            content = formats.render(name, subject, layout)
        except UsageError as error:
            assert "needs the words' times" in error.what
            continue
        if name == "docx":
            document = docx.Document(io.BytesIO(content))
            shown = [s for s in subject.segments if s.text.strip()]
            assert len(document.paragraphs) == 2 + len(shown)
            continue
        text = content.decode("utf-8")
        if name == "csv":
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
            assert [len(row) for row in rows] == [7] * (1 + len(subject.segments))
        if name == "lrc":
            assert all(re.match(r"\[(ti:|length:|\d{2,}:\d\d\.\d\d\])", line) for line in text.splitlines())
        if name in ("json", "whisper-json"):
            json.loads(text, parse_constant=lambda constant: pytest.fail(constant))


# ------------------------------------------------------------------ csv, lrc, docx


def docx_text(content: bytes) -> str:
    docx = pytest.importorskip("docx")
    document = docx.Document(io.BytesIO(content))
    return "".join(f"{p.style.name}: {p.text}\n" for p in document.paragraphs)


@pytest.mark.parametrize("name", ["csv", "lrc", "docx"])
def test_golden(name: str) -> None:
    content = formats.render(name, EXAMPLE, PLAIN)
    if name == "docx":
        assert docx_text(content) == (GOLDEN / "example.docx.txt").read_text(encoding="utf-8")
    else:
        assert content == (GOLDEN / f"example.{name}").read_bytes()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10) | st.text("'=+-@ a", max_size=5))
@QUICK
def test_csv_runs_no_formula_and_loses_no_word(words: str) -> None:
    words = words.replace("\ufeff", "")
    table = io.StringIO(text_of("csv", said(Segment(0, 1, words))), newline="")
    cell = next(csv.DictReader(table, strict=True))["text"]
    assert not cell or cell[0] not in "=+-@\t\r＝＋－＠"
    assert (cell[1:] if re.match(r"'+[=+\-@＝＋－＠]", cell) else cell) == words.strip()


def test_lrc_rounds_to_hundredths_and_counts_minutes_past_99() -> None:
    subject = said(Segment(59_995, 0, "a"), Segment(5_999_994, 0, "b"), Segment(36_000_000, 0, "c"))
    assert re.findall(r"\[(.+)\]([abc])", text_of("lrc", subject)) == [
        ("01:00.00", "a"),
        ("99:59.99", "b"),
        ("600:00.00", "c"),
    ]


def test_docx_is_the_same_each_time_and_says_nothing_of_now() -> None:
    docx = pytest.importorskip("docx")
    content = formats.render("docx", EXAMPLE, PLAIN)
    assert content == formats.render("docx", EXAMPLE, PLAIN)
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        assert parts.testzip() is None
        assert {p.date_time for p in parts.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    properties = docx.Document(io.BytesIO(content)).core_properties
    assert (properties.title, properties.author, properties.language) == ("interview.m4a", "Kuulo", "fi")
    assert properties.created.isoformat()[:19] == properties.modified.isoformat()[:19] == "2025-03-01T10:00:00"


def test_docx_turns_right_to_left_paragraphs() -> None:
    docx = pytest.importorskip("docx")
    document = docx.Document(io.BytesIO(formats.render("docx", TALK, PLAIN)))
    turned = [bool(p._p.xpath("w:pPr/w:bidi")) for p in document.paragraphs]
    assert turned == [False, False, False, False, True]


def test_a_very_long_name_is_no_trouble_for_docx() -> None:
    long = dataclasses.replace(EXAMPLE, audio=dataclasses.replace(AUDIO, name="ä" * 400))
    assert "ä" * 400 in docx_text(formats.render("docx", long, PLAIN))


# ------------------------------------------------------------------ the master copy and its schema


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = schemas.transcript()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def joined(value: Any) -> Any:
    """Two halves of a surrogate pair are one character in JSON."""
    return json.loads(json.dumps(value).encode())


@given(subject=anything())
@QUICK
def test_a_master_copy_is_read_back_and_fits_its_schema(subject: Transcript, validator: Any, folder: Path) -> None:
    path = folder / "master.json"
    path.write_bytes(formats.render("json", subject, PLAIN))
    validator.validate(json.loads(path.read_bytes()))
    assert read_master(path) == Transcript.from_json(joined(subject.to_json()))


def test_the_example_is_read_back(tmp_path: Path, validator: Any) -> None:
    content = formats.render("json", EXAMPLE, PLAIN)
    (tmp_path / "a.json").write_bytes(content)
    assert read_master(tmp_path / "a.json") == EXAMPLE
    validator.validate(json.loads(content))
    assert "Hyvää päivää" in content.decode("utf-8")


def test_numbers_that_are_not_finite_become_null(tmp_path: Path, validator: Any) -> None:
    subject = said(Segment(0, 1, " a", confidence=math.nan, decoding=Decoding(avg_logprob=-math.inf)))
    content = formats.render("json", subject, PLAIN)
    validator.validate(json.loads(content))
    (tmp_path / "a.json").write_bytes(content)
    back = read_master(tmp_path / "a.json")
    assert back.segments[0].confidence is None
    for name in formats.FORMATS:
        formats.render(name, back, PLAIN)


def test_the_schema_refuses_what_is_no_master(validator: Any) -> None:
    good = EXAMPLE.to_json()
    for wrong in ({"schema": 2}, {"segments": [{"text": "a"}]}, {"audio": {}}, {"language_confidence": 2}):
        assert not validator.is_valid(joined({**good, **wrong}))


SCHEMA_TYPES = {
    Audio: "audio",
    Decoding: "decoding",
    Provenance: "provenance",
    Segment: "segment",
    Speaker: "speaker",
    Step: "step",
    Turn: "turn",
    Word: "word",
}


@pytest.mark.parametrize("kind", [*SCHEMA_TYPES, Transcript], ids=lambda kind: kind.__name__)
def test_the_schema_has_every_field_described(kind: type) -> None:
    schema = schemas.transcript()
    part = schema if kind is Transcript else schema["$defs"][SCHEMA_TYPES[kind]]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    assert set(part["properties"]) == set(fields)
    assert all(entry["description"] for entry in part["properties"].values())
    for name, entry in part["properties"].items():
        if name.endswith("_ms"):
            assert "millisecond" in entry["description"], name
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    always = {Transcript: {"schema"}, Decoding: set(fields)}.get(kind, set())
    assert set(part["required"]) == required | always


def test_every_type_of_a_transcript_is_in_the_schema() -> None:
    inside = {
        part
        for kind in (Transcript, *SCHEMA_TYPES)
        for hint in typing.get_type_hints(kind).values()
        for part in (hint, *typing.get_args(hint))
        if dataclasses.is_dataclass(part)
    }
    assert inside == set(SCHEMA_TYPES)
    assert schemas.transcript()["properties"]["schema"]["const"] == transcript.SCHEMA


AUDIO_JSON: dict[str, Any] = {"name": "a", "sha256": "", "duration_ms": 1}
SEGMENT_JSON: dict[str, Any] = {"start_ms": 0, "end_ms": 1, "text": "a"}
HALF_MS: dict[str, Any] = {"text": "a", "start_ms": 0.5, "end_ms": 1}


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "list"),
        (b'"text"', "text"),
        (b"{}", "nothing"),
        (b'{"text": "a", "segments": [], "language": "en"}', "openai/whisper"),
        (b'{"transcription": []}', "whisper.cpp"),
        (json.dumps({"schema": 1, "files": [], "counts": {}}).encode(), "report"),
        (json.dumps({"schema": 1, "audio": {}, "segments": []}).encode(), "name"),
        (json.dumps({"schema": 1, "audio": AUDIO_JSON, "segments": ["a"]}).encode(), "parts"),
        (json.dumps({"schema": 1, "audio": AUDIO_JSON, "segments": ""}).encode(), "segments"),
        (json.dumps({"schema": 0, "audio": AUDIO_JSON, "segments": []}).encode(), "schema 0"),
        (json.dumps({"schema": True, "audio": AUDIO_JSON, "segments": []}).encode(), "schema"),
        (
            json.dumps({"schema": 1, "audio": AUDIO_JSON, "segments": [{**SEGMENT_JSON, "end_ms": "1"}]}).encode(),
            "segments[0].end_ms is '1'",
        ),
        (
            json.dumps({"schema": 1, "audio": AUDIO_JSON, "segments": [{**SEGMENT_JSON, "words": [HALF_MS]}]}).encode(),
            "words[0].start_ms is 0.5",
        ),
        (json.dumps({"schema": 1, "audio": {**AUDIO_JSON, "name": None}, "segments": []}).encode(), "audio.name"),
    ],
)  # fmt: skip
def test_what_is_no_master_copy_is_refused_in_three_facts(tmp_path: Path, content: bytes, saying: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a master copy") as caught:
        read_master(path)
    assert saying in (caught.value.looked_at or "")
    assert "x.json" in (caught.value.looked_at or "")
    assert caught.value.do


def test_a_newer_schema_and_a_missing_file_are_said_so(tmp_path: Path) -> None:
    newer = tmp_path / "x.json"
    newer.write_text(json.dumps({"schema": 2, "audio": "new", "segments": []}))
    with pytest.raises(UsageError, match="newer Kuulo"):
        read_master(newer)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_master(tmp_path / "none.json")


def test_keys_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    data = {**EXAMPLE.to_json(), "mood": "good"}
    data["segments"][0]["mood"] = "better"
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert read_master(tmp_path / "a.json") == EXAMPLE


# ------------------------------------------------------------------ the table and the layout


def test_the_table_is_sorted_and_every_module_renders() -> None:
    assert list(formats.FORMATS) == sorted(formats.FORMATS)
    extensions = [s.extension for s in formats.FORMATS.values()]
    assert len(set(extensions)) == len(extensions)
    for name in formats.FORMATS:
        assert formats.render(name, said(), PLAIN) is not None


def test_unknown_names_are_refused_with_near_ones() -> None:
    formats.check(["srt", "all"])
    with pytest.raises(UsageError, match="'doc' is no output format") as caught:
        formats.check(["txt", "doc"])
    assert "did you mean docx" in str(caught.value)
    with pytest.raises(UsageError):
        formats.spec("all")
    with pytest.raises(UsageError):
        formats.render("nothing", said(), PLAIN)


def test_all_is_every_format_once() -> None:
    assert formats.expand(["vtt", "all", "vtt"]) == ("vtt", *(n for n in formats.FORMATS if n != "vtt"))


def test_a_layout_that_would_do_nothing_is_refused() -> None:
    values = {"max_line_width": None, "max_line_count": None, "max_words_per_line": None, "highlight_words": False}
    assert Layout.from_options({**values, "model": "x"}) == PLAIN
    assert Layout.from_options({**values, "max_line_width": 42, "max_line_count": 2}) == Layout(42, 2)
    with pytest.raises(UsageError, match="without --max-line-width"):
        Layout.from_options({**values, "max_line_count": 2})
    with pytest.raises(UsageError, match="--max-words-per-line has no effect"):
        Layout.from_options({**values, "max_line_width": 42, "max_line_count": 2, "max_words_per_line": 3})


def test_a_layout_needs_words_where_something_was_said() -> None:
    with pytest.raises(UsageError, match="--max-line-width needs the words' times"):
        formats.render("srt", TALK, Layout(max_line_width=42))
    assert formats.render("txt", TALK, Layout(max_line_width=42))
    assert formats.render("srt", said(), Layout(max_line_width=42)) == b""


# ------------------------------------------------------------------ kuulo export, kuulo formats


@pytest.fixture
def masters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `kuulo transcribe` leaves it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "transcripts"
    for name in ("anna.json", "day 1/bo äö'\".json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(formats.render("json", ANNA_AND_BO, PLAIN))
    (root / "report.json").write_text('{"schema": 1, "files": [], "counts": {}}')
    (root / ".kuulo").mkdir()
    (root / ".kuulo" / "hidden.json").write_bytes(formats.render("json", ANNA_AND_BO, PLAIN))
    return root


def call(*arguments: str | Path, command: click.Command = commands.export) -> Result:
    result = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    if result.exception and not isinstance(result.exception, KuuloError):
        raise result.exception
    return result


def test_export_writes_beside_the_master(masters: Path) -> None:
    result = call(masters / "anna.json", "-f", "docx,srt", "-f", "whisper-json")
    assert result.return_value == 0
    assert result.stdout == ""
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == ["wrote"] * 3
    assert (masters / "anna.srt").read_bytes() == formats.render("srt", ANNA_AND_BO, PLAIN)
    assert (masters / "anna.docx").is_file()
    assert (masters / "anna.whisper.json").is_file()


def test_export_takes_every_master_of_a_folder(masters: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call(masters, "-f", "txt", "-o", out, masters / "anna.json")
    assert result.return_value == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == ["anna.txt", "day 1/bo äö'\".txt"]
    assert f"passed over {masters / 'report.json'}" in result.stderr


def test_export_uses_layout_and_environment(masters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(masters / "anna.json", "-f", "srt", "--max-line-width", "14", "--max-line-count", "2")
    wanted = formats.render("srt", ANNA_AND_BO, Layout(14, 2))
    assert (masters / "anna.srt").read_bytes() == wanted
    monkeypatch.setenv("KUULO_MAX_LINE_WIDTH", "14")
    monkeypatch.setenv("KUULO_FORMAT", "srt")
    result = call(masters / "anna.json", "--max-line-count", "2")
    assert result.stderr.startswith("unchanged")


def test_export_overwrites_only_when_told(masters: Path) -> None:
    (masters / "anna.srt").write_text("mine")
    result = call(masters / "anna.json", "-f", "srt")
    assert isinstance(result.exception, UsageError)
    assert "--overwrite" in str(result.exception)
    assert (masters / "anna.srt").read_text() == "mine"
    result = call(masters / "anna.json", "-f", "srt,txt")
    assert result.return_value == EXIT_SOME_FAILED
    assert "failed: a file is in the way" in result.stderr
    assert (masters / "anna.txt").is_file()
    assert call(masters / "anna.json", "-f", "srt", "--overwrite").return_value == 0
    assert (masters / "anna.srt").read_text() != "mine"


def test_export_leaves_the_master_copy_itself_alone(masters: Path) -> None:
    edited = {**ANNA_AND_BO.to_json(), "mood": "of a newer version"}
    (masters / "anna.json").write_text(json.dumps(edited))
    result = call(masters / "anna.json", "-f", "json,txt", "--overwrite")
    assert result.return_value == 0
    assert json.loads((masters / "anna.json").read_text()) == edited
    assert result.stderr.startswith("unchanged")


def test_export_prints_and_writes_nothing(masters: Path) -> None:
    before = sorted(masters.rglob("*"))
    result = call(masters / "anna.json", "-f", "srt", "--print")
    assert result.stdout_bytes == formats.render("srt", ANNA_AND_BO, PLAIN)
    assert sorted(masters.rglob("*")) == before


def test_export_goes_on_after_a_file_that_is_no_master(masters: Path) -> None:
    result = call(masters / "report.json", masters / "anna.json", "-f", "txt")
    assert result.return_value == EXIT_SOME_FAILED
    assert "not a master copy" in result.stderr
    assert (masters / "anna.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["anna.json", "-f", "doc"], "did you mean docx"),
        (["anna.json", "-f", ","], "no format is named"),
        (["anna.json", "-f", "txt,srt", "--print"], "one format at a time"),
        (["anna.json", "-f", "txt", "--print", "-o", "x"], "--print writes no files"),
        (["anna.json", "-f", "txt", "--max-line-width", "3"], "--max-line-width has no effect on txt"),
        (["anna.json", "-f", "srt", "--max-line-count", "3"], "without --max-line-width"),
        (["anna.json", "-f", "srt", "--max-line-width", "0"], "less than 1"),
        (["report.json", "-f", "srt"], "Kuulo's report"),
        (["none.json", "-f", "srt"], "cannot be read"),
        ([".kuulo/empty", "-f", "srt"], "no master copy"),
    ],
)
def test_export_refuses_in_plain_words(
    masters: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], saying: str
) -> None:
    (masters / ".kuulo" / "empty").mkdir()
    monkeypatch.chdir(masters)
    result = call(*arguments)
    assert isinstance(result.exception, UsageError)
    assert saying in str(result.exception)
    assert not list(masters.rglob("*.txt")) + list(masters.rglob("*.srt"))


def test_export_never_writes_two_results_to_one_name(masters: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "anna.json").write_bytes((masters / "anna.json").read_bytes())
    result = call(masters / "anna.json", other / "anna.json", "-f", "txt", "-o", tmp_path / "out")
    assert isinstance(result.exception, UsageError)
    assert "same name" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_export_never_writes_over_another_master_copy(masters: Path, tmp_path: Path) -> None:
    (masters / "anna.whisper.json").write_bytes((masters / "anna.json").read_bytes())
    result = call(masters / "anna.json", masters / "anna.whisper.json", "-f", "whisper-json", "--overwrite")
    assert isinstance(result.exception, UsageError)


def test_formats_lists_them_for_people_and_machines() -> None:
    shown = call(command=commands.formats).stdout
    data = json.loads(call("--json", command=commands.formats).stdout)["formats"]
    assert [row["name"] for row in data] == formats.names()
    assert all(f"NAME{row['extension']}" in shown for row in data)
