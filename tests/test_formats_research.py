"""The formats of researchers' programs, read back by other people's parsers."""

from __future__ import annotations

import csv
import ctypes.util
import dataclasses
import html.parser
import importlib.util
import io
import itertools
import os
import re
import runpy
import subprocess
import sys
import tarfile
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from kuulo import formats, naming
from kuulo.formats.labels import labels
from kuulo.formats.spoken import NOBODY, lines, tiers, times, xml
from kuulo.transcript import Segment, Speaker, Transcript, Word
from test_formats import ANNA_AND_BO, EXAMPLE, PLAIN, QUICK, anything, hearing, said, text_of

LONG = "Ä" * 300
ODD = said(
    hearing(" Hyvää päivää, rouva.", 0, 2_000, "S1"),
    hearing(" Joo <joo> & niin!", 1_500, 2_500, "S2"),
    Segment(1_600, 1_900, " ilman puhujaa", ()),
    hearing(" päällä", 1_700, 1_800, "S1"),
    Segment(3_000, 3_000, " hetki", (), "S3"),
    Segment(4_000, 5_000, "   ", (), "S1"),
    hearing(" Yli tunti?", 3_600_000, 3_601_500, "S3"),
    hearing(" yli sata tuntia", 360_000_000, 360_002_000, "S2"),
    speakers=(Speaker("S1", 'Anna "Änkkä"'), Speaker("S2", "Bo\n<x>\t&"), Speaker("S3", LONG)),
)
"""Overlap (also of a speaker with himself), no speaker, no words, no length, no text, odd names, late times."""

EMPTY = said()
SUBJECTS = [ANNA_AND_BO, EXAMPLE, ODD, EMPTY]
NAMES = ["two voices", "example", "odd", "empty"]
each = pytest.mark.parametrize("subject", SUBJECTS, ids=NAMES)


def spoken(subject: Transcript) -> list[tuple[int, int, str, str]]:
    return [(line.start_ms, line.end_ms, line.speaker, line.text) for line in lines(subject)]


def in_time(subject: Transcript) -> list[tuple[int, int, str, str]]:
    return sorted(spoken(subject))


def ms(seconds: float) -> int:
    return round(seconds * 1000)


# ------------------------------------------------------------------ lines and tiers


def test_lines_have_length_and_text_and_follow_the_speakers_of_words() -> None:
    turned = Segment(
        0, 900, " a b c", (Word(" a", 0, 300), Word(" b", 300, 600, None, "S2"), Word(" c", 600, 900)), "S1"
    )
    assert spoken(said(turned)) == [(0, 300, "S1", "a"), (300, 600, "S2", "b"), (600, 900, "S1", "c")]
    assert spoken(said(Segment(-5, -5, " x\n y ", ()), Segment(1, 2, " ", ()))) == [(0, 1, "", "x y")]


@given(anything())
@QUICK
def test_tiers_hold_every_line_once_and_none_overlap(subject: Transcript) -> None:
    found = tiers(subject)
    held = [(line.start_ms, line.end_ms, line.speaker, line.text) for tier in found for line in tier.lines]
    assert sorted(held) == in_time(subject)
    assert len({tier.name for tier in found}) == len(found)
    for tier in found:
        assert all(line.speaker == tier.speaker for line in tier.lines)
        assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(tier.lines))


def test_a_speaker_who_overlaps_himself_gets_a_further_tier_with_a_name_of_its_own() -> None:
    subject = said(
        *(Segment(0, 1_000, f" {n}", (), n) for n in ("S1", "S1", "S2")), Segment(0, 9, " nobody"),
        speakers=(Speaker("S1", "A"), Speaker("S2", "A (2)")),
    )  # fmt: skip
    assert [(t.name, t.speaker) for t in tiers(subject)] == [
        (NOBODY, ""), ("A", "A"), ("A (3)", "A"), ("A (2)", "A (2)"),
    ]  # fmt: skip
    silent = dataclasses.replace(subject, segments=subject.segments[:2])
    assert [t.name for t in tiers(silent)] == ["A", "A (3)"], "somebody who says nothing is called A (2)"
    called_so = said(Segment(0, 1, " a", (), NOBODY), Segment(0, 1, " b"))
    assert sorted(t.name for t in tiers(called_so)) == [NOBODY, f"{NOBODY} (2)"]


