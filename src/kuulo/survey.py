"""What `plan.resolve` needs to know, looked up: this machine, the installed engines, the models in the stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kuulo import engines, machine
from kuulo.plan import Facts, Model
from kuulo.site import Site


def facts(site: Site) -> Facts:
    """The Facts of this machine under these settings."""
    stores = site.model_stores()
    environments, broken = site.environments().all()
    return Facts(
        machine=machine.this(),
        installed={
            s.name: s.name not in broken and (s.name in environments or engines.installed(s)) for s in engines.every()
        },
        environments=environments,
        broken=broken,
        models=[model(ref) for ref in stores.list()],
        find_model=lambda name, formats: model(stores.resolve(name, formats)),
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
