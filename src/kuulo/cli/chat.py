"""`kuulo chat`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags
from kuulo.cli.ask import typed
from kuulo.llm import options

if TYPE_CHECKING:
    from kuulo.llm.conversation import Conversation
    from kuulo.llm.session import Talk

HELP = """\
/exit              end (also exit, quit, Ctrl-D)
/file FILE         show the model a transcript or a text
/help              this
/multi             type several lines, up to a line with /end
/reset             forget what was said
/save FILE         keep the conversation in a file, from now on
/undo              forget the last question and its answer"""


@click.command()
@click.option("--file", "-f", "files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
              help="What is talked about: a transcript, with its times and speakers, or a text.")  # fmt: skip
@click.option("--option", "-o", "pairs", nargs=2, multiple=True, metavar="KEY VALUE", help="An option by its name.")
@click.option("--save", metavar="FILE", type=click.Path(path_type=Path), help="Keep the conversation in this new file.")
@click.option("--continue", "-c", "continued", metavar="FILE", type=click.Path(path_type=Path),
              help="Go on with a conversation that was kept, and keep it there.")  # fmt: skip
@flags.common(*options.GROUPS, table=options.OPTIONS)
def chat(
    files: tuple[Path, ...],
    pairs: tuple[tuple[str, str], ...],
    save: Path | None,
    continued: Path | None,
    **arguments: Any,
) -> int:
    """Talk with a local language model.

    Nothing is kept, unless --save says so. The model is loaded once.

    \b
    kuulo chat -m qwen3-4b
    kuulo chat -f out/interview.json --save talk.json
    """
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.errors import UsageError
    from kuulo.llm import conversation, plan, session

    if save and continued:
        raise UsageError("--continue keeps the conversation in its own file", do="leave --save out")
    if save and save.exists():
        raise UsageError("a file of this name is there", looked_at=str(save), do=f"--continue {save}, or another name")
    given = typed(arguments, pairs)
    said = conversation.read(continued) if continued else conversation.Conversation(path=save)
    for path in files:
        said.show(path)
    stop_when_told()
    resolved = plan.make(given)
    with session.opened(resolved) as talk:
        said.made_by = talk.note()
        click.echo(f"{talk.client.endpoint.model}: /help says what can be typed, /exit ends", err=True)
        for line in _lines():
            if line.startswith("/") or line in ("exit", "quit"):
                if not _command(said, line):
                    break
            elif line.strip():
                _turn(said, talk, line)
    return 0


def _lines() -> Iterator[str]:
    """What is typed, a question at a time; the lines between /multi and /end are one."""
    several: list[str] | None = None
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (editing; its history is not kept)
    while True:
        try:
            line = input("> " if several is None else "") if sys.stdin.isatty() else _next()
        except EOFError:
            click.echo(err=True)
            return
        if line.strip() == "/multi" and several is None:
            several = []
        elif several is not None and line.strip() == "/end":
            yield "\n".join(several)
            several = None
        elif several is not None:
            several.append(line)
        else:
            yield line.strip()


def _next() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _turn(said: Conversation, talk: Talk, line: str) -> None:
    """A question and its answer, shown as it comes. What cannot be answered is said, and forgotten."""
    from kuulo.errors import CannotRun, KuuloError

    parts: list[str] = []
    ended = False
    try:
        messages = said.with_question(line)
        talk.check_fits(messages)
        for delta in talk.stream(messages):
            click.echo(delta.text, nl=False)
            sys.stdout.flush()
            parts.append(delta.text)
        ended = True
    except CannotRun:
        raise
    except KuuloError as error:
        click.echo(f"{error}\n  or /reset, to forget what was said", err=True)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        click.echo("\n(stopped; this answer is forgotten)", err=True)
    finally:
        if parts:
            click.echo()
    if ended:
        if talk.finish == "length":
            click.echo("(cut: --max-tokens or the context was reached)", err=True)
        said.add(line, "".join(parts))


def _command(said: Conversation, line: str) -> bool:
    """Does what a line with a slash says; whether the talk goes on."""
    from kuulo.errors import KuuloError

    word, _, rest = line.partition(" ")
    known: dict[str, Callable[[], Any]] = {
        "/file": lambda: said.show(Path(rest.strip()).expanduser()),
        "/help": lambda: click.echo(HELP, err=True),
        "/reset": said.reset,
        "/save": lambda: said.keep(Path(rest.strip()).expanduser()),
        "/undo": said.undo,
    }
    if word in ("/exit", "/quit", "exit", "quit"):
        return False
    if word not in known:
        click.echo(f"{word} is not known\n{HELP}", err=True)
        return True
    if word in ("/file", "/save") and not rest.strip():
        click.echo(f"{word} FILE", err=True)
        return True
    try:
        known[word]()
    except KuuloError as error:
        click.echo(str(error), err=True)
    return True
