"""Pulling from a loopback hub: whole, cut and resumed, false, forbidden, not there, no space; nothing left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

import gguf_file
import hub
import pipelines
import tiny
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import catalog, check, files
from kuulo.models.manifest import ModelRef, Repository
from kuulo.models.pull import pull
from kuulo.models.store import Store
from kuulo.models.stores import Stores

REPO = "Systran/faster-whisper-small"
Pull = Callable[..., ModelRef]


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """conftest.py sets huggingface_hub offline; here it may reach loopback."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def content(tmp_path: Path) -> dict[str, bytes]:
    folder = tiny.make("ct2", tmp_path / "served")
    return {f.name: f.read_bytes() for f in folder.iterdir()} | {"README.md": b"no", ".gitattributes": b"no"}


@pytest.fixture
def served(content: dict[str, bytes]) -> Iterator[hub.Hub]:
    with hub.Hub({REPO: content}) as running:
        yield running


@pytest.fixture
def mine(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def pulling(served: hub.Hub, mine: Store, monkeypatch: pytest.MonkeyPatch) -> Pull:
    """`pull` from the loopback hub, whose commit takes the place of the catalogue's."""
    entries = dict(catalog.load())
    small = entries["small"]
    source = dataclasses.replace(small.sources["ct2"], revision=hub.COMMIT)
    entries["small"] = dataclasses.replace(small, sources={**small.sources, "ct2": source})
    monkeypatch.setattr(catalog, "load", lambda: entries)

    def call(name: str = "small", format_: str | None = None, **more: Any) -> ModelRef:
        environ = {"HF_ENDPOINT": served.url, "KUULO_OPENAI_URL": served.url, **more.pop("environ", {})}
        return pull(name, mine, format_, environ=environ, retries=more.pop("retries", 0), **more)

    return call


def test_a_model_comes_whole_with_its_manifest_and_leaves_nothing_else(
    pulling: Pull, mine: Store, content: dict[str, bytes], served: hub.Hub
) -> None:
    steps: list[Any] = []
    ref = pulling(progress=steps.append)
    assert {f.path for f in ref.files} == {"model.bin", "config.json", "tokenizer.json", "vocabulary.json"}
    for file in ref.files:
        assert (ref.folder / file.path).read_bytes() == content[file.path]
        assert file.sha256 == hashlib.sha256(content[file.path]).hexdigest()
    assert (ref.repo, ref.revision, ref.licence, ref.name) == (REPO, hub.COMMIT, "apache-2.0", "small")
    told = json.loads((ref.folder / "kuulo-model.json").read_text())
    assert told["revision"] == hub.COMMIT and told["digest"] == ref.digest and told["source"].endswith(REPO)
    assert steps[-1].done == steps[-1].total == ref.bytes
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert Stores((mine,)).resolve("small", ("ct2",)) == ref
    assert sorted(p.name for p in mine.folder.iterdir()) == [".staging", "ct2"]
    assert list((mine.folder / ".staging").iterdir()) == []
    assert sorted(p.name for p in ref.folder.iterdir()) == sorted([*(f.path for f in ref.files), "kuulo-model.json"])
    assert all(hub.COMMIT in path for _, path, _, _ in served.log)
    with pytest.raises(UsageError, match="already has"):
        pulling()


def test_a_cut_pull_goes_on_with_the_next(pulling: Pull, mine: Store, served: hub.Hub) -> None:
    served.cut("model.bin", 20_000)
    with pytest.raises(ModelMissing, match="20,000 bytes of"):
        pulling()
    assert Stores((mine,)).list() == []
    served.cut("model.bin", 10_000)
    with pytest.raises(ModelMissing, match="30,000 bytes of"):
        pulling()
    ref = pulling()
    assert served.ranges_of("model.bin") == [None, "bytes=20000-", "bytes=30000-"]
    assert served.ranges_of("config.json") == [None], "what was complete is not fetched again"
    assert {s.state for s in files.verify(ref)} == {"ok"}
    assert list((mine.folder / ".staging").iterdir()) == []


def test_a_short_cut_is_mended_within_one_pull(pulling: Pull, served: hub.Hub) -> None:
    served.cut("model.bin", 20_000)
    assert {s.state for s in files.verify(pulling(retries=1))} == {"ok"}
    assert served.ranges_of("model.bin") == [None, "bytes=20000-"]


def test_a_server_without_ranges_sends_all_again(pulling: Pull, served: hub.Hub) -> None:
    served.ranges = False
    served.cut("model.bin", 20_000)
    with pytest.raises(ModelMissing):
        pulling()
    assert {s.state for s in files.verify(pulling())} == {"ok"}


def test_an_interrupt_keeps_what_came(pulling: Pull, mine: Store, served: hub.Hub) -> None:
    def stop(step: Any) -> None:
        if step.file == "model.bin":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pulling(progress=stop)
    assert Stores((mine,)).list() == []
    (kept,) = (mine.folder / ".staging").iterdir()
    assert (kept / "model.bin.part").exists()
    assert pulling().name == "small"


@pytest.mark.parametrize("name", ["model.bin", "config.json"])
@pytest.mark.parametrize("change", ["other", "longer"])
def test_a_false_file_is_refused_and_nothing_installed(
    name: str, change: str, pulling: Pull, mine: Store, content: dict[str, bytes], served: hub.Hub
) -> None:
    true = content[name]
    served.lies[name] = bytes([true[0] ^ 1]) + true[1:] if change == "other" else true + b"x"
    with pytest.raises(ModelMissing, match=f"{name} is not the file that it should be"):
        pulling()
    assert Stores((mine,)).list() == [] and not (mine.folder / "ct2").exists()
    del served.lies[name]
    assert {s.state for s in files.verify(pulling())} == {"ok"}


def test_a_repository_without_a_needed_file_is_refused(pulling: Pull, mine: Store, content: dict[str, bytes]) -> None:
    del content["tokenizer.json"]
    with pytest.raises(ModelMissing, match=r"tokenizer\.json is missing"):
        pulling()
    assert Stores((mine,)).list() == []


def test_a_gated_model_says_which_page_and_takes_a_token_that_nobody_sees(pulling: Pull, served: hub.Hub) -> None:
    served.token = "hf_secret"
    with pytest.raises(ModelMissing) as caught:
        pulling()
    assert f"{served.url}/{REPO}" in str(caught.value) and "HF_TOKEN" in str(caught.value)
    with pytest.raises(ModelMissing, match="with a token") as caught:
        pulling(environ={"HF_TOKEN": "hf_wrong"})
    assert "hf_wrong" not in str(caught.value)
    ref = pulling(environ={"HF_TOKEN": "hf_secret"})
    assert ref.gated and "hf_secret" not in (ref.folder / "kuulo-model.json").read_text()


def test_the_token_stays_with_the_hub_when_files_are_elsewhere(
    pulling: Pull, served: hub.Hub, content: dict[str, bytes]
) -> None:
    served.token = "hf_secret"
    with hub.Hub({}, content) as elsewhere:
        served.redirect_to = elsewhere.url.replace("127.0.0.1", "localhost")
        assert pulling(environ={"HF_TOKEN": "hf_secret"}).gated
        assert len(elsewhere.log) == 4 and all(auth is None for _, _, _, auth in elsewhere.log)


def test_what_is_not_there_is_said(pulling: Pull) -> None:
    with pytest.raises(ModelMissing, match="no such repository"):
        pulling("Nobody/nothing", "ct2")
    with pytest.raises(ModelMissing, match="no such repository"):
        pulling(revision="nonsense")
    with pytest.raises(UsageError, match="did you mean small"):
        pulling("smal")
    with pytest.raises(UsageError, match="has distil-large-v2 not as pt"):
        pulling("distil-large-v2", "pt")


def test_a_server_that_is_down_or_ill(pulling: Pull, served: hub.Hub) -> None:
    with pytest.raises(ModelMissing, match="cannot be reached"):
        pulling(environ={"HF_ENDPOINT": "http://127.0.0.1:9"})
    served.broken = 1
    with pytest.raises(ModelMissing, match="answered 500"):
        pulling()
    assert pulling().name == "small"


def test_offline_is_said_as_such(pulling: Pull, served: hub.Hub) -> None:
    with pytest.raises(ModelMissing, match="HF_HUB_OFFLINE=1"):
        pulling(environ={"HF_HUB_OFFLINE": "1"})
    assert served.log == []


def test_without_a_pinned_revision_the_current_one_is_taken_said_and_recorded(pulling: Pull) -> None:
    said: list[str] = []
    ref = pulling(REPO, "ct2", rename="mine", notice=said.append)
    assert ref.revision == hub.COMMIT and ref.name == "mine" and REPO in said[0]


def test_another_revision_may_be_asked_for(pulling: Pull, served: hub.Hub) -> None:
    assert pulling(revision="v1").revision == hub.COMMIT
    assert any("/revision/v1" in path for _, path, _, _ in served.log)


def test_a_full_disk_is_seen_before(pulling: Pull, mine: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=9, free=1))
    with pytest.raises(ModelMissing, match="too full"):
        pulling()
    assert Stores((mine,)).list() == []


