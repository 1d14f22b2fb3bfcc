"""What would change, and making it so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import kuulo
from kuulo.deploy import images, making, proving, tree, versions
from kuulo.deploy.base import Deployment
from kuulo.deploy.proving import Proof
from kuulo.deploy.tree import Difference, Entry
from kuulo.deploy.versions import Versions
from kuulo.errors import CannotRun
from kuulo.site import Site


@dataclass(frozen=True)
class Change:
    """From the version in use (None: there is none) to what the site's file asks for now. `by_hand`: files of the
    version in use that somebody changed since. `made` has the name `next_version`, and `entries` its files. `images`:
    engines whose images are to be built first; the rest is told as if they were not to be."""

    current: str | None
    next_version: str
    difference: Difference
    by_hand: Difference
    made: Deployment
    entries: dict[str, Entry] = field(repr=False)
    images: tuple[str, ...] = ()

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return self.current is None or bool(self.difference or self.by_hand or self.images)


def plan(site: Site) -> Change:
    """What `apply` would do. Changes nothing. Raises UsageError, CannotRun."""
    where = versions.of(site.centre)
    current = where.current()
    fresh = where.next(kuulo.__version__)
    difference, by_hand = Difference(), Difference()
    if current is not None:
        was = tree.manifest(where.path(current))
        # As the version in use would be written now: its own name and folder are no change.
        wanted = making.tree(making.deployment(site, where, current))
        difference = tree.compare(was, tree.digests(wanted))
        by_hand = _by_hand(where, current, was)
    made = making.deployment(site, where, fresh)
    entries = making.tree(made)
    if current is None:
        difference = tree.compare({}, tree.digests(entries))
    return Change(current, fresh, difference, by_hand, made, entries, tuple(images.to_build(site)))


def _by_hand(where: Versions, version: str, was: dict[str, str]) -> Difference:
    try:
        return tree.compare(was, tree.on_disk(where.path(version)))
    except OSError as error:
        raise CannotRun(
            f"the version in use cannot be read: {error.strerror}", looked_at=str(error.filename)
        ) from error


def apply(site: Site, change: Change, tell: Callable[[Proof], None], *, nodes: bool = False) -> Sequence[str]:
    """Write the next version, prove that it works, and put it in use; the versions that were taken away for it. Raises
    CannotRun when it does not work: it is gone then, and users keep what they have. `nodes`: prove it on each kind of
    node too."""
    where = versions.of(site.centre)
    folder = where.path(change.next_version)
    tree.write(change.entries, folder)
    try:
        for build in making.builds(change.made):
            _pin(build, change.next_version)
        failed = [proof for proof in proving.prove(change.made, tell, nodes=nodes) if proof.ok is False]
        if failed:
            raise CannotRun(
                f"the version {change.next_version} does not work, and is not put in use",
                looked_at="\n".join(f"    {proof.what}: {proof.said}" for proof in failed),
                do="mend that, and `kuulo deploy apply` again; users keep what they have",
            )
        where.use(change.next_version, site.centre)
    except BaseException:  # also when interrupted
        if where.current() != change.next_version:
            where.remove(change.next_version)
        raise
    return where.prune()


def _pin(build: Path, version: str) -> None:
    try:
        versions.pin(build, version)
    except OSError as error:
        raise CannotRun(
            f"the build of an engine cannot be marked as used: {error.strerror}",
            looked_at=str(build),
            do="deploy as who owns the folders `images` and `environments` of the site's file",
        ) from error
