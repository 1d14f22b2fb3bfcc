"""`kuulo serve`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags
from kuulo.llm import options

if TYPE_CHECKING:
    from kuulo.llm.plan import ChatPlan
    from kuulo.llm.serving.front import Front
    from kuulo.llm.serving.registry import Server, ServerFolder, Servers
    from kuulo.machine import Machine
    from kuulo.plan import Plan
    from kuulo.site import Settings

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
ENGINES = ("endpoint", "engine", "key_file")
"""Options of a language model that are not the server's, and that this command has."""

SPEECH_HAS_NOT = (
    "from", "highlight_words", "max_line_count", "max_line_width", "max_words_per_line", "pack", "roster",
    "speaker_engine", "speaker_model", "speaker_option", "speakers", "speech_detection", "then", "then_option", "to",
)  # fmt: skip
"""Options of recognition that a server does not have: they are as built in. Which files are written, and where, is not
among them: a server writes none, and its clients choose the format."""

DECIDED_BY = {
    "site": "the site's file",
    "forced": "the site's file",
    "user": "your settings",
    "environment": "a variable",
}


@click.command()
@click.argument("model", required=False)
@flags.named(*ENGINES, table=options.OPTIONS)
@flags.common("Server", table=options.OPTIONS)
@click.option("--speech", metavar="NAME|PATH", help="Recognise speech too, with this model.")
@click.option("--speech-engine", metavar="NAME", help="With this engine. Without it: the best that has the model.")
@click.option("--name", metavar="NAME", help="What to call this server. Without it: s1, s2, ...")
@click.option("--served-name", metavar="NAME", help="What clients call the language model.  [default: its name]")
@click.option("--speech-name", metavar="NAME", help="What clients call the speech model, as whisper-1.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Without it: one that is free.")
@click.option("--socket", metavar="PATH", help="Listen on a Unix socket, and on no port.")
@click.option(
    "--bind",
    default="127.0.0.1",
    metavar="ADDRESS|node",
    help="Listen there. node: this machine's own address, which other machines reach.  [default: 127.0.0.1]",
)
@click.option("--idle", metavar="TIME", help="End after so long without a request: 30m, 2h. Without it: never.")
@click.option("--body-limit", default="16M", metavar="SIZE", help="Largest request for a language model.")
@click.option("--audio-limit", default="1G", metavar="SIZE", help="Largest upload of a recording.")
@click.option("--read-timeout", default="60s", metavar="TIME", help="How long a client may leave a request unfinished.")
@click.option("--on", "place", type=click.Choice(["here", "slurm"]), default="here", help="Where it runs.")
@click.option("--partition", metavar="NAME", help="Of the job: as `kuulo submit`.")
@click.option("--account", metavar="NAME", help="On whose account the job is.")
@click.option("--qos", metavar="NAME", help="Quality of service of the job.")
@click.option("--cpus", type=click.IntRange(1, 1024), metavar="N", help="CPU cores of the job.")
@click.option(
    "--gpus",
    type=click.IntRange(0, 64),
    metavar="N",
    help="GPUs of the job. Without it: one, where the site has a place for such work.",
)
@click.option("--mem", metavar="SIZE", help="Memory of the job: 32G.")
@click.option("--time", "time_", default="4:00:00", metavar="TIME", help="How long the job may be: minutes, HH:MM:SS.")
@click.option("--slurm", "raw", multiple=True, metavar="KEY=VALUE", help="An option of sbatch, as it is. Repeatable.")
@click.option(
    "--interrupt",
    type=click.Choice(["ask", "leave", "cancel"]),
    default="ask",
    help="What Ctrl-C does to the job while it is waited for.  [default: ask]",
)
@click.option("--no-wait", is_flag=True, help="Submit the job and do not wait until it is ready.")
@click.option("--dry-run", is_flag=True, help="Show what would be done.")
@click.option("--quiet", "-q", is_flag=True, help="Show errors alone.")
@click.option("--in-job", metavar="NAME", hidden=True, help="We are the job of this server.")
def serve(model: str | None, **asked: Any) -> int:
    """Serve a language model, recognition of speech, or both, as OpenAI's API.

    It runs until Ctrl-C, `kuulo llm stop`, or the end of its job. Whoever has its key may use it.

    \b
    kuulo serve qwen2.5-7b --idle 30m
    kuulo serve qwen2.5-7b --on slurm --gpus 1 --time 8:00:00
    kuulo serve --speech large-v3
    """
    from kuulo.errors import UsageError

    if not (model or has_speech(asked) or asked["option_endpoint"]):
        raise UsageError("nothing is named that could be served", do="kuulo serve MODEL, or kuulo serve --speech MODEL")
    if asked["socket"] and (asked["port"] or asked["bind"] != "127.0.0.1"):
        raise UsageError("--socket is instead of --port and --bind")
    seconds(asked["idle"]), seconds(asked["read_timeout"], "--read-timeout", unit="")
    size(asked["body_limit"]), size(asked["audio_limit"])
    if asked["place"] == "slurm":
        return _submit(model, asked)
    return _here(model, asked)


