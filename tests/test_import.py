"""`kuulo import`: edited files laid over the master copy."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kuulo import formats, imports
from kuulo.cli.import_ import import_
from kuulo.errors import UsageError
from kuulo.formats import Layout
from kuulo.formats.json import read_master
from kuulo.imports.merge import EDITED, Changes, merge
from kuulo.imports.words import align
from kuulo.transcript import Decoding, Segment, Speaker, Transcript, Word
from test_formats import ANNA_AND_BO, EXAMPLE, hearing, said

READ = ("docx", "eaf", "srt", "textgrid", "vtt")
every = pytest.mark.parametrize("name", READ)
PLAIN = Layout()


def stretches(name: str, content: bytes, folder: Path) -> list[imports.Stretch]:
    path = folder / f"edited{formats.spec(name).extension}"
    path.write_bytes(content)
    return imports.read(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edited")


def back(name: str, subject: Transcript, folder: Path, layout: Layout = PLAIN) -> tuple[Transcript, Changes]:
    return merge(subject, stretches(name, formats.render(name, subject, layout), folder))


def edited(name: str, subject: Transcript, folder: Path, change: Callable[[str], str]) -> tuple[Transcript, Changes]:
    """The subject exported, changed as text and imported."""
    content = formats.render(name, subject, PLAIN)
    if name == "docx":
        return merge(subject, stretches(name, _docx(content, change), folder))
    return merge(subject, stretches(name, change(content.decode()).encode(), folder))


def _docx(content: bytes, change: Callable[[str], str]) -> bytes:
    """The document with each run's text changed, as somebody does in Word."""
    import docx

    document = docx.Document(io.BytesIO(content))
    for paragraph in document.paragraphs:
        for run in paragraph.runs:
            run.text = change(run.text)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


TALK = said(
    hearing(" Hyvää päivää kaikille.", 0, 3_000, "S1"),
    hearing(" Kiitos, samoin teille.", 3_200, 6_200, "S2"),
    Segment(6_500, 9_000, " Mennäänkö sitten?", hearing(" Mennäänkö sitten?", 6_600, 8_800).words, "S1", "fi", 0.8,
            (), Decoding(seek=3)),
    speakers=(Speaker("S1", "Anna"), Speaker("S2", "Bo")),
)  # fmt: skip


def words(subject: Transcript) -> list[Word]:
    return [w for s in subject.segments for w in s.words]


# ------------------------------------------------------------------ without an edit


@every
@pytest.mark.parametrize("subject", [TALK, ANNA_AND_BO, EXAMPLE, said()], ids=["talk", "two", "example", "empty"])
def test_what_was_not_edited_is_the_same(name: str, subject: Transcript, folder: Path) -> None:
    after, changes = back(name, subject, folder)
    assert changes.nothing
    assert after is subject


TOKENS = st.sampled_from(
    ["hei", "Hei,", "ja", "ja", "Anna:", "1984", "no...", "--", "-->", "&amp;", "<b>", "<v", '"niin"', "[Music]",
     "äö", "שלום", "世界", "#1", "\\N", "'", "NOTE", "S1:", "*"]
)  # fmt: skip
LABELS = ["Anna", "Bo", "Anna (2)", "Anna: x", "<b>", '"Q"', "Ä & ö", "x" * 90, "[00:00:01]"]


@st.composite
def transcripts(draw: st.DrawFn, *, with_words: bool | None = None) -> Transcript:
    """Segments in the order of time, that may overlap, with and without words and speakers."""
    labels = draw(st.lists(st.sampled_from(LABELS), max_size=3, unique=True))
    speakers = tuple(Speaker(f"S{n}", label) for n, label in enumerate(labels, start=1))
    ids = st.none() | st.sampled_from([s.id for s in speakers]) if speakers else st.none()
    has_words = draw(st.booleans()) if with_words is None else with_words
    segments = []
    at = draw(st.sampled_from([0, 3_599_000, 359_999_500]))
    for _ in range(draw(st.integers(0, 6))):
        at += draw(st.integers(0, 4_000))
        length = draw(st.integers(0, 6_000))
        texts = draw(st.lists(TOKENS, max_size=6))
        text = "".join(f" {t}" for t in texts)
        marks = sorted(draw(st.lists(st.integers(at, at + length), min_size=2 * len(texts), max_size=2 * len(texts))))
        spoken = tuple(Word(f" {t}", marks[2 * i], marks[2 * i + 1], 0.5) for i, t in enumerate(texts))
        spoken = spoken if has_words else ()
        segments.append(Segment(at, at + length, text, spoken, draw(ids), None, 0.9))
    return said(*segments, speakers=speakers)


