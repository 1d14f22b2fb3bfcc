"""EXMARaLDA's basic transcription, a tier for each speaker, an event for each segment on one common timeline.

https://exmaralda.org/en/
"""

from __future__ import annotations

from urllib.parse import quote
from xml.etree import ElementTree as ET

from kuulo.formats import Layout
from kuulo.formats.labels import one_line
from kuulo.formats.spoken import seconds, tiers, times, xml
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    found = tiers(transcript)
    root = ET.Element("basic-transcription")
    head = ET.SubElement(root, "head")
    about = ET.SubElement(head, "meta-information")
    ET.SubElement(about, "project-name")
    ET.SubElement(about, "transcription-name").text = xml(one_line(transcript.audio.name))
    ET.SubElement(about, "referenced-file", url=quote(one_line(transcript.audio.name), errors="replace"))
    for name in ("ud-meta-information", "comment", "transcription-convention"):
        ET.SubElement(about, name)
    ids = {name: f"SPK{n}" for n, name in enumerate(dict.fromkeys(t.speaker for t in found if t.speaker))}
    table = ET.SubElement(head, "speakertable")
    for name, id_ in ids.items():
        speaker = ET.SubElement(table, "speaker", id=id_)
        ET.SubElement(speaker, "abbreviation").text = xml(name)
        ET.SubElement(speaker, "sex", value="u")
        for part in ("languages-used", "l1", "l2", "ud-speaker-information", "comment"):
            ET.SubElement(speaker, part)
    body = ET.SubElement(root, "basic-body")
    timeline = ET.SubElement(body, "common-timeline")
    points = {ms: f"T{n}" for n, ms in enumerate(times(found, 0, max(0, transcript.audio.duration_ms)))}
    for ms, id_ in points.items():
        ET.SubElement(timeline, "tli", id=id_, time=seconds(ms))
    for number, tier in enumerate(found):
        who = {"speaker": ids[tier.speaker]} if tier.speaker else {}
        element = ET.SubElement(
            body, "tier", {"id": f"TIE{number}", **who, "category": "v", "type": "t", "display-name": xml(tier.name)}
        )
        for line in tier.lines:
            event = ET.SubElement(element, "event", start=points[line.start_ms], end=points[line.end_ms])
            event.text = xml(line.text) + " "  # EXMARaLDA joins the events of a tier as they are
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"
