"""Templates: prompts in files, with variables. One with the same name of the user's stands before the site's, and that
before Kuulo's own.

    description = "What was said, shortly."
    system = "You summarise interviews."              # optional
    prompt = "Write in $language:\\n\\n$input"        # $name is a variable, $$ a dollar sign
    [defaults]                                        # of variables
    language = "the language of the interview"
    [options]                                         # as with -o: temperature, max_tokens, ...
    temperature = 0
    [merge]                                           # optional: how the answers about parts become one
    prompt = "$input"
    [schema_object]                                   # optional: JSON schema of the answer
    type = "object"

The keys are those of simonw/llm, and its YAML files are read too. `$input` is what is asked about.
"""

from __future__ import annotations

import hashlib
import os
import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from kuulo import naming, site
from kuulo.errors import UsageError

INPUT = "input"
SUFFIXES = (".toml", ".yaml", ".yml")
KEYS = frozenset({"name", "description", "system", "prompt", "model", "defaults", "options", "merge", "schema_object"})
_NAME = re.compile(r"[\w][\w.-]*")

_BAD_NAMES = ("/", "\\", "\0")


@dataclass(frozen=True)
class Template:
    """A prompt with variables. `digest` is of the file's bytes; `origin` is built in, site, user or a path."""

    name: str
    prompt: str
    system: str = ""
    description: str = ""
    model: str | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    merge: str = ""
    schema: Mapping[str, Any] | None = None
    digest: str = ""
    origin: str = ""
    source: str = ""

    @property
    def variables(self) -> list[str]:
        """What the texts have, `input` apart, in order."""
        found = [name for text in (self.system, self.prompt, self.merge) for name in _identifiers(text)]
        return [name for name in dict.fromkeys(found) if name != INPUT]

    @property
    def missing(self) -> list[str]:
        """The variables without a default."""
        return [name for name in self.variables if name not in self.defaults]

    def filled(self, values: Mapping[str, str], input_: str, *, merging: bool = False) -> tuple[str, str]:
        """System and user text, with all variables in their places. A prompt without `$input` gets it at its end.
        Raises UsageError, with the name, for a variable that nobody gave and for one that the template has not."""
        given = self.checked(values)
        text = (merging and self.merge) or self.prompt
        if input_ and INPUT not in _identifiers(text) and INPUT not in _identifiers(self.system):
            text = f"{text.rstrip()}\n\n$input" if text.strip() else "$input"
        known = {**given, INPUT: input_}
        return string.Template(self.system).substitute(known), string.Template(text).substitute(known)

    def checked(self, values: Mapping[str, str]) -> dict[str, str]:
        """The variables' values, defaults included; raises UsageError as `filled`."""
        if unknown := [name for name in values if name not in self.variables]:
            raise UsageError(
                f"the template {self.name} has no variable {unknown[0]!r}",
                looked_at=self.source or self.origin,
                do=f"it has {', '.join(self.variables)}" if self.variables else "leave -p out: it has none",
            )
        known = {**self.defaults, **values}
        if lacking := [name for name in self.variables if name not in known]:
            raise UsageError(
                f"the template {self.name} has a variable that nobody gave: {lacking[0]}",
                looked_at=self.source or self.origin,
                do=" ".join(f"-p {name} VALUE" for name in lacking),
            )
        return known


def _identifiers(text: str) -> list[str]:
    return string.Template(text).get_identifiers()


# ------------------------------------------------------------------ where they are


def folders() -> list[tuple[str, Path]]:
    """The user's and the site's folder of templates, the first before the second."""
    named = os.environ.get("KUULO_SITE")
    site_file = Path(named) if named else site.SITE_FILE
    return [("user", site.user_config_folder() / "templates"), ("site", site_file.parent / "templates")]


def find(name: str) -> Template:
    """The template of that name, or in the file of that path; raises UsageError."""
    if any(bad in name for bad in _BAD_NAMES) or name.endswith(SUFFIXES):
        return read(Path(name).expanduser())
    for origin, path in _files():
        if _stem(path.name) == name:
            return parse(path.read_bytes(), name, origin=origin, source=naming.shown(path), suffix=path.suffix)
    built = resources.files("kuulo.llm") / "templates" / f"{name}.toml"
    if _NAME.fullmatch(name) and built.is_file():
        return parse(built.read_bytes(), name, origin="built in", source=f"{name}.toml of Kuulo")
    raise UsageError(
        f"there is no template {name!r}",
        looked_at=", ".join(naming.shown(folder) for _, folder in folders()),
        do=f"known: {', '.join(names())}; or name a file: -t ./mine.toml",
    )


