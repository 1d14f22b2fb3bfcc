"""Writes the pages of docs/reference/ from the code, so that they say what is there.

python tools/reference.py            write them
python tools/reference.py --check    exit 1, with a diff, when a page is not what the code says
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kuulo import engines, errors, formats, options, schemas, site, site_file
from kuulo.cli import COMMANDS, cli, flags
from kuulo.engines.base import EngineSpec
from kuulo.llm import options as llm_options

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py; `make docs` writes it anew. -->\n"


def main(arguments: list[str]) -> int:
    stale = 0
    for name, page in RENDER.items():
        path, text = PAGES / f"{name}.md", page()
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            continue
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old != text:
            stale += 1
            diff = difflib.unified_diff(old.splitlines(), text.splitlines(), str(path), "the code", lineterm="")
            print("\n".join(list(diff)[:40]))
    return 1 if stale else 0


def llm_options_page() -> str:
    """Every option of language models, as the others."""
    lines = [
        NOTE,
        "# Options of language models",
        "",
        "One name and one meaning on every engine. `kuulo llm explain` shows the same for one engine. A name here is",
        "the key in `[llm]`, in the site's file and in your own.",
    ]
    specs = engines.specs("chat")
    for group in llm_options.GROUPS:
        lines += ["", f"## {group}"]
        for option in llm_options.OPTIONS:
            if option.group == group:
                lines += _option(option, specs, "may change the answer")
    return "\n".join(lines) + "\n"


def options_page() -> str:
    """Every common option: flag, variable, type, default, and what each engine makes of it."""
    lines = [
        NOTE,
        "# Options",
        "",
        "One name and one meaning on every engine. An option that an engine cannot honour is",
    ]
    lines += [
        "refused before anything starts, with the engines that can. `kuulo explain` shows the same for one engine."
    ]
    for group in options.GROUPS:
        lines += ["", f"## {group}"]
        for option in options.OPTIONS:
            if option.group == group:
                lines += _option(option, engines.specs(), RESULT)
    return "\n".join(lines) + "\n"


RESULT = "may change the words: another value means that a finished recording is done again"


def _option(option: options.Option, specs: list[EngineSpec], result: str) -> list[str]:
    typed = ", ".join(f"`{flag}`" for part in option.flags for flag in part.split("/"))
    default = flags.shown_default(option) or ("off" if option.kind == "bool" else "none")
    lines = ["", f"### {option.name}", "", option.help, ""]
    lines.append(f"- flags: {typed}{f' {option.metavar}' if option.metavar else ''}")
    lines.append(f"- variable: `{option.variable}`")
    lines.append(f"- value: {_value(option)}")
    if option.choices:
        lines.append(f"- one of: {', '.join(f'`{c}`' for c in option.choices)}")
    lines.append(f"- default: {default}")
    if option.result:
        lines.append(f"- {result}")
    if option.engine:
        lines += ["", "| engine | its own name | note |", "|---|---|---|"]
        for spec in specs:
            native = spec.options.get(option.name)
            if native is None:
                lines.append(f"| {spec.name} | – | refused |")
            else:
                lines.append(f"| {spec.name} | {f'`{native.name}`' if native.name else 'fixed'} | {native.note} |")
    return lines


KINDS = {
    "bool": "yes or no; in variables and files also true, on, 1 and false, off, 0",
    "choice": "one of the words below",
    "float": "number",
    "int": "whole number",
    "language": "code, English name, or auto",
    "list": "names separated by commas; the flag may be repeated; in files also a list",
    "pairs": "KEY=VALUE, the value read as JSON where it is JSON; the flag may be repeated; in files also a table",
    "speakers": "auto, none, a number, or a range as 2-5",
    "str": "text",
    "temperatures": "numbers from 0 to 1, separated by commas; in files also a list",
    "texts": "text; the flag may be repeated; in files also a list",
    "time": "seconds, or [HH:]MM:SS[.mmm]",
}
"""What a value looks like, by the option's kind."""


def _value(option: options.Option) -> str:
    text = KINDS[option.kind]
    if option.minimum is not None and option.maximum is not None:
        text += f", {option.minimum:g} to {option.maximum:g}"
    elif option.minimum is not None:
        text += f", at least {option.minimum:g}"
    return text