CAREFUL = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@every
@given(subject=transcripts())
@CAREFUL
def test_any_transcript_comes_back_as_it_was(name: str, subject: Transcript, folder: Path) -> None:
    after, changes = back(name, subject, folder)
    assert after == subject
    assert changes.nothing


@pytest.mark.parametrize("name", ["srt", "vtt"])
@given(subject=transcripts(with_words=True), width=st.integers(8, 60), lines=st.none() | st.integers(1, 2))
@CAREFUL
def test_another_layout_changes_no_word_and_no_time(
    name: str, subject: Transcript, width: int, lines: int | None, folder: Path
) -> None:
    """Cues may join and part segments; the words in them stay, each with its time and its speaker."""
    tame = re.compile(r"[\w,.:]+")
    segments = []
    for s in subject.segments:
        kept = tuple(w for w in s.words if tame.fullmatch(w.text.strip()))
        segments.append(replace(s, words=kept, text="".join(w.text for w in kept)))
    speakers = tuple(replace(s, label=f"P{s.id}") for s in subject.speakers)
    subject = replace(subject, segments=tuple(segments), speakers=speakers)
    after, _ = back(name, subject, folder, Layout(max_line_width=width, max_line_count=lines))

    def facts(t: Transcript) -> list[tuple[str, str]]:
        return sorted((w.text.strip(), w.speaker or s.speaker or "") for s in t.segments for w in s.words)

    assert facts(after) == facts(subject)


# ------------------------------------------------------------------ edits


@every
def test_a_corrected_word_leaves_the_others_their_times(name: str, folder: Path) -> None:
    after, changes = edited(name, TALK, folder, lambda text: text.replace("samoin", "kuten myös"))
    assert [s.text for s in after.segments] == [
        " Hyvää päivää kaikille.", " Kiitos, kuten myös teille.", " Mennäänkö sitten?",
    ]  # fmt: skip
    assert (after.segments[0], after.segments[2]) == (TALK.segments[0], TALK.segments[2])
    old, new = TALK.segments[1], after.segments[1]
    assert (new.start_ms, new.end_ms, new.speaker) == (old.start_ms, old.end_ms, "S2")
    assert new.words[0] == old.words[0]
    assert new.words[3] == old.words[2]
    assert new.words[1:3] == (Word(" kuten", 4_200, 4_700), Word(" myös", 4_700, 5_200))
    assert new.flags == (EDITED,)
    assert new.confidence is None
    assert (changes.words_kept, changes.words_new, changes.words_gone) == (7, 2, 1)
    assert (changes.segments_same, changes.segments_changed) == (2, 1)


@every
def test_a_word_typed_in_the_place_of_another_has_its_times(name: str, folder: Path) -> None:
    after, _ = edited(name, TALK, folder, lambda text: text.replace("päivää", "iltaa"))
    assert after.segments[0].words[1] == Word(" iltaa", 1_000, 2_000)


@every
def test_punctuation_and_capitals_keep_times_and_confidence(name: str, folder: Path) -> None:
    after, changes = edited(name, TALK, folder, lambda text: text.replace("Kiitos, samoin", "kiitos! Samoin"))
    assert after.segments[1].text == " kiitos! Samoin teille."
    assert [(w.start_ms, w.end_ms, w.confidence) for w in after.segments[1].words] == [
        (w.start_ms, w.end_ms, w.confidence) for w in TALK.segments[1].words
    ]
    assert changes.words_new == changes.words_gone == 0


@every
def test_another_speaker_is_taken_over(name: str, folder: Path) -> None:
    subject = replace(TALK, segments=(TALK.segments[0], replace(TALK.segments[2], speaker="S1")))
    turned = replace(subject, segments=(subject.segments[0], replace(subject.segments[1], speaker="S2")))
    after, changes = merge(subject, stretches(name, formats.render(name, turned, PLAIN), folder))
    assert after == turned
    assert changes.speakers_changed == 1
    assert not changes.new_speakers