# ------------------------------------------------------------------ read by other programs' parsers


@each
def test_praat_reads_the_textgrid(subject: Transcript, tmp_path: Path) -> None:
    parselmouth = pytest.importorskip("parselmouth")
    call = parselmouth.praat.call
    path = tmp_path / "a.TextGrid"
    path.write_bytes(formats.render("textgrid", subject, PLAIN))
    grid = parselmouth.read(str(path))
    found = tiers(subject)
    assert call(grid, "Get number of tiers") == len(found)
    for number, tier in enumerate(found, start=1):
        assert call(grid, "Get tier name", number) == tier.name
        intervals = [
            (
                ms(call(grid, "Get start time of interval", number, i)),
                ms(call(grid, "Get end time of interval", number, i)),
                call(grid, "Get label of interval", number, i),
            )
            for i in range(1, call(grid, "Get number of intervals", number) + 1)
        ]
        assert [i for i in intervals if i[2]] == [(line.start_ms, line.end_ms, line.text) for line in tier.lines]
        assert intervals[0][0] == 0
        assert all(a[1] == b[0] for a, b in itertools.pairwise(intervals))


@each
def test_pympi_reads_the_eaf(subject: Transcript, tmp_path: Path) -> None:
    elan = pytest.importorskip("pympi.Elan")
    path = tmp_path / "a.eaf"
    path.write_bytes(formats.render("eaf", subject, PLAIN))
    read = elan.Eaf(str(path))
    found = tiers(subject)
    assert list(read.get_tier_names()) == [tier.name for tier in found]
    for tier in found:
        assert sorted(read.get_annotation_data_for_tier(tier.name)) == [
            (line.start_ms, line.end_ms, line.text) for line in tier.lines
        ]
        assert read.get_parameters_for_tier(tier.name).get("PARTICIPANT", "") == tier.speaker
    assert read.media_descriptors[0]["RELATIVE_MEDIA_URL"] == "./interview.m4a"


@pytest.fixture(scope="module")
def eaf_schema() -> Any:
    """ELAN's schema, which pympi's source archive has among its tests; `make dev` fetches it."""
    xmlschema = pytest.importorskip("xmlschema")
    archives = sorted(Path(sys.prefix, "schemas").glob("pympi*.tar.gz"))
    if not archives:
        pytest.skip("ELAN's schema is not here: make dev fetches it")
    with tarfile.open(archives[0]) as archive:
        (name,) = [name for name in archive.getnames() if name.endswith("/EAFv3.0.xsd")]
        found = archive.extractfile(name)
        assert found is not None
        return xmlschema.XMLSchema(found.read().decode())


@each
def test_the_eaf_is_valid_by_the_published_schema(subject: Transcript, eaf_schema: Any) -> None:
    content = text_of("eaf", subject)
    assert [error.reason for error in eaf_schema.iter_errors(content)] == []
    broken = content.replace("TIME_ORDER", "TIME_ORDERS")
    assert not eaf_schema.is_valid(broken)


