"""`kuulo serve --on slurm`: a server in a job, and the wait for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags, job_flags

if TYPE_CHECKING:
    from kuulo.llm.serving.registry import Seen, ServerFolder, Servers, Submitted
    from kuulo.machine import Machine

LOOK_MOST_S = 15.0
FLAGS = {"speech": "--speech", "speech_engine": "--speech-engine", "served_name": "--served-name",
         "speech_name": "--speech-name", "bind": "--bind", "idle": "--idle", "body_limit": "--body-limit",
         "audio_limit": "--audio-limit", "read_timeout": "--read-timeout"}  # fmt: skip
"""Parameters of the command that its job gets as they are."""


def submit(model: str | None, asked: Mapping[str, Any], servers: Servers) -> int:
    """Submit the job, and wait until its server is ready."""
    from kuulo import site
    from kuulo.cli import serve
    from kuulo.errors import EXIT_OK, UsageError
    from kuulo.llm.serving import batch_job
    from kuulo.llm.serving.registry import ServerFolder

    if asked["port"] or asked["socket"]:
        raise UsageError(
            "--port and --socket cannot be chosen for a job: nobody knows which of its node are free",
            do="leave them out; kuulo llm tunnel brings the server to a port of your own",
        )
    there = _node(asked)
    chat = serve.chat_plan(model, asked, there) if model or asked["option_endpoint"] else None
    speech = serve.speech_plan(asked) if serve.has_speech(asked) else None
    need = (chat.need.total if chat and chat.need else 0) + (2 * speech.model.bytes if speech and speech.model else 0)
    specs = [plan.spec for plan in (chat, speech) if plan is not None]
    given = click.get_current_context().get_parameter_source("time_")
    time_given = given is not None and given.name != "DEFAULT"
    wanted = batch_job.ask(
        {**asked, "time_given": time_given},
        site.load().jobs(),
        need,
        can_use_gpu=any("cuda" in spec.devices for spec in specs),
    )
    if not asked["quiet"]:  # its job says nothing, and its output is in a file
        serve.say_notes(speech)
    if asked["dry_run"]:
        from kuulo import schedulers

        folder = ServerFolder(servers.path / (asked["name"] or "NAME"))
        click.echo(schedulers.of(batch_job.SLURM).script(batch_job.array(folder, words(model, asked), wanted)))
        return EXIT_OK
    folder = servers.new(asked["name"])
    submitted = batch_job.submit(folder, words(model, asked), wanted)
    if not asked["quiet"]:
        click.echo(f"{folder.name} is submitted (slurm {submitted.id}); its folder: {folder.path}", err=True)
    if asked["no_wait"]:
        return EXIT_OK
    return _wait_or_leave(folder, submitted, asked)


def _node(asked: Mapping[str, Any]) -> Machine:
    """What the job will be on, as far as was said. Memory is asked for as it is needed."""
    from kuulo.jobs.amounts import megabytes
    from kuulo.jobs.settings import USUAL_CPUS
    from kuulo.machine import Machine

    memory = megabytes(asked["mem"]) << 20 if asked["mem"] else 1 << 60
    return Machine(asked["cpus"] or USUAL_CPUS, memory, asked["gpus"] or 0)


def words(model: str | None, asked: Mapping[str, Any]) -> list[str]:
    """What follows `kuulo serve` in the job. Paths are absolute there."""
    from kuulo.llm import options

    said = ["--quiet"]
    for name, value in flags.typed(asked).items():
        flag = options.BY_NAME[name].flags[0]
        for one in value if isinstance(value, (tuple, list)) else [value]:
            said += [f"{flag}={job_flags.absolute(one) if name in job_flags.PATHS else one}"]
    for name, flag in FLAGS.items():
        if asked[name]:
            said.append(f"{flag}={job_flags.path_or_name(asked[name]) if name == 'speech' else asked[name]}")
    return [*said, "--", job_flags.path_or_name(model)] if model else said


def _wait_or_leave(folder: ServerFolder, submitted: Submitted, asked: Mapping[str, Any]) -> int:
    from kuulo.errors import EXIT_INTERRUPTED

    try:
        return _wait(folder, asked)
    except KeyboardInterrupt:
        if _is_to_be_cancelled(folder, asked["interrupt"]):
            from kuulo import schedulers

            schedulers.of(submitted.scheduler).cancel([submitted.id])
            folder.remove()
            click.echo(f"{folder.name} is cancelled", err=True)
        else:
            click.echo(f"{folder.name} goes on: kuulo llm list, kuulo llm stop {folder.name}", err=True)
        return EXIT_INTERRUPTED


def _is_to_be_cancelled(folder: ServerFolder, interrupt: str) -> bool:
    if interrupt != "ask":
        return interrupt == "cancel"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        return click.confirm(f"\nCancel the job of {folder.name}?", default=False, err=True)
    except click.Abort:
        return False


def _wait(folder: ServerFolder, asked: Mapping[str, Any]) -> int:
    """Until it is ready. Raises CannotRun when it never will be."""
    from kuulo.errors import EXIT_OK, CannotRun
    from kuulo.llm.serving import batch_job, registry

    pause, shown = 0.5, ""
    while True:
        seen = registry.look(folder)
        if seen.state == registry.READY:
            if not asked["quiet"]:
                _say(seen)
            return EXIT_OK
        if seen.state in (registry.DEAD, registry.FAILED):
            printed = batch_job.last_lines(folder)
            raise CannotRun(
                f"{folder.name} did not become ready: {seen.why}",
                looked_at=f"{folder.log}\n{printed}" if printed else str(folder.log),
                do=f"kuulo llm stop {folder.name} forgets it",
            )
        now = f"{seen.state}{f': {seen.why}' if seen.why else ''}"
        if now != shown and not asked["quiet"]:
            click.echo(f"  {now}", err=True)
        shown = now
        time.sleep(pause)
        pause = min(pause * 1.3, LOOK_MOST_S)


def _say(seen: Seen) -> None:
    from kuulo.jobs import amounts

    server = seen.server
    assert server is not None
    click.echo(f"{seen.name} is ready on {server.node or server.host}")
    if seen.ends_by:
        click.echo(f"  its job is over in {amounts.duration(max(0, seen.ends_by - time.time()))}")
    click.echo(
        f"  from here:         kuulo llm tunnel {seen.name}\n  in jobs on a node: kuulo llm url {seen.name} --env"
    )
    click.echo(f"  its end:           kuulo llm stop {seen.name}")
