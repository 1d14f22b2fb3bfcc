"""Models: those in the stores, and what `kuulo transcribe` takes without options."""

from __future__ import annotations

from collections.abc import Iterator

from kuulo import plan, survey
from kuulo import site as sites
from kuulo.doctor.finding import OK, PROBLEM, WARNING, Finding, Looking, amount
from kuulo.errors import KuuloError
from kuulo.models.files import size_problems
from kuulo.models.store import Trouble


def check(looking: Looking) -> Iterator[Finding]:
    """The models that a user finds, by size alone; what is wrong with a store."""
    stores = looking.site.model_stores()
    found = stores.list()
    for ref in found:
        wrong = size_problems(ref)
        name = f"{ref.name} ({ref.format})"
        if wrong:
            do = f"kuulo models pull {ref.name} --format {ref.format} --replace"
            yield Finding(name, PROBLEM, "; ".join(wrong), str(ref.folder), do)
        else:
            yield Finding(name, OK, f"{amount(ref.bytes)}, {ref.task}", str(ref.folder))
    for trouble in stores.troubles():
        yield broken(trouble)
    if not found:
        yield Finding("stores", WARNING, "no store has a model", str(stores), plan.BETTER)


def broken(trouble: Trouble) -> Finding:
    """What is wrong with a store, or with one of its models."""
    name = f"{trouble.path.name} ({trouble.path.parent.name})"
    if "cannot be read" in trouble.problem and "kuulo-model.json" not in trouble.problem:
        return Finding(str(trouble.path), PROBLEM, trouble.problem, str(trouble.path), "let its readers in: chmod a+rX")
    do = "chmod a+rX if it cannot be read; else kuulo models remove, and pull or add it again"
    return Finding(name, PROBLEM, trouble.problem, str(trouble.path), do)


def choice(looking: Looking) -> Iterator[Finding]:
    """The engine and model that are used without options, and why; the same for speakers."""
    try:
        settings = sites.settle(looking.site, {}, looking.environ)
        facts = survey.facts(looking.site)
    except KuuloError as error:
        yield Finding("transcribe", PROBLEM, error.what, error.looked_at or "", error.do or "")
        return
    try:
        found = plan.resolve(settings, facts)
    except KuuloError as error:
        yield Finding("transcribe", PROBLEM, error.what, error.looked_at or "", error.do or "kuulo engines")
    else:
        said = f"{found.engine} with {found.model.name if found.model else 'its own model'}: {found.why}"
        if found.spec.quality_note:
            yield Finding("transcribe", WARNING, f"{said}. {found.spec.quality_note}", do=plan.BETTER)
        else:
            yield Finding("transcribe", OK, said)
    try:
        who = plan.choose_diarizer(settings.values, facts)
    except KuuloError as error:
        yield Finding("--speakers auto", WARNING, error.what, error.looked_at or "", error.do or "kuulo engines")
    else:
        yield Finding("--speakers auto", OK, f"{who.engine} with {who.model_name}: {who.why}")