@each
def test_the_eaf_has_the_order_and_the_ids_that_its_schema_asks_for(subject: Transcript) -> None:
    root = ET.fromstring(text_of("eaf", subject))
    order = [e.tag for e in root if e.tag != "TIER"]
    assert order == ["HEADER", "TIME_ORDER", "LINGUISTIC_TYPE"]
    assert [e.tag for e in root][2:-1] == ["TIER"] * len(tiers(subject))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", root.get("DATE") or "")
    ids = [e.get("TIME_SLOT_ID") or e.get("ANNOTATION_ID") for e in root.iter() if len(e.keys()) > 1]
    known = [i for i in ids if i]
    assert len(set(known)) == len(known)
    slots = {e.get("TIME_SLOT_ID"): int(e.get("TIME_VALUE") or -1) for e in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    for a in root.iter("ALIGNABLE_ANNOTATION"):
        assert slots[a.get("TIME_SLOT_REF1")] < slots[a.get("TIME_SLOT_REF2")]


@each
def test_pylangacq_reads_the_cha(subject: Transcript, tmp_path: Path) -> None:
    pylangacq = pytest.importorskip("pylangacq")
    path = tmp_path / "interview.cha"  # CHAT wants the recording's name
    path.write_bytes(formats.render("cha", subject, PLAIN))
    read = pylangacq.read_chat(str(path))
    assert [h.languages for h in read.headers()] == [["fin"]]
    found = list(read.utterances())
    assert len(found) == len(lines_with_words(subject))
    for utterance, (start_ms, end_ms) in zip(found, lines_with_words(subject), strict=True):
        assert utterance.time_marks == (start_ms, end_ms)


def lines_with_words(subject: Transcript) -> list[tuple[int, int]]:
    """The subjects here have one sentence to a segment."""
    return [
        (start, end) for start, end, _, text in sorted(spoken(subject), key=lambda r: r[0]) if re.search(r"\w", text)
    ]


def test_cha_cuts_at_sentences_and_keeps_the_words() -> None:
    subject = said(Segment(0, 10_000, ' Hei, [Anna] - mitä? Ei mitään!! "Hyvä"... 3.5 kg & niin', (), "S1"))
    body = [line for line in text_of("cha", subject).splitlines() if line.startswith("*")]
    assert [re.sub("\x15.*", "", line) for line in body] == [
        "*SP1:\tHei , Anna mitä ? ", "*SP1:\tEi mitään ! ", "*SP1:\tHyvä . ", "*SP1:\t3_5 kg niin . ",
    ]  # fmt: skip
    bounds = [tuple(map(int, re.findall(r"\x15(\d+)_(\d+)\x15", line)[0])) for line in body]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 10_000
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))


@each
def test_pyannote_reads_the_rttm(subject: Transcript, tmp_path: Path) -> None:
    util = pytest.importorskip("pyannote.database.util")
    path = tmp_path / "a.rttm"
    path.write_bytes(formats.render("rttm", subject, PLAIN))
    turns = [
        (ms(turn.start), ms(turn.end), name)
        for annotation in util.load_rttm(path).values()
        for turn, _, name in annotation.itertracks(yield_label=True)
    ]
    wanted = {(start, end, "_".join(who.split())) for start, end, who, _ in spoken(subject) if who}
    assert set(turns) == wanted


@each
def test_rttm_and_ctm_are_read_by_kuulo_evaluate(subject: Transcript, tmp_path: Path) -> None:
    from kuulo.evaluation.lines import read

    for name in ("rttm", "ctm"):
        (tmp_path / f"a.{name}").write_bytes(formats.render(name, subject, PLAIN))
    if any(speaker for _, _, speaker, _ in spoken(subject)):
        assert len(read(tmp_path / "a.rttm")) == sum(1 for _, _, speaker, _ in spoken(subject) if speaker)
    if subject.segments:
        words = " ".join(line.text for line in read(tmp_path / "a.ctm")).split()
        assert sorted(words) == sorted(w for _, _, _, text in spoken(subject) for w in text.split())


def test_ctm_gives_words_without_times_their_share() -> None:
    subject = said(Segment(1_000, 4_000, " a b c"), Segment(500, 900, " x", (Word(" x", 500, 900, 0.256),)))
    assert text_of("ctm", subject).splitlines() == [
        "interview 1 0.500 0.400 x 0.26",
        "interview 1 1.000 1.000 a",
        "interview 1 2.000 1.000 b",
        "interview 1 3.000 1.000 c",
    ]


@each
def test_exb_is_a_timeline_and_tiers_of_its_speakers(subject: Transcript) -> None:
    root = ET.fromstring(text_of("exb", subject))
    points = {e.attrib["id"]: ms(float(e.attrib["time"])) for e in root.iter("tli")}
    assert list(points.values()) == sorted(points.values())
    names = {e.attrib["id"]: e.findtext("abbreviation") for e in root.iter("speaker")}
    found = [
        (
            points[e.attrib["start"]],
            points[e.attrib["end"]],
            names.get(tier.get("speaker", ""), ""),
            (e.text or "").strip(),
        )
        for tier in root.iter("tier")
        for e in tier.iter("event")
    ]
    assert sorted(found) == sorted((s, e, xml(who), xml(text)) for s, e, who, text in spoken(subject))


