"""ELAN's annotation file: the annotations that have times of their own, a speaker to each tier.

A tier's participant is the speaker, or its name where none is set. Tiers that hang on others (translations, glosses)
are passed over.
"""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

from kuulo.imports import Stretch


def read(content: bytes) -> list[Stretch]:
    """The annotations with text, in the order of time. Raises ValueError."""
    try:
        root = ET.fromstring(content)  # noqa: S314 (no entity of it is fetched; expat bounds their growth)
    except ET.ParseError as error:
        raise ValueError(f"it is not XML ({error})") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(f"it is {root.tag} and not ANNOTATION_DOCUMENT")
    slots = _slots(root)
    own = [tier for tier in root.iter("TIER") if tier.get("PARENT_REF") is None]
    stretches = []
    for tier in own:
        speaker = tier.get("PARTICIPANT") or tier.get("TIER_ID", "")
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            text = annotation.findtext("ANNOTATION_VALUE") or ""
            if text.strip():
                start, end = (annotation.get(key, "") for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"))
                if start not in slots or end not in slots:
                    raise ValueError(f"an annotation has a time that is not there: {start or '-'}, {end or '-'}")
                stretches.append(Stretch(slots[start], slots[end], text, speaker))
    return sorted(stretches, key=lambda stretch: stretch.start_ms or 0)


def _slots(root: ET.Element) -> dict[str, int]:
    """The time of each slot in ms. ELAN leaves some without a time: these share the time between their neighbours."""
    units = {"milliseconds": 1}
    header = root.find("HEADER")
    unit = header.get("TIME_UNITS", "milliseconds") if header is not None else "milliseconds"
    if unit not in units:
        raise ValueError(f"its times are in {unit}; only milliseconds can be read")
    found = [(slot.get("TIME_SLOT_ID", ""), slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")]
    fixed = [index for index, (_, value) in enumerate(found) if value is not None]
    times = {found[index][0]: int(found[index][1] or 0) for index in fixed}
    for before, after in pairwise(fixed):
        start, end = times[found[before][0]], times[found[after][0]]
        for index in range(before + 1, after):
            times[found[index][0]] = start + (end - start) * (index - before) // (after - before)
    return times
