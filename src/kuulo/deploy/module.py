"""Modulefiles: for Lmod in Lua, and in Tcl for Environment Modules 5.1 or newer. Both say the same. (Lmod would read
those in Tcl too, but takes its own first, which is as well: what `pushenv` says in Tcl, Lmod 8.6 does not take back.)

A module puts `bin` on the PATH and sets variables that begin with KUULO or are nobody else's: a variable for each model
($medium), $model_names, and what a site's own wrapper of containers reads. It sets no variable that redirects the
caches of other programs. Unloading gives back what was there before.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kuulo.deploy.base import Deployment, File, Files
from kuulo.deploy.commands import COMPLETER
from kuulo.environments import recipe
from kuulo.models.manifest import ModelRef

LMOD, TCL = "lmod", "tcl"

TAKEN = frozenset(
    [
        *("argv", "cdpath", "cwd", "fignore", "fpath", "gid", "history", "home", "mail", "mailpath", "manpath", "path"),
        *("module_path", "precmd", "prompt", "psvar", "pwd", "shell", "status", "term", "uid", "user", "watch"),
    ]
)
"""Names that mean something to zsh or tcsh (zshparam(1), tcsh(1)): a variable of that name would break them."""


@dataclass(frozen=True)
class Module:
    """What a modulefile says, whatever its language. `models`: variable -> path; `for_groups`: Unix group -> such
    variables that its members have too. `containers`: variables for wrappers of containers."""

    name: str
    version: str
    about: str
    help: str
    message: str
    keywords: str
    bin: str
    completer: str
    family: str
    conflicts: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    models: Mapping[str, str] | None = None
    for_groups: Mapping[str, Mapping[str, str]] | None = None
    containers: Mapping[str, str] | None = None
    url: str = ""


def render(deployment: Deployment) -> Files:
    """The modulefiles, by path below the folder of modules: SYSTEM/NAME/VERSION."""
    systems = deployment.site.centre.module.get("systems", (LMOD,))
    files = {}
    for module in modules(deployment):
        if LMOD in systems:
            files[f"{LMOD}/{module.name}/{module.version}.lua"] = File(lua(module))
        if TCL in systems:
            files[f"{TCL}/{module.name}/{module.version}"] = File(tcl(module))
    return files


def defaults(name: str, version: str, systems: Sequence[str]) -> Files:
    """What says which version is loaded when none is named, below the folder of modules."""
    files = {}
    if LMOD in systems:
        files[f"{name}/.modulerc.lua"] = File(f'module_version("{name}/{version}", "default")\n')
    if TCL in systems:
        files[f"{name}/.version"] = File(f'#%Module1.0\nset ModulesVersion "{version}"\n')
    return files


def modules(deployment: Deployment) -> list[Module]:
    """The module that a site has, or the two."""
    wanted = deployment.site.centre.module
    found = [_module(deployment, wanted.get("name", "kuulo"), wanted.get("family", "kuulo"), "transcribe")]
    if "diarization" in wanted:
        # Both may be loaded together: they have the same commands.
        found.append(_module(deployment, wanted["diarization"], f"{found[0].family}-speakers", "diarize"))
    return found


def _module(deployment: Deployment, name: str, family: str, task: str) -> Module:
    centre = deployment.site.centre
    split = "diarization" in centre.module
    shown = [m for m in deployment.models if not split or m.task == task]
    everybody = [m for m in shown if centre.models is None or m.name in centre.models]
    of_groups = {
        group: variables([m for m in shown if m not in everybody and m.name in allowed.get("models", ())])
        for group, allowed in centre.groups.items()
    }
    models = variables(everybody)
    return Module(
        name=name,
        version=deployment.version,
        about=ABOUT[task],
        help=_help(deployment, name, task, models),
        message=_message(deployment, task, models),
        keywords=KEYWORDS[task],
        bin=str(deployment.folder / "bin"),
        completer=str(deployment.folder / COMPLETER),
        family=family,
        conflicts=tuple(centre.module.get("conflicts", ())),
        depends=tuple(centre.module.get("depends", ())),
        extensions=tuple(f"{n}/{v}" for n, v in engine_versions(deployment).items()),
        models=models,
        for_groups={group: found for group, found in of_groups.items() if found},
        containers=containers(deployment),
        url=centre.url,
    )


ABOUT = {
    "transcribe": "Transcripts of recordings, with speakers, offline",
    "diarize": "Who speaks when in recordings, offline",
}
KEYWORDS = {
    "transcribe": "speech recognition, transcription, whisper, audio, speakers",
    "diarize": "speaker diarization, speaker identification, pyannote, audio",
}
EXAMPLES = {
    "transcribe": (
        ("kuulo transcribe interview.m4a", "a transcript beside it, in transcripts/"),
        ("kuulo transcribe interviews/ -l fi -f docx,srt", "a whole folder, in Finnish, for Word and as subtitles"),
        ("kuulo transcribe interview.m4a --speakers 2", "who says what"),
        ("kuulo submit interviews/ -l fi", "the same in Slurm's jobs: for more than a few recordings"),
        ("kuulo jobs", "how they go"),
    ),
    "diarize": (
        ("kuulo diarize meeting.wav", "who speaks when, as RTTM"),
        ("kuulo diarize meeting.wav --speakers 3 -f eaf", "three speakers, for ELAN"),
        ("kuulo transcribe meeting.wav --speakers auto", "with the words"),
    ),
}
"""What people type, and what it does."""


def _help(deployment: Deployment, name: str, task: str, models: Mapping[str, str]) -> str:
    """Reads well as plain text and as Markdown, as which newer Lmods show it."""
    width = max(len(command) for command, _ in EXAMPLES[task])
    lines = [f"{ABOUT[task]}, on the machines of {deployment.name}.", "", "What to type:", ""]
    lines += [f"    {command.ljust(width)}   # {what}" for command, what in EXAMPLES[task]]
    lines += ["", "`kuulo doctor` says whether you can run it, `kuulo --help` what else there is."]
    if models:
        lines += ["", "Models (-m NAME; each variable is the path of one):", ""]
        lines += [f"    ${variable}" for variable in models]
    else:
        lines += ["", "No model is deployed: `kuulo models list` shows what you have."]
    image = containers(deployment).get("CONTAINER_IMAGE")
    if image:
        lines += [
            "",
            "The programs' own commands: `kuulo run ENGINE -- ARGUMENTS`, or the image itself: $CONTAINER_IMAGE.",
        ]
    contact = deployment.site.centre.contact
    lines += ["", f"Questions: {contact}"] if contact else []
    lines += [f"More: {deployment.site.centre.url}"] if deployment.site.centre.url else []
    return "\n".join(lines)


def _message(deployment: Deployment, task: str, models: Mapping[str, str]) -> str:
    command = EXAMPLES[task][0][0]
    lines = [f"Kuulo {deployment.version}. Type for example:  {command}"]
    if models:
        lines.append("Models: " + " ".join(f"${variable}" for variable in models))
    extra = deployment.site.centre.module.get("message")
    return "\n".join([*lines, *([extra] if extra else [])])


def variables(models: Sequence[ModelRef]) -> dict[str, str]:
    """A variable for each model: its name with `_` for what cannot be in one. Where a model is there in several
    formats, that of the most preferred engine, which comes first in `models`."""
    found: dict[str, str] = {}
    for model in models:
        found.setdefault(variable(model.name), str(model.path))
    return found


def variable(name: str) -> str:
    """What a model's variable is called: large-v3 -> large_v3."""
    bare = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"model_{bare}" if bare in TAKEN or bare[0].isdigit() else bare


