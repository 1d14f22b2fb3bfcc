"""CHAT, the format of TalkBank and CHILDES, for CLAN: an utterance for each sentence, with its time.

    *SP1:	hyvää päivää , kiitos . ·62300_65000·

CHAT gives many characters a meaning: brackets, `@`, `&`, `+` and others inside words are left out here, since in a
transcript of speech they mean none of that; a comma is a word of its own, and the point of 3.5 becomes `_`. What a
sentence ends with becomes `.`, `?` or `!`. The words themselves stay. Check the file with CLAN's CHECK before you
deposit it.
https://talkbank.org/manuals/CHAT.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from kuulo.formats import Layout
from kuulo.formats.labels import one_line
from kuulo.formats.spoken import Line, lines
from kuulo.transcript import Transcript

_BULLET = "\x15"

NOBODY = "UNK"
"""The code of what no speaker is set for."""

_ENDS = re.compile(r"([.?!。？！؟]+)[\"'”’»)\]]*(?=\s|$)|([。？！])")
_NO_WORD = re.compile(r"[^\w'’\-]+")
_IN_NUMBER = re.compile(r"(?<=\d)[.,:/](?=\d)")

# ISO 639-1 -> 639-3, which CHAT asks for: the languages of Whisper whose codes have two letters.
_CODES = dict(
    re.findall(
        r"(\w\w):(\w{3})",
        """
        af:afr am:amh ar:ara as:asm az:aze ba:bak be:bel bg:bul bn:ben bo:bod br:bre bs:bos ca:cat cs:ces cy:cym da:dan
        de:deu el:ell en:eng es:spa et:est eu:eus fa:fas fi:fin fo:fao fr:fra gl:glg gu:guj ha:hau he:heb hi:hin hr:hrv
        ht:hat hu:hun hy:hye id:ind is:isl it:ita ja:jpn jw:jav ka:kat kk:kaz km:khm kn:kan ko:kor la:lat lb:ltz ln:lin
        lo:lao lt:lit lv:lav mg:mlg mi:mri mk:mkd ml:mal mn:mon mr:mar ms:msa mt:mlt my:mya ne:nep nl:nld nn:nno no:nor
        oc:oci pa:pan pl:pol ps:pus pt:por ro:ron ru:rus sa:san sd:snd si:sin sk:slk sl:slv sn:sna so:som sq:sqi sr:srp
        su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha tk:tuk tl:tgl tr:tur tt:tat uk:ukr ur:urd uz:uzb vi:vie yi:yid
        yo:yor zh:zho
        """,
    )
)


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    said = sorted(lines(transcript), key=lambda line: line.start_ms)
    names = dict.fromkeys(line.speaker for line in said)
    codes = {name: f"SP{number}" for number, name in enumerate((n for n in names if n), start=1)}
    if "" in names or not names:
        codes[""] = NOBODY
    language = transcript.language or ""
    code = language if re.fullmatch("[a-z]{3}", language) else _CODES.get(language, "und")
    participants = ", ".join(f"{c} {_name(n)} {_role(n)}".replace("  ", " ") for n, c in codes.items())
    media = re.sub(r"[\s,]+", "_", one_line(PurePosixPath(transcript.audio.name).stem)) or "recording"
    return (
        f"@UTF8\n@Begin\n@Languages:\t{code}\n@Participants:\t{participants}\n"
        + "".join(f"@ID:\t{code}|kuulo|{c}|||||{_role(n)}|||\n" for n, c in codes.items())
        + f"@Media:\t{media}, audio\n"
        + "".join(
            f"*{codes[line.speaker]}:\t{text} {end} {_BULLET}{start_ms}_{end_ms}{_BULLET}\n"
            for line in said
            for start_ms, end_ms, text, end in _utterances(line)
        )
        + "@End\n"
    )


def _name(speaker: str) -> str:
    """One word of letters, digits and `_`, as CHAT has names; empty when nothing of it is left."""
    return re.sub(r"\W+", "_", speaker).strip("_")


def _role(speaker: str) -> str:
    return "Participant" if speaker else "Unidentified"


def _utterances(line: Line) -> Iterator[tuple[int, int, str, str]]:
    """Start, end, words and terminator of each sentence; the sentences share the line's time by their lengths."""
    length, at = len(line.text), 0
    for begin, end, terminator in _sentences(line.text):
        if words := " ".join(_words(line.text[begin:end])):
            start_ms, end_ms = (line.start_ms + (line.end_ms - line.start_ms) * i // length for i in (at, end))
            yield start_ms, max(start_ms + 1, end_ms), words, terminator
            at = end


def _sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """Where each sentence begins and ends in the text, and its terminator."""
    at = 0
    for match in _ENDS.finditer(text):
        mark = match.group().translate(str.maketrans("。？！؟", ".?!?"))
        yield at, match.end(), "?" if "?" in mark else "!" if "!" in mark else "."
        at = match.end()
    if at < len(text):
        yield at, len(text), "."


def _words(text: str) -> Iterator[str]:
    """The words as CHAT takes them, with `,` as a word of its own."""
    for token in text.split():
        word = _NO_WORD.sub("", _IN_NUMBER.sub("_", token)).strip("-_")
        if word.strip("'’"):
            yield word
            if token.rstrip("\"'”’»)]").endswith((",", "，", "、")):
                yield ","
