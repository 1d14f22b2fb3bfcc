"""`kuulo llm templates`."""

from __future__ import annotations

import json

import click


@click.group()
def templates() -> None:
    """Prompts with variables, for `kuulo ask -t`, `kuulo llm batch -t` and the tasks on transcripts.

    Your own are TOML files in the folder templates beside your settings; one with the name of Kuulo's stands in its
    place.
    """


@templates.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_(as_json: bool) -> None:
    """Which templates there are, and whose they are."""
    from kuulo.llm import templates as table

    found = [table.find(name) for name in table.names()]
    if as_json:
        rows = [
            {"name": t.name, "origin": t.origin, "source": t.source, "description": t.description,
             "variables": t.variables, "missing": t.missing, "sha256": t.digest}
            for t in found
        ]  # fmt: skip
        click.echo(json.dumps({"templates": rows}, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False)
    for heading in ("template", "whose", "variables", "what it is"):
        grid.add_column(heading, no_wrap=heading in ("template", "whose"))
    for one in found:
        shown = [name if name in one.missing else f"[{name}]" for name in one.variables]
        grid.add_row(Text(one.name), one.origin, Text(" ".join(shown)), Text(one.description))
    Console(highlight=False).print(grid)
    click.echo("Variables in brackets have a default.")
    for origin, folder in table.folders():
        click.echo(f"{origin}'s: {folder}")


@templates.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(name: str, as_json: bool) -> None:
    """What a template says. NAME may be a file too."""
    from kuulo.llm import templates as table

    one = table.find(name)
    if as_json:
        click.echo(json.dumps(vars(one), indent=1, ensure_ascii=False))
        return
    click.echo(f"{one.name} ({one.origin}: {one.source})")
    click.echo(f"sha256 {one.digest}")
    for called, text in (("what it is", one.description), ("system", one.system), ("prompt", one.prompt),
                         ("merge", one.merge)):  # fmt: skip
        if text.strip():
            click.echo(f"\n{click.style(called + ':', bold=True)}\n{text.strip()}")
    for called, pairs in (("variables", {n: one.defaults.get(n, "(must be given)") for n in one.variables}),
                          ("options", one.options)):  # fmt: skip
        if pairs:
            click.echo(f"\n{click.style(called + ':', bold=True)}")
            click.echo("\n".join(f"{key} = {value}" for key, value in pairs.items()))
    if one.schema is not None:
        click.echo(f"\n{click.style('schema:', bold=True)}\n{json.dumps(one.schema, indent=1, ensure_ascii=False)}")
