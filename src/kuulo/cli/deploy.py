"""`kuulo deploy`."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

import click

from kuulo.errors import EXIT_CANNOT_RUN

if TYPE_CHECKING:
    from kuulo.deploy.applying import Change
    from kuulo.deploy.proving import Proof
    from kuulo.deploy.tree import Difference

SHOWN = ("bin/", "libexec/", "modules/", "portal/", "pinned/", "site.toml")
"""Files whose lines are shown when they change; of Kuulo's own it is enough to say how many."""

NAMED = 12
"""As many files are named; of more it is said how many."""


_nodes = click.option("--nodes", is_flag=True, help="Also as Slurm's jobs: `kuulo selftest` on each kind of node.")


@click.group()
def deploy() -> None:
    """For who runs a centre: commands, modules and the portal's app for everybody, from the site's file.

    \b
    kuulo site init               write the site's file
    kuulo deploy plan             what would change
    kuulo deploy apply            write the next version, prove that it works, put it in use
    kuulo deploy test             prove again that it works
    kuulo deploy rollback         back to the version before
    """


@deploy.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan(as_json: bool) -> None:
    """What `apply` would change. Nothing is written."""
    from kuulo import site
    from kuulo.deploy import applying

    change = applying.plan(site.load())
    if as_json:
        click.echo(json.dumps(_change_json(change), indent=1))
        return
    _show(change)


@deploy.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_nodes
@click.option("--json", "as_json", is_flag=True, help="For machines; does not ask.")
def apply(yes: bool, nodes: bool, as_json: bool) -> None:
    """Write the next version, prove that it works, and put it in use.

    Where nothing would change, nothing is done. A version that does not work is taken away again, and users keep what
    they have.
    """
    import sys

    from kuulo import site
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.deploy import applying, images

    stop_when_told()
    loaded = site.load()
    change = applying.plan(loaded)
    answer = _change_json(change)
    if not as_json:
        _show(change)
    if not change.needed:
        if as_json:
            click.echo(json.dumps({**answer, "applied": False}, indent=1))
        return
    if not (yes or as_json) and sys.stdin.isatty():
        click.confirm(f"Deploy {change.next_version}?", abort=True, err=True)
    for engine in change.images:
        images.build(loaded, engine, lambda text: click.echo(text, err=True))
    if change.images:  # which builds a version uses is part of it
        change = applying.plan(loaded)
    proofs: list[Proof] = []

    def tell(proof: Proof) -> None:
        proofs.append(proof)
        if not as_json:
            _show_proof(proof)

    gone = applying.apply(loaded, change, tell, nodes=nodes)
    if as_json:
        told = [_proof_json(p) for p in proofs]
        click.echo(json.dumps({**answer, "applied": True, "proofs": told, "removed": list(gone)}, indent=1))
        return
    click.echo(f"{change.next_version} is in use")
    for version in gone:
        click.echo(f"{version} was taken away: `keep` in [deploy] says how many stay")
    _say_what_to_type(change)


@deploy.command()
@click.argument("version", required=False)
@_nodes
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def test(version: str | None, nodes: bool, as_json: bool) -> int:
    """Prove that VERSION works; without it, the one in use."""
    from kuulo import site
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.deploy import making, proving, versions
    from kuulo.errors import UsageError

    stop_when_told()
    loaded = site.load()
    where = versions.of(loaded.centre)
    chosen = version or where.current()
    if chosen is None or chosen not in where.all():
        raise UsageError(
            f"there is no version {chosen}" if chosen else "nothing is deployed",
            looked_at=str(where.folder),
            do="kuulo deploy list" if where.all() else "kuulo deploy apply",
        )
    own = site.load({"KUULO_SITE": str(where.path(chosen) / "site.toml")})
    made = making.deployment(own, where, chosen)
    proofs = proving.prove(made, (lambda proof: None) if as_json else _show_proof, nodes=nodes)
    if as_json:
        click.echo(json.dumps({"version": chosen, "proofs": [_proof_json(p) for p in proofs]}, indent=1))
    return EXIT_CANNOT_RUN if any(proof.ok is False for proof in proofs) else 0


