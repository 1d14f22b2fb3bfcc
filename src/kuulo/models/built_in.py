"""The miniature as a model of the store: written there, from the installed package, when somebody names it.

It is a model like others then, with a manifest, a digest and files that can be verified. Its manifest's `revision` is
the digest of what it was made from, so that a newer Kuulo writes its own in its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Sequence
from pathlib import Path

from kuulo import miniature
from kuulo.errors import KuuloError, ModelMissing
from kuulo.models import check
from kuulo.models.adding import described
from kuulo.models.files import hash_files
from kuulo.models.manifest import ModelRef
from kuulo.models.store import Store, now, store_error
from kuulo.models.stores import Stores

NAME = miniature.NAME
SOURCE = "built in"

TRIES = 3
"""How often one who writes a model tries to get past others who write it at the same moment."""

NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a store that this user may not write."""


def is_built_in(ref: ModelRef) -> bool:
    """Whether the model was written by this module."""
    return ref.name == NAME and ref.source == SOURCE


def provide(stores: Stores, formats: Sequence[str]) -> ModelRef:
    """The miniature, in the first of the formats that a store has, or else written in the first that it can be.

    It is written into the store that models are added to, or, where this user may not write there, into
    `stores.spare`. Raises ModelMissing."""
    formats = able(formats)
    places = [*stores.layers, *([stores.spare] if stores.spare else [])]
    revision = miniature.digest()
    for format_ in formats:
        for place in places:
            ref = place.find(NAME, format_)
            if ref is not None and is_built_in(ref) and ref.revision == revision:
                return ref
    try:
        return write(stores.writable, formats[0])
    except ModelMissing as error:
        if stores.spare is None or not _not_ours(error):
            raise
    return write(stores.spare, formats[0])


def able(formats: Sequence[str]) -> list[str]:
    """Those formats that the miniature can be written in; raises ModelMissing when there are none."""
    from kuulo.miniature.writers import WRITERS

    found = [format_ for format_ in formats if format_ in WRITERS]
    if not found:
        raise ModelMissing(f"the built-in model {NAME} cannot be written as {' or '.join(formats)}")
    return found


def write(store: Store, format_: str, *, replace: bool = False) -> ModelRef:
    """Writes the miniature into the store, all or nothing, unless it is there as this Kuulo would write it, or
    `replace`. Raises ModelMissing when the store cannot be written, UsageError when it has another model so named."""
    from kuulo.miniature import weights
    from kuulo.miniature.writers import WRITERS

    writer = WRITERS[able([format_])[0]][1]
    with store.staging(NAME) as staged:
        path = staged if format_ in check.FOLDERS else staged / f"{NAME}{check.SUFFIX[format_]}"
        try:
            whisper = weights.trained()
            writer(path, whisper)
            files = hash_files(format_, path)
        except OSError as error:
            raise store_error(store.folder, error) from error
        ref = dataclasses.replace(
            described(NAME, format_, staged, files),
            source=SOURCE, revision=miniature.digest(), licence="MIT", added=now(), translates=whisper.translates,
        )  # fmt: skip
        for _ in range(TRIES - 1):
            with contextlib.suppress(KuuloError):
                return _put(store, ref, staged, replace=replace)
        return _put(store, ref, staged, replace=replace)


def _put(store: Store, ref: ModelRef, staged: Path, *, replace: bool) -> ModelRef:
    there = store.find(ref.name, ref.format)
    ours = there is not None and is_built_in(there)
    if there is not None and ours and there.revision == ref.revision and not replace:
        return there
    return store.install(ref, staged, replace=ours)


def _not_ours(error: ModelMissing) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in NOT_OURS
