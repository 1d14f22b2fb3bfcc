"""`kuulo shell`."""

from __future__ import annotations

import click


@click.command()
@click.argument("engine")
@click.option("--dry-run", is_flag=True, help="Print the exact command, and do nothing.")
def shell(engine: str, dry_run: bool) -> int:
    """A shell where an engine is: in its container image, or with its virtual environment.

    In an image the current folder and the model stores are seen, HOME is empty, and what else the image has not is not
    there. The exit code is the shell's.

    \b
    kuulo shell faster-whisper
    kuulo shell faster-whisper --dry-run
    """
    from kuulo import plan, site
    from kuulo.cli.run import start
    from kuulo.environments import recipe

    name = recipe.of_program(engine) or plan.known_engine(engine, task=None).name
    return start(site.load(), name, None, (), dry_run=dry_run)
