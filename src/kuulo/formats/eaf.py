"""ELAN's annotation file (EAF 3.0), a tier for each speaker, an annotation for each segment.

The recording is linked by its name: ELAN finds it beside the file, or asks for it.
https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf
"""

from __future__ import annotations

import mimetypes
from urllib.parse import quote
from xml.etree import ElementTree as ET

from kuulo.formats import Layout
from kuulo.formats.docx import started
from kuulo.formats.labels import one_line
from kuulo.formats.spoken import tiers, times, xml
from kuulo.transcript import Transcript

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_TYPE = "utterance"


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    date = started(transcript).isoformat()
    root = ET.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "Kuulo",
            "DATE": date,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            f"{{{_XSI}}}noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    _head(root, transcript)
    found = tiers(transcript)
    slots = {ms: f"ts{number}" for number, ms in enumerate(times(found), start=1)}
    order = ET.SubElement(root, "TIME_ORDER")
    for ms, slot in slots.items():
        ET.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(ms))
    count = 0
    for tier in found:
        who = {"PARTICIPANT": xml(tier.speaker)} if tier.speaker else {}
        element = ET.SubElement(root, "TIER", {"LINGUISTIC_TYPE_REF": _TYPE, **who, "TIER_ID": xml(tier.name)})
        for line in tier.lines:
            count += 1
            annotation = ET.SubElement(
                ET.SubElement(element, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{count}",
                TIME_SLOT_REF1=slots[line.start_ms],
                TIME_SLOT_REF2=slots[line.end_ms],
            )
            ET.SubElement(annotation, "ANNOTATION_VALUE").text = xml(line.text)
    ET.SubElement(root, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID=_TYPE, TIME_ALIGNABLE="true")
    ET.register_namespace("xsi", _XSI)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _head(root: ET.Element, transcript: Transcript) -> None:
    name = one_line(transcript.audio.name)
    link = "./" + quote(name, errors="replace")
    kind = mimetypes.guess_type(name)[0] or "unknown"
    head = ET.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    ET.SubElement(head, "MEDIA_DESCRIPTOR", MEDIA_URL=link, MIME_TYPE=kind, RELATIVE_MEDIA_URL=link)
    # ELAN numbers new annotations from here on.
    last = sum(len(tier.lines) for tier in tiers(transcript))
    ET.SubElement(head, "PROPERTY", NAME="lastUsedAnnotationId").text = str(last)
