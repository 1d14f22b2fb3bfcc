"""`kuulo llm explain`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags
from kuulo.llm import options

if TYPE_CHECKING:
    from kuulo.engines.base import EngineSpec
    from kuulo.llm.plan import ChatPlan
    from kuulo.site import Settings


@click.command()
@flags.common(*options.GROUPS, table=options.OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def explain(as_json: bool, **arguments: Any) -> int:
    """What an engine makes of the options of language models: its own names, what it refuses and who can do that, what
    the model takes of the memory, and the exact command that starts its server.

    \b
    kuulo llm explain --engine llama-cpp
    kuulo llm explain -m my-model --context 4096 --gpu-layers 20
    """
    from kuulo import site
    from kuulo.errors import EngineMissing, KuuloError, ModelMissing
    from kuulo.llm import facts, plan, server

    files = site.load()
    settings = options.settle(files, flags.typed(arguments))
    resolved, problem, native = None, None, None
    try:
        resolved = plan.resolve(settings, facts.look(files, settings))
        spec = resolved.spec
        native = server.native(resolved)
    except KuuloError as error:
        if not settings.values["engine"]:
            raise
        spec, problem = plan.known(str(settings.values["engine"])), error
    rows = _rows(spec, settings)
    if as_json:
        answer = {"schema": 1, "engine": spec.name, "options": rows, "differs": spec.differs, "native": native}
        answer |= {"plan": resolved.to_json() if resolved else None, "problem": str(problem) if problem else None}
        click.echo(json.dumps(answer, indent=1))
    else:
        _show(spec, rows, resolved, native)
        if problem:
            click.echo(f"\n{click.style('problem:', fg='yellow')} {problem}")
    return problem.exit_code if problem and not isinstance(problem, (EngineMissing, ModelMissing)) else 0


def _rows(spec: EngineSpec, settings: Settings) -> list[dict[str, Any]]:
    """Each option that an engine has to honour: its value, the engine's name for it, and what to know."""
    from kuulo.llm import plan

    refused = plan.refusals(spec, settings)
    rows = []
    for option in options.OPTIONS:
        if option.engine:
            native = spec.options.get(option.name)
            cannot = native is None or option.name in refused
            value = settings.values[option.name]
            rows.append(
                {
                    "option": plan.flag(option.name),
                    "value": list(value) if isinstance(value, tuple) else value,
                    "native": native.name if native else None,
                    "note": native.note if native else "",
                    "refused": refused.get(option.name),
                    "others": plan.able(option.name, value, spec) if cannot else [],
                }
            )
    return rows


def _show(spec: EngineSpec, rows: list[dict[str, Any]], resolved: ChatPlan | None, native: str | None) -> None:
    click.echo(click.style(f"{spec.name}: {spec.summary}", bold=True))
    width = max(len(row["option"]) for row in rows)
    for row in rows:
        if row["native"] is None:
            others = f" ({', '.join(row['others'])} can)" if row["others"] else ""
            said = f"{row['refused'] or 'nothing like it'}{others}"
        else:
            said = "  ".join(filter(None, [row["native"], row["note"], row["refused"]]))
        click.echo(f"  {row['option'].ljust(width)}  {said}")
    for text in spec.differs:
        click.echo(text)
    if resolved:
        click.echo(f"\nmodel: {resolved.model_name or 'the one that the endpoint has'} ({resolved.why})")
        if resolved.need:
            from kuulo.llm import memory

            click.echo(f"memory: {memory.said(resolved.need.total)}: {resolved.need}")
        for note in resolved.notes:
            click.echo(note)
    if native:
        click.echo(f"\n{native}")
