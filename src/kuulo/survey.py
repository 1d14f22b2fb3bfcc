"""What `plan.resolve` needs to know, looked up: this machine, the installed engines, the models in the stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kuulo import access, engines, machine
from kuulo.errors import KuuloError
from kuulo.plan import Facts, Model
from kuulo.site import Site


def facts(site: Site) -> Facts:
    """The Facts of this machine under these settings."""
    stores = site.model_stores()
    environments, broken = site.environments().all()
    groups = access.own_groups()
    may = access.allowed(site.centre, "engines", groups)
    denied: dict[str, KuuloError] = {
        s.name: access.refusal(site, "engines", s.name)
        for s in engines.every()
        if may is not None and s.name not in may and access.is_chosen(s)
    }
    out = {*broken, *denied}

    models = access.allowed(site.centre, "models", groups)

    def is_offered(ref: Any) -> bool:
        """A user's own models are a user's own business."""
        return models is None or ref.name in models or Path(ref.origin) not in site.centre.stores

    def find_model(name: str, formats: Any) -> Model:
        ref = stores.resolve(name, formats)
        if not is_offered(ref):
            raise access.refusal(site, "models", ref.name)
        return model(ref)

    return Facts(
        machine=machine.this(),
        installed={
            s.name: not out & {s.name, s.environment} and (s.home in environments or engines.installed(s))
            for s in engines.every()
        },
        environments=environments,
        broken=broken,
        denied=denied,
        models=[model(ref) for ref in stores.list() if is_offered(ref)],
        find_model=find_model,
        stores=str(stores),
    )


def model(ref: Any) -> Model:
    """A store's ModelRef as a plan needs it, with what its files say about it."""
    from kuulo.models import built_in, check

    path = Path(ref.path).absolute()  # a worker stands elsewhere
    known = check.describe(ref.format, path)
    return Model(
        name=ref.name,
        format=ref.format,
        path=path,
        digest=ref.digest,
        bytes=known.size_bytes,
        origin=str(ref.source or "path"),
        revision=ref.revision or None,
        multilingual=known.multilingual,
        translates=known.translates if ref.translates is None else ref.translates,
        rank=ref.rank,
        built_in=built_in.is_built_in(ref),
    )