@pytest.mark.parametrize("name", ["docx", "eaf", "textgrid", "vtt"])
def test_a_new_speaker_is_added(name: str, folder: Path) -> None:
    after, changes = edited(name, TALK, folder, lambda text: re.sub(r"\bBo\b", "Kaisa", text))
    assert changes.new_speakers == ["Kaisa"]
    assert after.speakers[-1] == Speaker("S3", "Kaisa")
    assert [s.speaker for s in after.segments] == ["S1", "S3", "S1"]
    assert words(after) == words(TALK)


def test_in_srt_only_a_known_name_is_a_speaker(folder: Path) -> None:
    after, changes = edited("srt", TALK, folder, lambda text: text.replace("Bo: ", "Huom: "))
    assert changes.new_speakers == []
    assert after.segments[1].text == " Huom: Kiitos, samoin teille."
    assert after.segments[1].speaker is None


@every
def test_a_deleted_segment_goes(name: str, folder: Path) -> None:
    short = replace(TALK, segments=(TALK.segments[0], TALK.segments[2]))
    after, changes = merge(TALK, stretches(name, formats.render(name, short, PLAIN), folder))
    assert after.segments == short.segments
    assert (changes.segments_gone, changes.words_gone, changes.words_new) == (1, 3, 0)


@pytest.mark.parametrize("name", ["eaf", "srt", "textgrid", "vtt"])
def test_moved_times_are_the_segments_and_not_the_words(name: str, folder: Path) -> None:
    moved = replace(TALK.segments[1], start_ms=3_100, end_ms=6_300, words=())
    others = (replace(TALK.segments[0], words=()), moved, replace(TALK.segments[2], words=()))
    content = formats.render(name, replace(TALK, segments=others), PLAIN)
    after, changes = merge(TALK, stretches(name, content, folder))
    assert after.segments[1] == replace(TALK.segments[1], start_ms=3_100, end_ms=6_300)
    assert changes.words_new == changes.words_gone == 0


@pytest.mark.parametrize("name", ["eaf", "textgrid"])
def test_a_segment_that_was_split_keeps_every_word(name: str, folder: Path) -> None:
    one, two = (replace(TALK.segments[0], words=TALK.segments[0].words[part]) for part in (slice(0, 2), slice(2, 3)))
    one = replace(one, end_ms=2_000, text=" Hyvää päivää")
    two = replace(two, start_ms=2_000, text=" kaikille.", speaker="S2")
    split = replace(TALK, segments=(one, two, *TALK.segments[1:]))
    after, changes = merge(TALK, stretches(name, formats.render(name, split, PLAIN), folder))
    assert words(after) == words(TALK)
    assert [(s.text, s.start_ms, s.end_ms, s.speaker) for s in after.segments[:2]] == [
        (" Hyvää päivää", 0, 2_000, "S1"), (" kaikille.", 2_000, 3_000, "S2"),
    ]  # fmt: skip
    assert changes.words_new == 0


def test_without_words_times_none_are_made_up(folder: Path) -> None:
    bare = replace(TALK, segments=tuple(replace(s, words=()) for s in TALK.segments))
    for name in READ:
        after, _ = edited(name, bare, folder, lambda text: text.replace("samoin", "myös"))
        assert not words(after)
        assert after.segments[1].text == " Kiitos, myös teille."
        assert after.segments[1].start_ms == 3_200
        assert after.segments[1].end_ms == 6_200


def test_editing_a_character_keeps_the_times_of_the_others(folder: Path) -> None:
    spoken = (Word("今天", 0, 500, 0.9), Word("天氣", 500, 900, 0.9), Word("很好。", 900, 1_500, 0.9))
    subject = said(Segment(0, 1_500, "今天天氣很好。", spoken))
    after, _ = edited("srt", subject, folder, lambda text: text.replace("很好。", "很好，"))
    assert after.segments[0].words == (*spoken[:2], replace(spoken[2], text="很好，"))
    after, _ = edited("srt", subject, folder, lambda text: text.replace("天氣", "心情"))
    assert after.segments[0].text == "今天心情很好。"
    assert after.segments[0].words[0] == spoken[0]
    assert after.segments[0].words[-1] == spoken[2]


def test_words_that_the_engine_parted_stay_parted(folder: Path) -> None:
    spoken = (Word(" well", 0, 100, 0.9), Word("-known", 100, 200, 0.9), Word(" fact", 200, 300, 0.9))
    subject = said(Segment(0, 300, " well-known fact", spoken))
    after, _ = edited("eaf", subject, folder, lambda text: text.replace("fact", "facts"))
    assert after.segments[0].words == (*spoken[:2], Word(" facts", 200, 300))