def settings_page() -> str:
    """Where values come from, what they are called in each place, and the variables that are no option's."""
    lines = [NOTE, "# Settings", "", "Examples and the reasons: [settings](../settings.md).", ""]
    lines += ["```", (site.__doc__ or "").strip(), "```", "", "## Options", ""]
    lines += ["A name here is the key in `[defaults]` and `[forced]`; `-` may stand for `_`.", ""]
    lines += ["| name | variable | flag | value |", "|---|---|---|---|"]
    for option in options.OPTIONS:
        flag = option.flags[0].split("/")[0]
        lines.append(
            f"| [{option.name}](options.md#{option.name}) | `{option.variable}` | `{flag}` | {_value(option)} |"
        )
    lines += ["", "## The site's file", "", "What it is for: [the site's file](../site.md). A path is absolute.", ""]
    lines += ["| key | what it is | for example |", "|---|---|---|"]
    for table, keys in (("", site_file.TOP), ("groups.NAME", site_file.GROUP), *site_file.TABLES.items()):
        for name, key in keys.items():
            called = f"[{table}] {name}" if table else name if key.kind != "table" else f"[{name}]"
            choices = f" One of {', '.join(key.choices)}." if key.choices else ""
            example = f"`{name} = {key.example}`" if key.example else ""
            lines.append(f"| `{called}` | {key.help}{choices} | {example} |")
    lines += ["", "`[jobs]`: [on the cluster](../jobs.md#for-the-site)."]
    lines += ["", "## Other variables", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in sorted(VARIABLES.items())]
    return "\n".join(lines) + "\n"


VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "The GPUs that may be used, as everywhere; empty: none.",
    "HF_ENDPOINT": "A mirror of the Hugging Face hub, for `kuulo models pull`.",
    "HF_TOKEN": "Your token for gated models, for `kuulo models pull`. It is sent to the hub alone, or to its mirror.",
    "HTTPS_PROXY": "A proxy, for `kuulo models pull`.",
    "KUULO_JOBS": "Where the folders of jobs are, instead of ~/.local/state/kuulo/jobs.",
    "KUULO_LLM_KEY": "The key of an endpoint of a language model (`--endpoint`), instead of `--key-file`.",
    "KUULO_LOCAL_AT_ONCE": "How many tasks of jobs run at a time on a machine without a cluster; 1.",
    "KUULO_NVML": "NVIDIA's library for looking at GPUs, instead of the driver's libnvidia-ml.so.1.",
    "KUULO_OPENAI_URL": "A mirror of OpenAI's server of `.pt` files, for `kuulo models pull`.",
    "KUULO_SITE": "The site's file, instead of /etc/kuulo/site.toml. It is an error when it is not there.",
    "KUULO_ENVIRONMENTS": (
        "Engines' environments instead of the user's own, separated by `:`; the first is the one that is written to."
    ),
    "KUULO_VERSION": "Set by the module (`module load kuulo`): which deployed version it is.",
    "KUULO_WHISPER_DIARIZATION": "Where the clone of whisper-diarization is, for the engine of that name.",
    "KUULO_STORE": "Model stores instead of the user's own, separated by `:`; the last is the one that is written to.",
    "NO_COLOR": "No colours.",
    "SLURM_CPUS_PER_TASK": (
        "The cores that a Slurm job has; no more are used. SLURM_CPUS_ON_NODE, SLURM_MEM_PER_NODE, "
        "SLURM_MEM_PER_CPU and SLURM_JOB_GPUS are heeded likewise."
    ),
    "TMPDIR": "The system's temporary folder, where scratch is made without `--scratch`.",
}
"""Variables that Kuulo or its libraries read and that are no option's."""