@deploy.command()
@click.argument("version", required=False)
def rollback(version: str | None) -> None:
    """Put VERSION in use again; without it, the one that was in use before."""
    from kuulo import site
    from kuulo.deploy import versions

    where = versions.of(site.load().centre)
    chosen = version or where.before()
    before = where.current()
    if chosen in where.all():
        where.use(chosen, site.load({"KUULO_SITE": str(where.path(chosen) / "site.toml")}).centre)
    else:
        where.use(chosen, site.load().centre)  # which says that there is none
    click.echo(f"{chosen} is in use" + (f" instead of {before}" if before and before != chosen else ""))


@deploy.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_(as_json: bool) -> None:
    """The versions that are there, the newest first."""
    from kuulo import site
    from kuulo.deploy import versions

    where = versions.of(site.load().centre)
    current, used = where.current(), where.history()
    rows = [
        {"version": v, "current": v == current, "folder": str(where.path(v)), "used": v in used}
        for v in reversed(where.all())
    ]
    if as_json:
        click.echo(json.dumps({"versions": rows}, indent=1))
        return
    if not rows:
        click.echo(f"nothing is deployed in {where.folder}", err=True)
    for row in rows:
        click.echo(f"{row['version']:<12} {'in use' if row['current'] else '':<7} {row['folder']}".rstrip())


def _show(change: Change) -> None:
    if not change.needed:
        click.echo(f"{change.current} is in use, and nothing would change")
        return
    for engine in change.images:
        click.echo(f"the image of {engine} would be built")
    if change.current is None:
        click.echo(f"{change.next_version} would be the first version: {len(change.entries)} files")
        for path in sorted(p for p in change.entries if p.startswith(SHOWN)):
            click.echo(f"  {path}")
        return
    click.echo(f"{change.next_version} would come after {change.current}:")
    _show_difference(change.difference, change)
    if change.by_hand:
        click.echo(f"In {change.current} somebody changed files by hand; the next version has none of that:")
        _show_paths(change.by_hand)


def _show_paths(difference: Difference) -> None:
    for word, paths in (("new", difference.added), ("changed", difference.changed), ("gone", difference.removed)):
        for path in paths[:NAMED]:
            click.echo(f"  {word}: {path}")
        if len(paths) > NAMED:
            click.echo(f"  {word}: {len(paths) - NAMED} more")


def _show_difference(difference: Difference, change: Change) -> None:
    from kuulo.deploy import versions

    _show_paths(difference)
    old = versions.of(change.made.site.centre).path(change.current or "")
    for path in difference.changed:
        if path.startswith(SHOWN):
            before = (old / path).read_text(errors="replace") if (old / path).is_file() else ""
            before = before.replace(change.current or "", change.next_version)
            after = change.entries[_renamed(path, change)].data.decode(errors="replace")
            for line in difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm="", n=1):
                click.echo(f"    {line}")


def _renamed(path: str, change: Change) -> str:
    """What a file of the version in use is called in the next one: some have the version in their names."""
    return path.replace(change.current or "", change.next_version)


def _show_proof(proof: Proof) -> None:
    word, color = {True: ("ok", "green"), False: ("FAILED", "red"), None: ("warning", "yellow")}[proof.ok]
    click.echo(f"{click.style(word.ljust(9), fg=color)} {proof.what}: {proof.said}")


def _say_what_to_type(change: Change) -> None:
    from kuulo.deploy import module

    centre = change.made.site.centre
    if "modules" in centre.deploy:
        names = " and ".join(one.name for one in module.modules(change.made))
        click.echo(f"  module use {centre.deploy['modules']}; module load {names}")
    click.echo(f"  {change.made.program}")


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "schema": 1,
        "current": change.current,
        "next": change.next_version,
        "needed": change.needed,
        "added": list(change.difference.added),
        "changed": list(change.difference.changed),
        "removed": list(change.difference.removed),
        "images": list(change.images),
        "changed_by_hand": [*change.by_hand.added, *change.by_hand.changed, *change.by_hand.removed],
    }


def _proof_json(proof: Proof) -> dict[str, Any]:
    return {"what": proof.what, "ok": proof.ok, "said": proof.said}
