"""Stores: layers, what is added and how, what is missing and what is said then."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest

import tiny
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import adding, catalog, check, files, store
from kuulo.models.store import Store
from kuulo.models.stores import Stores, stores_from

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
        assert {"ct2", "hf"} <= set(entry.sources) <= set(check.FORMATS) and entry.licence
        for source in entry.sources.values():
            assert len(source.revision) in (0, 40) and bool(source.repo) != bool(source.path)
            assert len(source.sha256 or "0" * 64) == 64 and len(source.sha1 or "0" * 40) == 40
            assert source.format != "pt" or (source.sha256 and source.sha256 in str(source.path))
            assert source.format != "ggml" or (source.file and (source.sha1 or source.sha256))


def test_the_catalogues_addresses_are_those_of_the_engines_own_packages() -> None:
    import re

    from faster_whisper import utils

    whisper = pytest.importorskip("importlib.util").find_spec("whisper")
    urls = {}
    if whisper:
        text = Path(whisper.origin).read_text(encoding="utf-8")
        urls = dict(re.findall(r'"([\w.-]+)": "https://[\w./-]+?/whisper/models/([0-9a-f]{64}/[\w.-]+)"', text))
    for name, entry in catalog.load().items():
        assert entry.sources["ct2"].repo == utils._MODELS[name]
        if whisper and "pt" in entry.sources:
            assert entry.sources["pt"].path == urls[name]