CHILDREN = {
    "basic-transcription": "head,basic-body,(tierformat-table,)?",
    "head": "meta-information,speakertable,",
    "meta-information": (
        "project-name,transcription-name,(referenced-file,)+ud-meta-information,comment,transcription-convention,"
    ),
    "speakertable": "(speaker,)*",
    "speaker": "abbreviation,sex,languages-used,l1,l2,ud-speaker-information,comment,",
    "basic-body": "common-timeline,(tier,)*",
    "common-timeline": "(tli,)*",
    "tier": "(ud-tier-information,)?(event,)*",
    "event": "(ud-information,)*",
}
"""What stands in each element, in this order; nothing in the others. From EXMARaLDA's own definition of the format,
version 1.4: templates/dtd/1.4/basic-transcription.dtd in the repository Exmaralda-Org/exmaralda."""

WITH_TEXT = {"project-name", "transcription-name", "comment", "transcription-convention", "abbreviation", "event"}

NEEDED = {
    "referenced-file": {"url"}, "speaker": {"id"}, "sex": {"value"}, "tli": {"id"}, "tier": {"id", "category", "type"},
    "event": {"start", "end"},
}  # fmt: skip
ALLOWED = {"basic-transcription": {"Id"}, "tli": {"time", "type", "bookmark"}, "tier": {"speaker", "display-name"}}
"""Attributes, by the same source."""

XML_NAME = re.compile(r"[A-Za-z_][\w.-]*")


def exb_faults(text: str) -> list[str]:
    """Where a file is not as EXMARaLDA's definition of the format says."""
    root = ET.fromstring(text)
    found = [] if root.tag == "basic-transcription" else [root.tag]
    for e in root.iter():
        inside = "".join(f"{child.tag}," for child in e)
        if not re.fullmatch(CHILDREN.get(e.tag, ""), inside):
            found.append(f"{e.tag} has {inside}")
        needed, allowed = NEEDED.get(e.tag, set()), ALLOWED.get(e.tag, set())
        if not needed <= set(e.attrib) <= needed | allowed:
            found.append(f"{e.tag} has the attributes {sorted(e.attrib)}")
        if e.tag not in WITH_TEXT and ((e.text or "").strip() or any((child.tail or "").strip() for child in e)):
            found.append(f"{e.tag} has text")
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    if len(set(ids)) != len(ids) or not all(XML_NAME.fullmatch(id_) for id_ in ids):
        found.append("an id is none, or there twice")
    names = {e.attrib["id"] for e in root.iter("speaker")}
    points = {e.attrib["id"] for e in root.iter("tli")}
    found += [
        f"no speaker {e.attrib['speaker']}" for e in root.iter("tier") if e.get("speaker", "") not in {*names, ""}
    ]
    found += [f"no point {e.attrib}" for e in root.iter("event") if not {e.attrib["start"], e.attrib["end"]} <= points]
    found += [e.attrib["value"] for e in root.iter("sex") if e.attrib["value"] not in ("m", "f", "u")]
    return found + [e.attrib["type"] for e in root.iter("tier") if e.attrib["type"] not in ("t", "d", "a", "l", "u")]


@each
def test_exb_is_as_exmaraldas_definition_of_it_says(subject: Transcript) -> None:
    text = text_of("exb", subject)
    assert exb_faults(text) == []
    for broken in ("<speakertable", "<common-timeline", "<comment"):
        assert exb_faults(re.sub(rf"{broken} ?/>|{broken}>.*?</{broken[1:]}>", "", text, count=1, flags=re.S))


@given(anything())
@settings(QUICK, max_examples=40)
def test_any_exb_is(subject: Transcript) -> None:
    assert exb_faults(text_of("exb", subject)) == []


