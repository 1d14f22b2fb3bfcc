"""The site's file: that it is there, is understood, and that what it names exists (`kuulo site check`)."""

from __future__ import annotations

from collections.abc import Iterator

from kuulo import site as sites
from kuulo import site_check
from kuulo.doctor import folders
from kuulo.doctor.finding import OK, PROBLEM, WARNING, Finding, Looking, some

ELSEWHERE = ("stores", "environments", "images", "scratch", "folder in [deploy]")
"""Keys of which other checks say more."""


def check(looking: Looking) -> Iterator[Finding]:
    """The file, then the engines, models and groups in it."""
    site = looking.site
    path = str(site.site_file or looking.environ.get("KUULO_SITE") or sites.SITE_FILE)
    if looking.trouble:  # it is told among the settings
        return
    if site.site_file is None:
        do = "`kuulo site init` asks and writes it; or KUULO_SITE=FILE"
        yield Finding("site file", PROBLEM, "there is none", path, do)
        return
    yield from folders.readable("site file", site.site_file, site.centre.groups)
    yield Finding(
        "centre", OK, f"{site.centre.name or 'without a name'}, contact {site.centre.contact or 'none'}", path
    )
    if not site.centre.contact:
        yield Finding("contact", WARNING, "users are not told whom to ask", path, 'contact = "..."')
    for one in site_check.check(site):
        if one.where not in ELSEWHERE:
            state = PROBLEM if one.kind == site_check.PROBLEM else WARNING
            yield Finding(one.where, state, one.what, path, one.do or f"correct {one.where}")
    yield from _scratch(looking, path)


def _scratch(looking: Looking, path: str) -> Iterator[Finding]:
    candidates = looking.site.centre.scratch
    if not candidates:
        return
    chosen = looking.site.defaults.get("scratch")
    if chosen:
        yield Finding("scratch", OK, f"here it is {chosen}, of {some(list(candidates))}", path)
    else:
        do = "some are there in a job alone; if none ever is, correct `scratch`"
        yield Finding("scratch", WARNING, f"none of {some(list(candidates))} is here: TMPDIR serves", path, do)