def _here(model: str | None, asked: Mapping[str, Any]) -> int:
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.errors import EXIT_OK, CannotRun

    chat = chat_plan(model, asked) if model or asked["option_endpoint"] else None
    speech = speech_plan(asked) if has_speech(asked) else None
    if asked["dry_run"]:
        return _show(chat, speech)
    if not asked["quiet"]:
        say_notes(speech)
    try:
        from kuulo.llm.serving import front, keys
    except ModuleNotFoundError as error:
        raise CannotRun(
            f"a package that serving needs is not installed: {error.name}", do="pip install 'kuulo[serve]'"
        ) from error
    servers = _servers()
    folder = servers.find(asked["in_job"]) if asked["in_job"] else servers.new(asked["name"])
    if not asked["in_job"]:
        keys.new(folder.key)
    stop_when_told()
    one = _front(asked, folder, chat, speech)
    try:
        why = front.run(one, lambda server: None if asked["quiet"] else _say(server, one))
    finally:
        if not asked["in_job"]:
            folder.remove()
    if not asked["quiet"]:
        click.echo(f"{folder.name} has ended: {why}", err=True)
    return EXIT_OK


def has_speech(asked: Mapping[str, Any]) -> bool:
    """An engine alone is enough: it may bring its own model."""
    return bool(asked["speech"] or asked["speech_engine"])


def _front(asked: Mapping[str, Any], folder: ServerFolder, chat: ChatPlan | None, speech: Plan | None) -> Front:
    from kuulo import site
    from kuulo.llm.serving.app import Limits
    from kuulo.llm.serving.front import Front

    scratch = asked["option_scratch"] or site.settle(site.load(), {}).values["scratch"]
    return Front(
        folder,
        chat,
        speech,
        bind=asked["bind"],
        port=asked["port"],
        socket=Path(asked["socket"]).absolute() if asked["socket"] else None,
        chat_name=asked["served_name"],
        speech_name=asked["speech_name"],
        idle_s=seconds(asked["idle"]),
        limits=Limits(
            size(asked["body_limit"]),
            size(asked["audio_limit"]),
            seconds(asked["read_timeout"], "--read-timeout", unit="") or Limits.read_s,
        ),
        scratch=Path(scratch) if scratch else None,
        keep=bool(asked["in_job"]),
    )


def _servers() -> Servers:
    from kuulo import site
    from kuulo.llm.serving.registry import Servers

    return Servers(site.user_state_folder() / "servers")


def chat_plan(model: str | None, asked: Mapping[str, Any], elsewhere: Machine | None = None) -> ChatPlan:
    """How the language model is served, on this machine or on what another one is. Raises KuuloError."""
    from kuulo.llm import plan

    return plan.make({**flags.typed(asked), **({"model": model} if model else {})}, elsewhere=elsewhere)


