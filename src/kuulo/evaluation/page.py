"""The differences side by side: one page, without a script, a style sheet or a picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kuulo.evaluation.evaluation import Result
from kuulo.evaluation.texts import Piece

ROW_WORDS = 14
"""Words in a row; a row ends where both sides agree."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1a1a1a;
  background: #fff }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th { text-align: left }
td, th { vertical-align: top; padding: .25rem .75rem; border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
del { background: #fde0e0; text-decoration: none; border-bottom: 2px solid #b00020 }
ins { background: #def5e0; text-decoration: none; border-bottom: 2px dotted #00692b }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #eee } td, th { border-color: #444 }
  del { background: #5a1a1a } ins { background: #11431f } }
"""


def page(results: Sequence[Result]) -> str:
    """HTML. Words that are wrong are marked, in the reference as <del>, in the transcript as <ins>."""
    parts = ["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8"><title>Differences</title>',
             f"<style>{STYLE}</style></head><body><h1>Differences</h1>"]  # fmt: skip
    parts.append(
        "<p>As the words were compared. <del>In the reference alone</del>, <ins>in the transcript alone</ins>.</p>"
    )
    for result in results:
        parts.append(f"<h2>{escape(result.name)}</h2>")
        if result.words is None:
            parts.append("<p>There is no text to compare.</p>")
            continue
        rate = f"{100 * result.words.rate:.1f} %" if result.words.rate is not None else "–"
        parts.append(f"<p>{result.words.wrong} of {result.words.count} words wrong ({rate})</p>")
        parts.append("<table><thead><tr><th scope=col>Reference<th scope=col>Transcript</thead><tbody>")
        parts += [f"<tr><td>{ours}<td>{theirs}" for ours, theirs in rows(result.pieces)]
        parts.append("</tbody></table>")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def rows(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """(reference, transcript) as HTML, about ROW_WORDS words to a row."""
    found: list[tuple[str, str]] = []
    ours: list[str] = []
    theirs: list[str] = []
    length = 0

    def end_row() -> None:
        nonlocal ours, theirs, length
        if ours or theirs:
            found.append((" ".join(ours), " ".join(theirs)))
        ours, theirs, length = [], [], 0

    for piece in pieces:
        if piece.kind == "equal":
            for word in piece.reference:
                ours.append(escape(word))
                theirs.append(escape(word))
                length += 1
                if length >= ROW_WORDS:
                    end_row()
            continue
        if piece.reference:
            ours.append(f"<del>{escape(' '.join(piece.reference))}</del>")
        if piece.heard:
            theirs.append(f"<ins>{escape(' '.join(piece.heard))}</ins>")
        length += max(len(piece.reference), len(piece.heard))
    end_row()
    return found
