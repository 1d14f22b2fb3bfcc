"""`kuulo ask`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags
from kuulo.llm import options

if TYPE_CHECKING:
    from kuulo.llm.plan import ChatPlan
    from kuulo.llm.question import Question
    from kuulo.llm.session import Talk
    from kuulo.llm.templates import Template


@click.command()
@click.argument("question", nargs=-1, metavar="[QUESTION]")
@click.option("--template", "-t", metavar="NAME|FILE", help="A template (`kuulo llm templates list`), or its file.")
@click.option("--param", "-p", "params", nargs=2, multiple=True, metavar="NAME VALUE", help="A template's variable.")
@click.option("--file", "-f", "files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
              help="What is asked about: a transcript, with its times and speakers, or a text.")  # fmt: skip
@click.option("--option", "-o", "pairs", nargs=2, multiple=True, metavar="KEY VALUE", help="An option by its name.")
@flags.common(*options.GROUPS, table=options.OPTIONS)
@click.option("--schema-multi", metavar="FILE|JSON|FIELDS", help="As --schema, for any number of such answers.")
@click.option("--split", is_flag=True, help="Ask about the parts of a text that is too long, then put them together.")
@click.option("--stream/--no-stream", default=True, help="Show the answer as it comes.  [default: on]")
@click.option("--usage", "-u", is_flag=True, help="Say on standard error how many tokens it took.")
@click.option("--dry-run", is_flag=True, help="Show what the model would be told, and ask nothing.")
@click.option("--json", "as_json", is_flag=True, help="The answer and how it was made, for machines.")
def ask(
    question: tuple[str, ...],
    template: str | None,
    params: tuple[tuple[str, str], ...],
    files: tuple[Path, ...],
    pairs: tuple[tuple[str, str], ...],
    schema_multi: str | None,
    split: bool,
    stream: bool,
    usage: bool,
    dry_run: bool,
    as_json: bool,
    **arguments: Any,
) -> int:
    """Ask a local language model.

    Standard input is read where it is no terminal, and goes before the question, as files do. The answer goes to
    standard output; nothing is kept.

    \b
    kuulo ask "Ten names for a cat"
    kuulo ask -f out/interview.json "What does she say about her work?"
    cat notes.txt | kuulo ask -s "Answer in Finnish" "What is to be done?"
    """
    asked = _question(question, template, params, files, arguments.get("option_system"))
    given = typed(_with_several(arguments, schema_multi), pairs, asked.template)
    if dry_run:
        return _dry_run(asked, given, as_json)
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.llm import plan, session

    messages = asked.messages()
    stop_when_told()
    resolved = plan.make(given)
    with session.opened(resolved) as talk:
        schema = resolved.options["schema"]
        text = _answer(asked, messages, talk, schema, split=split, shown=stream and not as_json)
        if as_json:
            click.echo(json.dumps(_record(text, schema, asked, talk), indent=1, ensure_ascii=False))
        elif text is not None:
            click.echo(text)
        _say(talk, usage)
    return 0


def _with_several(arguments: Mapping[str, Any], text: str | None) -> Mapping[str, Any]:
    """With the schema of several answers in the place of `--schema`. Raises UsageError."""
    from kuulo.errors import UsageError
    from kuulo.llm import schema

    if text is None:
        return arguments
    if arguments.get("option_schema") is not None:
        raise UsageError("--schema and --schema-multi are both given", do="leave one out")
    return {**arguments, "option_schema": json.dumps(schema.several(schema.read(text)))}


def typed(
    arguments: Mapping[str, Any], pairs: Sequence[tuple[str, str]], template: Template | None = None
) -> dict[str, Any]:
    """The options that were typed, with -o KEY VALUE among them, over those of a template. Raises UsageError."""
    from kuulo.errors import UsageError

    given = flags.typed(arguments)
    for key, value in pairs:
        name = key.replace("-", "_")
        if name not in options.BY_NAME:
            raise UsageError(f"-o {key}: there is no such option", do=f"known: {', '.join(sorted(options.BY_NAME))}")
        if name in given:
            raise UsageError(f"{name} is given twice", do="leave one out")
        given[name] = value
    if template is None:
        return given
    of_template = {**template.options, **({"model": template.model} if template.model else {})}
    if unknown := sorted(set(of_template) - set(options.BY_NAME)):
        raise UsageError(
            f"the template {template.name} has an unknown option: {unknown[0]}",
            looked_at=template.source,
            do=f"known: {', '.join(sorted(options.BY_NAME))}",
        )
    if template.schema is not None:
        of_template["schema"] = json.dumps(template.schema)
    if template.system:
        given.pop("system", None)  # it is in the template's place
    return {**of_template, **given}


def _question(
    words: Sequence[str],
    template: str | None,
    params: Sequence[tuple[str, str]],
    files: Sequence[Path],
    system: str | None,
) -> Question:
    """What is asked. Raises UsageError."""
    import dataclasses

    from kuulo.errors import UsageError
    from kuulo.llm import question, templates

    found = [question.Source("", _standard_input()) if str(path) == "-" else question.source(path) for path in files]
    if "-" not in map(str, files) and (text := _standard_input()).strip():
        found.append(question.Source("", text.strip()))
    made = templates.find(template) if template else templates.plain()
    if template and system is not None:
        made = dataclasses.replace(made, system=templates.plain(system).system)
    if not template and params:
        raise UsageError("-p is for a template's variables", do="name the template with -t, or leave -p out")
    if not template and not words and not found:
        raise UsageError("nothing is asked", do='kuulo ask "Ten names for a cat", or send it a text')
    return question.Question(made, " ".join(words), tuple(found), dict(params))


def _standard_input() -> str:
    """What comes on standard input; nothing from a terminal. Raises UsageError when it is no text."""
    from kuulo.llm import transcripts

    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    return transcripts.decoded(sys.stdin.buffer.read(), Path("standard input"))


def _answer(
    asked: Question, messages: Sequence[Any], talk: Talk, schema: Any, *, split: bool, shown: bool
) -> str | None:
    """The answer; None when it was shown as it came."""
    from kuulo.errors import InputFailed
    from kuulo.llm import asking, session
    from kuulo.llm.client import PromptTooLong

    try:
        if not split or schema is not None:
            talk.check_fits(messages)
            if schema is None:
                if shown:
                    _shown(talk, messages)
                    return None
                return talk.ask(messages).text
            asker = asking.Asker(talk)
            system, prompt = asked.texts(messages)
            return json.dumps(asker.data(system, prompt, schema), indent=1, ensure_ascii=False)
        asker = asking.Asker(talk)
        before = asker.context
        try:
            return asked.in_parts(asker)
        except PromptTooLong:
            if asker.context >= before:
                raise
            return asked.in_parts(asker)  # now that the server has said how long it may be
    except PromptTooLong as error:
        raise InputFailed(error.what, looked_at=error.looked_at, do=session.SPLIT) from error


def _shown(talk: Talk, messages: Sequence[Any]) -> None:
    """The answer on standard output, as it comes."""
    last = ""
    try:
        for delta in talk.stream(messages):
            if delta.text:
                click.echo(delta.text, nl=False)
                sys.stdout.flush()
                last = delta.text
    finally:
        if last and not last.endswith("\n"):
            click.echo()


def _say(talk: Talk, usage: bool) -> None:
    if talk.finish == "length":
        click.echo("the answer was cut: --max-tokens or the context was reached", err=True)
    if usage:
        click.echo(f"tokens: {talk.usage.prompt} asked, {talk.usage.answer} answered", err=True)


def _record(text: str | None, schema: Any, asked: Question, talk: Talk) -> dict[str, Any]:
    template = asked.template
    return {
        "schema": 1,
        "text": text,
        **({"data": json.loads(text or "null")} if schema is not None else {}),
        "finish": talk.finish,
        "usage": {"prompt_tokens": talk.usage.prompt, "completion_tokens": talk.usage.answer},
        "provenance": {**talk.note(), "template": {"name": template.name, "sha256": template.digest}},
    }


def _dry_run(asked: Question, given: dict[str, Any], as_json: bool) -> int:
    """The messages, and how they would be asked. They are shown also where no model could be asked."""
    from kuulo.errors import CannotRun
    from kuulo.llm import plan

    messages = asked.messages()
    resolved: ChatPlan | None = None
    problem: CannotRun | None = None
    try:
        resolved = plan.make(given)
    except CannotRun as error:
        problem = error
    if resolved and resolved.options["system"] and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": str(resolved.options["system"])}, *messages]
    if as_json:
        shown = {"messages": messages, "plan": resolved.to_json() if resolved else None}
        click.echo(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        for message in messages:
            click.echo(click.style(f"{message['role']}:", bold=True))
            click.echo(message["content"])
        if resolved and resolved.options["schema"] is not None:
            click.echo(f"\nschema: {json.dumps(resolved.options['schema'], ensure_ascii=False)}")
        if resolved:
            click.echo(f"\nmodel: {resolved.model_name or 'the one that the endpoint has'} ({resolved.why})")
    if problem:
        raise problem
    return 0
