"""The form's fields, made from the table of options: those that a person may decide here, with the values that this
site allows.

A field's name in the form is the option's with `kuulo_` before it, since the portal has words of its own. An empty
value decides nothing: then the site's default counts, or the user's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kuulo import formats, languages, options, speakers
from kuulo.deploy.base import Deployment
from kuulo.deploy.portal import wording
from kuulo.llm import tasks
from kuulo.llm.endpoint import CHAT
from kuulo.llm.tasks.base import Parameter
from kuulo.models.manifest import ModelRef
from kuulo.options import Option

PREFIX = "kuulo_"
FILES, OUTPUT, PLACE, EMAIL, MORE, HOURS = (
    f"{PREFIX}files", f"{PREFIX}output", f"{PREFIX}place", f"{PREFIX}email", f"{PREFIX}more", "bc_num_hours",
)  # fmt: skip
ACCOUNTS = "auto_accounts"
"""The portal's own field: the user's accounts at the scheduler."""

GPU, CPU = "gpu", "cpu"
"""The places where a job may run."""

FORMAT = f"{PREFIX}format_"
USUAL_HOURS = 4
MOST_HOURS = 24
MOST_SPEAKERS = 12
USUAL_FORMATS = ("txt", "docx", "srt", "vtt", "csv", "eaf")
"""Formats that stand on top; the others are behind "more"."""

MAIN = ("language", "model", "speakers", "then")
OURS = frozenset({"device", "format", "output", "scratch", "threads", "workers"})
"""Options that the form has in another way, or that the place of the job decides."""


@dataclass(frozen=True)
class Field:
    """A field. `name`: its own in the form; `option`: the option that it decides, if any; `attributes`: as the portal
    has them; `more`: whether it is behind "more"."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    option: str | None = None
    more: bool = False


def fields(deployment: Deployment) -> list[Field]:
    """The form, from top to bottom. Pure."""
    offered = [o for o in options.OPTIONS if _is_offered(o, deployment)]
    main = [_field(o, deployment) for name in MAIN for o in offered if o.name == name]
    rest = [_field(o, deployment, more=True) for o in offered if o.name not in MAIN]
    written = _formats(deployment)
    return [
        Field(FILES, _files(deployment)),
        *main,
        *[f for f in written if not f.more],
        *([] if "output" in deployment.site.forced else [Field(OUTPUT, _output(deployment))]),
        Field(EMAIL, _email(deployment)),
        *_place(deployment),
        *([Field(ACCOUNTS)] if asks_account(deployment) else []),
        Field(HOURS, _hours(deployment)),
        *([Field(MORE, _more())] if rest else []),
        *[f for f in written if f.more],
        *rest,
    ]


def models(deployment: Deployment, task: str = "transcribe") -> list[ModelRef]:
    """The models that the form offers for a task, each name once, the best first."""
    named = deployment.site.centre.portal.get("models") if task == "transcribe" else None
    allowed = deployment.site.centre.models if named is None else named
    found = {m.name: m for m in reversed(deployment.models) if m.task == task}
    return [m for m in reversed(found.values()) if allowed is None or m.name in allowed]


def engines(deployment: Deployment, task: str = "transcribe") -> list[str]:
    """The engines that the form offers for a task."""
    allowed = deployment.site.centre.engines
    return [e.name for e in deployment.engines if task in e.tasks and (allowed is None or e.name in allowed)]


def language_models(deployment: Deployment) -> list[ModelRef]:
    """The language models that can be asked here, the one first that is asked when none is named."""
    known = set(engines(deployment, CHAT))
    formats_ = {f for e in deployment.engines if e.name in known for f in e.model_formats}
    named = deployment.site.centre.llm.get("model")
    found = [m for m in models(deployment, CHAT) if m.format in formats_]
    return sorted(found, key=lambda m: m.name != named)


def value(option: Option, deployment: Deployment) -> Any:
    """The value that an option has here when nobody decides it."""
    site = deployment.site
    return site.defaults.get(option.name, options.parse(option, option.default))


