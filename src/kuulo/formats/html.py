"""A page for a browser: times that play the recording from there, with the recording beside the page.

One file, no network: a rule in the page lets it load nothing but the recording. A recording that is elsewhere is
chosen by hand; it is not sent anywhere. Without scripts it is a plain transcript.
"""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from kuulo.formats import Layout
from kuulo.formats.labels import one_line
from kuulo.formats.spoken import Line, clock, lines
from kuulo.transcript import Transcript

_PAGE = """<!doctype html>
<html{language}>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; media-src 'self' file: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 0 auto; padding: 0 1rem 4rem }}
header {{ position: sticky; top: 0; background: Canvas; padding: .5rem 0 }}
h1 {{ font-size: 1.1rem; margin: 0; overflow-wrap: anywhere }}
audio {{ width: 100% }}
p {{ margin: .4rem 0; padding-left: 6rem; text-indent: -6rem; overflow-wrap: anywhere }}
p.now {{ background: Mark; color: MarkText }}
button {{ font: inherit; font-variant-numeric: tabular-nums; border: 0; padding: 0; width: 5.5rem; text-align: left;
 text-indent: 0; background: none; color: LinkText; cursor: pointer }}
</style>
<header>
<h1>{title}</h1>
<audio controls preload="metadata" src="{link}"></audio>
<label>If it does not play, choose the recording: <input type="file" accept="audio/*,video/*"></label>
</header>
<main>
{lines}</main>
<script>
"use strict";
const audio = document.querySelector("audio"), paragraphs = [...document.querySelectorAll("p")];
document.querySelector("input").onchange = e => {{ audio.src = URL.createObjectURL(e.target.files[0]); }};
for (const p of paragraphs)
  p.querySelector("button").onclick = () => {{ audio.currentTime = p.dataset.start / 1000; audio.play(); }};
audio.ontimeupdate = () => {{
  const ms = audio.currentTime * 1000;
  for (const p of paragraphs) p.classList.toggle("now", +p.dataset.start <= ms && ms < +p.dataset.end);
}};
</script>
</html>
"""


def render(transcript: Transcript, layout: Layout) -> str:
    """The page's text."""
    name = one_line(transcript.audio.name)
    return _PAGE.format(
        language=f' lang="{escape(one_line(transcript.language))}"' if transcript.language else "",
        title=escape(name),
        link=escape("./" + quote(name, errors="replace")),
        lines="".join(map(_paragraph, lines(transcript))),
    )


def _paragraph(line: Line) -> str:
    speaker = f"<b>{escape(line.speaker)}:</b> " if line.speaker else ""
    return (
        f'<p dir="auto" data-start="{line.start_ms}" data-end="{line.end_ms}">'
        f'<button type="button">{clock(line.start_ms)}</button> {speaker}<span>{escape(line.text)}</span></p>\n'
    )