def test_a_new_cue_is_a_new_segment(folder: Path) -> None:
    added = "4\n00:00:20,000 --> 00:00:22,000\nBo: ihan uutta\n\n"
    after, changes = edited("srt", TALK, folder, lambda text: text + added)
    assert after.segments[:3] == TALK.segments
    assert after.segments[3] == Segment(
        20_000, 22_000, " ihan uutta", (Word(" ihan", 20_000, 21_000), Word(" uutta", 21_000, 22_000)), "S2",
        flags=(EDITED,),
    )  # fmt: skip
    assert changes.words_new == 2


def test_a_paragraph_that_was_parted_in_word_has_its_words_times(folder: Path) -> None:
    import docx

    document = docx.Document(io.BytesIO(formats.render("docx", TALK, PLAIN)))
    first, second = document.paragraphs[2:4]
    first.runs[-1].text = "Hyvää"
    second.insert_paragraph_before("päivää kaikille.")
    out = io.BytesIO()
    document.save(out)
    after, changes = merge(TALK, stretches("docx", out.getvalue(), folder))
    assert words(after) == words(TALK)
    assert [(s.text, s.start_ms, s.end_ms, s.speaker) for s in after.segments[:2]] == [
        (" Hyvää", 0, 1_000, "S1"), (" päivää kaikille.", 1_000, 3_000, "S1"),
    ]  # fmt: skip
    assert changes.words_new == 0


def test_tracked_changes_of_word_count(folder: Path) -> None:
    import docx
    from docx.oxml import OxmlElement

    document = docx.Document(io.BytesIO(formats.render("docx", TALK, PLAIN)))
    run = document.paragraphs[3].runs[-1]._r
    for tag, text, leaf in (("w:ins", " ihan", "w:t"), ("w:del", " turhaa", "w:delText")):
        mark, part, content = OxmlElement(tag), OxmlElement("w:r"), OxmlElement(leaf)
        content.text = text
        part.append(content)
        mark.append(part)
        run.addnext(mark)
    out = io.BytesIO()
    document.save(out)
    after, _ = merge(TALK, stretches("docx", out.getvalue(), folder))
    assert after.segments[1].text == " Kiitos, samoin teille. ihan"


@given(subject=transcripts(with_words=True), data=st.data())
@CAREFUL
def test_no_word_is_lost_or_doubled_by_edits(subject: Transcript, data: st.DataObject, folder: Path) -> None:
    """After random edits of the tiers the words are those of the file, and those kept have their times."""
    changed = []
    for segment in subject.segments:
        texts = segment.text.split()
        if texts and data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(texts) - 1))
            texts[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(TOKENS, max_size=2))
        changed.append(replace(segment, text="".join(f" {t}" for t in texts), words=()))
    content = formats.render("eaf", replace(subject, segments=tuple(changed)), PLAIN)
    after, _ = merge(subject, stretches("eaf", content, folder))
    assert sorted(t for s in after.segments for t in s.text.split()) == sorted(
        t for s in changed for t in s.text.split()
    )
    times = {(w.start_ms, w.end_ms, w.confidence) for w in words(subject)}
    for segment in after.segments:
        if segment.words:
            assert segment.text == "".join(w.text for w in segment.words)
        assert all((w.start_ms, w.end_ms, w.confidence) in times for w in segment.words if w.confidence is not None)


@given(st.lists(st.sampled_from("abcde"), max_size=40), st.lists(st.sampled_from("abcde"), max_size=40))
def test_alignment_is_rising_and_of_equal_words(old: Sequence[str], new: Sequence[str]) -> None:
    same, instead = align(old, new)
    assert all(old[a] == new[b] for b, a in same.items())
    assert not set(same) & set(instead)
    rising = [a for _, a in sorted({**same, **instead}.items())]
    assert rising == sorted(set(rising))


def test_a_long_file_is_aligned_quickly_and_well() -> None:
    import random
    import time

    lot = random.Random(1)
    old = [f"w{int(lot.paretovariate(0.6)) % 3000}" for _ in range(20_000)]
    new = [w for w in old if lot.random() > 0.02]
    began = time.process_time()
    same, _ = align(old, new)
    assert len(same) > 0.99 * len(new)
    assert all(old[a] == new[b] for b, a in same.items())
    assert time.process_time() - began < 20


# ------------------------------------------------------------------ files of other programs


