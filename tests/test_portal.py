"""The portal's app: its form, its files, and sessions of it that are really run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

import recordings
from conftest import WEIRD_NAMES, Kuulo
from kuulo import engines, miniature, options, site
from kuulo.deploy import portal as app
from kuulo.deploy.base import Deployment
from kuulo.deploy.portal import form, request, status
from kuulo.deploy.portal_check import ruby, session
from kuulo.errors import UsageError
from kuulo.llm import tasks
from kuulo.models.manifest import ModelFile, ModelRef
from portal_session import Portal, Session
from test_llm_batch_jobs import standin

SITE = """
name = "Example Centre"
contact = "support@example.org"

[jobs.cpu]
partition = "batch"
cpus = 8

[jobs.gpu]
partition = "gpu"
gres = "gpu:a100"
cpus = 6
extra = { exclude = "node17" }

[portal]
cluster = "mycluster"
languages = ["fi", "sv"]
"""


def loaded(tmp_path: Path, text: str = SITE) -> site.Site:
    """A site's file, read."""
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    return site.load({"KUULO_SITE": str(path)})


def model(name: str, format_: str = "ct2", megabytes: int = 100) -> ModelRef:
    return ModelRef(name, format_, Path("/models") / name, (ModelFile("model.bin", "0" * 64, megabytes << 20),))


def deployment(files: site.Site, *models: ModelRef, names: tuple[str, ...] = ("faster-whisper",)) -> Deployment:
    """A version whose program has an odd path."""
    specs = tuple(engines.spec(name) for name in names)
    return Deployment(files, "1.2", Path("/appl/it's $(x)/kuulo/1.2"), specs, models)


def fields(made: Deployment) -> dict[str, form.Field]:
    return {field.name: field for field in form.fields(made)}


def values_of(field: form.Field) -> list[str]:
    return [value for _, value in field.attributes["options"]]


# ------------------------------------------------------------------ the form


def test_the_form_has_every_option_that_a_person_may_decide(tmp_path: Path) -> None:
    made = fields(
        deployment(loaded(tmp_path), model("medium"), names=("faster-whisper", "pocketsphinx", "resemblyzer"))
    )
    here = {field.option for field in made.values() if field.option}
    elsewhere = {o.name for o in options.OPTIONS if o.group in ("Machine", "Showing")} | {"format", "output"}
    one_choice = {"speaker_engine", "speaker_model"}
    without_a_model = {"then", "then_option"}
    assert {o.name for o in options.OPTIONS} - here == elsewhere | one_choice | without_a_model
    assert [name for name in made if not made[name].more][:4] == [
        "kuulo_files", "kuulo_language", "kuulo_model", "kuulo_speakers",
    ]  # fmt: skip
    assert all(field.more for name, field in made.items() if list(made).index(name) > list(made).index("kuulo_more"))
    assert all(isinstance(field.attributes.get("label"), str) for field in made.values())


def test_only_what_the_site_allows_is_offered(tmp_path: Path) -> None:
    text = 'models = ["small", "medium"]\nengines = ["faster-whisper"]\n' + SITE
    text += 'models = ["medium"]\n[forced]\nlanguage = "fi"\nformat = "docx"\noutput = "/scratch/out"\n'
    text += '[defaults]\nspeakers = "2-4"\n'
    models = (model("large"), model("medium"), model("small"))
    made = fields(deployment(loaded(tmp_path, text), *models, names=("faster-whisper", "whisper-cpp")))
    assert values_of(made["kuulo_model"]) == ["", "medium"]
    assert "kuulo_engine" not in made and "kuulo_language" not in made and "kuulo_output" not in made
    assert not [name for name in made if name.startswith(form.FORMAT)]
    assert made["kuulo_speakers"].attributes["value"] == "2-4"
    assert values_of(made["kuulo_speakers"])[:2] == ["2-4", "none"], "the site's own value can be chosen"


def test_languages_of_the_site_are_on_top_and_speakers_need_an_engine(tmp_path: Path) -> None:
    files = loaded(tmp_path)
    made = fields(deployment(files, model("medium")))
    assert values_of(made["kuulo_language"])[:3] == ["auto", "fi", "sv"]
    assert len(set(values_of(made["kuulo_language"]))) == len(values_of(made["kuulo_language"])) == 101
    assert values_of(made["kuulo_speakers"]) == ["none", "channels"]
    both = fields(deployment(files, model("medium"), names=("faster-whisper", "resemblyzer")))
    assert values_of(both["kuulo_speakers"])[1:3] == ["auto", "1"]