def test_openais_file_comes_with_its_digest_resumes_and_is_refused_when_false(
    mine: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.make("pt", tmp_path / "small").read_bytes()
    entries = dict(catalog.load())
    sha256 = hashlib.sha256(data).hexdigest()
    source = catalog.Source("pt", path=f"{sha256}/small.pt", sha256=sha256)
    entries["small"] = dataclasses.replace(entries["small"], sources={"pt": source})
    monkeypatch.setattr(catalog, "load", lambda: entries)
    with hub.Hub({}, {f"{sha256}/small.pt": data}) as served:
        environ = {"KUULO_OPENAI_URL": served.url, "HF_TOKEN": "hf_secret"}
        served.cut("small.pt", 500)
        with pytest.raises(ModelMissing, match="500 bytes"):
            pull("small", mine, environ=environ, retries=0)
        served.lies["small.pt"] = bytes(len(data))
        with pytest.raises(ModelMissing, match=f"sha256 .*, not {sha256}"):
            pull("small", mine, environ=environ, retries=0)
        del served.lies["small.pt"]
        ref = pull("small", mine, environ=environ, retries=0)
        assert ref.path.read_bytes() == data and ref.licence == "MIT" and ref.source and served.url in ref.source
        assert served.ranges_of("small.pt") == [None, "bytes=500-", None]
        assert all(auth is None for *_, auth in served.log)


def test_a_ggml_file_is_held_to_whisper_cpps_sha1(mine: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.make("ggml", tmp_path / "ggml-small").read_bytes()
    entries = dict(catalog.load())
    for sha1 in ("0" * 40, hashlib.sha1(data).hexdigest()):
        source = catalog.Source("ggml", "ggerganov/whisper.cpp", hub.COMMIT, file="ggml-small.bin", sha1=sha1)
        entries["small"] = dataclasses.replace(entries["small"], sources={"ggml": source})
        monkeypatch.setattr(catalog, "load", lambda: entries)
        with hub.Hub({"ggerganov/whisper.cpp": {"ggml-small.bin": data, "ggml-tiny.bin": b"no"}}) as served:
            environ = {"HF_ENDPOINT": served.url}
            if sha1 == "0" * 40:
                with pytest.raises(ModelMissing, match="sha1"):
                    pull("small", mine, environ=environ, retries=0)
            else:
                assert pull("small", mine, environ=environ, retries=0).path.name == "ggml-small.bin"


def _command(*arguments: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    source = Path(catalog.__file__).parents[2]
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_", "KUULO_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", "from kuulo.cli.models import models; models()", *arguments],
        env={**keep, "HOME": str(home), "PYTHONPATH": str(source), **environ},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_line_leaves_the_home_empty(served: hub.Hub, tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "store"
    home.mkdir()
    environ = {"KUULO_STORE": str(folder), "HF_ENDPOINT": served.url, "HF_TOKEN": "hf_secret"}
    done = _command("pull", REPO, "--format", "ct2", "--name", "small", home=home, **environ)
    assert done.returncode == 0, done.stderr
    assert "small (ct2" in done.stdout and "hf_secret" not in done.stdout + done.stderr
    done = _command("list", "--json", home=home, **environ)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert [(m["name"], m["format"], m["revision"]) for m in listed["models"]] == [("small", "ct2", hub.COMMIT)]
    assert "faster-whisper" in listed["models"][0]["engines"]
    assert _command("verify", home=home, **environ).stdout == "small (ct2): ok\n"
    where = _command("path", "small", home=home, **environ).stdout.strip()
    assert where == str(folder / "ct2" / "small")
    assert "small" in _command("list", home=home, **environ).stdout
    assert "large-v3-turbo" in _command("list", "--catalog", home=home, **environ).stdout
    assert _command("remove", "small", "--yes", home=home, **environ).returncode == 0
    assert not Path(where).exists() and list(home.iterdir()) == []


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
from pathlib import Path
from kuulo.errors import ModelMissing
from kuulo.models.pull import pull
from kuulo.models.store import Store
try:
    pull(sys.argv[1], Store(Path(sys.argv[2])), "ct2", retries=0)
except ModelMissing as error:
    print(error)
"""


def test_a_disk_that_fills_up_meanwhile_is_said(served: hub.Hub, tmp_path: Path) -> None:
    environ = {**os.environ, "HF_ENDPOINT": served.url, "PYTHONPATH": str(Path(catalog.__file__).parents[2])}
    environ = {k: v for k, v in environ.items() if not k.endswith("_OFFLINE")}
    command = [sys.executable, "-c", LIMITED, REPO, str(tmp_path / "store")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "model.bin cannot be written" in done.stdout and "free some space" in done.stdout, done.stderr


def test_what_a_killed_pull_left_is_taken_over_and_a_living_ones_is_not(
    pulling: Pull, mine: Store, served: hub.Hub
) -> None:
    import socket

    served.cut("model.bin", 20_000)
    with pytest.raises(ModelMissing):
        pulling()
    (left,) = (mine.folder / ".staging").iterdir()
    busy = left.rename(left.with_name(f"{left.name}@{os.getppid()}@{socket.gethostname()}"))
    with pytest.raises(ModelMissing, match=f"being pulled by process {os.getppid()}"):
        pulling()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    busy.rename(left.with_name(f"{left.name}@{gone.pid}@{socket.gethostname()}"))
    pulling()
    assert served.ranges_of("model.bin") == [None, "bytes=20000-"]
    assert list((mine.folder / ".staging").iterdir()) == []


# Speaker pipelines

PIPELINE, SEGMENTATION, EMBEDDING, COMMUNITY = (
    "pyannote/speaker-diarization-3.1", "pyannote/segmentation-3.0", "pyannote/wespeaker-voxceleb-resnet34-LM",
    "pyannote/speaker-diarization-community-1",
)  # fmt: skip
ONNX = ("csukuangfj/sherpa-onnx-pyannote-segmentation-3-0", "csukuangfj/speaker-embedding-models")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, with sub-folders."""
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def speakers(tmp_path: Path) -> Iterator[hub.Hub]:
    """All repositories of the catalogue's speaker pipelines."""
    community = contents(pipelines.pyannote(tmp_path / "community"))
    third = contents(pipelines.pyannote(tmp_path / "third", pipelines.VERSION_3))
    onnx = contents(pipelines.speakers_onnx(tmp_path / "onnx"))
    repos = {
        COMMUNITY: {**community, "README.md": b"no", "diarization.gif": b"no", "segmentation/README.md": b"no"},
        PIPELINE: {"config.yaml": third["config.yaml"], "handler.py": b"no"},
        SEGMENTATION: {"pytorch_model.bin": third["segmentation/pytorch_model.bin"], "config.yaml": b"no"},
        EMBEDDING: {"pytorch_model.bin": third["embedding/pytorch_model.bin"], "config.yaml": b"no"},
        ONNX[0]: {"model.onnx": onnx["segmentation.onnx"], "model.int8.onnx": b"no"},
        ONNX[1]: {
            "wespeaker_en_voxceleb_resnet34_LM.onnx": onnx["embedding.onnx"],
            "nemo_en_titanet_small.onnx": b"no",
        },
    }
    with hub.Hub(repos) as running:
        yield running


@pytest.fixture
def pull_speakers(speakers: hub.Hub, mine: Store, monkeypatch: pytest.MonkeyPatch) -> Pull:
    """`pull` of the catalogue's speaker pipelines from the loopback hub, with its commit and without true digests."""

    def here(source: catalog.Source) -> catalog.Source:
        take = {name: dataclasses.replace(file, sha256=None) for name, file in source.take.items()}
        return dataclasses.replace(source, revision=hub.COMMIT, take=take, parts=tuple(here(p) for p in source.parts))

    entries = {
        name: dataclasses.replace(entry, sources={f: here(s) for f, s in entry.sources.items()})
        for name, entry in catalog.load().items()
    }
    monkeypatch.setattr(catalog, "load", lambda: entries)

    def call(name: str, format_: str | None = None, **more: Any) -> ModelRef:
        environ = {"HF_ENDPOINT": speakers.url, **more.pop("environ", {})}
        return pull(name, mine, format_, environ=environ, retries=0, **more)

    return call


def test_a_pipeline_comes_whole_with_its_sub_folders_and_goes_on_when_cut(
    pull_speakers: Pull, speakers: hub.Hub, mine: Store
) -> None:
    speakers.cut("xvec_transform.npz", 200)
    with pytest.raises(ModelMissing, match="200 bytes of"):
        pull_speakers("community-1")
    ref = pull_speakers("community-1")
    assert speakers.ranges_of("xvec_transform.npz") == [None, "bytes=200-"]
    assert speakers.ranges_of("config.yaml") == [None], "what was complete is not fetched again"
    assert tuple(sorted(contents(ref.folder))) == tuple(sorted((*pipelines.FILES, "kuulo-model.json")))
    assert contents(ref.folder)["config.yaml"] == pipelines.CONFIG.encode(), "which names its own parts already"
    assert (ref.name, ref.format, ref.task) == ("speaker-diarization-community-1", "pyannote", "diarize")
    assert Stores((mine,)).resolve("community-1", ("pyannote",)) == ref
    assert {s.state for s in files.verify(ref)} == {"ok"}
    assert list((mine.folder / ".staging").iterdir()) == []


def test_a_pipeline_of_several_repositories_is_one_model(pull_speakers: Pull, speakers: hub.Hub) -> None:
    steps: list[Any] = []
    ref = pull_speakers("speaker-diarization-3.1", progress=steps.append)
    assert tuple(f.path for f in sorted(ref.files, key=lambda f: f.path)) == pipelines.FILES
    for repo, there, here in (
        (SEGMENTATION, "pytorch_model.bin", "segmentation/pytorch_model.bin"),
        (EMBEDDING, "pytorch_model.bin", "embedding/pytorch_model.bin"),
        (COMMUNITY, "plda/plda.npz", "plda/plda.npz"),
    ):
        assert (ref.folder / here).read_bytes() == speakers.repos[repo][there]
    config = (ref.folder / "config.yaml").read_text()
    assert "segmentation: $model/segmentation" in config and "plda: $model/plda" in config
    assert "pyannote/segmentation" not in config and "min_cluster_size: 12" in config
    assert {s.state for s in files.verify(ref)} == {"ok"}
    assert (ref.repo, ref.revision, ref.licence) == (PIPELINE, hub.COMMIT, "MIT, CC-BY-4.0")
    assert [r.repo for r in ref.repositories] == [PIPELINE, SEGMENTATION, EMBEDDING, COMMUNITY]
    assert {r.revision for r in ref.repositories} == {hub.COMMIT} and not any(r.gated for r in ref.repositories)
    assert [r.licence for r in ref.repositories] == ["MIT", "MIT", "CC-BY-4.0", "CC-BY-4.0"]
    assert [s.done for s in steps] == sorted(s.done for s in steps) and steps[-1].done == steps[-1].total


def test_onnx_files_of_two_repositories_are_one_model_under_their_own_names(pull_speakers: Pull) -> None:
    ref = pull_speakers("speakers")
    assert [f.path for f in ref.files] == ["segmentation.onnx", "embedding.onnx"]
    assert (ref.name, ref.format, ref.licence) == ("speakers-resnet34", "speakers-onnx", "MIT, CC-BY-4.0")
    assert [r.repo for r in ref.repositories] == list(ONNX) and {s.state for s in files.verify(ref)} == {"ok"}


def test_a_sortformer_is_one_file_of_its_repository(
    pull_speakers: Pull, speakers: hub.Hub, mine: Store, tmp_path: Path
) -> None:
    entry, source = catalog.find("sortformer")
    assert (entry.name, source.format, len(source.sha256 or "")) == ("diar_streaming_sortformer_4spk-v2.1", "nemo", 64)
    content = pipelines.nemo(tmp_path / "made.nemo").read_bytes()
    speakers.repos[str(source.repo)] = {str(source.file): content, "README.md": b"no"}  # type: ignore[index]
    with pytest.raises(ModelMissing, match="sha256"):
        pull_speakers("sortformer")
    assert Stores((mine,)).list() == []
    told = {"nemo": dataclasses.replace(source, sha256=hashlib.sha256(content).hexdigest())}
    catalog.load()[entry.name] = dataclasses.replace(entry, sources=told)  # type: ignore[index]
    ref = pull_speakers("sortformer")
    assert [f.path for f in ref.files] == [source.file] and ref.path.read_bytes() == content
    assert (ref.name, ref.task, ref.repo, ref.revision) == (entry.name, "diarize", source.repo, hub.COMMIT)
    assert Stores((mine,)).resolve("sortformer", ("nemo",)) == ref and {s.state for s in files.verify(ref)} == {"ok"}


def test_a_part_that_is_not_what_the_catalogue_knows_is_refused(
    pull_speakers: Pull, mine: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = dict(catalog.load())
    source = entries["speakers-resnet34"].sources["speakers-onnx"]
    part = dataclasses.replace(
        source.parts[0],
        take={"embedding.onnx": dataclasses.replace(source.parts[0].take["embedding.onnx"], sha256="0" * 64)},
    )
    source = dataclasses.replace(source, parts=(part,))
    entries["speakers-resnet34"] = dataclasses.replace(entries["speakers-resnet34"], sources={"speakers-onnx": source})
    monkeypatch.setattr(catalog, "load", lambda: entries)
    with pytest.raises(ModelMissing, match=r"embedding\.onnx .*sha256"):
        pull_speakers("speakers")
    assert Stores((mine,)).list() == []


def test_a_repository_that_would_write_elsewhere_or_lacks_a_part_is_refused(
    pull_speakers: Pull, speakers: hub.Hub, mine: Store, tmp_path: Path
) -> None:
    evil = dict(speakers.repos[COMMUNITY])
    for name in ("../segmentation/pytorch_model.bin", "/tmp/plda/plda.npz", "a/../../plda/plda.npz"):
        evil[name] = b"evil"
    speakers.repos["Somebody/evil"] = evil  # type: ignore[index]
    ref = pull_speakers("Somebody/evil", "pyannote")
    assert tuple(f.path for f in ref.files) == pipelines.FILES
    assert not any("evil" in path and ".." in path for _, path, _, _ in speakers.log)
    del evil["plda/plda.npz"]
    with pytest.raises(ModelMissing, match=r"plda/plda\.npz is missing"):
        pull_speakers("Somebody/evil", "pyannote", rename="other")
    speakers.repos["Somebody/third"] = {"config.yaml": pipelines.VERSION_3.encode()}  # type: ignore[index]
    with pytest.raises(ModelMissing, match=r"names the segmentation 'pyannote/segmentation-3\.0'"):
        pull_speakers("Somebody/third", "pyannote")
    assert [r.name for r in Stores((mine,)).list()] == ["evil"]


def gate(speakers: hub.Hub, *tokens: str) -> None:
    speakers.gated = {repo: set(tokens) for repo in (PIPELINE, SEGMENTATION, COMMUNITY)}


def test_a_gated_pipeline_is_refused_before_a_byte_with_all_pages_to_accept(
    pull_speakers: Pull, speakers: hub.Hub, mine: Store
) -> None:
    gate(speakers, "hf_anna")
    with pytest.raises(ModelMissing, match="accept their terms, and without a token") as caught:
        pull_speakers("speaker-diarization-3.1")
    do = str(caught.value.do)
    assert all(f"{speakers.url}/{repo}" in do for repo in (PIPELINE, SEGMENTATION, COMMUNITY)) and EMBEDDING not in do
    assert f"{speakers.url}/settings/tokens" in do and "HF_TOKEN" in do
    assert not any("/resolve/" in path for _, path, _, _ in speakers.log)
    # A token of one who has accepted all but one: that one is named, and no other.
    speakers.gated[SEGMENTATION] = set()
    with pytest.raises(ModelMissing, match="this token's account has not") as caught:
        pull_speakers("speaker-diarization-3.1", environ={"HF_TOKEN": "hf_anna"})
    assert f"{speakers.url}/{SEGMENTATION}" in str(caught.value.do) and PIPELINE not in str(caught.value.do)
    assert "hf_anna" not in str(caught.value) and not any("/resolve/" in path for _, path, _, _ in speakers.log)
    assert Stores((mine,)).list() == []
    assert pull_speakers("speakers").gated is False, "which has no gate"


def test_who_has_accepted_a_gate_is_recorded(pull_speakers: Pull, speakers: hub.Hub) -> None:
    gate(speakers, "hf_anna")
    speakers.accounts = {"hf_anna": "anna-m"}
    ref = pull_speakers("speaker-diarization-3.1", environ={"HF_TOKEN": "hf_anna"})
    told = json.loads((ref.folder / "kuulo-model.json").read_text())
    assert ref.gated and "hf_anna" not in json.dumps(told)
    by = {row["repo"]: (row["gated"], row["accepted_by"], row["account"]) for row in told["repositories"]}
    assert by[EMBEDDING] == (False, None, None)
    assert {by[repo] for repo in (PIPELINE, SEGMENTATION, COMMUNITY)} == {(True, "anna-m", "hub")}
    assert ref.repositories[0].accepted_at and ref.repositories[0].accepted_at.startswith("20")
    assert isinstance(ref.repositories[0], Repository)


@pytest.mark.parametrize("account", [None, "an <odd> name", ""])
def test_where_the_hub_does_not_say_who_it_is_the_user_of_this_machine(
    account: str | None, pull_speakers: Pull, speakers: hub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "eero")
    gate(speakers, "hf_anna")
    if account is not None:
        speakers.accounts = {"hf_anna": account}
    ref = pull_speakers("community-1", environ={"HF_TOKEN": "hf_anna"})
    (only,) = ref.repositories
    assert (only.gated, only.accepted_by, only.account) == (True, "eero", "machine")


def test_the_command_line_shows_what_each_model_is_for(speakers: hub.Hub, tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "store"
    home.mkdir()
    environ = {"KUULO_STORE": str(folder), "HF_ENDPOINT": speakers.url}
    done = _command("pull", COMMUNITY, "--format", "pyannote", home=home, **environ)
    assert done.returncode == 0 and "(pyannote, " in done.stdout, done.stderr
    assert _command("add", str(tmp_path / "onnx"), "--name", "mine", home=home, **environ).returncode == 0
    listed = json.loads(_command("list", "--json", home=home, **environ).stdout)["models"]
    assert {(m["name"], m["task"], m["format"]) for m in listed} == {
        ("speaker-diarization-community-1", "diarize", "pyannote"),
        ("mine", "diarize", "speakers-onnx"),
    }
    assert listed[0]["repositories"][0]["repo"] == COMMUNITY
    shown = _command("list", home=home, **environ).stdout
    assert "task" in shown and "diarize" in shown
    offered = _command("list", "--catalog", home=home, **environ).stdout
    assert "CC-BY-4.0; gated" in offered and "speakers-onnx (33 MB)" in offered
    told = json.loads(_command("list", "--catalog", "--json", home=home, **environ).stdout)["catalog"]
    third = next(row for row in told if row["name"] == "speaker-diarization-3.1")
    assert third["task"] == "diarize" and third["gated"] and len(third["formats"]["pyannote"]["parts"]) == 3
    assert _command("verify", home=home, **environ).stdout.count(": ok") == 2
    assert _command("remove", "mine", "--yes", home=home, **environ).returncode == 0
    assert not (folder / "speakers-onnx" / "mine").exists() and list(home.iterdir()) == []


# Language models


def test_one_gguf_file_of_a_repository_with_several_is_pulled(mine: Store, tmp_path: Path) -> None:
    small, other = (gguf_file.small(tmp_path / name).read_bytes() for name in ("a-Q4.gguf", "b-Q8.gguf"))
    with hub.Hub({"Org/some-GGUF": {"a-Q4.gguf": small, "b-Q8.gguf": other, "README.md": b"no"}}) as served:
        environ = {"HF_ENDPOINT": served.url}
        ref = pull("Org/some-GGUF/a-Q4.gguf", mine, environ=environ, retries=0)
        assert (ref.name, ref.format, ref.task, ref.revision) == ("a-Q4", "gguf", "chat", hub.COMMIT)
        assert [f.path for f in ref.files] == ["a-Q4.gguf"] and ref.path.read_bytes() == small
        with pytest.raises(UsageError, match="which file of the repository"):
            pull("Org/some-GGUF", mine, "gguf", environ=environ, retries=0)
        served.lies["b-Q8.gguf"] = small[:-100]
        with pytest.raises(ModelMissing):
            pull("Org/some-GGUF/b-Q8.gguf", mine, environ=environ, retries=0)
    assert [r.name for r in mine.list()[0]] == ["a-Q4"]


def test_the_catalogues_language_models_are_one_pinned_file_each() -> None:
    found = [entry for entry in catalog.load().values() if set(entry.sources) <= check.CHATTING]
    assert len(found) >= 5
    for entry in found:
        source = entry.sources["gguf"]
        assert len(source.revision) == 40 and len(source.sha256 or "") == 64 and str(source.file).endswith(".gguf")
        assert entry.licence and not entry.gated
