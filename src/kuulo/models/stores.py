"""Stores in layers: where a model is looked for, and what to say when it is nowhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import miniature
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import catalog, check
from kuulo.models.adding import at_path
from kuulo.models.files import size_problems
from kuulo.models.manifest import ModelRef
from kuulo.models.store import NAME_PATTERN, VARIABLE, Store, Trouble

TASKS = ("transcribe", "diarize", "chat")
"""In the order in which models are listed."""


@dataclass(frozen=True)
class Stores:
    """Stores in the order in which they are looked into; what is added goes into the last. `spare`: the user's own
    cache, for what can be made again and has no other place."""

    layers: tuple[Store, ...]
    spare: Store | None = None

    @property
    def writable(self) -> Store:
        """The store that models are added to; raises UsageError when every one is read-only."""
        last = self.layers[-1] if self.layers else None
        if last is None or not last.writable:
            raise UsageError("there is no store to add to", looked_at=str(self), do=f"set {VARIABLE}")
        return last

    def __str__(self) -> str:
        """The folders, for messages."""
        return ", ".join(str(layer.folder) for layer in self.layers)

    def troubles(self) -> list[Trouble]:
        """What is wrong with the stores and the models in them."""
        return [trouble for layer in self.layers for trouble in layer.list()[1]]

    def list(self) -> list[ModelRef]:
        """All models, the best defaults first: those that recognise words, those that tell speakers apart, language
        models. What a later store has of the same name and format is not seen."""
        seen: dict[tuple[str, str], ModelRef] = {}
        for layer in self.layers:
            for ref in layer.list()[0]:
                seen.setdefault((ref.format, ref.name), ref)
        return sorted(seen.values(), key=lambda ref: (TASKS.index(ref.task), ref.rank, ref.name, ref.format))

    def find(self, name: str, formats: Sequence[str]) -> ModelRef | None:
        """The model by name or alias, in the first of the formats that a store has; raises ModelMissing when its
        manifest is broken."""
        for wanted in dict.fromkeys((name, catalog.canonical(name))):
            for format_ in formats:
                for layer in self.layers:
                    ref = layer.find(wanted, format_)
                    if ref is not None:
                        return ref
        return None

    def resolve(self, name_or_path: str, formats: Sequence[str]) -> ModelRef:
        """The model by name, or at a path (anything with a slash); its files were checked (headers and sizes). The
        built-in one is written first, where no store has it.

        Raises ModelMissing with the command that gets it."""
        if is_path(name_or_path):
            return at_path(Path(name_or_path).expanduser(), formats)
        ref: ModelRef | None = None
        if name_or_path == miniature.NAME:
            from kuulo.models import built_in  # which is about stores itself

            ref = built_in.provide(self, formats)
        elif NAME_PATTERN.fullmatch(name_or_path):
            ref = self.find(name_or_path, formats)
        if ref is None:
            raise self._missing(name_or_path, formats)
        found = size_problems(ref) or check.problems(ref.format, ref.path)
        if found:
            raise ModelMissing(
                f"the model {ref.name} ({ref.format}) is damaged: {'; '.join(found)}",
                looked_at=str(ref.path),
                do=f"kuulo models pull {ref.name} --format {ref.format} --replace, or add it again",
            )
        return ref

    def _missing(self, name: str, formats: Sequence[str]) -> ModelMissing:
        known = catalog.load().get(catalog.canonical(name))
        looked = f"stores: {self}"
        if Path(name).exists():
            do = f"to use the {'folder' if Path(name).is_dir() else 'file'} of that name, write ./{name}"
            return ModelMissing(f"no store has a model {name}", looked_at=looked, do=do)
        what = f"no store has the model {name} as {' or '.join(formats)}"
        others = sorted({r.format for r in self.list() if r.name in (name, catalog.canonical(name))})
        if others:
            what += f" (there is one as {', '.join(others)}, for other engines)"
        if known:
            able = next((f for f in formats if f in known.sources), None)
            if able:
                return ModelMissing(what, looked_at=looked, do=f"kuulo models pull {name} --format {able}")
            has = ", ".join(known.sources)
            do = f"the catalogue has it as {has} alone: take another engine, or convert it and `kuulo models add` it"
            return ModelMissing(what, looked_at=looked, do=do)
        close = catalog.near(name, [r.name for r in self.list() if r.format in formats])
        if close:
            return ModelMissing(what, looked_at=looked, do=f"did you mean {close}, which is in the store?")
        close = catalog.near(name, [n for n, e in catalog.load().items() if set(formats) & set(e.sources)])
        if close:
            do = f"did you mean {close}? kuulo models pull {close} --format {_first(close, formats)}"
        else:
            do = "`kuulo models list --catalog` shows what can be pulled; `kuulo models add PATH` takes your own"
        return ModelMissing(what, looked_at=looked, do=do)


def _first(name: str, formats: Sequence[str]) -> str:
    return next(f for f in formats if f in catalog.load()[name].sources)


def stores_from(
    environ: Mapping[str, str], site_stores: Sequence[Path], user_data_dir: Path, user_cache_dir: Path | None = None
) -> Stores:
    """The site's stores (read-only), then those that $KUULO_STORE lists (the last one is written to), or else the
    user's own, USER_DATA_DIR/models. USER_CACHE_DIR/models is the spare one."""
    named = [Path(part).expanduser() for part in environ.get(VARIABLE, "").split(os.pathsep) if part]
    own = named or [user_data_dir / "models"]
    read_only = [*site_stores, *own[:-1]]
    spare = Store(user_cache_dir / "models") if user_cache_dir else None
    return Stores((*(Store(folder, writable=False) for folder in read_only), Store(own[-1])), spare)


def is_path(text: str) -> bool:
    """Whether a user means a path, not a name: whatever has a slash (./small), and `~`, `.` and `..`."""
    return "/" in text or os.sep in text or text in (".", "..", "~")