def test_options_that_no_engine_here_honours_are_not_offered(tmp_path: Path) -> None:
    made = fields(deployment(loaded(tmp_path), names=("pocketsphinx",)))
    assert "kuulo_beam_size" not in made and "kuulo_hotwords" not in made and "kuulo_model" not in made
    assert "kuulo_speech_detection" in made


def test_what_a_language_model_makes_afterwards_is_offered_where_there_is_one(tmp_path: Path) -> None:
    names = ("faster-whisper", "llama-cpp")
    models = (model("small"), model("qwen", "gguf", 5000), model("mini", "gguf", 400))
    assert "kuulo_then" not in fields(deployment(loaded(tmp_path), *models, names=names[:1]))
    assert "kuulo_then" not in fields(deployment(loaded(tmp_path), model("small"), names=names))
    made = fields(deployment(loaded(tmp_path), *models, names=names))
    assert [name for name in made if not made[name].more][3:5] == ["kuulo_speakers", "kuulo_then"]
    then = made["kuulo_then"].attributes
    assert values_of(made["kuulo_then"]) == ["", *tasks.TASKS] and then["value"] == ""
    shown = {name: label for label, name in then["options"]}
    assert shown["translation"].endswith("Needs to= under more options.") and "Needs" not in shown["summary"]
    assert made["kuulo_then_option"].more and "of qwen, mini." in made["kuulo_then_option"].attributes["help"]
    assert values_of(made["kuulo_model"]) == ["", "small"], "it does not hear"
    assert "kuulo_temperature" in made and "kuulo_seed" not in made, "speech alone"
    at_a_server = loaded(tmp_path, SITE + '[llm]\nendpoint = "http://h:1/v1"\n')
    assert "kuulo_then" in fields(deployment(at_a_server, names=names[:1]))
    forced = loaded(tmp_path, SITE + '[forced]\nthen = "summary"\n')
    assert "kuulo_then" not in fields(deployment(forced, *models, names=names))


def test_an_app_without_a_cluster_is_refused(tmp_path: Path) -> None:
    files = loaded(tmp_path, '[portal]\ntitle = "x"\n')
    with pytest.raises(UsageError, match="needs a cluster"):
        app.render(deployment(files))


def test_it_is_the_same_again_and_no_text_of_the_site_is_code(tmp_path: Path) -> None:
    text = SITE.replace('"gpu"', "\"g'pu \\\\ %> <% system('x') @@MAIL@@\"")
    text = text.replace("cluster =", 'title = "Käännä \\"it\\": <%= 1 %> &x *y # no"\ncluster =')
    made = deployment(loaded(tmp_path, text), model("medium"))
    files = app.render(made)
    assert files == app.render(made)
    assert all(file.text.isascii() for file in files.values()), "the portal's server may have any locale"
    assert yaml.safe_load(files["manifest.yml"].text)["name"] == 'Käännä "it": <%= 1 %> &x *y # no'
    assert files["template/script.sh"].mode & stat.S_IXUSR
    assert "'/appl/it'\"'\"'s $(x)/kuulo/1.2/bin/kuulo'" in files["template/script.sh"].text


# ------------------------------------------------------------------ what the job asks for


@pytest.fixture
def needs_ruby(needs_program: Callable[[str], str]) -> str:
    return needs_program("ruby")


def write(files: Mapping[str, Any], folder: Path) -> Path:
    for name, file in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        path.chmod(file.mode)
    return folder


def asked(folder: Path, **values: str) -> Any:
    """What `submit.yml.erb` becomes; the error as text when there is one."""
    usual = {"bc_num_hours": "4", "kuulo_email": "", "kuulo_model": "", "kuulo_place": "gpu"}
    (made,) = ruby.render([ruby.Task(folder / "submit.yml.erb", ruby.SUBMIT, usual | values)])
    return made.error if made.text is None else yaml.safe_load(made.text)


