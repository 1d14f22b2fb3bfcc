"""Where an environment's packages come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kuulo.environments.bundle import Bundle
from kuulo.environments.recipe import Variant


@dataclass(frozen=True)
class Sources:
    """PyPI and the recipe's own index; or `index`, the URL of one that has everything; `find_links`: folders and pages
    with wheels, beside either; or a `bundle`, and nothing else."""

    index: str | None = None
    find_links: Sequence[str] = ()
    bundle: Bundle | None = None

    def flags(self, variant: Variant) -> list[str]:
        """For uv. Which index has a package does not matter: the lock has every package's digest."""
        if self.bundle is not None:
            return ["--no-index", "--offline", "--find-links", str(self.bundle.wheels)]
        return [*self._places(), *self._indexes(variant, "--default-index", "--index")]

    def pip_flags(self, variant: Variant) -> list[str]:
        """For pip."""
        return [*self._places(), *self._indexes(variant, "--index-url", "--extra-index-url")]

    def _places(self) -> list[str]:
        return [part for place in self.find_links for part in ("--find-links", place)]

    def _indexes(self, variant: Variant, instead: str, beside: str) -> list[str]:
        if self.index:
            return [instead, self.index]
        if variant.index and not self.find_links:  # who names a folder has there what PyPI has not
            return [beside, variant.index, *(["--index-strategy", "unsafe-best-match"] if beside == "--index" else [])]
        return []