class Record:
    """A graph as that of discoursegraphs, whose own needs networkx 1: what is told of nodes, in the order in which it
    is told, and the edges."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.edges: list[tuple[str, str]] = []
        self.node = self

    def __getitem__(self, node: str) -> _Told:
        return _Told(self.told, node)

    def add_node(self, node: str, layers: set[str], attr_dict: dict[str, str] | None = None) -> None:
        self.told += [(node, key, value) for key, value in (attr_dict or {}).items()]

    def add_edge(self, source: str, target: str, edge_type: str) -> None:
        self.edges.append((source, target))


@dataclass(frozen=True)
class _Told:
    told: list[tuple[str, str, str]]
    node: str

    def __setitem__(self, key: str, value: str) -> None:
        self.told.append((self.node, key, value))


FUNCTIONS = ("get_annotation_layers", "get_pointing_chains", "get_span", "select_nodes_by_layer")
"""What its reader imports for writing."""


@pytest.fixture
def read_exb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Record]:
    """The reader of the package discoursegraphs, on our graph."""
    about = importlib.util.find_spec("discoursegraphs")
    if about is None or not about.submodule_search_locations:
        pytest.skip("needs the package discoursegraphs")
    graph = types.ModuleType("discoursegraphs")
    kinds = types.SimpleNamespace(dominance_relation="dominance", spanning_relation="spanning")
    graph.__dict__.update({"DiscourseDocumentGraph": Record, "EdgeTypes": kinds, **dict.fromkeys(FUNCTIONS)})
    util = types.ModuleType("discoursegraphs.util")
    util.__dict__["create_dir"] = None
    monkeypatch.setitem(sys.modules, "discoursegraphs", graph)
    monkeypatch.setitem(sys.modules, "discoursegraphs.util", util)
    reader = Path(about.submodule_search_locations[0], "readwrite", "exmaralda.py")
    return cast("Callable[[Path], Record]", runpy.run_path(str(reader))["read_exb"])


@pytest.mark.filterwarnings("ignore:This search incorrectly ignores the root element:FutureWarning")
@each
def test_discoursegraphs_reads_the_exb(subject: Transcript, read_exb: Callable[[Path], Record], tmp_path: Path) -> None:
    """Where events of a tier are from one point of the timeline to the next it tells what the first point says;
    else which points each event is over."""
    path = tmp_path / "a.exb"
    path.write_bytes(formats.render("exb", subject, PLAIN))
    found = read_exb(str(path))
    points = times(tiers(subject), 0, max(0, subject.audio.duration_ms))
    assert found.tokens == [f"T{n}" for n in range(len(points))], "in the order of their times"
    heard, names = [], set()
    for node, key, value in found.told:
        if key == "exmaralda:v":
            heard.append((points[int(node[1:])], points[int(node[1:]) + 1], value))
        elif key == "exmaralda:annotation":
            over = [int(target[1:]) for source, target in found.edges if source == node]
            heard.append((points[over[0]], points[over[-1] + 1], value))
        elif key == "exmaralda:display-name":
            names.add(value)
    assert sorted(heard) == sorted((s, e, xml(text) + " ") for s, e, _, text in spoken(subject))
    assert names <= {xml(tier.name) for tier in tiers(subject)}


# ------------------------------------------------------------------ text and tables


PARLATYPE = """\
import ctypes, sys
library = ctypes.CDLL("libparlatype.so.5")
library.pt_player_new.restype = ctypes.c_void_p
position = library.pt_player_get_timestamp_position
position.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
player = library.pt_player_new()
for line in sys.stdin.buffer:
    print(position(player, line.strip(), 0))