def names() -> list[str]:
    """Every template's name, sorted."""
    return sorted({_stem(path.name) for _, path in _files()} | set(built_in()))


def built_in() -> list[str]:
    """The names of Kuulo's own templates."""
    folder = resources.files("kuulo.llm") / "templates"
    return sorted(_stem(entry.name) for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _files() -> Iterator[tuple[str, Path]]:
    """The user's and the site's files."""
    for origin, folder in folders():
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith("."):
                    yield origin, path


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


# ------------------------------------------------------------------ what is in a file


def read(path: Path) -> Template:
    """The template in a file; raises UsageError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"a template cannot be read: {error.strerror or error}",
            looked_at=naming.shown(path),
            do="kuulo llm templates list",
        ) from error
    return parse(content, _stem(path.name) or path.name, origin="file", source=naming.shown(path), suffix=path.suffix)


def parse(content: bytes, name: str, *, origin: str, source: str, suffix: str = ".toml") -> Template:
    """The template in a file's bytes; raises UsageError."""
    data = _data(content, source, suffix)
    unknown = sorted(set(data) - KEYS)
    if unknown:
        raise _wrong(source, f"it has an unknown key: {unknown[0]}", f"known: {', '.join(sorted(KEYS))}")
    merge = data.get("merge", {})
    if not isinstance(merge, Mapping) or set(merge) - {"prompt"}:
        raise _wrong(source, "merge is no table with a prompt", "[merge] and prompt = ...")
    texts = {key: data.get(key, "") for key in ("prompt", "system", "description")} | {"merge": merge.get("prompt", "")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise _wrong(source, f"{key} is no text", f'{key} = "..."')
        if key != "description" and not string.Template(text).is_valid():
            raise _wrong(source, f"{key} has a $ that begins no variable", "write $$ for a dollar sign")
    if not texts["prompt"].strip() and not texts["system"].strip():
        raise _wrong(source, "it has neither prompt nor system", 'prompt = "..."')
    made = Template(
        name,
        texts["prompt"],
        system=texts["system"],
        description=texts["description"],
        merge=texts["merge"],
        model=_text_or_none(data.get("model"), "model", source),
        defaults={k: str(v) for k, v in _table(data, "defaults", source).items()},
        options=_table(data, "options", source),
        schema=_table(data, "schema_object", source) or None,
        digest=hashlib.sha256(content).hexdigest(),
        origin=origin,
        source=source,
    )
    if stray := sorted(set(made.defaults) - set(made.variables)):
        raise _wrong(source, f"[defaults] has {stray[0]}, which no text has", f"write ${stray[0]} where it goes")
    return made


def _data(content: bytes, source: str, suffix: str) -> Mapping[str, Any]:
    try:
        text = content.decode("utf-8")
        data = tomllib.loads(text) if suffix == ".toml" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise _wrong(source, str(error).replace("\n", " "), "see docs/llm.md for an example") from error
    if isinstance(data, str):  # simonw/llm: a YAML file that is one text is a prompt
        return {"prompt": data}
    if not isinstance(data, Mapping):
        raise _wrong(source, "it is no table", "see docs/llm.md for an example")
    return data


def _table(data: Mapping[str, Any], key: str, source: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, Mapping):
        raise _wrong(source, f"{key} is no table", f"[{key}] on a line of its own")
    return dict(value)


def _text_or_none(value: Any, key: str, source: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _wrong(source, f"{key} is no text", f'{key} = "..."')
    return value


def _wrong(source: str, what: str, do: str) -> UsageError:
    return UsageError(f"a template is not understood: {what}", looked_at=source, do=do)


def plain(system: str = "", prompt: str = "") -> Template:
    """A template for what was typed: no variables, `$` stands for itself."""
    made = Template("typed", prompt.replace("$", "$$"), system=system.replace("$", "$$"), origin="typed")
    text = f"{made.system}\0{made.prompt}".encode("utf-8", "surrogateescape")
    return replace(made, digest=hashlib.sha256(text).hexdigest())