def speech_plan(asked: Mapping[str, Any]) -> Plan:
    """What recordings are heard with. Of the settings, those that make no sense here are as built in; the plan's last
    note names those of them that somebody has set. Raises KuuloError."""
    import dataclasses

    from kuulo import plan, site, survey

    files = site.load()
    typed = {k: v for k, v in flags.typed(asked).items() if k in ("device", "threads", "scratch")}
    typed |= {name: asked[flag] for name, flag in (("model", "speech"), ("engine", "speech_engine")) if asked[flag]}
    settings, note = speech_settings(site.settle(files, typed))
    resolved = plan.resolve(settings, survey.facts(files))
    return dataclasses.replace(resolved, notes=(*resolved.notes, *([note] if note else [])))


def speech_settings(settings: Settings) -> tuple[Settings, str]:
    """The settings as a server has them, and which of those that somebody has set it does not use, as a sentence; empty
    when there is none. Pure."""
    import dataclasses

    from kuulo import options as speech_options

    table = speech_options.BY_NAME
    ours = {name: speech_options.parse(table[name], table[name].default) for name in SPEECH_HAS_NOT}
    ours["workers"] = 1
    unused = [
        f"{name} = {_shown(settings.values[name])} ({DECIDED_BY[settings.origin[name]]})"
        for name, value in sorted(ours.items())
        if settings.origin[name] in DECIDED_BY and settings.values[name] != value
    ]
    kept = dataclasses.replace(
        settings, values={**settings.values, **ours}, origin={**settings.origin, **dict.fromkeys(ours, "built in")}
    )
    return kept, f"a server of recordings does not use {', '.join(unused)}: kuulo transcribe does" if unused else ""


def _shown(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def say_notes(speech: Plan | None) -> None:
    """What people should know of how recordings are heard, on standard error."""
    for note in speech.notes if speech else ():
        click.echo(note, err=True)


def _show(chat: ChatPlan | None, speech: Plan | None) -> int:
    from kuulo.cli import transcribe
    from kuulo.llm import server

    if chat is not None:
        click.echo(f"language model: {chat.model_name or 'the one that the endpoint has'} ({chat.engine}: {chat.why})")
        click.echo(f"its server:     {server.native(chat)}")
    if speech is not None:
        click.echo(transcribe.describe(speech))
    return 0


def _say(server: Server, front: Front) -> None:
    """How to use it, when it is ready."""
    import time

    from kuulo.jobs import amounts
    from kuulo.llm.serving import address, reaching

    what = [f"{server.model} ({server.engine})"] if server.model else []
    what += [f"speech: {server.speech}"] if server.speech else []
    click.echo(f"{server.name} is ready: {', '.join(what)}")
    if server.socket:
        click.echo(f"  socket: {server.socket}\n  key:    {front.folder.key}")
    else:
        for line in reaching.environment(reaching.url(server), front.folder.key):
            click.echo(f"  {line}")
        if not address.is_loopback(server.bind):
            click.echo("  other machines reach it, unencrypted: whoever reads the network reads the key", err=True)
    if front.idle_s:
        click.echo(f"  it ends after {amounts.duration(front.idle_s)} without a request")
    if server.ends_by:
        click.echo(f"  its job is over in {amounts.duration(max(0, server.ends_by - time.time()))}")
    click.echo(f"  from elsewhere: kuulo llm tunnel {server.name}    its end: kuulo llm stop {server.name}, or Ctrl-C")


def _submit(model: str | None, asked: Mapping[str, Any]) -> int:
    from kuulo.cli import serve_job

    return serve_job.submit(model, asked, _servers())


def seconds(text: str | None, flag: str = "--idle", unit: str = "m") -> float | None:
    """Seconds in `90s`, `30m`, `2h`, `1d`. `unit`: of a number without one, which is refused where it is empty. Raises
    UsageError."""
    from kuulo.errors import UsageError

    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", text.strip().lower())
    if not found or not float(found[1]) or not (found[2] or unit):
        raise UsageError(f"{flag}: {text!r} is not a time", do="write 30m, 2h or 90s")
    return float(found[1]) * UNITS[found[2] or unit]


def size(text: str) -> int:
    """Bytes in `16M`, `1G`. Raises UsageError."""
    from kuulo.jobs import amounts

    return amounts.megabytes(text) << 20
