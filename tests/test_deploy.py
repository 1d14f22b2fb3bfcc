"""Deploying: versions side by side, with commands and modules, proved before anybody gets them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Kuulo
from kuulo import access, engines, miniature, site, site_check, site_init
from kuulo.deploy import commands, making, module, proving, tree, versions
from kuulo.deploy.base import Deployment
from kuulo.deploy.tree import Difference, Entry
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun, UsageError
from kuulo.models.manifest import ModelFile, ModelRef

LMOD = proving.lmod()
MODULES = [
    *Path(sys.prefix, "environment-modules").glob("usr/lib/*/modulecmd.tcl"),
    *Path("/usr/lib").glob("*/modulecmd.tcl"),
]
INITS = {
    "lmod": f". {LMOD} >/dev/null" if LMOD else None,
    "tcl": f'module() {{ eval "$(tclsh {MODULES[0]} bash "$@")"; }}' if MODULES else None,
}
"""How a bash gets `module`: Lmod's, and that of Environment Modules (Debian's package, which `make test` unpacks)."""

systems = pytest.mark.parametrize(
    "system",
    [pytest.param(name, marks=pytest.mark.skipif(init is None, reason=f"{name}: not here"))
     for name, init in INITS.items()],
)  # fmt: skip
needs_lmod = pytest.mark.skipif(LMOD is None, reason="needs Lmod (Debian's package lmod), which is not installed here")
HOSTILE = 'it\'s a "[[site]]" $(touch owned) `touch owned` {x} ]==] å\\n'


class Centre:
    """A site whose folders are all in one, and an administrator who calls Kuulo."""

    def __init__(self, folder: Path, kuulo: Kuulo) -> None:
        self.folder = folder
        self.file = folder / "site.toml"
        self._kuulo = kuulo
        self.write("")

    def write(self, more: str, top: str = "") -> None:
        lines = [
            'name = "Test centre"',
            'engines = ["pocketsphinx"]',  # so that proving takes seconds
            f"stores = [{json.dumps(str(self.folder / 'models'))}]",
            top,
            "[deploy]",
            f"folder = {json.dumps(str(self.folder / 'kuulo'))}",
            f"modules = {json.dumps(str(self.folder / 'modules'))}",
            "keep = 3",
            more,
        ]
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self, *arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        return self._kuulo(*arguments, env={"KUULO_SITE": str(self.file)}, **keywords)

    def apply(self) -> subprocess.CompletedProcess[str]:
        done = self.run("deploy", "apply", "--yes")
        assert done.returncode == 0, done.stderr
        return done

    @property
    def versions(self) -> list[str]:
        found = json.loads(self.run("deploy", "list", "--json").stdout)["versions"]
        return [row["version"] for row in found]

    @property
    def current(self) -> str:
        return (self.folder / "kuulo" / "current").readlink().name

    @property
    def program(self) -> Path:
        return self.folder / "kuulo" / "current" / "bin" / "kuulo"


@pytest.fixture
def centre(tmp_path: Path, kuulo: Kuulo) -> Centre:
    folder = tmp_path / "the centre's"
    folder.mkdir()
    return Centre(folder, kuulo)


def as_user(command: list[str], home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command as somebody has it who has just logged in."""
    home.mkdir(exist_ok=True)
    environ = {"HOME": str(home), "PATH": proving.PATH, "LANG": "C.UTF-8", "NO_COLOR": "1", **more}
    return subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=120, check=False)


def in_bash(script: str, home: Path, *arguments: str, system: str = "lmod") -> subprocess.CompletedProcess[str]:
    """A script in a bash with a module system."""
    return as_user(["bash", "--norc", "-c", f"{INITS[system]}\n{script}", "bash", *arguments], home)


