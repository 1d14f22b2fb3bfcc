"""What was said in the form: `request.json`, which the portal writes from the form's values when the job is made.

    {"schema": 1, "values": {"kuulo_files": "/scratch/anna/interviews", "kuulo_language": "fi", ...}}

Anybody can send the portal what is in no form. So each value is checked as if it were typed: by the table of options,
by what the site forces, and by what the form offers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import formats, options
from kuulo.deploy.portal import form, wording
from kuulo.errors import UsageError
from kuulo.llm import tasks
from kuulo.llm.options import BY_NAME as OF_MODELS
from kuulo.site import Site

FILE = "request.json"
SCHEMA = 1
ADDRESS = r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9][A-Za-z0-9.-]*"
"""An e-mail address that needs no quotes anywhere, which Ruby understands too."""

OTHERS = frozenset({form.FILES, form.OUTPUT, form.PLACE, form.EMAIL, form.MORE, form.HOURS})


@dataclass(frozen=True)
class Request:
    """What was asked. `recordings`: a file or a folder; `given`: the options that were decided, by name; `on_gpu`:
    whether the job was to run on a GPU."""

    recordings: str
    given: Mapping[str, Any]
    email: str = ""
    on_gpu: bool = False


def read(path: Path, site: Site) -> Request:
    """The request in a file. Raises UsageError."""
    try:
        said = json.loads(path.read_bytes())
        schema, values = said["schema"], said["values"]
        texts = {str(name): value for name, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"what the form said cannot be read: {error}", looked_at=str(path)) from error
    if schema != SCHEMA or not all(isinstance(value, str) for value in texts.values()):
        raise UsageError(
            "what the form said is not for this Kuulo", looked_at=str(path), do="load the form's page again"
        )
    return understood(texts, site)


def understood(values: Mapping[str, str], site: Site) -> Request:
    """The request in a form's values. Raises UsageError, which calls the fields as the form does."""
    given: dict[str, Any] = {}
    for name, text in values.items():
        option = options.BY_NAME.get(name.removeprefix(form.PREFIX))
        if name in OTHERS or name.startswith(form.FORMAT):
            continue
        if option is None or not name.startswith(form.PREFIX) or option.name in form.OURS:
            raise UsageError(f"the form has no field {name!r}", do="load the form's page again")
        if text.strip():
            given[option.name] = _value(option, text)
    recordings = values.get(form.FILES, "")
    _check_path(recordings, "Recording, or folder of recordings")
    written = [name for name in formats.FORMATS if values.get(form.format_id(name), "0") not in ("0", "")]
    if any(name.startswith(form.FORMAT) for name in values):
        given["format"] = tuple(written) or ("json",)
    _check_offered(given, site)
    _check_following(given, site)
    if "output" not in site.forced:
        given["output"] = _output(values.get(form.OUTPUT, ""), recordings)
    return Request(recordings, given, _email(values.get(form.EMAIL, "")), values.get(form.PLACE) == form.GPU)


def _value(option: options.Option, text: str) -> Any:
    try:
        if option.kind == "pairs":
            return options.value_of(option, tuple(line.strip() for line in text.splitlines() if line.strip()))
        if option.kind in ("int", "float", "time", "temperatures", "speakers", "language", "bool", "choice"):
            return options.value_of(option, text.strip())
        return options.value_of(option, re.sub(r"\r\n?", "\n", text))
    except UsageError as error:
        raise UsageError(f"{wording.label(option)}: {error.what}", looked_at=error.looked_at, do=error.do) from error


def _check_path(text: str, called: str) -> None:
    if not text.strip():
        raise UsageError(f"{called}: nothing was chosen")
    if not text.startswith("/") or "\0" in text:
        raise UsageError(f"{called}: {text!r} is not a whole path", do="choose it with the button beside the field")


def _check_offered(given: Mapping[str, Any], site: Site) -> None:
    """What the form offers is a few names: a path is none of them."""
    models = site.centre.portal.get("models", site.centre.models)
    for name, names in (("model", models), ("speaker_model", None), ("engine", site.centre.engines)):
        said = given.get(name)
        if said is not None and ("/" in said or (names is not None and said not in names)):
            raise UsageError(
                f"{wording.label(options.BY_NAME[name])}: {said!r} is not offered here",
                looked_at=str(site.site_file or ""),
                do="choose another, or leave it as it was",
            )


ASKED = frozenset({"max_tokens", "model", "seed", "temperature", "top_p"})
"""Options of a language model that the form takes; the others say where it is and how it is started."""


def _check_following(given: Mapping[str, Any], site: Site) -> None:
    """What a language model is to do afterwards has what it needs, and asks no other model than those that are here."""
    asked = given.get("then_option", {})
    called = wording.label(options.BY_NAME["then_option"])
    for name in asked:
        if name in OF_MODELS and name not in ASKED:
            raise UsageError(f"{called}: {name} is not for the form", do="leave it out")
    model = str(asked.get("model", ""))
    if "/" in model or (model and site.centre.models is not None and model not in site.centre.models):
        raise UsageError(f"{called}: the model {model!r} is not offered here", do="leave model= out, or name another")
    told = asked or site.defaults.get("then_option") or {}
    if given.get("then"):
        for task in tasks.names(str(given["then"])):
            for parameter in form.needed(task):
                if parameter.name not in told:
                    raise UsageError(
                        f"{wording.label(options.BY_NAME['then'])}: {task} needs {parameter.name}: {parameter.help}",
                        do=f"write {parameter.name}=... under More options, {called}",
                    )


def _output(text: str, recordings: str) -> str:
    """Where the results go: where the form says, else beside the recording or in the folder of recordings."""
    if text.strip():
        _check_path(text, "Folder for the results")
        return text
    folder = recordings if os.path.isdir(recordings) else os.path.dirname(recordings)  # noqa: PTH112, PTH120
    return os.path.join(folder, options.BY_NAME["output"].default)  # noqa: PTH118 - as it was said


def _email(text: str) -> str:
    address = text.strip()
    if address and not re.fullmatch(ADDRESS, address):
        raise UsageError(f"Mail to: {address!r} is no e-mail address")
    return address
