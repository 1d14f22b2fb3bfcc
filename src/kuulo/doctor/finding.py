"""What a check says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kuulo.errors import KuuloError
    from kuulo.site import Site

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "not looked at"
STATES = (OK, WARNING, PROBLEM, UNKNOWN)
"""OK: it works, or is not needed. WARNING: it works, and something is odd or will be short. PROBLEM: what is needed
does not work. UNKNOWN: it could not be looked at; nothing is known."""


@dataclass(frozen=True)
class Finding:
    """A line: `name` says what it is about, `found` how that is, `looked_at` where that was seen (a path, a command),
    `do` what helps; every PROBLEM and WARNING has one."""

    name: str
    state: str
    found: str
    looked_at: str = ""
    do: str = ""
    area: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Looking:
    """What checks are given. `site`: the settings, the built-in ones where the files cannot be read, and then `trouble`
    says why. `for_site`: the centre is looked at, not one user. `deep`: what takes minutes is looked at too."""

    site: Site
    environ: Mapping[str, str]
    trouble: KuuloError | None = None
    for_site: bool = False
    deep: bool = False


class Check(Protocol):
    """Says what it finds, a finding at a time."""

    def __call__(self, looking: Looking, /) -> Iterator[Finding]: ...


def amount(size: float) -> str:
    """Bytes for people: "3.2 GB"."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"


def some(names: list[str], most: int = 4) -> str:
    """The first of several names: "a, b and 7 more"."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
