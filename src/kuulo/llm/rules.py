"""What rules find in a text that may tell who somebody is: addresses, telephone numbers, dates, numbers.

Telephone numbers are found by Google's rules (`phonenumberslite`), the names of months in each language are those of
`dateparser`. Numbers in words ("forty-two") are not found: a model has to.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from kuulo.errors import EngineMissing, UsageError

CONTACT, DATE, NUMBER = "contact", "date", "number"

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|(?:https?://|www\.)[^\s<>\"']+[\w/]", re.IGNORECASE)
_NUMERIC_DATE = re.compile(
    r"(?<![\d.])(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}\.\s?\d{1,2}\.(?:\s?\d{2,4}(?!\d))?|\d{1,2}/\d{1,2}/\d{2,4})(?!\d)"
)
# Also what letters and digits make together: 010190-123A, FI21, 3pm.
_NUMBER = re.compile(r"\w*\d\w*(?:[.,:+-]\w*\d\w*)*")
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A stretch of a text, `text[start:end]`, and what it is."""

    start: int
    end: int
    kind: str


def check() -> None:
    """Raises EngineMissing unless the libraries are there."""
    try:
        import dateparser  # type: ignore[import-untyped, unused-ignore]
        import phonenumbers  # noqa: F401
    except ImportError as error:
        raise EngineMissing(
            f"pseudonymising needs the package {error.name}", do="pip install 'kuulo[pseudonymise]'"
        ) from error
    assert dateparser


def check_region(region: str) -> str:
    """The region as the library writes it; raises UsageError."""
    import phonenumbers

    if region and region.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise UsageError(f"{region!r} is no country's code", do="two letters: -p region FI")
    return region.upper()


def spans(text: str, language: str, region: str) -> Iterator[Span]:
    """What the rules find, in the order of what is surest. Spans may overlap: the first one is right."""
    for match in _ADDRESS.finditer(text):
        yield Span(match.start(), match.end(), CONTACT)
    for match in _dates(language).finditer(text):
        yield Span(match.start(), match.end(), DATE)
    for match in _NUMERIC_DATE.finditer(text):
        yield Span(match.start(), match.end(), DATE)
    yield from _telephones(text, region)
    for match in _NUMBER.finditer(text):
        yield Span(match.start(), match.end(), NUMBER)


def _telephones(text: str, region: str) -> Iterator[Span]:
    import phonenumbers

    for match in phonenumbers.PhoneNumberMatcher(text, region or None):
        yield Span(match.start, match.end, CONTACT)


@functools.cache
def _dates(language: str) -> re.Pattern[str]:
    """A month's name with a day or a year: `12. maaliskuuta 1987`, `the 3rd of May`, `March 2001`. A name alone is
    left to the model: may and march are words too."""
    names = "|".join(re.escape(name) for name in sorted(_months(language) | _months("en"), key=len, reverse=True))
    day = r"\d{1,2}(?:st|nd|rd|th|er|\.|º|:\w+)?"
    link = r"(?:\s+(?:of|de|di|da|d'))?\s*"
    return re.compile(
        rf"(?<!\w){day}{link}(?:{names})(?!\w)\.?(?:{link}\d{{4}}(?!\d))?"
        rf"|(?<!\w)(?:{names})(?!\w)\.?\s+(?:{day}(?!\w)(?:,?\s*\d{{4}}(?!\d))?|\d{{4}}(?!\d))",
        re.IGNORECASE,
    )


def _months(language: str) -> set[str]:
    """The names of months in a language; none when the library does not know it."""
    from dateparser.languages.loader import default_loader  # type: ignore[import-untyped, unused-ignore]

    try:
        info = default_loader.get_locale(language).info
    except ValueError:
        return set()
    return {str(name) for month in _MONTHS for name in info.get(month, ()) if not any(c.isdigit() for c in str(name))}