def containers(deployment: Deployment) -> dict[str, str]:
    """What a site's wrapper reads (`singularity_wrapper run ...`): the image of the engine that is taken when none is
    named, and the flags that it needs."""
    images = {name: e for name, e in deployment.environments.items() if e.image_path}
    if not images:
        return {}
    wanted = deployment.site.forced.get("engine") or deployment.site.defaults.get("engine")
    order = [wanted, *(spec.name for spec in deployment.engines), *images]
    chosen = next(images[name] for name in order if name in images)
    image = str(chosen.image_path)
    stores = [str(folder) for folder in deployment.site.centre.stores]
    binds = [f"--bind {folder}:{folder}:ro" for folder in stores if not re.search(r"[\s:,\\'\"$`]", folder)]
    # On a node without a GPU it warns and goes on.
    flags = " ".join([*(["--nv"] if chosen.variant == recipe.CUDA else []), *binds])
    return {"CONTAINER_IMAGE": image, "SING_IMAGE": image, "CONTAINER_FLAGS": flags, "SING_FLAGS": flags}


def engine_versions(deployment: Deployment) -> dict[str, str]:
    """Engine -> its version, of the engines in environments of their own."""
    specs = {spec.name: spec for spec in deployment.engines}
    return {
        name: version
        for name, environment in deployment.environments.items()
        if name in specs and (version := environment.version(specs[name].package))
    }


def _completion(module: Module) -> str:
    """What stands between `complete` and the command's name, as shell text, in which the completer is a command, which
    is shell text again."""
    return f"-o nosort -C {shlex.quote(shlex.quote(module.completer))}"


# Lua.