"""
"""Parlatype's reader of times that stand in a text: ms, -1 for what is none. Its player, which finds nothing to play
with, complains."""


@pytest.fixture(scope="session")
def parlatype(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], list[int]]:
    if ctypes.util.find_library("parlatype") is None:
        pytest.skip("needs Parlatype's library (Debian's package libparlatype5)")
    home = tmp_path_factory.mktemp("parlatype")

    def read(times: Sequence[str]) -> list[int]:
        command = [sys.executable, "-c", PARLATYPE]
        done = subprocess.run(
            command, input="\n".join(times), env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [int(line) for line in done.stdout.split()]

    return read


BELOW_100_HOURS = 100 * 3_600_000


@each
@pytest.mark.parametrize(("name", "time", "step"), [("timestamps", r"\[\S+?\]", 1000), ("f4", r"#[^#\s]+#", 100)])
def test_parlatype_reads_the_times(
    name: str, time: str, step: int, subject: Transcript, parlatype: Callable[[Sequence[str]], list[int]]
) -> None:
    """It has two digits for hours."""
    rows = text_of(name, subject).splitlines()
    written = [re.findall(time, row)[0 if name == "timestamps" else -1] for row in rows]
    told = [start if name == "timestamps" else end for start, end, _, _ in spoken(subject)]
    assert parlatype(written) == [ms // step * step if ms < BELOW_100_HOURS else -1 for ms in told]
    if written:
        assert parlatype([written[0][1:-1] + "x", "#" + written[0]]) == [-1, -1]


@each
def test_mir_eval_reads_the_labels_of_audacity(subject: Transcript, tmp_path: Path) -> None:
    read = pytest.importorskip("mir_eval.io").load_labeled_intervals
    (tmp_path / "a.txt").write_bytes(formats.render("audacity", subject, PLAIN))
    intervals, found = read(tmp_path / "a.txt", delimiter="\t", comment=None)
    told = [(ms(start), ms(end), label) for (start, end), label in zip(intervals, found, strict=True)]
    assert told == [(s, e, f"{who}: {text}" if who else text) for s, e, who, text in spoken(subject)]


@each
def test_python_reads_the_table_for_nvivo_as_a_spreadsheet_does(subject: Transcript) -> None:
    """With the quotes of spreadsheets: a table parted by tabs is read so unless one says otherwise."""
    heading, *rows = csv.reader(io.StringIO(text_of("nvivo", subject), newline=""), "excel-tab")
    assert heading == ["Timespan", "Speaker", "Content"]
    found = [(*(tenths(time) for time in span.split(" - ")), who, text) for span, who, text in rows]
    assert sorted(found) == sorted((s // 100, e // 100, who, text) for s, e, who, text in spoken(subject))
    assert [start for start, *_ in found] == sorted(start for start, *_ in found)


def tenths(time: str) -> int:
    """Tenths of a second in `00:01:02.3`; hours have two digits, or more above 99."""
    hours, minutes, seconds, tenth = re.fullmatch(r"(\d\d+):([0-5]\d):([0-5]\d)\.(\d)", time).groups()  # type: ignore[union-attr]
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 10 + int(tenth)


def test_a_quote_that_begins_a_cell_is_no_quote_of_the_table() -> None:
    subject = said(hearing(' "Hei" hän sanoi.', 0, 900, "S1"), hearing(' "', 1_000, 2_000, "S1"))
    assert text_of("nvivo", subject).splitlines()[1:] == [
        '00:00:00.0 - 00:00:00.9\tS1\t\u201cHei" hän sanoi.',
        "00:00:01.0 - 00:00:02.0\tS1\t\u201c",
    ]
    assert [row[2] for row in csv.reader(io.StringIO(text_of("nvivo", subject)), "excel-tab")][
        1
    ] == '\u201cHei" hän sanoi.'


def read_f4(text: str) -> list[tuple[int, str]]:
    """End in tenths of a second and words of each paragraph, as Subtitle Edit finds them in a text of f4 (`F4Text` in
    its libse): what stands between two `#` is a time when it is `00:00:00-0`, else words."""
    found, words = [], ""
    for part in filter(None, text.strip().split("#")):
        if re.fullmatch(r"\d\d+:\d\d:\d\d-\d", part):
            found.append((tenths(part.replace("-", ".")), words.strip()))
            words = ""
        else:
            words += part
    return [*found, *([(-1, words)] if words.strip() else [])]


@each
def test_f4_is_read_as_subtitle_edit_does(subject: Transcript) -> None:
    told = [(e // 100, f"{who}: {text}" if who else text) for _, e, who, text in spoken(subject)]
    assert read_f4(text_of("f4", subject)) == [(end, text.replace("#", "\uff03")) for end, text in told]


@each
def test_timestamps_are_one_time_before_each_paragraph(subject: Transcript) -> None:
    """`[hh:mm:ss]` before a paragraph, as the documents of aTrain and of MAXQDA's import show it."""
    rows = text_of("timestamps", subject).splitlines()
    found = [re.fullmatch(r"\[(\d\d+:[0-5]\d:[0-5]\d)\] (\S.*)", row) for row in rows]
    told = [(tenths(f"{row[1]}.0") // 10, row[2]) for row in found if row]
    assert len(told) == len(rows) and [second for second, _ in told] == sorted(second for second, _ in told)
    assert sorted(told) == sorted((s // 1000, f"{who}: {text}" if who else text) for s, _, who, text in spoken(subject))


def test_text_with_times_has_the_forms_that_programs_know() -> None:
    subject = said(Segment(62_345, 3_723_456, " no #1", (), "S1"), speakers=(Speaker("S1", "Anna"),))
    assert text_of("f4", subject) == "Anna: no ＃1 #01:02:03-4#\n"
    assert text_of("timestamps", subject) == "[00:01:02] Anna: no #1\n"
    assert text_of("nvivo", subject) == ("Timespan\tSpeaker\tContent\n00:01:02.3 - 01:02:03.4\tAnna\tno #1\n")
    assert text_of("audacity", subject) == "62.345\t3723.456\tAnna: no #1\n"


@given(anything())
@settings(QUICK, max_examples=60)
def test_one_line_of_text_is_one_segment(subject: Transcript) -> None:
    count = len(spoken(subject))
    for name, heading in (("f4", 0), ("timestamps", 0), ("nvivo", 1), ("audacity", 0)):
        rows = text_of(name, subject).split("\n")[heading:-1]
        assert len(rows) == count, name
        if name == "f4":
            assert all(len(re.findall(r"#\d{2,}:\d\d:\d\d-\d#", row)) == 1 for row in rows)
        if name in ("nvivo", "audacity"):
            assert {row.count("\t") for row in rows} <= {2}
    for name in ("eaf", "exb"):
        ET.fromstring(text_of(name, subject))


# ------------------------------------------------------------------ html and docx


TAGS = set(re.findall(r"\w+", "html meta title style header h1 audio label input main p button b span script"))


class Page(html.parser.HTMLParser):
    """What a browser would see: tags with their attributes, and the text of the paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._in = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in += tag == "span"

    def handle_endtag(self, tag: str) -> None:
        self._in -= tag == "span"

    def handle_data(self, data: str) -> None:
        if self._in:
            self.words.append(data)


@given(anything())
@QUICK
def test_html_escapes_what_people_say_and_loads_nothing(subject: Transcript) -> None:
    page = Page(text_of("html", subject))
    assert {tag for tag, _ in page.tags} <= TAGS
    assert len([t for t, _ in page.tags if t == "p"]) == len(spoken(subject))
    assert len([t for t, _ in page.tags if t == "script"]) == 1
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert len(links) == 1
    assert (links[0] or "").startswith("./")
    assert not re.search(r"[<>\"'\s]", links[0] or "")


def test_html_says_the_words_and_where_they_are() -> None:
    page = Page(text_of("html", ODD))
    assert page.words == [text for _, _, _, text in spoken(ODD)]
    starts = [attrs["data-start"] for tag, attrs in page.tags if tag == "p"]
    assert starts == [str(start) for start, _, _, _ in spoken(ODD)]
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_docx_numbers_its_lines_but_not_the_headings() -> None:
    docx: Any = pytest.importorskip("docx")
    document = docx.Document(io.BytesIO(formats.render("docx", ODD, PLAIN)))
    section = document.sections[0]._sectPr
    tags = [child.tag.rpartition("}")[2] for child in section]
    assert tags.index("pgMar") < tags.index("lnNumType") < tags.index("cols")
    unnumbered = [bool(p._p.xpath("w:pPr/w:suppressLineNumbers")) for p in document.paragraphs]
    assert unnumbered == [True, True] + [False] * 7
    label = labels(ODD)
    assert document.paragraphs[2].runs[1].text == f"{label('S1')}: "


# ------------------------------------------------------------------ names of files


def test_no_recordings_name_is_taken_for_anothers_format() -> None:
    """The result of `a.f4.wav` as txt must not be that of `a.wav` as f4."""
    inner = {Path(s.extension).stem for s in formats.FORMATS.values() if s.extension.count(".") > 1}
    assert inner | {naming.SPEAKERS} == set(naming.INNER)
    recordings: list[tuple[Path, Path | None]] = [(Path(f"a{i}.wav"), None) for i in ("", *naming.INNER)]
    stems = naming.stems(recordings, lambda stem, path: False)
    names = [f"{stem}{s.extension}" for stem in stems for s in formats.FORMATS.values()]
    assert len(set(names)) == len(names)
