"""`kuulo explain`."""

from __future__ import annotations

from typing import Any

import click

from kuulo.cli import flags


@click.command()
@flags.common("What", "Recognition", "Machine", "Showing")
def explain(**arguments: Any) -> int:
    """What an engine makes of the common options: its own names, what it refuses, and the native call.

    \b
    kuulo explain --engine whisper-cpp
    kuulo explain --engine faster-whisper -m small --beam-size 1 --batch-size 8
    """
    from kuulo import options, plan, site, survey
    from kuulo.errors import KuuloError

    settings_files = site.load()
    settings = site.settle(settings_files, flags.typed(arguments))
    facts = survey.facts(settings_files)
    name = settings.values["engine"]
    resolved = None
    try:
        resolved = plan.resolve(settings, facts)
        spec, problem = resolved.spec, None
    except KuuloError as error:
        if not name:
            raise
        spec, problem = plan.known_engine(str(name)), error
    refused = plan.refusals(spec, resolved.model if resolved else None, settings.values, settings.given())
    rows = []
    for option in options.OPTIONS:
        if not option.engine:
            continue
        native = spec.options.get(option.name)
        value = settings.values[option.name]
        rows.append(
            {
                "option": plan.flag(option.name),
                "value": value,
                "native": native.name if native else None,
                "note": refused.get(option.name) or (native.note if native else "not honoured: refused when given"),
                "refused": option.name in refused,
            }
        )
    if settings.values["json"]:
        import json

        call = None
        if resolved:
            from kuulo.cli.transcribe import native_call

            call = native_call(resolved)
        click.echo(
            json.dumps(
                {
                    "engine": spec.name,
                    "options": rows,
                    "native": call,
                    "problem": str(problem) if problem else None,
                },
                indent=1,
            )
        )
        return 0 if problem is None else problem.exit_code
    _show(spec, rows)
    if problem is not None:
        click.echo(f"\n{problem}")
        return problem.exit_code
    assert resolved is not None
    from kuulo.cli.transcribe import native_call

    click.echo(f"\n{spec.name}: {resolved.why}\n\nnative call:")
    click.echo("\n".join(f"  {line}" for line in native_call(resolved).splitlines()))
    return 0


def _show(spec: Any, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False)
    for heading in ("option", "value", f"in {spec.name}", ""):
        grid.add_column(heading)
    for row in rows:
        style = "red" if row["refused"] else ("" if row["native"] else "dim")
        value = row["value"]
        shown = "" if value is None else ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
        grid.add_row(*(Text(t, style=style) for t in (row["option"], shown, row["native"] or "–", row["note"])))
    Console(highlight=False).print(grid)