@pytest.mark.usefixtures("needs_ruby")
def test_a_job_asks_for_what_its_place_has(tmp_path: Path) -> None:
    made = deployment(loaded(tmp_path), model("large", megabytes=3000), model("small", megabytes=500))
    folder = write(app.render(made), tmp_path / "app")
    script = asked(folder)["script"]
    assert script["queue_name"] == "gpu" and script["wall_time"] == 4 * 3600
    assert {"--gres=gpu:a100:1", "--cpus-per-task=6", "--exclude=node17"} <= {*script["native"]}
    assert "email" not in script
    memory = {name: asked(folder, kuulo_model=name)["script"]["native"][-1] for name in ("", "large", "small", "x")}
    assert memory[""] == memory["large"] == memory["x"] != memory["small"]
    on_cpu = asked(folder, kuulo_place="cpu", kuulo_email=" a.b@example.org ")["script"]
    assert on_cpu["queue_name"] == "batch" and not [n for n in on_cpu["native"] if "gres" in n]
    assert on_cpu["email"] == ["a.b@example.org"] and on_cpu["email_on_terminated"] is True


@pytest.mark.usefixtures("needs_ruby")
def test_memory_is_also_for_what_a_language_model_makes(tmp_path: Path) -> None:
    models = (model("small", megabytes=500), model("mini", "gguf", 400), model("qwen", "gguf", 20000))
    files = loaded(tmp_path, SITE + '[llm]\nmodel = "mini"\n')
    made = deployment(files, *models, names=("faster-whisper", "llama-cpp"))
    folder = write(app.render(made), tmp_path / "app")

    def memory(**values: str) -> int:
        given: str = asked(folder, **values)["script"]["native"][-1]
        return int(given.removeprefix("--mem=").removesuffix("M"))

    usual = memory(kuulo_model="small", kuulo_then="", kuulo_then_option="")
    for_mini = memory(kuulo_model="small", kuulo_then="summary", kuulo_then_option="")
    assert usual < 4000 < for_mini < 6000
    assert memory(kuulo_then="summary", kuulo_then_option="to=fi\r\n model = qwen\r\n") > 20000
    assert memory(kuulo_then="summary", kuulo_then_option="model=$(x)") == for_mini
    assert memory(kuulo_then="", kuulo_then_option="model=qwen") == memory(kuulo_then="", kuulo_then_option="")