def engines_page() -> str:
    """Which engine honours which option."""
    specs = engines.specs()
    lines = [NOTE, "# Engines", ""]
    lines += ["In order of preference: without `--engine`, the first installed one that has the model is used.", ""]
    lines += ["| engine | summary | models | devices | licence | installation |", "|---|---|---|---|---|---|"]
    for spec in specs:
        models = ", ".join(f"`{f}`" for f in spec.model_formats) or "its own"
        name = f"[{spec.name}](../engines/{spec.name}.md)"
        lines.append(
            f"| {name} | {spec.summary} | {models} | {', '.join(spec.devices)} | {spec.licence} | "
            f"`pip install {spec.install}` |"
        )
    lines += ["", "## Options", "", "| option | " + " | ".join(s.name for s in specs) + " |"]
    lines.append("|---|" + "---|" * len(specs))
    for option in options.OPTIONS:
        if option.engine:
            cells = ["yes" if option.name in s.options else "–" for s in specs]
            lines.append(f"| [{option.name}](options.md#{option.name}) | " + " | ".join(cells) + " |")
    lines += ["", "Every other option is Kuulo's own and works with every engine (`--pack` needs word times)."]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """The help of every command."""
    lines = [NOTE, "# Commands", "", "## kuulo", "", *_help([])]
    for name in sorted(COMMANDS):
        lines += ["", f"## kuulo {name}", "", *_help([name])]
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            for sub in sorted(command.list_commands(click.Context(command))):
                lines += ["", f"### kuulo {name} {sub}", "", *_help([name, sub])]
    return "\n".join(lines) + "\n"


def _help(path: list[str]) -> list[str]:
    command: click.Command = cli
    context = click.Context(
        cli, info_name="kuulo", terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
    )
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context, terminal_width=100, max_content_width=100)
    return ["```", *command.get_help(context).splitlines(), "```"]


def formats_page() -> str:
    """Every output format."""
    lines = [
        NOTE,
        "# Formats",
        "",
        "The master copy `NAME.json` is always written; the others are rendered from it, also later with",
    ]
    lines += ["`kuulo export`. `all` stands for every one.", "", "| format | file | what it is |", "|---|---|---|"]
    for name in formats.names():
        spec = formats.spec(name)
        lines.append(f"| {name} | `NAME{spec.extension}` | {spec.summary} |")
    return "\n".join(lines) + "\n"


def exit_codes_page() -> str:
    """Exit codes, and the errors behind them."""
    tree = (errors.__doc__ or "").split("\n\n")[1]
    rows = [
        (errors.EXIT_OK, "All was done, or was done already."),
        (errors.EXIT_SOME_FAILED, "Some recording failed; the others are done. `report.json` says which and why."),
        (errors.EXIT_USAGE, "The command is not understood, or asks for what cannot be. Nothing was started."),
        (errors.EXIT_CANNOT_RUN, "Nothing could be run: an engine or a model is missing, or does not start."),
        (errors.EXIT_INTERRUPTED, "Stopped by Ctrl-C or a signal. What is finished is kept; the same command goes on."),
    ]
    lines = [NOTE, "# Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in rows]
    lines += ["", "`kuulo models verify` exits with 3 when a model is not what it should be, and `kuulo doctor` when"]
    lines += ["something that is needed does not work. `kuulo selftest` exits with 1 when some pipelines failed, and"]
    lines += ["with 3 when none passed."]
    lines += ["", "## The errors behind them", "", "```", tree, "```"]
    return "\n".join(lines) + "\n"


def schema_page() -> str:
    """The fields of the master copy."""
    schema = schemas.transcript()
    lines = [NOTE, "# The master copy", "", str(schema.get("description", "")), ""]
    lines += ["JSON Schema (draft 2020-12): `src/kuulo/schemas/transcript.schema.json`, also in the installed package."]
    lines += ["", "## transcript", "", *_fields(schema)]
    for name, part in sorted(schema.get("$defs", {}).items()):
        if "properties" in part:
            lines += ["", f"## {name}", "", str(part.get("description", "")), "", *_fields(part)]
    return "\n".join(lines) + "\n"


def _fields(part: dict[str, Any]) -> list[str]:
    lines = ["| field | type | always there | meaning |", "|---|---|---|---|"]
    for name, field in part["properties"].items():
        kind = field.get("type") or field.get("$ref", "").rpartition("/")[2] or "see schema"
        if isinstance(kind, list):
            kind = " or ".join(kind)
        if kind == "array":
            items = field.get("items", {})
            kind = f"list of {items.get('type') or items.get('$ref', '').rpartition('/')[2]}"
        always = "yes" if name in part.get("required", ()) else ""
        lines.append(f"| {name} | {kind} | {always} | {field.get('description', '')} |")
    return lines


RENDER: dict[str, Callable[[], str]] = {
    "commands": commands_page,
    "engines": engines_page,
    "exit-codes": exit_codes_page,
    "formats": formats_page,
    "llm-options": llm_options_page,
    "options": options_page,
    "schema": schema_page,
    "settings": settings_page,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
