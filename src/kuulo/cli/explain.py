"""`kuulo explain`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags

if TYPE_CHECKING:
    from kuulo.engines.base import EngineSpec
    from kuulo.errors import KuuloError
    from kuulo.plan import Plan

NO_MODEL = "MODEL"
"""Stands for the model's path in a native call while no store has a model."""


@click.command()
@flags.common("What", "Recognition", "Machine", "Showing")
def explain(**arguments: Any) -> int:
    """What an engine makes of the common options: its own names, what it refuses, and the native call.

    \b
    kuulo explain --engine whisper-cpp
    kuulo explain --engine faster-whisper -m small --beam-size 1 --batch-size 8
    """
    from kuulo import plan, site, survey
    from kuulo.errors import EngineMissing, KuuloError, ModelMissing

    files = site.load()
    settings = site.settle(files, flags.typed(arguments))
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
    call = _native(spec, settings.values, resolved)
    if settings.values["json"]:
        answer = {"engine": spec.name, "options": rows, "native": call, "problem": str(problem) if problem else None}
        click.echo(json.dumps(answer, indent=1))
    else:
        _show(spec, rows, call, resolved, problem)
    return problem.exit_code if problem and not isinstance(problem, (EngineMissing, ModelMissing)) else 0


def _rows(spec: EngineSpec, values: Mapping[str, Any], refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each option that an engine has to honour: its value, the engine's name for it, and what to know."""
    from kuulo import options, plan

    rows = []
    for option in options.OPTIONS:
        if option.engine:
            native = spec.options.get(option.name)
            rows.append(
                {
                    "option": plan.flag(option.name),
                    "value": values[option.name],
                    "native": native.name if native else None,
                    "note": native.note if native else "",
                    "refused": refused.get(option.name),
                }
            )
    return rows


def _native(spec: EngineSpec, values: Mapping[str, Any], resolved: Plan | None) -> str:
    """The native call, with what is not known yet left open."""
    from kuulo import engines
    from kuulo.cli.transcribe import native_call

    if resolved:
        return native_call(resolved)
    honoured = {n: v for n, v in values.items() if n in spec.options}
    raw = dict(values["engine_option"] or {})
    text: str = engines.module(spec.name).native({**honoured, "model_path": NO_MODEL}, raw)
    return text


def _show(
    spec: EngineSpec, rows: list[dict[str, Any]], call: str, resolved: Plan | None, problem: KuuloError | None
) -> None:
    click.echo(f"{spec.name}: {spec.summary}")
    if resolved:
        click.echo(f"chosen because: {resolved.why}")
    click.echo()
    for row in rows:
        value = _shown(row["value"])
        line = f"{row['option']} {value}".rstrip()
        if row["refused"]:
            click.echo(click.style(f"  {line}\n      refused: {row['refused']}", fg="red"))
        elif row["native"] is None:
            click.echo(click.style(f"  {row['option']}\n      not honoured: refused when it is given", dim=True))
        else:
            told = "; ".join(part for part in (row["native"], row["note"]) if part)
            click.echo(f"  {line}\n      {told}")
    if problem is not None:
        click.echo(f"\n{problem}")
    click.echo("\nnative call:")
    click.echo("\n".join(f"  {line}" for line in call.splitlines()))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)
