"""`kuulo explain`."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags

if TYPE_CHECKING:
    from kuulo.engines.base import CommandLine, EngineSpec
    from kuulo.errors import KuuloError
    from kuulo.plan import Facts, Plan
    from kuulo.site import Settings

NO_MODEL = "MODEL"
"""Stands for the model's path in a native call while no store has a model."""


@click.command()
@flags.common("What", "Recognition", "Machine", "Showing")
def explain(**arguments: Any) -> int:
    """What an engine makes of the common options: its own names and values, what it refuses and who can do that, what
    it does otherwise than the others, the command line of its own program, and the native call.

    \b
    kuulo explain --engine whisper-cpp
    kuulo explain --engine faster-whisper -m small --beam-size 1 --batch-size 8
    kuulo explain --speaker-engine pyannote --speakers 2
    """
    from kuulo import engines, plan, site, survey
    from kuulo.errors import EngineMissing, KuuloError, ModelMissing

    files = site.load()
    settings = site.settle(files, flags.typed(arguments))
    if settings.values["speaker_engine"] and not settings.values["engine"]:
        return _explain_speakers(settings, survey.facts(files))
    resolved, problem = None, None
    try:
        resolved = plan.resolve(settings, survey.facts(files))
        spec = resolved.spec
    except KuuloError as error:
        if not settings.values["engine"]:
            raise
        spec, problem = plan.known_engine(str(settings.values["engine"])), error
    model = resolved.model if resolved else None
    refused = plan.refusals(spec, model, settings.values, settings.given())
    rows = _rows(spec, settings.values, refused)
    told, raw = _told(spec, settings.values, resolved)
    module = engines.module(spec.name)
    call: str = module.native(told, raw)
    line = module.command(told, raw) if hasattr(module, "command") else None
    if settings.values["json"]:
        program = {"arguments": line.arguments, "notes": line.notes} if line else None
        answer = {"engine": spec.name, "options": rows, "differs": spec.differs, "command": program}
        answer |= {"native": call, "problem": str(problem) if problem else None}
        click.echo(json.dumps(answer, indent=1))
    else:
        _show(spec, rows, resolved, problem)
        _show_calls(line, call)
    return problem.exit_code if problem and not isinstance(problem, (EngineMissing, ModelMissing)) else 0


def _explain_speakers(settings: Settings, facts: Facts) -> int:
    """The same of an engine that tells speakers apart."""
    from kuulo import engines, plan, speakers
    from kuulo.errors import EngineMissing, KuuloError, ModelMissing

    spec = plan.known_engine(str(settings.values["speaker_engine"]), plan.DIARIZE)
    own = {"speakers": speakers.CHANNELS if spec.name == speakers.CHANNELS else "auto"}
    values = {**settings.values, **(own if settings.values["speakers"] == "none" else {})}
    resolved, problem = None, None
    try:
        resolved = plan.resolve_diarization(dataclasses.replace(settings, values=values), facts)
    except KuuloError as error:
        problem = error
    options = resolved.engine_options() if resolved else plan.number_of(values)
    path = str(resolved.model.path) if resolved and resolved.model else NO_MODEL
    call = engines.module(spec.name).native({**options, "model_path": path}, dict(values["speaker_option"] or {}))
    rows = [
        {"option": plan.flag(name), "value": values[name], "native": native.name, "note": native.note, "refused": None,
         "others": []}
        for name, native in spec.options.items()
    ]  # fmt: skip
    if settings.values["json"]:
        answer = {"engine": spec.name, "options": rows, "differs": spec.differs, "command": None, "native": call}
        click.echo(json.dumps({**answer, "problem": str(problem) if problem else None}, indent=1))
    else:
        _show(spec, rows, resolved, problem)
        _show_calls(None, call)
    return problem.exit_code if problem and not isinstance(problem, (EngineMissing, ModelMissing)) else 0


def _rows(spec: EngineSpec, values: Mapping[str, Any], refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each option that an engine has to honour: its value, the engine's name for it, and what to know."""
    from kuulo import options, plan

    rows = []
    for option in options.OPTIONS:
        if option.engine:
            native = spec.options.get(option.name)
            cannot = native is None or option.name in refused
            rows.append(
                {
                    "option": plan.flag(option.name),
                    "value": values[option.name],
                    "native": native.name if native else None,
                    "note": native.note if native else "",
                    "refused": refused.get(option.name),
                    "others": plan.able(option.name, values[option.name], spec) if cannot else [],
                }
            )
    return rows


def _told(spec: EngineSpec, values: Mapping[str, Any], resolved: Plan | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options as the engine is told them, and its raw ones; what is not known yet is left open."""
    from kuulo.cli.transcribe import told

    if resolved:
        return told(resolved), dict(resolved.raw)
    honoured = {n: v for n, v in values.items() if n in spec.options}
    return {**honoured, "model_path": NO_MODEL}, dict(values["engine_option"] or {})


def _show(spec: EngineSpec, rows: list[dict[str, Any]], resolved: Plan | None, problem: KuuloError | None) -> None:
    click.echo(f"{spec.name}: {spec.summary}")
    if resolved:
        click.echo(f"chosen because: {resolved.why}")
    click.echo()
    for row in rows:
        value = _shown(row["value"])
        others = f" ({', '.join(row['others'])} can)" if row["others"] else ""
        line = f"{row['option']} {value}".rstrip()
        if row["refused"]:
            click.echo(click.style(f"  {line}\n      refused: {row['refused']}{others}", fg="red"))
        elif row["native"] is None:
            click.echo(
                click.style(f"  {row['option']}\n      not honoured: refused when it is given{others}", dim=True)
            )
        else:
            told = "; ".join(part for part in (row["native"], row["note"]) if part)
            click.echo(f"  {line}\n      {told}")
    if spec.differs:
        click.echo("\ndiffers from the others:")
        click.echo("\n".join(f"  {sentence}" for sentence in spec.differs))
    if problem is not None:
        click.echo(f"\n{problem}")


def _show_calls(line: CommandLine | None, call: str) -> None:
    from kuulo.engines.base import AUDIO

    if line is not None:
        click.echo(f"\nits own program, for a recording {AUDIO}:")
        click.echo(f"  {shlex.join(line.arguments)}")
        click.echo("".join(f"      {note}\n" for note in line.notes), nl=False)
    click.echo("\nnative call:")
    click.echo("\n".join(f"  {text}" for text in call.splitlines()))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)