def lua(module: Module) -> str:
    """The modulefile for Lmod. Pure."""
    whatis = {
        "Name": module.name,
        "Version": module.version,
        "Category": "speech recognition",
        "Keywords": module.keywords,
        **({"URL": module.url} if module.url else {}),
        "Description": module.about,
    }
    lines = [
        f"-- {module.name} {module.version}, made by `kuulo deploy`: what is changed here by hand is lost.",
        f"help({_lua(module.help)})",
        *(f"whatis({_lua(f'{key}: {value}')})" for key, value in whatis.items()),
        "",
        f"family({_lua(module.family)})",
        *(f"conflict({_lua(name)})" for name in module.conflicts),
        *(f"depends_on({_lua(name)})" for name in module.depends),
        *([f"extensions({_lua(', '.join(module.extensions))})"] if module.extensions else []),
        "",
        f"if not isDir({_lua(module.bin)}) then",
        f"    LmodError({_lua(f'{module.name}/{module.version} is gone: {module.bin} is not there')})",
        "end",
        f"prepend_path('PATH', {_lua(module.bin)})",
        f"pushenv('KUULO_VERSION', {_lua(module.version)})",
        *(f"pushenv({_lua(name)}, {_lua(path)})" for name, path in (module.models or {}).items()),
        f"pushenv('model_names', {_lua(' '.join(module.models or {}))})",
    ]
    for group, models in (module.for_groups or {}).items():
        lines += [f"if userInGroups({_lua(group)}) then"]
        lines += [f"    pushenv({_lua(name)}, {_lua(path)})" for name, path in models.items()]
        lines += ["end"]
    lines += [f"pushenv({_lua(name)}, {_lua(value)})" for name, value in (module.containers or {}).items()]
    lines += [
        "if complete then",  # not in Lmods before 8.6
        f"    complete('bash', 'kuulo', {_lua(_completion(module))})",
        "end",
        "",
        "if mode() == 'load' then",
        f"    LmodMessage({_lua(module.message)})",
        "end",
    ]
    return "\n".join(lines) + "\n"


def _lua(text: str) -> str:
    """A text as Lua writes it (reference manual, 3.1): nothing in it is anything but text. Of several lines it is
    between long brackets, so that people can read it."""
    if "\n" in text and not re.search(r"[\r\0]", text):
        level = "=" * next(n for n in range(len(text)) if f"]{'=' * n}]" not in text)
        return f"[{level}[\n{text}]{level}]"  # the first line end is not part of it
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    )
    return f'"{escaped}"'


# Tcl.


def tcl(module: Module) -> str:
    """The modulefile for Environment Modules. Pure."""
    lines = [
        "#%Module1.0",
        f"## {module.name} {module.version}, made by `kuulo deploy`: what is changed here by hand is lost.",
        "proc ModulesHelp { } {",
        f"    puts stderr {_tcl(module.help)}",
        "}",
        f"module-whatis {_tcl(module.about)}",
        f"module-whatis {_tcl(f'Version: {module.version}')}",
        f"module-whatis {_tcl(f'Keywords: {module.keywords}')}",
        *([f"module-whatis {_tcl(f'URL: {module.url}')}"] if module.url else []),
        f"family {_tcl(module.family)}",
        *(f"conflict {_tcl(name)}" for name in module.conflicts),
        *(f"module load {_tcl(name)}" for name in module.depends),
        f"if {{![file isdirectory {_tcl(module.bin)}]}} {{",
        f"    puts stderr {_tcl(f'{module.name}/{module.version} is gone: {module.bin} is not there')}",
        "    break",
        "}",
        f"prepend-path PATH {_tcl(module.bin)}",
        f"pushenv KUULO_VERSION {_tcl(module.version)}",
        *(f"pushenv {_tcl(name)} {_tcl(path)}" for name, path in (module.models or {}).items()),
        f"pushenv model_names {_tcl(' '.join(module.models or {}))}",
    ]
    for group, models in (module.for_groups or {}).items():
        lines += [f"if {{[module-info usergroups {_tcl(group)}]}} {{"]
        lines += [f"    pushenv {_tcl(name)} {_tcl(path)}" for name, path in models.items()]
        lines += ["}"]
    lines += [f"pushenv {_tcl(name)} {_tcl(value)}" for name, value in (module.containers or {}).items()]
    lines += [
        f"complete bash kuulo {_tcl(_completion(module))}",
        "if {[module-info mode load]} {",
        f"    puts stderr {_tcl(module.message)}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _tcl(text: str) -> str:
    """A text as a word of Tcl in double quotes (Tcl(n)): nothing is substituted in it, and the file's encoding does not
    matter. (Tcl 8.6 has no characters beyond the first 65,536, of which there are none in paths that people type.)"""
    escaped = "".join(f"\\{c}" if c in '\\"$[]{};' else c if c.isascii() else f"\\u{ord(c):04x}" for c in text)
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'