def as_text(value: Any) -> str:
    """A value as the form has it: text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)


def _is_offered(option: Option, deployment: Deployment) -> bool:
    """Whether a person may decide it: it is not forced, the job's place does not decide it, and an engine here honours
    it."""
    if option.group in ("Machine", "Showing") or option.name in OURS or option.name in deployment.site.forced:
        return False
    if option.name == "engine":
        return len(engines(deployment)) > 1
    if option.name == "model":
        return bool(models(deployment))
    if option.name == "speaker_engine":
        return len(engines(deployment, "diarize")) > 1
    if option.name == "speaker_model":
        return len(models(deployment, "diarize")) > 1
    if option.name in ("speaker_option", "roster"):
        return bool(engines(deployment, "diarize"))
    if option.name in ("then", "then_option"):
        return bool(language_models(deployment) or deployment.site.centre.llm.get("endpoint"))
    speech = [engine for engine in deployment.engines if CHAT not in engine.tasks]
    return not option.engine or any(option.name in engine.options for engine in speech)


def _field(option: Option, deployment: Deployment, *, more: bool = False) -> Field:
    widget = _choices(option, deployment) or _typed(option)
    told = as_text(value(option, deployment))
    help_ = wording.HELP.get(option.name, option.help)
    if more and told and option.kind != "pairs":
        help_ += f" As usual here: {told}."
    if option.name == "then_option" and len(names := [m.name for m in language_models(deployment)]) > 1:
        help_ += f" Another language model: model=NAME, of {', '.join(names)}."
    made = {"label": wording.label(option), "help": wording.markdown(help_), **widget}
    if option.name in MAIN:
        made["value"] = told
    return Field(PREFIX + option.name, made, option.name, more)


def _typed(option: Option) -> dict[str, Any]:
    """A field to type in."""
    if option.kind in ("int", "float"):
        limits = {"min": option.minimum, "max": option.maximum, "step": 1 if option.kind == "int" else None}
        return {"widget": "number_field", **{k: _number(v) for k, v in limits.items() if v is not None}}
    if option.kind == "pairs" or option.name == "initial_prompt":
        return {"widget": "text_area"}
    return {"widget": "text_field"}


def _number(number: float) -> int | float:
    return int(number) if number == int(number) else number


def _choices(option: Option, deployment: Deployment) -> dict[str, Any] | None:
    """A field to choose in, for what has few values; the empty one decides nothing."""
    lists: Mapping[str, Any] = {
        "engine": lambda: [("the best one for the model", ""), *_same(engines(deployment))],
        "language": lambda: _languages(deployment),
        "model": lambda: [("the best one", ""), *_same([m.name for m in models(deployment)])],
        "speaker_engine": lambda: [("the best one", ""), *_same(engines(deployment, "diarize"))],
        "speaker_model": lambda: [("the best one", ""), *_same([m.name for m in models(deployment, "diarize")])],
        "speakers": lambda: _speakers(deployment),
        "then": lambda: [("nothing", ""), *_tasks()],
    }
    if option.name in lists:
        rows = lists[option.name]()
        told = as_text(value(option, deployment))
        if option.name in MAIN and told not in [v for _, v in rows]:
            rows = [(told, told), *rows]
    elif option.kind == "choice":
        rows = [("as usual", ""), *_same(option.choices)]
    elif option.kind == "bool":
        rows = [("as usual", ""), *_same(("yes", "no"))]
    else:
        return None
    return {"widget": "select", "options": [[shown, each] for shown, each in rows]}


def _same(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def _languages(deployment: Deployment) -> list[tuple[str, str]]:
    top = [languages.code(text) for text in deployment.site.centre.portal.get("languages", ())]
    rest = sorted((code for code in languages.LANGUAGES if code not in top), key=languages.name)
    found = [("found out for each recording", "auto")]
    return [*found, *((f"{languages.name(code)} ({code})", code) for code in (*top, *rest) if code != "auto")]


def _speakers(deployment: Deployment) -> list[tuple[str, str]]:
    rows = [("are not told apart", "none")]
    if engines(deployment, "diarize"):
        rows += [("are told apart, however many they are", "auto")]
        rows += [("1 speaker" if n == 1 else f"{n} speakers", str(n)) for n in range(1, MOST_SPEAKERS + 1)]
    return [*rows, ("one on each channel of the recording", speakers.CHANNELS)]


def _tasks() -> list[tuple[str, str]]:
    """What a language model can do with transcripts."""
    rows = []
    for name, (_, help_) in tasks.TASKS.items():
        needs = ", ".join(f"{p.name}=" for p in needed(name))
        rows.append((f"{name}: {help_}" + (f" Needs {needs} under more options." if needs else ""), name))
    return rows


def needed(task: str) -> list[Parameter]:
    """The parameters without which a task cannot be done. Raises UsageError when there is no such task."""
    return [parameter for parameter in tasks.module(task).TASK.parameters if parameter.default is None]


def _formats(deployment: Deployment) -> list[Field]:
    """A box for each format: the portal hands on one value for each field. None where the site forces them."""
    if "format" in deployment.site.forced:
        return []
    on = formats.expand(value(options.BY_NAME["format"], deployment))
    rows = [formats.FORMATS[name] for name in (*USUAL_FORMATS, *formats.FORMATS)]
    return [
        Field(
            format_id(spec.name),
            {
                "widget": "check_box",
                "label": f"Write {spec.extension}",
                "help": wording.markdown(f"{spec.summary}."),
                "value": "1" if spec.name in on else "0",
            },
            more=spec.name not in USUAL_FORMATS and spec.name not in on,
        )
        for spec in dict.fromkeys(rows)
        if spec.name != "json"
    ]


def format_id(name: str) -> str:
    """The field of a format."""
    return FORMAT + name.replace("-", "_")


def _files(deployment: Deployment) -> dict[str, Any]:
    begin = deployment.site.centre.portal.get("files")
    return {
        "widget": "path_selector",
        "label": "Recording, or folder of recordings",
        "help": "Sound or film of any kind. Of a folder, all recordings in it and below it are taken.",
        "required": True,
        "show_files": True,
        "show_hidden": False,
        **({"directory": begin, "favorites": [begin]} if begin else {}),
    }


def _output(deployment: Deployment) -> dict[str, Any]:
    begin = deployment.site.centre.portal.get("files")
    return {
        "widget": "path_selector",
        "label": "Folder for the results",
        "help": "Empty: a folder `transcripts`, in the folder of recordings or beside the recording.",
        "show_files": False,
        "show_hidden": False,
        **({"directory": begin, "favorites": [begin]} if begin else {}),
    }


def _email(deployment: Deployment) -> dict[str, Any]:
    return {
        "widget": "email_field",
        "label": "Mail to",
        "help": "One mail when the job is over, with its outcome. Empty: none.",
    }


def _place(deployment: Deployment) -> list[Field]:
    """Where the job runs, where the site has a choice."""
    if deployment.site.jobs().gpu is None:
        return []
    rows = [["on a GPU: fast", GPU], ["without a GPU: slow, may start sooner", CPU]]
    return [Field(PLACE, {"widget": "select", "label": "Runs", "options": rows, "value": GPU})]


def asks_account(deployment: Deployment) -> bool:
    """Whether the form asks on whose account the job runs."""
    return deployment.site.centre.portal.get("account") == "auto"


def hours(deployment: Deployment) -> tuple[int, int]:
    """The hours that the form says at first, and the most."""
    most = deployment.site.centre.portal.get("hours", MOST_HOURS)
    return min(USUAL_HOURS, most), most


def _hours(deployment: Deployment) -> dict[str, Any]:
    usual, most = hours(deployment)
    return {
        "label": "Hours at most",
        "help": "What is not done by then is stopped. The same form again goes on where it was.",
        "value": usual,
        "min": 1,
        "max": most,
        "step": 1,
    }


def _more() -> dict[str, Any]:
    return {"widget": "check_box", "label": "More options", "help": "What is left empty stays as usual.", "value": "0"}
