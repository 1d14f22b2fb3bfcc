"""Who may use which engines and models at a site: everybody those in `engines` and `models` of its file, members of a
Unix group those in `[groups.NAME]` too. It tells people what is meant for them; what must be kept from somebody is kept
by the permissions of its files."""

from __future__ import annotations

import grp
import os
from collections.abc import Collection, Iterable

from kuulo import engines, speakers
from kuulo.engines.base import EngineSpec
from kuulo.errors import UsageError
from kuulo.llm.endpoint import CHAT
from kuulo.plan import DIARIZE, TRANSCRIBE
from kuulo.site import Site
from kuulo.site_file import SiteFile


def own_groups() -> frozenset[str]:
    """The names of the groups that we are in. A group without a name is none."""
    names = set()
    for number in {os.getegid(), *os.getgroups()}:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(names)


def allowed(centre: SiteFile, what: str, groups: Collection[str]) -> frozenset[str] | None:
    """The `engines` or `models` for members of these groups; None: all."""
    everybody: Iterable[str] | None = getattr(centre, what)
    if everybody is None:
        return None
    more = (name for group in groups for name in centre.groups.get(group, {}).get(what, ()))
    return frozenset(everybody) | frozenset(more)


def is_chosen(spec: EngineSpec) -> bool:
    """Whether an engine is one that people choose, and no part of Kuulo."""
    chosen = {TRANSCRIBE, DIARIZE, CHAT} & set(spec.tasks)
    return bool(chosen) and spec.name not in engines.HIDDEN and spec.name != speakers.CHANNELS


def refusal(site: Site, what: str, name: str) -> UsageError:
    """What somebody is told who may not use an engine or a model. `what`: "engines" or "models"."""
    called = f"the {what[:-1]} {name}"
    of = sorted(group for group, may in site.centre.groups.items() if name in may.get(what, ()))
    why = f"{called} is for members of {' or '.join(of)} here" if of else f"{called} is not offered here"
    contact = site.centre.contact
    return UsageError(why, looked_at=f"{what} in {site.site_file}", do=f"ask {contact}" if contact else None)
