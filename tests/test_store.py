"""Stores: layers, what is added and how, what is missing and what is said then."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipelines
import tiny
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import adding, built_in, catalog, check, files, paths, store, verifying
from kuulo.models.manifest import Repository
from kuulo.models.store import Store
from kuulo.models.stores import Stores, stores_from

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
ALL = ("ct2", "ggml", "pt", "hf", "onnx")


@pytest.fixture
def mine(tmp_path: Path) -> Store:
    return Store(tmp_path / "store with ä 'quote'")


def layered(*folders: Path) -> Stores:
    return Stores((*(Store(f, writable=False) for f in folders[:-1]), Store(folders[-1])))


@pytest.mark.parametrize("format_", ALL)
@pytest.mark.parametrize("link", [False, True])
def test_what_is_added_is_found_listed_and_verified(format_: str, link: bool, mine: Store, tmp_path: Path) -> None:
    source = tiny.make(format_, tmp_path / "a model\nof mine -1")
    added = adding.add(mine, source, name="mine", link=link)
    stores = layered(mine.folder)
    assert stores.list() == [added] == [stores.resolve("mine", ALL)] and stores.troubles() == []
    assert added.path.parent.parent == mine.folder / format_ or added.path.parent == mine.folder / format_
    assert check.problems(format_, added.path) == []
    for file in added.files:
        assert hashlib.sha256((added.folder / file.path).read_bytes()).hexdigest() == file.sha256
        assert (added.folder / file.path).samefile(source if source.is_file() else source / file.path) == link
    assert {s.state for s in files.verify(added)} == {"ok"}
    assert list((mine.folder / store.STAGING).iterdir()) == []
    assert added.source == str(source) and added.multilingual and added.added


def test_the_digest_is_of_the_content_alone(mine: Store, tmp_path: Path) -> None:
    one = adding.add(mine, tiny.make("ggml", tmp_path / "ggml-x"))
    other = adding.add(mine, tiny.make("ggml", tmp_path / "y"))
    assert (one.name, other.name) == ("x", "y") and one.digest == other.digest
    assert adding.at_path(tmp_path / "y.bin", ("ggml",)).digest == one.digest
    assert adding.add(mine, tiny.make("ggml", tmp_path / "z", encoder=3)).digest != one.digest


def test_only_the_files_of_the_format_are_taken(mine: Store, tmp_path: Path) -> None:
    source = tiny.make("hf", tmp_path / "m")
    (source / "pytorch_model.bin").write_bytes(b"x" * 100)
    (source / ".git").mkdir()
    assert "pytorch_model.bin" not in {f.path for f in adding.add(mine, source).files}


def test_what_is_there_is_replaced_only_when_asked(mine: Store, tmp_path: Path) -> None:
    first = adding.add(mine, tiny.make("ct2", tmp_path / "m"))
    second = tiny.make("ct2", tmp_path / "n", encoder=3)
    with pytest.raises(UsageError, match="already has"):
        adding.add(mine, second, name="m")
    assert layered(mine.folder).list() == [first]
    replaced = adding.add(mine, second, name="m", replace=True)
    assert layered(mine.folder).list() == [replaced] and replaced.digest != first.digest
    assert list((mine.folder / store.STAGING).iterdir()) == []


def test_damaged_files_are_not_added(mine: Store, tmp_path: Path) -> None:
    source = tiny.make("ct2", tmp_path / "m")
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelMissing, match=r"tokenizer\.json is missing"):
        adding.add(mine, source)
    assert layered(mine.folder).list() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", ".hidden", "a b", "ä", "x" * 101, "a\n"])
def test_names_play_no_tricks(name: str, mine: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        mine.place(name, "ct2")
    if name:
        with pytest.raises(UsageError):
            adding.add(mine, tiny.make("ggml", tmp_path / "m"), name=name)
    with pytest.raises(ModelMissing):
        layered(mine.folder).resolve(name or "nothing", ALL)


def test_the_sites_store_is_first_and_is_not_written(tmp_path: Path) -> None:
    site, user = tmp_path / "site", tmp_path / "user"
    ours = adding.add(Store(site), tiny.make("ct2", tmp_path / "m"), name="small")
    adding.add(Store(user), tiny.make("ct2", tmp_path / "n", encoder=3), name="small")
    alone = adding.add(Store(user), tiny.make("ggml", tmp_path / "o"), name="small")
    stores = stores_from({}, [site], tmp_path / "elsewhere")
    assert stores.layers[-1].folder == tmp_path / "elsewhere" / "models"
    stores = stores_from({"KUULO_STORE": str(user)}, [site], tmp_path)
    assert stores.find("small", ALL) == ours and stores.list() == [ours, alone]
    assert stores.find("small", ("ggml",)) == alone
    assert stores.writable.folder == user
    with pytest.raises(UsageError, match="read-only"):
        stores.layers[0].remove("small", "ct2")
    with pytest.raises(UsageError, match="read-only"):
        adding.add(stores.layers[0], tmp_path / "m", name="new")


def test_several_stores_in_the_variable_the_last_is_written(tmp_path: Path) -> None:
    listed = os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    stores = stores_from({"KUULO_STORE": listed}, (), tmp_path)
    assert [(s.folder.name, s.writable) for s in stores.layers] == [("a", False), ("b", True)]


def test_the_best_default_is_listed_first(mine: Store, tmp_path: Path) -> None:
    for name in ("tiny", "own", "large-v3", "large-v3-turbo", "small.en", "small"):
        adding.add(mine, tiny.make("ggml", tmp_path / name), name=name)
    names = [ref.name for ref in layered(mine.folder).list()]
    assert names == ["large-v3-turbo", "large-v3", "small", "tiny", "small.en", "own"]
    assert layered(mine.folder).resolve("turbo", ALL).name == "large-v3-turbo"


def test_a_broken_store_is_reported_and_the_rest_listed(mine: Store, tmp_path: Path) -> None:
    good = adding.add(mine, tiny.make("ct2", tmp_path / "good"))
    broken = {
        "no-manifest": None,
        "no-json": b"{",
        "no-dict": b"[]",
        "other": (good.folder / "kuulo-model.json").read_bytes(),
        "newer": b'{"schema": 99}',
        "outside": json.dumps(
            {"schema": 1, "name": "outside", "format": "ct2", "files": [{"path": "../x", "sha256": "", "bytes": 1}]}
        ).encode(),
    }
    for name, manifest in broken.items():
        (mine.folder / "ct2" / name).mkdir()
        if manifest is not None:
            (mine.folder / "ct2" / name / "kuulo-model.json").write_bytes(manifest)
    (mine.folder / "ggml").write_text("a file where a folder should be")
    stores = layered(tmp_path / "is not there", mine.folder)
    assert stores.list() == [good]
    assert {t.path.name for t in stores.troubles()} == {*broken, "ggml"}
    with pytest.raises(ModelMissing, match="broken"):
        stores.resolve("no-json", ALL)
    mine.remove("no-json", "ct2")
    assert "no-json" not in {t.path.name for t in stores.troubles()}


def test_a_missing_model_says_where_was_looked_and_what_gets_it(mine: Store, tmp_path: Path) -> None:
    stores = layered(tmp_path / "site", mine.folder)
    with pytest.raises(ModelMissing) as caught:
        stores.resolve("small", ("ct2",))
    assert caught.value.do == "kuulo models pull small --format ct2"
    assert str(mine.folder) in str(caught.value.looked_at) and str(tmp_path / "site") in str(caught.value.looked_at)
    with pytest.raises(ModelMissing, match="--format pt"):
        stores.resolve("turbo", ("pt",))
    with pytest.raises(ModelMissing, match="did you mean medium"):
        stores.resolve("mediun", ("ggml",))
    with pytest.raises(ModelMissing, match="ct2, hf, onnx alone"):
        stores.resolve("distil-large-v2", ("pt",))
    with pytest.raises(ModelMissing, match="list --catalog"):
        stores.resolve("qqqqqqqq", ("pt",))
    adding.add(mine, tiny.make("ggml", tmp_path / "x"), name="small")
    with pytest.raises(ModelMissing, match="there is one as ggml"):
        stores.resolve("small", ("ct2",))
    adding.add(mine, tmp_path / "x.bin", name="interviews")
    with pytest.raises(ModelMissing, match="did you mean interviews, which is in the store"):
        stores.resolve("interview", ("ggml",))


def test_a_path_is_a_model_too_and_a_bare_name_is_not_a_path(
    mine: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make("ct2", tmp_path / "small")
    file = tiny.make("pt", tmp_path / "ümläut 'x'")
    stores = layered(mine.folder)
    monkeypatch.chdir(tmp_path)
    ref = stores.resolve("./small", ALL)
    assert (ref.format, ref.name, ref.origin, ref.translates) == ("ct2", "small", "path", True)
    assert len(ref.digest) == 64 and stores.resolve(str(file), ALL).format == "pt"
    with pytest.raises(ModelMissing, match=r"write \./small"):
        stores.resolve("small", ALL)
    with pytest.raises(ModelMissing, match="no model at this path"):
        stores.resolve("./nothing", ALL)
    with pytest.raises(ModelMissing, match="is needed"):
        stores.resolve("./small", ("ggml",))
    inside = adding.add(mine, file, name="small")
    assert stores.resolve(str(inside.folder), ALL).digest == inside.digest
    (tmp_path / "small" / "config.json").write_text("{")
    with pytest.raises(ModelMissing, match="not valid JSON"):
        stores.resolve("./small", ALL)


def test_verify_finds_each_kind_of_damage_and_resolve_the_cheap_ones(mine: Store, tmp_path: Path) -> None:
    ref = adding.add(mine, tiny.make("ct2", tmp_path / "m"))
    (ref.folder / "config.json").unlink()
    (ref.folder / "notes.txt").write_text("mine")
    weights = bytearray((ref.folder / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (ref.folder / "model.bin").write_bytes(weights)
    seen = 0

    def progress(count: int) -> None:
        nonlocal seen
        seen += count

    states = {s.path: s.state for s in files.verify(ref, progress)}
    assert states == {
        "config.json": "missing", "model.bin": "changed", "notes.txt": "extra",
        "tokenizer.json": "ok", "vocabulary.json": "ok",
    }  # fmt: skip
    assert seen >= len(weights)
    with pytest.raises(ModelMissing, match=r"config\.json is missing"):
        layered(mine.folder).resolve("m", ALL)


# ---------------------------------------------------------------------- verifying again


def verified(
    stores: Stores, state: Path, *, after: float = 0.0, progress: Any = None
) -> tuple[list[verifying.Verified], int]:
    """What was found, and how many bytes were not passed over."""
    going = verifying.verify(stores.list(), verifying.Marks(state), after=after, threads=3, progress=progress)
    found = list(going)
    read = [file.bytes for one in found for file in one.ref.files if file.path not in one.passed_over]
    return found, sum(read)


@pytest.fixture
def several(mine: Store, tmp_path: Path) -> Stores:
    for format_ in ALL:
        adding.add(mine, tiny.make(format_, tmp_path / "made" / f"m ä-{format_}"), name="m")
    adding.add(mine, pipelines.pyannote(tmp_path / "made" / "own"))
    return layered(mine.folder)


def test_what_was_right_is_not_read_again_until_it_changes(several: Stores, tmp_path: Path) -> None:
    state = tmp_path / "state" / "verified.jsonl"
    whole = sum(ref.bytes for ref in several.list())
    seen: list[int] = []
    found, read = verified(several, state, after=float("inf"), progress=seen.append)
    assert read == whole == sum(seen) and all(one.sound and not one.passed_over for one in found)
    assert [one.ref for one in found] == several.list(), "in their order, whichever is done first"
    found, read = verified(several, state)
    assert read == 0 and all(one.sound and len(one.passed_over) == len(one.ref.files) for one in found)
    assert verified(several, state, after=float("inf"))[1] == whole, "all is read where nothing is said"
    assert verified(several, state, after=time.time() + 10)[1] == whole, "nor is what is older passed over"
    ref = several.resolve("m", ("ggml",))
    weights = bytearray(ref.path.read_bytes())
    before = ref.path.stat()
    weights[-1] ^= 1
    ref.path.write_bytes(weights)
    os.utime(ref.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found, read = verified(several, state)
    assert read == ref.bytes, "a time that was set back hides nothing"
    assert [one.ref for one in found if not one.sound] == [ref]
    assert verified(several, state)[1] == ref.bytes, "what is not right is never remembered"


def test_another_digest_in_the_manifest_is_another_file(several: Stores, tmp_path: Path) -> None:
    state = tmp_path / "verified.jsonl"
    verified(several, state)
    ref = several.resolve("m", ("pt",))
    told = json.loads((ref.folder / "kuulo-model.json").read_text())
    told["files"][0]["sha256"] = "0" * 64
    (ref.folder / "kuulo-model.json").write_text(json.dumps(told))
    found, read = verified(several, state)
    assert read == ref.bytes and [one.ref.format for one in found if not one.sound] == ["pt"]


def test_one_that_was_stopped_goes_on(several: Stores, tmp_path: Path) -> None:
    state = tmp_path / "verified.jsonl"
    whole = sum(ref.bytes for ref in several.list())
    going = verifying.verify(several.list(), verifying.Marks(state), after=0.0, threads=1)
    first = next(going)
    going.close()
    _, read = verified(several, state)
    assert first.sound and 0 < read <= whole - first.ref.bytes


@pytest.mark.parametrize("rest", ["", "{", "[]\n", '{"path": "/x"}\n', '{"path": "/x", "more": 1}\n', "\0\xff\n"])
def test_a_broken_state_file_is_passed_over(rest: str, several: Stores, tmp_path: Path) -> None:
    state = tmp_path / "verified.jsonl"
    verified(several, state)
    state.write_bytes(rest.encode("latin-1") + state.read_bytes()[: -len(rest) or None])
    assert all(one.sound for one in verified(several, state)[0])
    whole = sum(len(ref.files) for ref in several.list())
    state.write_bytes(state.read_bytes() * 50)
    assert verified(several, state)[1] == 0
    assert len(state.read_text().splitlines()) <= whole, "and what is said twice is made one"


def test_a_state_file_that_cannot_be_written_hinders_nothing(several: Stores, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    marks = verifying.Marks(tmp_path / "file" / "verified.jsonl")
    assert all(one.sound for one in verifying.verify(several.list(), marks, after=0.0, threads=2))
    assert isinstance(marks.trouble, OSError)


def test_verify_by_the_command(several: Stores, kuulo: Kuulo) -> None:
    env = {"KUULO_STORE": str(several.writable.folder)}
    for _ in range(2):
        assert "not read" not in kuulo("models", "verify", "--threads", "2", env=env).stdout, "nothing is remembered"
    assert "not read" not in kuulo("models", "verify", "--since", "0", env=env).stdout
    again = kuulo("models", "verify", "m", "--since", "1", env=env)
    assert again.returncode == 0 and again.stdout.count("files not read: right on 2") == len(ALL), again.stderr
    ref = several.resolve("m", ("ct2",))
    (ref.folder / "config.json").write_text("{}")
    told = kuulo("models", "verify", "--since", "0.5", "--json", env=env)
    assert told.returncode == 3
    rows = {row["format"]: row for row in json.loads(told.stdout)["models"]}
    assert [format_ for format_, row in rows.items() if not row["ok"]] == ["ct2"]
    states = {file["path"]: (file["state"], file["read"]) for file in rows["ct2"]["files"]}
    assert states["config.json"] == ("changed", True) and states["model.bin"] == ("ok", False)


def test_a_snapshot_of_the_hubs_cache_has_its_repositorys_name(mine: Store, tmp_path: Path) -> None:
    path = tmp_path / "models--Systran--faster-whisper-small" / "snapshots" / ("0" * 40)
    assert adding.add(mine, tiny.make("ct2", path)).name == "small"
    path = tmp_path / "models--Org--whisper-own" / "snapshots" / ("1" * 40)
    assert adding.add(mine, tiny.make("ct2", path)).name == "whisper-own"


def _add(folder: str, source: str, results: multiprocessing.Queue[str]) -> None:
    try:
        results.put(adding.add(Store(Path(folder)), Path(source), name="same").digest)
    except UsageError as error:
        results.put(f"refused: {error.what}")


def test_of_many_who_add_at_once_one_is_in_place_and_whole(mine: Store, tmp_path: Path) -> None:
    sources = [tiny.make("ct2", tmp_path / f"m{i}", encoder=i + 1) for i in range(4)]
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=_add, args=(str(mine.folder), str(s), results)) for s in sources]
    for worker in workers:
        worker.start()
    said = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    won = [s for s in said if not s.startswith("refused")]
    (ref,) = layered(mine.folder).list()
    assert won == [ref.digest] and {s.state for s in files.verify(ref)} == {"ok"}
    assert list((mine.folder / store.STAGING).iterdir()) == []


def test_a_store_that_cannot_be_made_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelMissing, match="KUULO_STORE"):
        adding.add(Store(tmp_path / "file" / "store"), tiny.make("ggml", tmp_path / "m"))


def test_the_catalogue_is_whole() -> None:
    entries = catalog.load()
    assert {"tiny", "base", "small", "medium", "large-v2", "large-v3", "large-v3-turbo", "distil-large-v3.5"} <= set(
        entries
    )
    assert next(iter(entries)) == "large-v3-turbo" and catalog.canonical("large") == "large-v3"
    for name, entry in entries.items():
        store.valid_name(name)
        speakers, chat = set(entry.sources) <= check.DIARIZING, set(entry.sources) <= check.CHATTING
        whispers = set(check.FORMATS) - check.DIARIZING - check.CHATTING
        assert speakers or chat or {"ct2", "hf"} <= set(entry.sources) <= whispers
        assert entry.licence and (speakers or not entry.gated)
        for source in (one for main in entry.sources.values() for one in main.all):
            assert len(source.revision) in (0, 40) and bool(source.repo) != bool(source.path)
            assert all(paths.is_name(name) and len(t.sha256 or "0" * 64) == 64 for name, t in source.take.items())
            assert len(source.sha256 or "0" * 64) == 64 and len(source.sha1 or "0" * 40) == 40
            assert source.format != "pt" or (source.sha256 and source.sha256 in str(source.path))
            assert source.format not in ("ggml", "gguf") or (source.file and (source.sha1 or source.sha256))


def test_the_catalogues_addresses_are_those_of_the_engines_own_packages() -> None:
    import re

    from faster_whisper import utils

    whisper = pytest.importorskip("importlib.util").find_spec("whisper")
    urls = {}
    if whisper:
        text = Path(whisper.origin).read_text(encoding="utf-8")
        urls = dict(re.findall(r'"([\w.-]+)": "https://[\w./-]+?/whisper/models/([0-9a-f]{64}/[\w.-]+)"', text))
    for name, entry in catalog.load().items():
        if set(entry.sources) <= check.DIARIZING | check.CHATTING:
            continue
        assert entry.sources["ct2"].repo == utils._MODELS[name]
        if whisper and "pt" in entry.sources:
            assert entry.sources["pt"].path == urls[name]


# Speaker pipelines


@pytest.mark.parametrize("link", [False, True])
def test_a_pipeline_with_sub_folders_is_one_model(link: bool, mine: Store, tmp_path: Path) -> None:
    source = pipelines.pyannote(tmp_path / "own")
    (source / "README.md").write_text("not of the pipeline")
    (source / "segmentation" / "README.md").write_text("nor this")
    added = adding.add(mine, source, link=link)
    stores = layered(mine.folder)
    assert stores.list() == [added] == [stores.resolve("own", ("pyannote",))] and stores.troubles() == []
    assert added.task == "diarize" and added.path == added.folder == mine.folder / "pyannote" / "own"
    assert tuple(file.path for file in added.files) == pipelines.FILES
    for file in added.files:
        assert hashlib.sha256((source / file.path).read_bytes()).hexdigest() == file.sha256
        linked = (added.folder / file.path).samefile(source / file.path)
        assert linked == (link and file.path != "config.yaml")
    assert {s.state for s in files.verify(added)} == {"ok"}
    assert adding.at_path(source, ("pyannote",)).digest == added.digest
    mine.remove("own", "pyannote")
    assert not added.folder.exists() and (source / "segmentation" / "pytorch_model.bin").is_file()
    assert list((mine.folder / store.STAGING).iterdir()) == []


@pytest.mark.parametrize("link", [False, True])
def test_a_sortformer_is_added_as_one_file(link: bool, mine: Store, tmp_path: Path) -> None:
    source = pipelines.nemo(tmp_path / "hub" / "diar_streaming_sortformer_4spk-v2.1.nemo")
    added = adding.add(mine, source, link=link)
    assert (added.name, added.format, added.task) == ("diar_streaming_sortformer_4spk-v2.1", "nemo", "diarize")
    assert added.rank < catalog.LAST_RANK and added.path.samefile(source) == link
    stores = layered(mine.folder)
    assert stores.list() == [added] == [stores.resolve("sortformer", ("nemo",))] and stores.troubles() == []
    assert {s.state for s in files.verify(added)} == {"ok"}
    assert adding.at_path(source, ("nemo",)).digest == added.digest
    with pytest.raises(ModelMissing, match="is NeMo"):
        adding.at_path(source, ("pyannote",))
    other = pipelines.nemo(tmp_path / "asr.nemo", json.dumps({"target": "nemo.collections.asr.models.EncDecCTCModel"}))
    with pytest.raises(ModelMissing, match="EncDecCTCModel"):
        adding.add(mine, other)


def test_a_config_that_names_repositories_is_made_to_name_the_parts_beside_it(mine: Store, tmp_path: Path) -> None:
    source = pipelines.pyannote(tmp_path / "own", pipelines.VERSION_3)
    with pytest.raises(ModelMissing, match=r"names the segmentation 'pyannote/segmentation-3\.0'"):
        adding.at_path(source, ("pyannote",))
    for link in (False, True):
        added = adding.add(mine, source, link=link, replace=link)
        config = (added.folder / "config.yaml").read_text()
        assert "segmentation: $model/segmentation" in config and "plda: $model/plda" in config
        assert "threshold: 0.7045654963945799" in config and "version: 3.1.0" in config
        assert {s.state for s in files.verify(added)} == {"ok"}
        assert layered(mine.folder).resolve("own", ("pyannote",)) == added
    assert (source / "config.yaml").read_text() == pipelines.VERSION_3, "the folder it came from stays as it is"
    (source / "plda" / "plda.npz").unlink()
    with pytest.raises(ModelMissing, match="names no plda") as caught:
        adding.add(mine, source, name="other")
    assert str(source) in str(caught.value.looked_at)
    assert [ref.name for ref in layered(mine.folder).list()] == ["own"]


def test_the_hubs_cache_whose_files_are_links_can_be_added(mine: Store, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--pyannote--speaker-diarization-community-1" / "snapshots" / ("0" * 40)
    pipelines.pyannote(snapshot)
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    for number, name in enumerate(pipelines.FILES):
        (snapshot / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(blobs / str(number))
    added = adding.add(mine, snapshot)
    assert added.name == "speaker-diarization-community-1" and added.rank < catalog.LAST_RANK
    assert not any((added.folder / file.path).is_symlink() for file in added.files)


def test_a_sub_folder_that_leads_out_of_the_model_is_found(mine: Store, tmp_path: Path) -> None:
    ref = adding.add(mine, pipelines.pyannote(tmp_path / "own"))
    (ref.folder / "plda").rename(tmp_path / "plda")
    (ref.folder / "plda").symlink_to(tmp_path / "plda")
    states = {s.path: s.state for s in files.verify(ref)}
    assert states["plda/plda.npz"] == states["plda/xvec_transform.npz"] == "outside" and states["plda"] == "extra"
    with pytest.raises(ModelMissing, match=r"plda/plda\.npz is outside"):
        layered(mine.folder).resolve("own", ("pyannote",))


def test_files_beside_a_pipelines_are_extra_wherever_they_are(mine: Store, tmp_path: Path) -> None:
    ref = adding.add(mine, pipelines.pyannote(tmp_path / "own"))
    (ref.folder / "plda" / "notes.txt").write_text("mine")
    (ref.folder / "more").mkdir()
    (ref.folder / "segmentation" / "pytorch_model.bin").write_bytes(b"")
    states = {s.path: s.state for s in files.verify(ref) if s.state != "ok"}
    assert states == {"plda/notes.txt": "extra", "more": "extra", "segmentation/pytorch_model.bin": "changed"}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../b", "./a", "a//b", "a/", "", ".", "..", "kuulo-model.json"]
)
def test_a_manifest_names_no_file_outside_its_folder(name: str, mine: Store, tmp_path: Path) -> None:
    for format_, made in (
        ("pyannote", pipelines.pyannote(tmp_path / "p")),
        ("ggml", tiny.make("ggml", tmp_path / "g")),
    ):
        ref = adding.add(mine, made)
        told = json.loads((ref.folder / "kuulo-model.json").read_text())
        told["files"][0]["path"] = name
        (ref.folder / "kuulo-model.json").write_text(json.dumps(told))
        with pytest.raises(ModelMissing, match="files outside the folder"):
            layered(mine.folder).resolve(ref.name, (format_,))


def test_sub_folders_are_for_formats_that_have_them(mine: Store, tmp_path: Path) -> None:
    ref = adding.add(mine, tiny.make("ct2", tmp_path / "m"))
    told = json.loads((ref.folder / "kuulo-model.json").read_text())
    told["files"][0]["path"] = "sub/config.json"
    (ref.folder / "kuulo-model.json").write_text(json.dumps(told))
    assert "outside the folder" in layered(mine.folder).troubles()[0].problem


def test_manifests_of_older_and_newer_versions_are_read(mine: Store, tmp_path: Path) -> None:
    ref = adding.add(mine, pipelines.speakers_onnx(tmp_path / "own"))
    told = json.loads((ref.folder / "kuulo-model.json").read_text())
    del told["repositories"]
    (ref.folder / "kuulo-model.json").write_text(json.dumps(told))
    assert layered(mine.folder).resolve("own", ("speakers-onnx",)) == ref
    told["repositories"] = [{"repo": "a/b", "gated": True, "accepted_by": "anna", "from": "a newer version"}]
    (ref.folder / "kuulo-model.json").write_text(json.dumps(told))
    found = layered(mine.folder).resolve("own", ("speakers-onnx",))
    assert found.repositories == (Repository("a/b", gated=True, accepted_by="anna"),)
    told["repositories"] = [{"no": "repo"}]
    (ref.folder / "kuulo-model.json").write_text(json.dumps(told))
    assert "not what it should be" in layered(mine.folder).troubles()[0].problem


def test_the_built_in_model_is_no_pipeline(mine: Store) -> None:
    with pytest.raises(ModelMissing, match="cannot be written as pyannote"):
        built_in.write(mine, "pyannote")


def test_a_pipeline_is_never_offered_for_recognition(mine: Store, tmp_path: Path) -> None:
    from kuulo import survey

    adding.add(mine, pipelines.pyannote(tmp_path / "large-v3"))
    adding.add(mine, pipelines.speakers_onnx(tmp_path / "turbo"), name="large-v3-turbo")
    whisper = adding.add(mine, tiny.make("ct2", tmp_path / "zz"))
    stores = layered(mine.folder)
    assert [ref.task for ref in stores.list()] == ["transcribe", "diarize", "diarize"], "words come first"
    assert stores.list()[0] == whisper and survey.model(stores.list()[1]).format in check.DIARIZING
    for name in ("large-v3", "turbo"):
        with pytest.raises(ModelMissing, match="for other engines") as caught:
            stores.resolve(name, ("ct2",))
        assert f"kuulo models pull {name} --format ct2" in str(caught.value)
    with pytest.raises(ModelMissing, match=r"did you mean speaker-diarization-3\.1"):
        stores.resolve("speaker-diarization-3", ("pyannote",))
    with pytest.raises(ModelMissing, match=r"list --catalog|did you mean (?!speaker)"):
        stores.resolve("speaker-diarization-3", ("ct2",))
