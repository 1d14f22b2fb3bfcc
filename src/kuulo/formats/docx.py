"""A Word document: the recording's name, a line about the transcript, then a paragraph for each segment.

    [00:01:05] Anna: Hyvää päivää, kiitos.

The same transcript gives the same bytes: no time of writing is in the file.
"""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kuulo import languages
from kuulo.formats import Layout
from kuulo.formats.labels import labels, one_line
from kuulo.transcript import Transcript

if TYPE_CHECKING:
    from docx.text.paragraph import Paragraph

LONG_AGO = datetime(1980, 1, 1, tzinfo=UTC)
"""The first day that a zip file can hold; stands where no time is known."""

PROPERTY_LENGTH = 255
"""Characters that a document property may have."""

# What XML 1.0 cannot hold, also escaped (https://www.w3.org/TR/xml/#charsets), and the separators that python-docx
# would not take for line breaks.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(transcript: Transcript, layout: Layout) -> bytes:
    """The file's content. Characters that XML cannot hold become U+FFFD."""
    import docx
    from docx.shared import RGBColor

    document = docx.Document()
    _describe(document.core_properties, transcript)
    document.add_heading(_xml(one_line(transcript.audio.name)), level=0)
    document.add_paragraph(_xml(_about(transcript)), style="Subtitle")
    label = labels(transcript)
    grey = RGBColor(0x6B, 0x6B, 0x6B)
    for segment in transcript.segments:
        text = segment.text.strip()
        if not text:
            continue
        paragraph = document.add_paragraph()
        paragraph.add_run(f"[{_clock(segment.start_ms)}] ").font.color.rgb = grey
        if speaker := label(segment.speaker):
            paragraph.add_run(_xml(f"{speaker}: ")).bold = True
        paragraph.add_run(_xml(text))
        if _is_right_to_left(text):
            _turn(paragraph)
    return _same_bytes(document)


def _describe(properties: Any, transcript: Transcript) -> None:
    """Document properties from the transcript alone."""
    written = _started(transcript)
    properties.author = "Kuulo"
    properties.comments = ""
    properties.title = _xml(one_line(transcript.audio.name))[:PROPERTY_LENGTH]
    properties.language = _xml(transcript.language or "")[:PROPERTY_LENGTH]
    properties.created = written
    properties.modified = written
    properties.revision = 1


def _started(transcript: Transcript) -> datetime:
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


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


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
