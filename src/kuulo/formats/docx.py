"""A Word document: the recording's name, a line about the transcript, then a paragraph for each segment.

    [00:01:05] Anna: Hyvää päivää, kiitos.

Lines are numbered in the margin, through the whole document, so that a passage can be quoted by its line.
The same transcript gives the same bytes: no time of writing is in the file.
"""

from __future__ import annotations

import io
import unicodedata
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kuulo import languages
from kuulo.formats import Layout
from kuulo.formats.labels import labels, one_line
from kuulo.formats.spoken import xml
from kuulo.transcript import Transcript

if TYPE_CHECKING:
    from docx.text.paragraph import Paragraph

LONG_AGO = datetime(1980, 1, 1, tzinfo=UTC)
"""The first day that a zip file can hold; stands where no time is known."""

PROPERTY_LENGTH = 255
"""Characters that a document property may have."""


def render(transcript: Transcript, layout: Layout) -> bytes:
    """The file's content. Characters that XML cannot hold become U+FFFD."""
    import docx
    from docx.shared import RGBColor

    document = docx.Document()
    _describe(document.core_properties, transcript)
    _unnumbered(document.add_heading(xml(one_line(transcript.audio.name)), level=0))
    _unnumbered(document.add_paragraph(xml(_about(transcript)), style="Subtitle"))
    label = labels(transcript)
    grey = RGBColor(0x6B, 0x6B, 0x6B)
    for segment in transcript.segments:
        text = segment.text.strip()
        if not text:
            continue
        paragraph = document.add_paragraph()
        paragraph.add_run(f"[{_clock(segment.start_ms)}] ").font.color.rgb = grey
        if speaker := label(segment.speaker):
            paragraph.add_run(xml(f"{speaker}: ")).bold = True
        paragraph.add_run(xml(text))
        if _is_right_to_left(text):
            _turn(paragraph)
    _number_lines(document)
    return _same_bytes(document)


def _describe(properties: Any, transcript: Transcript) -> None:
    """Document properties from the transcript alone."""
    written = started(transcript)
    properties.author = "Kuulo"
    properties.comments = ""
    properties.title = xml(one_line(transcript.audio.name))[:PROPERTY_LENGTH]
    properties.language = xml(transcript.language or "")[:PROPERTY_LENGTH]
    properties.created = written
    properties.modified = written
    properties.revision = 1


def started(transcript: Transcript) -> datetime:
    """When the recording was transcribed, in UTC; LONG_AGO when that was not noted."""
    noted = transcript.provenance.started if transcript.provenance else None
    try:
        moment = datetime.fromisoformat(noted or "")
    except ValueError:
        return LONG_AGO
    if moment.tzinfo:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=UTC, microsecond=0)


def _about(transcript: Transcript) -> str:
    """Language, duration, engine and model: what is known of them."""
    code = transcript.language
    parts = [languages.LANGUAGES.get(code, code).title()] if code else []
    parts.append(_clock(transcript.audio.duration_ms))
    for step in transcript.provenance.steps if transcript.provenance else ():
        parts.append(" ".join(p for p in (step.engine, step.engine_version, step.model) if p))
    return " · ".join(one_line(p) for p in parts)


def _clock(ms: int) -> str:
    minutes, seconds = divmod(max(0, ms) // 1000, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"


def _is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction runs from right to left, as Unicode's rule P2 has it."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def _turn(paragraph: Paragraph) -> None:
    """Set the paragraph from right to left; without it Word puts Hebrew and Arabic punctuation on the wrong side."""
    from docx.oxml import OxmlElement

    paragraph._p.get_or_add_pPr().insert_element_before(
        OxmlElement("w:bidi"), "w:adjustRightInd", "w:snapToGrid", "w:spacing", "w:ind", "w:jc", "w:rPr"
    )
    paragraph.runs[-1].font.rtl = True


def _unnumbered(paragraph: Paragraph) -> None:
    from docx.oxml import OxmlElement

    paragraph._p.get_or_add_pPr().insert_element_before(
        OxmlElement("w:suppressLineNumbers"), "w:bidi", "w:spacing", "w:ind", "w:jc", "w:rPr"
    )


def _number_lines(document: Any) -> None:
    """Line numbers in the margin that go on from page to page. Word counts the lines itself."""
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    numbers = OxmlElement("w:lnNumType")
    numbers.set(qn("w:countBy"), "1")
    numbers.set(qn("w:restart"), "continuous")
    section = document.sections[0]._sectPr
    before = [section.find(qn(name)) for name in ("w:pgNumType", "w:cols", "w:docGrid")]
    next(e for e in before if e is not None).addprevious(numbers)


def _same_bytes(document: Any) -> bytes:
    """The document's file without the time of writing that a zip file has for each part."""
    written, settled = io.BytesIO(), io.BytesIO()
    document.save(written)
    with zipfile.ZipFile(written) as parts, zipfile.ZipFile(settled, "w", zipfile.ZIP_DEFLATED) as out:
        for name in parts.namelist():
            part = zipfile.ZipInfo(name, date_time=LONG_AGO.timetuple()[:6])
            part.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(part, parts.read(name))
    return settled.getvalue()