def test_a_textgrid_that_praat_saved_is_read(folder: Path) -> None:
    parselmouth: Any = pytest.importorskip("parselmouth")
    path = folder / "praat.TextGrid"
    path.write_bytes(formats.render("textgrid", TALK, PLAIN))
    grid = parselmouth.read(str(path))
    parselmouth.praat.call(grid, "Set interval text", 1, 1, 'Hyvää "päivää" kaikille!')
    for how in ("Save as text file", "Save as short text file"):
        parselmouth.praat.call(grid, how, str(path))
        after, changes = merge(TALK, imports.read(path))
        assert after.segments[0].text == ' Hyvää "päivää" kaikille!'
        assert [w.start_ms for w in words(after)] == [w.start_ms for w in words(TALK)]
        assert changes.segments_same == 2
    parselmouth.praat.call(grid, "Save as binary file", str(path))
    with pytest.raises(UsageError, match="not what its extension") as caught:
        imports.read(path)
    assert "binary" in str(caught.value)


def test_an_eaf_that_pympi_saved_is_read(folder: Path) -> None:
    elan: Any = pytest.importorskip("pympi.Elan")
    path = folder / "pympi.eaf"
    path.write_bytes(formats.render("eaf", TALK, PLAIN))
    file = elan.Eaf(str(path))
    file.remove_annotation("Anna", 6_700)
    file.add_annotation("Bo", 6_500, 9_000, "Mennäänkö sitten?")
    file.to_file(str(path))
    after, changes = merge(TALK, imports.read(path))
    assert [s.speaker for s in after.segments] == ["S1", "S2", "S2"]
    assert words(after) == words(TALK)
    assert changes.speakers_changed == 1


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_subtitles_that_pysubs2_saved_are_read(name: str, folder: Path) -> None:
    pysubs2 = pytest.importorskip("pysubs2")
    bare = replace(TALK, speakers=(), segments=tuple(replace(s, speaker=None) for s in TALK.segments))
    file = pysubs2.SSAFile.from_string(formats.render(name, bare, PLAIN).decode(), format_=name)
    file[1].text = file[1].text.replace("samoin", "{\\i1}samoin{\\i0}")
    after, changes = merge(bare, stretches(name, file.to_string(name).encode(), folder))
    assert [s.text for s in after.segments] == [s.text for s in bare.segments]
    assert changes.words_new == 0


def test_names_of_cues_notes_and_styles_are_no_words(folder: Path) -> None:
    vtt = (
        "\ufeffWEBVTT - title\r\n\r\nSTYLE\r\n::cue { color: red }\r\n\r\nNOTE eka\r\n\r\nintro\r\n"
        "00:00.000 --> 00:03.000 align:start\r\n<v.loud Anna>Hyvää <c.x>päivää</c> kaikille.</v>\r\n\r\n"
        "NOTE toka\r\nviela\r\n\r\n2\r\n00:03.200 --> 00:06.200\r\n<v Bo>Kiitos, samoin teille.\r\n\r\n"
        "00:06.600 --> 00:08.800\r\n<v Anna>Mennäänkö sitten?\r\n"
    )
    after, changes = merge(TALK, stretches("vtt", vtt.encode(), folder))
    assert changes.nothing
    assert after == TALK


def test_slots_without_a_time_share_their_neighbours(folder: Path) -> None:
    eaf = formats.render("eaf", TALK, PLAIN).decode()
    eaf = eaf.replace('TIME_SLOT_ID="ts2" TIME_VALUE="3000"', 'TIME_SLOT_ID="ts2"')
    found = stretches("eaf", eaf.encode(), folder)
    assert found[0].end_ms == 1_600


