"""`kuulo engines`."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def engines(as_json: bool) -> None:
    """Which engines there are, which are installed, and what they can do.

    They are listed in order of preference: without --engine, the first installed one that has the model is used.
    """
    rows = _rows()
    if as_json:
        click.echo(json.dumps({"engines": rows, "troubles": _troubles()}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False)
    for heading in ("engine", "version", "devices", "models", "summary"):
        grid.add_column(heading, no_wrap=heading != "summary")
    for row in rows:
        version = row["version"] or "not installed"
        grid.add_row(
            row["name"],
            version,
            ", ".join(row["devices"]),
            ", ".join(row["model_formats"]) or "its own",
            row["summary"],
        )
    Console(highlight=False).print(grid)
    for row in rows:
        if not row["version"]:
            click.echo(f"{row['name']}: pip install {row['install']}")
    for trouble in _troubles():
        click.echo(click.style(trouble, fg="yellow"), err=True)


def _troubles() -> list[str]:
    """What is wrong with the engines of other packages."""
    from kuulo import engines as table

    return [str(trouble) for trouble in table.troubles()]


def _rows() -> list[dict[str, Any]]:
    from kuulo import engines as table

    rows = []
    for spec in table.specs():
        version = None
        if table.installed(spec):
            try:
                version = importlib.metadata.version(spec.package)
            except importlib.metadata.PackageNotFoundError:  # its module is here, from somewhere else
                version = "unknown"
        rows.append(
            {
                "name": spec.name,
                "version": version,
                "summary": spec.summary,
                "devices": list(spec.devices),
                "model_formats": list(spec.model_formats),
                "options": sorted(spec.options),
                "licence": spec.licence,
                "url": spec.url,
                "install": spec.install,
            }
        )
    return rows