@pytest.mark.usefixtures("needs_ruby")
def test_hours_have_a_limit_and_hostile_values_go_nowhere(tmp_path: Path) -> None:
    folder = write(app.render(deployment(loaded(tmp_path, SITE + "hours = 8\n"), model("small"))), tmp_path / "app")
    told = ("1", "99", "-3", "x; y")
    hours = {text: asked(folder, bc_num_hours=text)["script"]["wall_time"] // 3600 for text in told}
    assert hours == {"1": 1, "99": 8, "-3": 1, "x; y": 1}
    odd = 'x"]\n  queue_name: root #'
    assert asked(folder, kuulo_place=odd, kuulo_model=odd)["script"]["queue_name"] == "batch"
    for address in ("$(x)@y", "a@b c", "a@b\n--x", "-x@y", "a@b;c"):
        assert "no e-mail address" in asked(folder, kuulo_email=address), address


@pytest.mark.usefixtures("needs_ruby")
def test_the_site_decides_who_sends_mail_and_who_pays(tmp_path: Path) -> None:
    text = SITE.replace('partition = "batch"', 'partition = "batch"\naccount = "p1"')
    mailing = text.replace("[jobs.cpu]", '[jobs]\nmail = "sendmail"\n[jobs.cpu]')
    folder = write(app.render(deployment(loaded(tmp_path, mailing))), tmp_path / "app")
    script = asked(folder, kuulo_place="cpu", kuulo_email="a@b.org")["script"]
    assert "email" not in script and script["accounting_id"] == "p1"
    other = deployment(loaded(tmp_path, text + 'account = "auto"\n'))
    folder = write(app.render(other), tmp_path / "other")
    assert "accounting_id" not in asked(folder, kuulo_place="cpu")["script"]
    assert "auto_accounts" in yaml.safe_load((folder / "form.yml").read_text())["form"]


# ------------------------------------------------------------------ what was said in the form


def said(tmp_path: Path, text: str = SITE, **values: str) -> request.Request:
    return request.understood({"kuulo_files": "/in/a b.wav", **values}, loaded(tmp_path, text))


def test_values_become_options(tmp_path: Path) -> None:
    made = said(
        tmp_path, kuulo_language="Finnish", kuulo_model="", kuulo_beam_size=" 3 ", kuulo_word_times="yes",
        kuulo_initial_prompt="it's $(x)\r\n\"y\"", kuulo_engine_option="a=1\r\n\r\nb=x y", kuulo_speakers="2-3",
        kuulo_format_docx="1", kuulo_format_txt="0", kuulo_format_whisper_json="1", bc_num_hours="4", kuulo_more="1",
    )  # fmt: skip
    assert made.given == {
        "language": "fi", "beam_size": 3, "word_times": True, "initial_prompt": "it's $(x)\n\"y\"",
        "engine_option": {"a": 1, "b": "x y"}, "speakers": "2-3", "format": ("docx", "whisper-json"),
        "output": "/in/transcripts",
    }  # fmt: skip
    assert said(tmp_path, kuulo_format_txt="0").given["format"] == ("json",), "no box: the master copy alone"
    assert said(tmp_path, kuulo_files=str(tmp_path)).given["output"] == str(tmp_path / "transcripts")
    assert said(tmp_path, kuulo_output="/out/ä").given["output"] == "/out/ä"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"kuulo_files": ""}, "Recording, or folder of recordings: nothing was chosen"),
        ({"kuulo_files": "a.wav"}, "'a.wav' is not a whole path"),
        ({"kuulo_output": "-x"}, "Folder for the results: '-x' is not a whole path"),
        ({"kuulo_beam_size": "500"}, "Beam size: 500 is more than 100"),
        ({"kuulo_existing": "$(x)"}, "Results that are there already: '$(x)' is none of"),
        ({"kuulo_model": "/home/me/model"}, "Model: '/home/me/model' is not offered here"),
        ({"kuulo_model": "large"}, "Model: 'large' is not offered here"),
        ({"kuulo_engine": "whisper-cpp"}, "Engine: 'whisper-cpp' is not offered here"),
        ({"kuulo_email": "a@b; x"}, "is no e-mail address"),
        ({"kuulo_device": "cpu"}, "the form has no field 'kuulo_device'"),
        ({"kuulo_output_": "x"}, "the form has no field 'kuulo_output_'"),
        ({"language": "fi"}, "the form has no field 'language'"),
        ({"kuulo_engine_option": "x"}, "Other options of the engine: 'x' is not KEY=VALUE"),
        ({"kuulo_then": "rhyme"}, "there is no task 'rhyme'"),
        ({"kuulo_then": "translation"}, "Afterwards, a language model makes: translation needs to: The language"),
        (
            {"kuulo_then_option": "endpoint=http://x"},
            "Options of what is made afterwards: endpoint is not for the form",
        ),
        ({"kuulo_then_option": "key_file=/x"}, "key_file is not for the form"),
        ({"kuulo_then_option": "model=/home/me/m.gguf"}, "the model '/home/me/m.gguf' is not offered here"),
        ({"kuulo_then_option": "model=large"}, "the model 'large' is not offered here"),
    ],
)
def test_values_are_checked_as_if_they_were_typed(tmp_path: Path, values: dict[str, str], why: str) -> None:
    text = 'models = ["small"]\nengines = ["faster-whisper"]\n' + SITE
    with pytest.raises(UsageError) as caught:
        said(tmp_path, text, **values)
    assert why in caught.value.what


NO_REQUESTS = ("", "[]", "{}", '{"schema": 2, "values": {}}', '{"schema": 1, "values": {"x": 1}}')


@pytest.mark.parametrize("content", NO_REQUESTS)
def test_a_request_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "request.json").write_text(content)
    with pytest.raises(UsageError):
        request.read(tmp_path / "request.json", loaded(tmp_path))


def test_of_many_recordings_the_card_has_the_telling_ones() -> None:
    rows = [{"name": str(n), "state": "done"} for n in range(500)]
    rows += [{"name": "bad", "state": "failed"}, {"name": "now", "state": "in work"}]
    counted = status.counted(rows)
    assert counted["total"] == 502 and counted["counts"] == {"failed": 1, "in work": 1, "done": 500}
    assert len(counted["files"]) == status.SHOWN and [r["name"] for r in counted["files"][-2:]] == ["bad", "now"]


# ------------------------------------------------------------------ sessions


@pytest.fixture
def portal(tmp_path: Path, kuulo: Kuulo, kuulo_command: list[str], kuulo_environment: dict[str, str]) -> Portal:
    """The app of a small site, written by the command line, and a place for its sessions."""
    if shutil.which("ruby") is None:
        pytest.skip("needs the program ruby, which is not installed here")
    bin_ = tmp_path / "version" / "bin"
    bin_.mkdir(parents=True)
    site_file = tmp_path / "site.toml"
    site_file.write_text(SITE.split("[jobs.gpu]")[0] + '[jobs]\nmail = "sendmail"\n[portal]\ncluster = "c"\n')
    command = " ".join(f"'{part}'" for part in kuulo_command)
    (bin_ / "kuulo").write_text(f'#!/bin/bash\nexport KUULO_SITE={site_file}\nexec {command} "$@"\n')
    (bin_ / "kuulo").chmod(0o755)
    made = dataclasses.replace(
        deployment(site.load({"KUULO_SITE": str(site_file)}), names=("faster-whisper", "pocketsphinx")),
        folder=tmp_path / "version",
    )
    folder = write(app.render(made), tmp_path / "app")
    (tmp_path / "in").mkdir()
    return Portal(folder, tmp_path / "sessions", kuulo_environment)


def fill(tmp_path: Path, *names: str, seconds: float = 45) -> None:
    for name in names:
        recordings.wav(tmp_path / "in" / name, recordings.tone(seconds, rate=8000) * 0, 8000)


class _Reader(HTMLParser):
    """What a page says, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name == "href"]


def seen(html: str) -> tuple[str, list[str]]:
    """A card's text and links; nothing in it is HTML but what the app has."""
    reader = _Reader()
    reader.feed(html)
    assert reader.tags <= {"a", "br", "div", "p", "small", "span", "strong", "table", "td", "th", "tr"}, reader.tags
    return " ".join(" ".join(reader.words).split()), reader.links


def until(what: Callable[[], Any], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def state_of(session: Session) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return session.status()
    return {}


def test_a_folder_with_odd_names_is_done_and_the_card_says_so(portal: Portal, tmp_path: Path) -> None:
    folder = tmp_path / "in" / WEIRD_NAMES["semicolon"]
    folder.mkdir()
    for name in (*WEIRD_NAMES.values(), "<b>&amp;*_x_*[l](http://x)"):
        with contextlib.suppress(OSError):
            shutil.copy(miniature.CLIP, folder / f"{name}.flac")
    number = len(list(folder.iterdir()))
    opened = portal.opened(
        kuulo_files=str(folder), kuulo_engine="faster-whisper", kuulo_engine_option="", kuulo_language="en",
        kuulo_initial_prompt=f"it's $(touch {tmp_path}/owned)\n\"x\"", kuulo_format_docx="1", kuulo_format_srt="0",
        kuulo_hotwords=f"`touch {tmp_path}/owned`",
    )  # fmt: skip
    os.environ.pop("KUULO_MODEL", None)
    portal.environment = {**portal.environment, "KUULO_MODEL": "miniature"}
    assert seen(opened.view("info", "queued"))[0].startswith("The transcription has not begun yet.")
    assert opened.run() == 0, opened.log()
    said = opened.status()
    assert said["state"] == "done" and said["counts"] == {"done": number} and said["total"] == number
    assert len(list((folder / "transcripts").glob("*.docx"))) == number
    assert not list((folder / "transcripts").glob("*.srt"))
    for extension in (".txt", ".docx", ".json"):
        assert len([r for f in said["files"] for r in f["results"] if r["name"].endswith(extension)]) == number
    assert not (tmp_path / "owned").exists() and not list(tmp_path.rglob("owned"))
    text, links = seen(opened.view("info", "completed"))
    assert f"{number} of {number} recordings finished" in text and "<b>&amp;*_x_*[l](http: x).flac" not in text
    assert 'it\'s "quoted" `here`.flac' in text and "first line\\nsecond line.flac" in text
    from urllib.parse import unquote_to_bytes

    prefix = "/pun/sys/dashboard/files/fs"
    paths = [os.fsdecode(unquote_to_bytes(link.removeprefix(prefix))) for link in links]
    assert all(link.startswith(prefix + "/") for link in links)
    assert {str(p) for p in (folder / "transcripts").iterdir() if p.suffix in (".txt", ".docx")} <= {*paths}
    assert str(folder / "transcripts") in paths
    log = str(opened.folder / "output.log")
    assert log in paths and "good coffee" not in opened.log(), "no word of a transcript in the log"
    assert seen(opened.view("completed", "completed"))[0] == f"Done All {number} recordings have their transcripts."


def test_the_card_tells_while_it_runs_and_when_it_is_told_to_stop(portal: Portal, tmp_path: Path) -> None:
    fill(tmp_path, "short.wav", seconds=60)
    fill(tmp_path, "long.wav", seconds=50)
    fill(tmp_path, "tiny.wav", seconds=1)
    values = {"kuulo_files": str(tmp_path / "in"), "kuulo_engine": "null", "kuulo_engine_option": "wait_ms=3000"}
    slow = portal.opened(**values)
    (tmp_path / "in" / "broken.wav").write_bytes(b"no sound")
    portal.environment = {**portal.environment, "KUULO_WORKERS": "1"}
    process = slow.begin()
    until(lambda: state_of(slow).get("counts", {}).get("done", 0) >= 1)
    text, _ = seen(slow.view("info", "running"))
    assert "of 4 recordings finished, 1 failed" in text and "% heard" in text and "null" in text
    assert "failed broken.wav" in text
    assert "in work" in text or "waiting" in text
    assert "progress-bar" in slow.view("info", "running")
    os.kill(process.pid, signal.SIGUSR1)  # as the scheduler does near the end: the job's shell alone
    assert process.wait(60) != 0
    said = slow.status()
    assert said["state"] == "stopped"
    text, _ = seen(slow.view("completed", "completed"))
    assert text.startswith("Stopped before the end") and "goes on where this job was" in text
    assert "not finished" in seen(slow.view("info", "completed"))[0]
    again = portal.opened("s2", **values)
    assert again.run() == 1, "one is broken"
    assert again.status()["counts"]["skipped"] >= 1


def mailing(portal: Portal, tmp_path: Path) -> Path:
    """Where the mails of the portal's jobs go."""
    sent = tmp_path / "sent"
    (tmp_path / "mailer").mkdir()
    (tmp_path / "mailer" / "sendmail").write_text(f"#!/bin/sh\ncat > {sent}\n")
    (tmp_path / "mailer" / "sendmail").chmod(0o755)
    path = f"{tmp_path / 'mailer'}:{portal.environment['PATH']}"
    portal.environment = {**portal.environment, "PATH": path}
    return sent


def test_when_some_fail_the_job_fails_and_the_card_says_which(portal: Portal, tmp_path: Path) -> None:
    fill(tmp_path, "good.wav", seconds=1)
    (tmp_path / "in" / "bad.wav").write_bytes(b"no sound")
    sent = mailing(portal, tmp_path)
    opened = portal.opened(kuulo_files=str(tmp_path / "in"), kuulo_engine="null", kuulo_email="me@example.org")
    assert opened.run() == 1
    text, _ = seen(opened.view("completed", "completed"))
    assert text.startswith("Not all was done 1 of 2 recordings failed, 1 have their transcripts.")
    assert "it is not audio" in seen(opened.view("info", "completed"))[0]
    mail = sent.read_text()
    assert "To: me@example.org" in mail and "Subject: Kuulo: some recordings failed" in mail
    assert "1 failed, 1 done" in mail and "wav" not in mail


@pytest.fixture
def asking(portal: Portal, tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Portal]]:
    """The portal of a site that has a server for language models, which runs as long: a stand-in with these flags."""

    @contextlib.contextmanager
    def started(*words: str) -> Iterator[Portal]:
        (tmp_path / "answers.json").write_text(json.dumps({"Summarise": "Something is said [00:00:00]."}))
        with standin(tmp_path / "standin", "--answers", str(tmp_path / "answers.json"), *words) as (url, _):
            site_file = tmp_path / "site.toml"
            site_file.write_text(f'{site_file.read_text()}[llm]\nendpoint = "{url}"\n')
            files = site.load({"KUULO_SITE": str(site_file)})
            made = deployment(files, names=("faster-whisper", "pocketsphinx"))
            write(app.render(dataclasses.replace(made, folder=tmp_path / "version")), portal.app)
            yield portal

    return started


def test_transcripts_are_summed_up_afterwards_and_the_card_says_so(asking: Any, tmp_path: Path) -> None:
    fill(tmp_path, "a b.wav", "$(c).wav", seconds=1)
    values = {"kuulo_files": str(tmp_path / "in"), "kuulo_engine": "null", "kuulo_email": "me@example.org"}
    with asking() as portal:
        sent = mailing(portal, tmp_path)
        opened = portal.opened(**values, kuulo_then="summary", kuulo_then_option="length=20\r\n")
        assert opened.run() == 0, opened.log()
    said = opened.status()
    assert said["state"] == "done" and said["then"]["counts"] == {"done": 2}
    assert sorted(path.name for path in (tmp_path / "in" / "transcripts").glob("*.summary.md")) == [
        "$(c).summary.md", "a b.summary.md",
    ]  # fmt: skip
    text, links = seen(opened.view("info", "completed"))
    assert "2 of 2 made afterwards by a language model (summary)" in text and "done a b: summary" in text
    assert any(link.endswith("/a%20b.summary.md") for link in links)
    assert seen(opened.view("completed", "completed"))[0] == (
        "Done All 2 recordings have their transcripts. summary: 2 of 2 made."
    )
    assert "2 done; summary: 2 done." in sent.read_text()
    assert "Something is said" not in opened.log() + json.dumps(said), "no word of a result"


def test_a_language_model_that_is_gone_leaves_the_transcripts_and_the_card_says_so(asking: Any, tmp_path: Path) -> None:
    fill(tmp_path, "a.wav", "b.wav", seconds=1)
    with asking("--dies-after", "1") as portal:
        opened = portal.opened(kuulo_files=str(tmp_path / "in"), kuulo_engine="null", kuulo_then="summary")
        assert opened.run() == 1
    said = opened.status()
    assert said["state"] == "failed" and said["counts"] == {"done": 2}
    assert said["then"]["counts"]["failed"] >= 1
    text, _ = seen(opened.view("completed", "completed"))
    assert text.startswith("Not all was done All 2 recordings have their transcripts. summary: ")
    assert "failed. Why is said beside each." in text


def test_a_job_that_is_told_to_stop_while_a_language_model_works_goes_on_there(asking: Any, tmp_path: Path) -> None:
    fill(tmp_path, "a.wav", "b.wav", seconds=1)
    values = {"kuulo_files": str(tmp_path / "in"), "kuulo_engine": "null", "kuulo_then": "summary"}
    with asking("--slow", "4") as portal:
        slow = portal.opened(**values)
        process = slow.begin()
        until(lambda: "then" in state_of(slow))
        text, _ = seen(slow.view("info", "running"))
        assert "of 2 made afterwards by a language model" in text
        os.kill(process.pid, signal.SIGUSR1)
        assert process.wait(60) != 0
        assert slow.status()["state"] == "stopped" and slow.status()["counts"] == {"done": 2}
        text, _ = seen(slow.view("completed", "completed"))
        assert text.startswith("Stopped before the end 2 of 2 recordings have their transcripts. summary: ")
        again = portal.opened("s2", **values)
        assert again.run() == 0, again.log()
    assert again.status()["counts"] == {"skipped": 2}


def test_a_job_that_is_killed_is_not_called_done(portal: Portal, tmp_path: Path) -> None:
    fill(tmp_path, "a.wav", "b.wav", seconds=60)
    opened = portal.opened(
        kuulo_files=str(tmp_path / "in"), kuulo_engine="null", kuulo_engine_option="wait_ms=5000"
    )  # fmt: skip
    process = opened.begin()
    until(lambda: state_of(opened).get("state") == "running")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert opened.status()["state"] == "running"
    text, _ = seen(opened.view("completed", "completed"))
    assert text.startswith("Ended before it was done 0 of 2 recordings") and "was killed" in text
    old, _ = seen(opened.view("info", "completed", newest=False))
    assert old.startswith("Ended before it was done") and "not finished" in old and "% heard" not in old
    until(lambda: not _alive(tmp_path))


def _alive(tmp_path: Path) -> list[int]:
    """Processes that stand in this test's folders: Kuulo's workers end with it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"HOME={tmp_path}/".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kuulo_files": "/nowhere/x"}, "Not all was done 1 of 1 recordings failed"),
        ({"kuulo_files": "/etc/passwd", "kuulo_output": "/proc/out"}, "Nothing was done the output folder cannot be"),
        ({"kuulo_beam_size": "many"}, "Nothing was done Beam size: 'many' is not a number"),
        ({"kuulo_engine": "x"}, "Nothing was done"),
    ],
    ids=["missing", "output", "value", "engine"],
)
def test_what_cannot_be_done_says_why(portal: Portal, tmp_path: Path, values: dict[str, str], words: str) -> None:
    fill(tmp_path, "a.wav", seconds=1)
    opened = portal.opened(**{"kuulo_files": str(tmp_path / "in"), "kuulo_engine": "null", **values})
    assert opened.run() != 0
    assert words in seen(opened.view("completed", "completed"))[0]
    assert opened.log(), "the log says it too"


def test_a_job_whose_program_is_gone_is_not_called_done(portal: Portal, tmp_path: Path) -> None:
    opened = portal.opened(kuulo_files=str(tmp_path / "in"))
    (tmp_path / "version" / "bin" / "kuulo").unlink()
    assert opened.run() != 0
    assert seen(opened.view("completed", "completed"))[0].startswith("Nothing was done The job ended before Kuulo")
    (opened.folder / "status.json").write_text("[1")
    assert "Nothing was done" in opened.view("completed", "completed")


def test_the_card_says_when_the_gpu_is_not_used(portal: Portal, tmp_path: Path) -> None:
    fill(tmp_path, "a.wav", seconds=1)
    opened = portal.opened(kuulo_files=str(tmp_path / "in"), kuulo_engine="null")
    said = json.loads((opened.folder / "request.json").read_bytes())
    said["values"]["kuulo_place"] = "gpu"
    (opened.folder / "request.json").write_text(json.dumps(said))
    assert opened.run() == 0, opened.log()
    assert "and yet the processor does the work" in seen(opened.view("info", "completed"))[0]
    assert "and yet the processor does the work" in opened.log()


def test_a_form_of_another_version_is_understood(portal: Portal, tmp_path: Path) -> None:
    """The portal keeps a form for hours, while the app's other files are those of today."""
    values = {"kuulo_files": str(tmp_path / "in"), "kuulo_gone": "x", "kuulo_speakers": "auto"}
    (made,) = session.staged(portal.app, [(tmp_path / "s", values)])
    assert made.rendered["request.json.erb"].text is not None, made.rendered
    said = json.loads((tmp_path / "s" / "request.json").read_bytes())
    assert said == {"schema": 1, "values": {"kuulo_files": str(tmp_path / "in"), "kuulo_speakers": "auto"}}
    (asked,) = ruby.render([ruby.Task(portal.app / "submit.yml.erb", ruby.SUBMIT, values)])
    assert asked.text is not None, asked.error


def test_the_command_line_writes_the_app_and_finds_nothing_wrong_in_it(
    kuulo: Kuulo, tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    needs_program("ruby")
    (tmp_path / "site.toml").write_text(SITE)
    told = {"KUULO_SITE": str(tmp_path / "site.toml")}
    done = kuulo("portal", "render", "-o", "an app", env=told)
    assert done.returncode == 0, done.stderr
    assert "an app/form.yml" in done.stdout
    assert os.access(tmp_path / "an app" / "template" / "script.sh", os.X_OK)
    checked = kuulo("portal", "check", "an app", "--json")
    assert json.loads(checked.stdout) == {"schema": 1, "findings": [], "notes": []} and checked.returncode == 0
    if shutil.which("shellcheck"):
        scripts = sorted((tmp_path / "an app" / "template").glob("*.sh"))
        linted = subprocess.run(["shellcheck", "-s", "bash", *scripts], capture_output=True, text=True, check=False)
        assert linted.returncode == 0, linted.stdout


def test_the_markdown_of_the_portal_leaves_the_card_as_it_is(portal: Portal, tmp_path: Path) -> None:
    """The portal sends each view through Redcarpet; skipped where Ruby does not have it."""
    has = subprocess.run(["ruby", "-e", "require 'redcarpet'"], capture_output=True, check=False)
    if has.returncode:
        pytest.skip("needs Ruby's redcarpet")
    shutil.copy(miniature.CLIP, tmp_path / "in" / "*a* _b_ [c](d) `e` www.x.org.flac")
    opened = portal.opened(kuulo_files=str(tmp_path / "in"), kuulo_engine="null")
    assert opened.run() == 0, opened.log()
    code = """require "redcarpet"; print Redcarpet::Markdown.new(Redcarpet::Render::HTML, autolink: true, tables: true,
      strikethrough: true, fenced_code_blocks: true, no_intra_emphasis: true).render($stdin.read)"""
    for name in ("info", "completed"):
        before = opened.view(name, "completed")
        after = subprocess.run(["ruby", "-e", code], input=before, capture_output=True, text=True, check=True).stdout
        assert seen(after) == seen(before)