@pytest.mark.parametrize(
    ("name", "content", "saying"),
    [
        ("srt", b"hello", "no line has times"),
        ("srt", b"\xff", "codec"),
        ("srt", b"1\n00:00:00,000 --> 00:00:01,000\n<u>a</u> b\n\n" * 2, "highlight"),
        ("eaf", b"<a", "not XML"),
        ("eaf", b"<a/>", "ANNOTATION_DOCUMENT"),
        ("textgrid", b"", "begin"),
        ("textgrid", b'"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "a" 0 1 3 0', "too soon"),
        ("docx", b"no", "not a Word"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(name: str, content: bytes, saying: str, folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        stretches(name, content, folder)
    assert saying in str(caught.value)
    assert caught.value.looked_at


# ------------------------------------------------------------------ the command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(import_, [str(a) for a in arguments])


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A master copy with its formats beside it."""
    for name in ("json", "srt", "txt", "eaf", "csv"):
        (tmp_path / f"talk{formats.spec(name).extension}").write_bytes(formats.render(name, TALK, PLAIN))
    return tmp_path


def test_the_master_and_what_is_beside_it_are_written(beside: Path) -> None:
    (beside / "talk.csv").write_text("mine")
    srt = beside / "talk.srt"
    srt.write_text(srt.read_text().replace("samoin", "kuten myös"))
    result = run(beside / "talk.json", srt)
    assert result.exit_code == 0, result.output
    assert "words: 7 kept, 2 new, 1 gone" in result.stdout
    assert "myös" not in result.output
    after = read_master(beside / "talk.json")
    assert after.segments[1].text == " Kiitos, kuten myös teille."
    assert after.provenance is not None
    step = after.provenance.steps[-1]
    assert (step.task, step.options["file"], step.options["new"]) == ("edit", "talk.srt", 2)
    assert "kuten myös" in (beside / "talk.txt").read_text()
    assert "kuten myös" in (beside / "talk.eaf").read_text()
    assert (beside / "talk.csv").read_text() == "mine"
    assert "left alone" in result.stderr
    assert "talk.csv" in result.stderr
    assert not [p for p in beside.iterdir() if p.name.startswith(".")]
    again = run(beside / "talk.json", srt)
    assert again.stdout == "nothing was edited\n"
    assert read_master(beside / "talk.json") == after


def test_the_master_of_the_same_name_is_taken_where_none_is_named(beside: Path) -> None:
    srt = beside / "talk.srt"
    srt.write_text(srt.read_text().replace("samoin", "kuten myös"))
    assert run(srt).exit_code == 0
    assert read_master(beside / "talk.json").segments[1].text == " Kiitos, kuten myös teille."
    elsewhere = srt.rename(beside / "other.srt")
    for named, why in (
        ([elsewhere], "no master copy of its name beside it"),
        ([beside / "talk.json"], "no edited file is named"),
        ([], "one edited file is imported at a time"),
        ([beside / "talk.json", elsewhere, elsewhere], "one edited file is imported at a time"),
    ):
        refused = run(*named)
        assert isinstance(refused.exception, UsageError) and why in refused.exception.what, refused.output


def test_a_dry_run_writes_nothing(beside: Path) -> None:
    before = {p.name: p.read_bytes() for p in beside.iterdir()}
    new = beside / "new.srt"
    new.write_text((beside / "talk.srt").read_text().replace("samoin", "myös"))
    result = run(beside / "talk.json", new, "--dry-run")
    assert result.exit_code == 0
    assert "1 edited" in result.stdout
    assert "at 0:00:03" in result.stdout
    new.unlink()
    assert {p.name: p.read_bytes() for p in beside.iterdir()} == before


def test_a_tier_can_be_left_out(beside: Path) -> None:
    grid = formats.render("eaf", replace(TALK, speakers=(Speaker("S1", "Anna"), Speaker("S2", "notes"))), PLAIN)
    bo_only = replace(TALK, segments=(TALK.segments[0], TALK.segments[2]))
    (beside / "talk.json").write_bytes(formats.render("json", bo_only, PLAIN))
    (beside / "x.eaf").write_bytes(grid)
    result = run(beside / "talk.json", beside / "x.eaf", "--without", "notes")
    assert result.stdout == "nothing was edited\n"
    wrong = run(beside / "talk.json", beside / "x.eaf", "--without", "none")
    assert isinstance(wrong.exception, UsageError)


def test_another_recordings_file_is_refused(beside: Path) -> None:
    long = said(hearing(" yksi kaksi kolme neljä viisi kuusi" * 5, 0, 60_000))
    (beside / "long.json").write_bytes(formats.render("json", long, PLAIN))
    result = run(beside / "long.json", beside / "talk.srt")
    assert isinstance(result.exception, UsageError)
    assert "another recording" in str(result.exception)
    assert run(beside / "long.json", beside / "talk.srt", "--force").exit_code == 0


def test_the_master_is_still_one_that_fits_its_schema(beside: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from kuulo import schemas

    srt = beside / "talk.srt"
    srt.write_text(srt.read_text().replace("samoin", "myös"))
    run(beside / "talk.json", srt)
    jsonschema.validate(json.loads((beside / "talk.json").read_text()), schemas.transcript())
