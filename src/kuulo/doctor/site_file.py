"""The site's file: that it is there, is understood, and that what it names exists."""

from __future__ import annotations

import difflib
import grp
from collections.abc import Iterator, Sequence

from kuulo import engines, miniature
from kuulo import site as sites
from kuulo.doctor import folders
from kuulo.doctor.finding import OK, PROBLEM, WARNING, Finding, Looking, some
from kuulo.errors import KuuloError
from kuulo.models import catalog
from kuulo.site_file import SiteFile


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
    try:
        site.jobs()
    except KuuloError as error:
        yield Finding("[jobs]", PROBLEM, error.what, error.looked_at or path, error.do or "correct it")
    yield from _engines(site.centre, path)
    yield from _models(looking, site.centre, path)
    yield from _groups(site.centre, path)
    yield from _scratch(looking, path)


def _engines(centre: SiteFile, path: str) -> Iterator[Finding]:
    named = [*(centre.engines or ()), *centre.image.get("engines", ())]
    named += [name for group in centre.groups.values() for name in group.get("engines", ())]
    known = engines.names()
    for name in dict.fromkeys(named):
        if name not in known:
            yield Finding(name, PROBLEM, "there is no such engine", path, _near(name, known, "kuulo engines"))


def _models(looking: Looking, centre: SiteFile, path: str) -> Iterator[Finding]:
    named = [*(centre.models or ()), *centre.portal.get("models", ())]
    named += [name for group in centre.groups.values() for name in group.get("models", ())]
    there = {ref.name for ref in looking.site.model_stores().list()}
    for name in dict.fromkeys(named):
        if name != miniature.NAME and not {name, catalog.canonical(name)} & there:
            do = _near(name, sorted(there), f"kuulo models pull {name}")
            yield Finding(name, PROBLEM, "the file names this model, and no store has it", path, do)


def _groups(centre: SiteFile, path: str) -> Iterator[Finding]:
    for name in centre.groups:
        try:
            grp.getgrnam(name)
        except KeyError:
            yield Finding(f"group {name}", PROBLEM, "there is no such Unix group", path, "correct [groups], or make it")


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


def _near(name: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise
