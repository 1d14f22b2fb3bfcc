"""A Word document as Kuulo writes it: paragraphs that begin with `[00:01:05]`.

What comes before the first such paragraph is passed over. A paragraph without a time was parted from the one before.
Insertions that Word tracks count, deletions that it tracks do not.
"""

from __future__ import annotations

import io
import re
from typing import Any

from kuulo.imports import Stretch

_TIME = re.compile(r"\s*\[(\d+):(\d{2}):(\d{2})\]\s*")
_GONE = ("del", "moveFrom")


def read(content: bytes) -> list[Stretch]:
    """The paragraphs. Raises ValueError when it is no Word document or no paragraph has a time."""
    import zipfile

    import docx

    try:
        document = docx.Document(io.BytesIO(content))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"it is not a Word document ({error})") from error
    stretches: list[Stretch] = []
    for paragraph in document.paragraphs:
        runs = _runs(paragraph._p)
        text = "".join(part for part, _ in runs)
        time = _TIME.match(text)
        if not time and not stretches:
            continue
        start = _ms(time.groups()) if time else None
        rest, speaker = _speaker(runs, time.end() if time else 0)
        if rest.strip():
            stretches.append(Stretch(start, None, rest, speaker))
        elif time:
            stretches.append(Stretch(start, None, "", speaker))
    said = any(line.strip() for line in (p.text for p in document.paragraphs[2:]))
    if not stretches and said:
        raise ValueError("no paragraph begins with a time as [00:01:05]")
    return stretches


def _runs(paragraph: Any) -> list[tuple[str, bool]]:
    """Text and whether it is bold, of each run that is not a tracked deletion."""
    from docx.oxml.ns import qn
    from docx.text.run import Run

    gone = {run for name in _GONE for part in paragraph.iter(qn(f"w:{name}")) for run in part.iter(qn("w:r"))}
    runs = [Run(run, None) for run in paragraph.iter(qn("w:r")) if run not in gone]
    return [(run.text, bool(run.bold)) for run in runs]


def _ms(parts: tuple[Any, ...]) -> int:
    hours, minutes, seconds = map(int, parts)
    return (hours * 3600 + minutes * 60 + seconds) * 1000


def _speaker(runs: list[tuple[str, bool]], after: int) -> tuple[str, str | None]:
    """The text after so many characters, without a bold name and its colon, and that name; None without one."""
    at, bold = 0, ""
    for text, is_bold in runs:
        part = text[max(0, after - at) :]
        at += len(text)
        if not part:
            continue
        if not is_bold and (part.strip() or bold):
            break
        bold += part if is_bold else ""
    whole = "".join(text for text, _ in runs)[after:]
    if bold.rstrip().endswith(":") and whole.startswith(bold):
        return whole[len(bold) :], bold.rstrip()[:-1].strip()
    return whole, None
