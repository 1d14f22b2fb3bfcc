"""`kuulo llm list`, `stop`, `url`, `tunnel`, `publish`: the servers of `kuulo serve`."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kuulo.llm.serving.registry import Seen, Server, ServerFolder, Servers

HEAD = ("server", "state", "where", "model", "speech", "left", "")
_name = click.argument("name", required=False)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_(as_json: bool) -> int:
    """The servers, and how they are.

    One that is dead stays in the list, with the reason, until `kuulo llm stop` forgets it.
    """
    from kuulo.llm.serving import registry

    seen = [registry.look(folder) for folder in _servers().all()]
    if as_json:
        click.echo(json.dumps([_json(one) for one in seen], indent=1))
        return 0
    if not seen:
        click.echo(f"no server is in {_servers().path}: kuulo serve makes one")
        return 0
    rows = [HEAD, *map(_row, seen)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


@click.command()
@_name
def stop(name: str | None) -> int:
    """End a server: its process, or its job. A dead one is forgotten."""
    from kuulo import schedulers
    from kuulo.errors import CannotRun
    from kuulo.llm.serving import registry, stopping

    folder = _servers().find(name)
    seen = registry.look(folder)
    if seen.state in (registry.DEAD, registry.FAILED):
        folder.remove()
        click.echo(f"{folder.name} was {seen.state}: {seen.why}. It is forgotten")
        return 0
    if seen.submitted is not None:
        schedulers.of(seen.submitted.scheduler).cancel([seen.submitted.id])
        stopping.wait_until_gone(folder)
        click.echo(f"{folder.name}: its job {seen.submitted.id} is cancelled")
        return 0
    if seen.server is None or not stopping.is_here(seen.server):
        raise CannotRun(f"{folder.name} is not here: {seen.why}", do="kuulo llm stop, on that machine")
    stopping.stop(folder, seen.server)
    click.echo(f"{folder.name} has ended")
    return 0


@click.command()
@_name
@click.option("--env", "env", is_flag=True, help="The lines for a shell with which OpenAI's clients find it.")
def url(name: str | None, env: bool) -> int:
    """A server's address on its own machine."""
    from kuulo.llm.serving import reaching

    folder, server = _ready(name)
    where = reaching.url(server)
    click.echo("\n".join(reaching.environment(where, folder.key)) if env else where)
    return 0


@click.command()
@_name
@click.option("--login", metavar="HOST", help="What your own machine calls this one.  [default: its name]")
@click.option("--user", metavar="NAME", help="Whom you are there.  [default: who you are here]")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="The port of your own machine.")
def tunnel(name: str | None, login: str | None, user: str | None, port: int | None) -> int:
    """The lines that bring a server to a port of your own machine, to be typed there."""
    import getpass
    import shlex
    import socket

    from kuulo.llm.serving import reaching

    folder, server = _ready(name)
    here = socket.gethostname()
    login = login or here
    command = reaching.tunnel(server, here, user or getpass.getuser(), login, port)
    click.echo(f"{shlex.join(command)}\n")
    click.echo("# and in another terminal there, with the key, which is here in")
    click.echo(f"# {folder.key}")
    remote = f"ssh {user or getpass.getuser()}@{login} cat {shlex.quote(str(folder.key))}"
    click.echo(f"export OPENAI_BASE_URL={reaching.local_url(server, port)}")
    click.echo(f'export OPENAI_API_KEY="$({remote})"')
    return 0


@click.command()
@_name
@click.option("--as", "called", metavar="NAME", help="What `llm` calls it.  [default: kuulo-SERVER]")
@click.option("--url", "base_url", metavar="URL", help="Where it is reached from here, as at the end of a tunnel.")
@click.option("--remove", is_flag=True, help="Take the entry and its key out again, also when the server is gone.")
def publish(name: str | None, called: str | None, base_url: str | None, remove: bool) -> int:
    """Make a server a model of the program `llm` (https://llm.datasette.io), with its key.

    What else is in its files stays as it is; a copy of each from before is beside it.
    """
    import socket

    from kuulo.errors import UsageError
    from kuulo.llm.serving import keys, publishing, reaching

    if remove:
        if not (name or called):
            raise UsageError("which entry is to be taken out?", do="kuulo llm publish --remove NAME")
        entry = called or f"kuulo-{name}"
        where = publishing.remove(publishing.folder(), entry)
        click.echo(f"{entry} is taken out of {where}")
        return 0
    folder, server = _ready(name)
    if not server.model:
        raise UsageError(f"{folder.name} has no language model", do="llm asks language models alone")
    if server.socket and not base_url:
        raise UsageError("llm cannot reach a Unix socket", do="kuulo serve without --socket, or a tunnel and --url")
    if not base_url and not reaching.is_reachable(server, socket.gethostname()):
        raise UsageError(
            f"{folder.name} is on {server.node or server.host}, and only who is there too reaches it",
            looked_at=reaching.url(server),
            do=f"kuulo llm tunnel {folder.name}, then --url with the tunnel's address; or serve with --bind node",
        )
    entry = called or f"kuulo-{folder.name}"
    said = reaching.openai_entry(entry, server, base_url or reaching.url(server))
    where = publishing.publish(publishing.folder(), entry, said, keys.read(folder.key))
    click.echo(f"{entry} is in {where}:  llm -m {entry} 'Hello?'")
    return 0


def _servers() -> Servers:
    from kuulo import site
    from kuulo.llm.serving.registry import Servers

    return Servers(site.user_state_folder() / "servers")


def _ready(name: str | None) -> tuple[ServerFolder, Server]:
    """A server that is ready. Raises KuuloError."""
    from kuulo.errors import CannotRun
    from kuulo.llm.serving import registry

    folder = _servers().find(name)
    seen = registry.look(folder)
    is_elsewhere = seen.state == registry.UNKNOWN and seen.server and seen.server.state == registry.READY
    if seen.server is None or not (seen.state == registry.READY or is_elsewhere):
        raise CannotRun(f"{folder.name} is {seen.state}" + (f": {seen.why}" if seen.why else ""), do="kuulo llm list")
    return folder, seen.server


def _row(seen: Seen) -> tuple[str, ...]:
    from kuulo.jobs import amounts

    server, where = seen.server, ""
    if server is not None:
        host = server.node or server.host
        where = server.socket or (f"{host} {server.bind}:{server.port}" if server.port else host)
    elif seen.submitted is not None:
        where = f"{seen.submitted.scheduler} {seen.submitted.id}"
    left = amounts.duration(max(0.0, seen.ends_by - time.time())) if seen.ends_by else ""
    model, speech = (server.model or "", server.speech or "") if server else ("", "")
    return (seen.name, seen.state, where, model, speech, left, seen.why)


def _json(seen: Seen) -> dict[str, Any]:
    return {
        "name": seen.name,
        "state": seen.state,
        "why": seen.why,
        "ends_by": seen.ends_by,
        "key_file": str(seen.folder.key),
        "server": dataclasses.asdict(seen.server) if seen.server else None,
        "job": dataclasses.asdict(seen.submitted) if seen.submitted else None,
    }