def test_from_nothing_to_a_transcript(centre: Centre, tmp_path: Path) -> None:
    planned = centre.run("deploy", "plan")
    assert planned.returncode == 0
    assert "0.1.0-1 would be the first version" in planned.stdout
    assert not (centre.folder / "kuulo").exists()

    applied = centre.apply()
    assert "0.1.0-1 is in use" in applied.stdout
    assert "FAILED" not in applied.stdout
    assert "a transcript: " in applied.stdout

    home = tmp_path / "anna"
    # Packages of the user's, of whatever kind, stay out.
    (home / "bad").mkdir(parents=True)
    (home / "bad" / "click.py").write_text("raise SystemExit('not this one')")
    done = as_user(
        [str(centre.program), "transcribe", str(ROOT / "examples" / "jfk.flac"), "-o", str(home / "out")],
        home,
        PYTHONPATH=str(home / "bad"),
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((home / "out" / "jfk.json").read_bytes())
    assert said["segments"]
    assert sorted(p.name for p in home.iterdir()) == ["bad", "out"]


def test_a_second_apply_changes_nothing(centre: Centre) -> None:
    centre.apply()
    before = {path: path.lstat().st_mtime_ns for path in centre.folder.rglob("*")}
    again = centre.apply()
    assert again.stdout == "0.1.0-1 is in use, and nothing would change\n"
    assert {path: path.lstat().st_mtime_ns for path in centre.folder.rglob("*")} == before
    answer = json.loads(centre.run("deploy", "apply", "--json").stdout)
    assert (answer["needed"], answer["applied"]) == (False, False)


def test_what_changes_is_shown_first_and_versions_stay_side_by_side(centre: Centre) -> None:
    centre.apply()
    first = centre.folder / "kuulo" / "versions" / "0.1.0-1"
    was = tree.on_disk(first)
    centre.write("[defaults]\nspeech_detection = true\n")
    planned = centre.run("deploy", "plan").stdout
    assert "changed: site.toml" in planned
    assert "+speech_detection = true" in planned
    assert "bin/kuulo" not in planned  # which has the version's name in it, and nothing else that is new
    assert centre.current == "0.1.0-1"

    centre.apply()
    assert (centre.versions, centre.current) == (["0.1.0-2", "0.1.0-1"], "0.1.0-2")
    assert tree.on_disk(first) == was
    old = centre.folder / "kuulo" / "versions" / "0.1.0-1" / "bin" / "kuulo"
    for program, detects in ((old, False), (centre.program, True)):
        told = as_user([str(program), "transcribe", str(miniature.CLIP), "--dry-run", "--json"], centre.folder / "home")
        assert json.loads(told.stdout)["options"]["speech_detection"] is detects, told.stderr


def test_rollback_and_forward_again(centre: Centre) -> None:
    assert centre.run("deploy", "rollback").returncode == 2
    centre.apply()
    nowhere = centre.run("deploy", "rollback")
    assert nowhere.returncode == 2
    assert "no version to go back to" in nowhere.stderr
    centre.write("[module]\nname = 'hearing'\n")
    centre.apply()
    back = centre.run("deploy", "rollback")
    assert back.stdout == "0.1.0-1 is in use instead of 0.1.0-2\n"
    assert centre.current == "0.1.0-1"
    assert '"kuulo/0.1.0-1", "default"' in (centre.folder / "modules" / "kuulo" / ".modulerc.lua").read_text()
    assert centre.run("deploy", "rollback").stdout == "0.1.0-2 is in use instead of 0.1.0-1\n"
    wrong = centre.run("deploy", "rollback", "0.1.0-9")
    assert wrong.returncode == 2
    assert "there is no version 0.1.0-9" in wrong.stderr


def test_old_versions_go_but_never_the_one_before(centre: Centre) -> None:
    for number in range(5):
        centre.write(f"commands = []\n[module]\nmessage = 'news {number}'\n")
        done = centre.apply()
    assert centre.versions == ["0.1.0-5", "0.1.0-4", "0.1.0-3"]
    assert "0.1.0-2 was taken away" in done.stdout
    names = {path.name for path in (centre.folder / "modules" / "kuulo").iterdir()}
    assert names == {".modulerc.lua", "0.1.0-3.lua", "0.1.0-4.lua", "0.1.0-5.lua"}
    # A name is never used twice, also when its version is gone.
    centre.run("deploy", "rollback")
    shutil.rmtree(centre.folder / "kuulo" / "versions" / "0.1.0-5")
    centre.write("")
    centre.apply()
    assert centre.current == "0.1.0-6"


def test_what_somebody_changed_by_hand_is_told_and_mended(centre: Centre) -> None:
    centre.apply()
    version = centre.folder / "kuulo" / "current"
    with (version / "bin" / "kuulo").open("a") as file:
        file.write("echo by hand\n")
    (version / "lib" / "kuulo" / "options.py").unlink()
    (version / "bin" / "more").write_text("")
    planned = centre.run("deploy", "plan").stdout
    assert "somebody changed files by hand" in planned
    for line in ("changed: bin/kuulo", "gone: lib/kuulo/options.py", "new: bin/more"):
        assert f"  {line}\n" in planned
    centre.apply()
    assert centre.current == "0.1.0-2"
    assert "echo by hand" not in centre.program.read_text()


def test_a_version_that_does_not_work_is_not_put_in_use(centre: Centre) -> None:
    centre.apply()
    centre.write("[forced]\nlanguage = 'fi'\n")
    done = centre.run("deploy", "apply", "--yes")
    assert done.returncode == 3
    assert "the version 0.1.0-2 does not work, and is not put in use" in done.stderr
    assert "a transcript: exit code 3: kuulo: no store has a Whisper model" in done.stderr
    assert (centre.versions, centre.current) == (["0.1.0-1"], "0.1.0-1")
    names = sorted(path.name for path in (centre.folder / "kuulo" / "versions").iterdir())
    assert names == ["0.1.0-1"]
    assert not (centre.folder / "modules" / "kuulo" / "0.1.0-2.lua").exists()


def test_a_broken_version_is_found_by_deploy_test(centre: Centre) -> None:
    assert centre.run("deploy", "test").returncode == 2
    centre.apply()
    good = centre.run("deploy", "test", "--json")
    assert good.returncode == 0
    assert all(proof["ok"] is not False for proof in json.loads(good.stdout)["proofs"])
    (centre.folder / "kuulo" / "current" / "lib" / "kuulo" / "audio.py").write_text("raise OSError\n")
    bad = centre.run("deploy", "test")
    assert bad.returncode == 3
    assert "FAILED    a transcript" in bad.stdout


def test_a_folder_that_cannot_be_written_is_told(centre: Centre) -> None:
    (centre.folder / "kuulo").write_text("a file")
    done = centre.run("deploy", "apply", "--yes")
    assert done.returncode == 3
    assert "the folder of the versions cannot be read" in done.stderr
    assert "what to do:" in done.stderr
    (centre.folder / "kuulo").unlink()
    (centre.folder / "kuulo").mkdir()
    (centre.folder / "kuulo" / "versions").mkdir(mode=0o555)
    if not os.access(centre.folder / "kuulo" / "versions", os.W_OK):  # root may write anywhere
        done = centre.run("deploy", "apply", "--yes")
        assert done.returncode == 3
        assert "the version cannot be written" in done.stderr


def test_something_else_in_the_way_of_a_module_stays(centre: Centre) -> None:
    theirs = centre.folder / "modules" / "kuulo" / "0.1.0-1.lua"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("-- somebody's own\n")
    done = centre.run("deploy", "apply", "--yes")
    assert done.returncode == 3
    assert str(theirs) in done.stderr
    assert theirs.read_text() == "-- somebody's own\n"
    assert centre.versions == []


def test_everybody_can_read_a_version_whatever_the_umask(centre: Centre) -> None:
    before = os.umask(0o077)
    try:
        centre.apply()
    finally:
        os.umask(before)
    for root, folders, files in os.walk(centre.folder / "kuulo" / "current" / "."):
        for name in [*folders, *files]:
            path = Path(root, name)
            if not path.is_symlink():
                wanted = 0o555 if path.is_dir() or path.parent.name in ("bin", "libexec") else 0o444
                assert stat.S_IMODE(path.stat().st_mode) & wanted == wanted, path


def test_other_programs_names(centre: Centre, tmp_path: Path) -> None:
    centre.write("commands = ['whisper-ctranslate2', 'main']\n")
    centre.apply()
    folder = centre.folder / "kuulo" / "current" / "bin"
    assert sorted(p.name for p in folder.iterdir()) == ["kuulo", "whisper-cli", "whisper-ctranslate2"]
    done = as_user([str(folder / "whisper-ctranslate2"), "--help"], tmp_path / "home")
    assert done.returncode == 0, done.stderr
    centre.write("commands = ['whispr']\n")
    wrong = centre.run("deploy", "plan")
    assert wrong.returncode == 2
    assert "did you mean whisper?" in wrong.stderr


# Modules.


def model(name: str, path: str = "/models/x", format_: str = "ct2") -> ModelRef:
    return ModelRef(name=name, format=format_, path=Path(path), files=(ModelFile("model.bin", "0" * 64, 1),))


def deployed(tmp_path: Path, text: str, *models: ModelRef) -> Deployment:
    file = tmp_path / "site.toml"
    file.write_text(text, encoding="utf-8")
    return Deployment(site.load({"KUULO_SITE": str(file)}), "0.1.0-7", Path("/appl/kuulo"), models=models)


def write_modules(tmp_path: Path, made: Deployment) -> Path:
    """The modulefiles, with a `bin` that is there."""
    real = Deployment(made.site, made.version, tmp_path / "appl", made.engines, made.models, made.environments)
    for path, file in commands.render(real, Path(sys.executable)).items():
        (real.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (real.folder / path).write_text(file.text)
        (real.folder / path).chmod(file.mode)
    for path, file in module.render(real).items():
        (tmp_path / "mf" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mf" / path).write_text(file.text)
    return tmp_path / "mf"


SOME = (model("medium", "/models/a b/medium"), model("large-v3", "/models/large"), model("path", "/models/p"))

LOAD = """
module use "$1"
variables() { env -0 | sort -z | tr '\\0' '\\n' | grep -v -E '^(_|_LMFILES_|LOADEDMODULES|_ModuleTable|__LMOD|LMOD)'; }
export medium=mine
before=$(variables); completions=$(complete -p)
module load kuulo || exit 1
command -v kuulo
printf '%s\\n' "$medium" "$large_v3" "$model_path" "$model_names" "$KUULO_VERSION" "${HF_HOME-unset}"
complete -p kuulo
module unload kuulo || exit 1
[ "$before" = "$(variables)" ] || { diff <(echo "$before") <(variables); exit 1; }
[ "$completions" = "$(complete -p)" ] || { echo "completions stay"; exit 1; }
"""


@systems
def test_loading_and_unloading(tmp_path: Path, system: str) -> None:
    made = deployed(tmp_path, "name = 'C'\n[module]\nsystems = ['lmod', 'tcl']\n", *SOME)
    folder = write_modules(tmp_path, made)
    done = in_bash(LOAD, tmp_path / "home", str(folder / system), system=system)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[:7] == [
        str(tmp_path / "appl" / "bin" / "kuulo"),
        "/models/a b/medium",
        "/models/large",
        "/models/p",
        "medium large_v3 model_path",
        "0.1.0-7",
        "unset",
    ]
    assert lines[7].startswith("complete -o nosort -C")
    assert "Kuulo 0.1.0-7. Type for example:" in done.stderr
    assert done.stderr.count("Type for example") == 1  # not when it is unloaded


@systems
def test_help_whatis_and_avail(tmp_path: Path, system: str) -> None:
    text = "name = 'C'\ncontact = 'help@example.org'\n[module]\nsystems = ['lmod', 'tcl']\n"
    folder = write_modules(tmp_path, deployed(tmp_path, text, *SOME)) / system
    script = 'module use "$1"; module help kuulo; module whatis kuulo; module -t avail'
    done = in_bash(script, tmp_path / "home", str(folder), system=system)
    said = done.stdout + done.stderr
    assert "kuulo transcribe interview.m4a" in said
    assert "    $large_v3\n" in said
    assert "Questions: help@example.org" in said
    assert "Version: 0.1.0-7" in said
    assert "kuulo/0.1.0-7" in said


@systems
def test_nothing_in_a_site_file_is_code_in_a_module(tmp_path: Path, system: str) -> None:
    quoted = json.dumps(HOSTILE.replace("\n", " "), ensure_ascii=False)
    text = f"name = {quoted}\ncontact = {quoted}\n[module]\nsystems = ['lmod', 'tcl']\nmessage = {quoted}\n"
    made = deployed(tmp_path, text, model("medium", f"/models/{HOSTILE}"))
    folder = write_modules(tmp_path, made) / system
    home = tmp_path / "home"
    script = 'module use "$1"; module load kuulo; module help kuulo; printf %s "$medium"'
    done = in_bash(script, home, str(folder), system=system)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"/models/{HOSTILE}")
    # Lmod folds long lines of a message.
    assert HOSTILE.replace(" ", "") in (done.stdout + done.stderr).replace(" ", "").replace("\n", "")
    assert not list(home.glob("owned*"))


@needs_lmod
def test_a_module_of_its_own_for_telling_speakers_apart(tmp_path: Path) -> None:
    text = "[module]\ndiarization = 'kuulo-speakers'\nconflicts = ['whisper']\n"
    made = deployed(tmp_path, text, model("medium"), model("community-1", "/models/c", "pyannote"))
    folder = write_modules(tmp_path, made) / "lmod"
    script = 'module use "$1"; module load kuulo kuulo-speakers; echo "$medium $community_1 $model_names"; module list'
    done = in_bash(script, tmp_path / "home", str(folder))
    assert "/models/x /models/c community_1" in done.stdout
    assert "kuulo-speakers/0.1.0-7" in done.stdout + done.stderr
    assert "kuulo diarize meeting.wav" in (folder / "kuulo-speakers" / "0.1.0-7.lua").read_text()


@needs_lmod
def test_models_of_a_group_are_seen_by_its_members(tmp_path: Path) -> None:
    mine = next(iter(access.own_groups()))
    text = (
        f"models = ['medium']\n[groups.{json.dumps(mine)}]\nmodels = ['large-v3']\n"
        "[groups.nobody-is-in-this]\nmodels = ['path']\n"
    )
    folder = write_modules(tmp_path, deployed(tmp_path, text, *SOME)) / "lmod"
    script = 'module use "$1"; module load kuulo; echo "$medium,$large_v3,$model_path"'
    done = in_bash(script, tmp_path / "home", str(folder))
    # To Lmod root is in every group.
    others = "/models/p" if os.getuid() == 0 else ""
    assert done.stdout == f"/models/a b/medium,/models/large,{others}\n", done.stderr


@needs_lmod
def test_a_version_that_is_gone_is_said_when_it_is_loaded(tmp_path: Path) -> None:
    folder = write_modules(tmp_path, deployed(tmp_path, ""))
    shutil.rmtree(tmp_path / "appl")
    done = in_bash('module use "$1"; module load kuulo', tmp_path / "home", str(folder / "lmod"))
    assert "is gone" in done.stderr


@needs_lmod
def test_words_are_completed(centre: Centre, tmp_path: Path) -> None:
    centre.apply()
    completer = centre.folder / "kuulo" / "current" / "libexec" / "complete"

    def completed(line: str) -> list[str]:
        word = line.rpartition(" ")[2]
        done = as_user(
            [str(completer), "kuulo", word, ""], tmp_path / "home", COMP_LINE=line, COMP_POINT=str(len(line))
        )
        return done.stdout.splitlines()

    assert completed("kuulo tran") == ["transcribe", "translate-command"]
    assert "--language" in completed("kuulo transcribe --la")
    assert completed("kuulo deploy ro") == ["rollback"]
    completed("kuulo deploy * $(touch owned) ")
    assert not list((tmp_path / "home").glob("owned*"))


def test_modules_can_be_read_by_lua(tmp_path: Path, needs_program: Any) -> None:
    luac = needs_program("luac5.3") if shutil.which("luac5.3") else needs_program("luac")
    for path, file in module.render(deployed(tmp_path, "[module]\nfamily = 'a\\\\b'\n", *SOME)).items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.text)
        subprocess.run([luac, "-p", target], check=True)


def test_a_model_variable_is_a_name_and_breaks_no_shell() -> None:
    assert [module.variable(name) for name in ("large-v3", "distil-large-v3.5", "path", "7b")] == [
        "large_v3",
        "distil_large_v3_5",
        "model_path",
        "model_7b",
    ]


def test_wrappers_of_containers_are_told_the_image_and_its_flags(tmp_path: Path) -> None:
    """As in `singularity_wrapper run FILE --model_directory $medium`: the flags end up unquoted in a shell."""
    stores = ["/appl/models", "/appl/has a space", "/appl/$(touch owned)"]
    text = f"stores = {json.dumps(stores)}\n[defaults]\nengine = 'whisper-cpp'\n"
    made = dataclasses.replace(
        deployed(tmp_path, text),
        environments={
            "faster-whisper": Environment("faster-whisper", Path("/i/fw"), "cuda", "", "", image="image.sif"),
            "pocketsphinx": Environment("pocketsphinx", Path("/i/ps"), "any", "", ""),
            "whisper-cpp": Environment("whisper-cpp", Path("/i/cpp"), "any", "", "", image="image.squashfs"),
        },
    )
    told = module.containers(made)
    assert told["SING_IMAGE"] == told["CONTAINER_IMAGE"] == "/i/cpp/image.squashfs"
    assert told["SING_FLAGS"] == told["CONTAINER_FLAGS"] == "--bind /appl/models:/appl/models:ro"
    forced = dataclasses.replace(made.site, forced={"engine": "faster-whisper"})
    told = module.containers(dataclasses.replace(made, site=forced))
    assert told["SING_IMAGE"] == "/i/fw/image.sif"
    assert told["SING_FLAGS"] == "--nv --bind /appl/models:/appl/models:ro"
    assert module.containers(dataclasses.replace(made, environments={})) == {}


def test_a_module_tells_the_versions_of_engines_in_environments(tmp_path: Path) -> None:
    packages = {"pywhispercpp": "1.5.1", "pyannote-audio": "4.0.7"}
    made = dataclasses.replace(
        deployed(tmp_path, ""),
        engines=tuple(engines.spec(name) for name in ("whisper-cpp", "pyannote", "whisperx")),
        environments={
            name: Environment(name, Path("/e"), "any", "", "", packages)
            for name in ("whisper-cpp", "pyannote", "whisperx", "nobody's")
        },
    )
    assert module.engine_versions(made) == {"whisper-cpp": "1.5.1", "pyannote": "4.0.7"}


# Trees and versions.


def test_a_tree_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "versions" / "1-1"
    tree.write({"a/b": Entry(b"x", 0o755), "c": Entry(target="a/b")}, folder)
    assert tree.manifest(folder) == tree.on_disk(folder)
    assert tree.compare(tree.manifest(folder), tree.on_disk(folder)) == Difference()
    with pytest.raises(CannotRun, match="cannot be written"):
        tree.write({"a": Entry(b"y")}, folder)
    assert tree.manifest(folder) == tree.on_disk(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["1-1"]


def test_versions_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    where = versions.Versions(tmp_path)
    assert where.next("0.2.0") == "0.2.0-1"
    for name in ("0.1.0-9", "0.1.0-10", "0.2.0-1"):
        tree.write({}, where.path(name))
    assert where.all() == ["0.1.0-9", "0.1.0-10", "0.2.0-1"]
    assert (where.next("0.1.0"), where.next("0.2.0"), where.next("0.3.0")) == ("0.1.0-11", "0.2.0-2", "0.3.0-1")


# The site's file.


def test_a_site_file_is_asked_for_and_good(kuulo: Kuulo, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    answers = ['Centre "X"', "help@x.org", f"{tmp_path}/models, {tmp_path}/more", "", "", "/tmp", "", "batch", "", ""]
    answers += [f"{tmp_path}/kuulo", f"{tmp_path}/modules", "", ""]
    done = kuulo("site", "init", str(file), "--base", str(tmp_path), input="\n".join(answers) + "\n")
    assert done.returncode == 0, done.stderr
    said = tomllib.loads(file.read_text(encoding="utf-8"))
    assert said["name"] == 'Centre "X"'
    assert said["stores"] == [f"{tmp_path}/models", f"{tmp_path}/more"]
    assert said["jobs"] == {"cpu": {"partition": "batch"}}
    assert "portal" not in said
    again = kuulo("site", "init", str(file), "--yes")
    assert again.returncode == 2
    assert "there is a site file already" in again.stderr
    checked = kuulo("site", "check", str(file), "--json")
    assert checked.returncode == 0, checked.stdout
    assert {f["where"] for f in json.loads(checked.stdout)["findings"]} >= {"stores"}


def test_what_is_proposed_comes_from_slurm() -> None:
    asked = {q.key: q.proposal for q in site_init.questions(Path("/a"), [("batch", ""), ("gpu", "gpu:a100")])}
    assert asked["jobs.cpu.partition"] == "batch"
    assert (asked["jobs.gpu.partition"], asked["jobs.gpu.gres"]) == ("gpu", "gpu:a100")
    assert asked["deploy.folder"] == "/a"
    for key in asked:
        assert key == "defaults.model" or site_init.about(key).help


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("engines = ['whispr']", "engines", "there is no engine 'whispr'"),
        ("[defaults]\nengine = 'whispr'", "engine in [defaults]", "no engine 'whispr'"),
        ("models = ['large-v9']", "models", "no store of the site has 'large-v9'"),
        ("models = []\n[forced]\nmodel = 'medium'", "model in [forced]", "nobody may use it"),
        ("[groups.no-such-group]\nengines = ['pocketsphinx']", "[groups.no-such-group]", "no such group"),
        ("[jobs]\nfolder = 3", "[jobs]", "is not a text"),
        ("[deploy]\nkeep = 3", "[deploy]", "it has no folder"),
        ("[deploy]\nfolder = '/x'\ncommands = ['wisper']", "commands in [deploy]", "does not know"),
        ("[deploy]\nfolder = '/x'\n[module]\nsystems = ['lua']", "systems in [module]", "neither lmod nor tcl"),
        ("[deploy]\nfolder = '/x'\n[portal]\ncluster = 'c'", "[portal]", "it has no folder"),
        ("stores = ['/no/such/folder']", "stores", "is not there"),
    ],
)
def test_what_is_wrong_with_a_site_is_found(tmp_path: Path, text: str, where: str, says: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    found = site_check.check(site.load({"KUULO_SITE": str(file)}))
    assert [f for f in found if f.where == where and says in f.what], found


def test_a_store_that_users_cannot_read_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "models"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    file = tmp_path / "site.toml"
    file.write_text(f"stores = [{json.dumps(str(inner))}]")
    findings = site_check.check(site.load({"KUULO_SITE": str(file)}))
    told = [f.what for f in findings if f.kind == site_check.PROBLEM]
    assert len(told) == 1 and told[0].startswith("users cannot read ")


def test_an_engine_and_a_model_that_are_not_for_everybody(kuulo: Kuulo, tmp_path: Path) -> None:
    store = tmp_path / "models"
    kuulo("models", "pull", "miniature", "--format", "ct2", env={"KUULO_STORE": str(store)})
    mine = next(iter(access.own_groups()))
    file = tmp_path / "site.toml"

    def tried(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        file.write_text(f"stores = [{json.dumps(str(store))}]\ncontact = 'help@x.org'\n{text}")
        return kuulo("transcribe", str(miniature.CLIP), "--dry-run", *arguments, env={"KUULO_SITE": str(file)})

    refused = tried("engines = ['faster-whisper']\n[groups.others]\nengines = ['pocketsphinx']\n", "-e", "pocketsphinx")
    assert refused.returncode == 2
    assert "the engine pocketsphinx is for members of others here" in refused.stderr
    assert "ask help@x.org" in refused.stderr
    group = f"[groups.{json.dumps(mine)}]\n"
    assert (
        tried(f"engines = ['faster-whisper']\n{group}engines = ['pocketsphinx']\n", "-e", "pocketsphinx").returncode
        == 0
    )
    refused = tried("models = []\n", "-e", "faster-whisper", "-m", "miniature")
    assert refused.returncode == 2
    assert "the model miniature is not offered here" in refused.stderr
    allowed = tried(f"models = []\n{group}models = ['miniature']\n", "-e", "faster-whisper", "-m", "miniature")
    assert allowed.returncode == 0, allowed.stderr
    # Speech detection and what is left to Kuulo are no engines that anybody chooses.
    detected = tried("engines = ['faster-whisper']\n", "-e", "faster-whisper", "-m", "miniature", "--speech-detection")
    assert detected.returncode == 0, detected.stderr


def test_making_says_that_an_environment_is_broken(tmp_path: Path) -> None:
    broken = tmp_path / "images" / "whisper-cpp" / "state.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    file = tmp_path / "site.toml"
    file.write_text(f"images = {json.dumps(str(tmp_path / 'images'))}\n[deploy]\nfolder = '/x'\n")
    loaded = site.load({"KUULO_SITE": str(file)})
    with pytest.raises(CannotRun, match="whisper-cpp: the state of the environment"):
        making.deployment(loaded, versions.of(loaded.centre), "1-1")
    with pytest.raises(UsageError, match="does not say where to deploy"):
        versions.of(site.load({"KUULO_SITE": os.devnull}).centre)
