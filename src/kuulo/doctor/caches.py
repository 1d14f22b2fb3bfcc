"""What other tools left in the home. Kuulo uses none of it, and leaves it alone."""

from __future__ import annotations

from collections.abc import Iterator

from kuulo import leftovers
from kuulo.doctor.finding import OK, WARNING, Finding, Looking, amount, some

MUCH_BYTES = 5_000_000_000
MOST_FILES = 20_000
"""So many are counted of a cache: a home may be on a slow disk."""


def check(looking: Looking) -> Iterator[Finding]:
    """The caches that are there, together, and the large ones one by one."""
    found = leftovers.find(looking.environ, most_files=MOST_FILES)
    if not found:
        yield Finding("caches", OK, "no other tool left anything")
        return
    large = [one for one in found if one.disk_bytes >= MUCH_BYTES]
    for one in large:
        said = f"of {one.cache.library}: {amount(one.disk_bytes)}{'' if one.whole else ' at least'}"
        yield Finding(one.name, WARNING, said, str(one.path), f"kuulo cache purge {one.name}, if nobody else needs it")
    rest = [one for one in found if one not in large]
    if rest:
        least = "" if all(one.whole for one in rest) else "at least "
        said = f"{least}{amount(sum(one.disk_bytes for one in rest))}; Kuulo does not use it"
        yield Finding("caches", OK, f"{some([one.name for one in rest])}: {said}", "kuulo cache list")
