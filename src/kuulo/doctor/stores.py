"""A centre's stores: every model is whole and can be read by those that it is for."""

from __future__ import annotations

from collections.abc import Iterator

from kuulo.doctor import folders, models
from kuulo.doctor.finding import OK, PROBLEM, Finding, Looking, amount, some
from kuulo.models import check as headers
from kuulo.models.files import size_problems, verify
from kuulo.models.manifest import ModelRef
from kuulo.models.store import Store


def check(looking: Looking) -> Iterator[Finding]:
    """Sizes and headers; with `deep` every byte."""
    centre = looking.site.centre
    for folder in centre.stores:
        found, troubles = Store(folder, writable=False).list()
        for ref in found:
            yield _model(ref, deep=looking.deep)
        for trouble in troubles:
            yield models.broken(trouble)
        closed = folders.closed_to_users(folder, centre.groups)
        if closed:
            what = f"ordinary users cannot read {some([str(p.relative_to(folder)) for p in closed], 3)}"
            yield Finding(folder.name, PROBLEM, what, str(folder), f"chmod -R a+rX {folder}")
        if not found and not troubles:
            do = f"KUULO_STORE={folder} kuulo models pull small"
            yield Finding(folder.name, PROBLEM, "it has no model", str(folder), do)
    if not centre.stores:
        do = 'stores = ["..."]; else every user pulls models into the own home'
        yield Finding("stores", PROBLEM if looking.site.site_file else OK, "the site's file names none", "", do)


def _model(ref: ModelRef, *, deep: bool) -> Finding:
    name = f"{ref.name} ({ref.format})"
    wrong = size_problems(ref) or headers.problems(ref.format, ref.path)
    how = "sizes and headers were compared"
    if deep and not wrong:
        wrong = [f"{s.path}: {s.state}" for s in verify(ref) if s.state not in ("ok", "extra")]
        how = "every byte was compared"
    if wrong:
        do = f"kuulo models pull {ref.name} --format {ref.format} --replace, or add it again"
        return Finding(name, PROBLEM, f"damaged: {some(wrong)}", str(ref.folder), do)
    return Finding(name, OK, f"{amount(ref.bytes)}, {how}", str(ref.folder))
