"""Models that are carried over: a tar, a folder, a pipe; what is cut, hostile, there already, or changed meanwhile."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pipelines
import tiny
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import adding, bundle, files, manifest, store, unbundle
from kuulo.models.manifest import ModelRef
from kuulo.models.store import Store
from kuulo.models.stores import Stores

Kuulo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refs(tmp_path: Path) -> list[ModelRef]:
    """Models of all kinds in a store: a folder, a file, a pipeline with sub-folders, one that is a link."""
    mine = Store(tmp_path / "store ä 'quote'")
    adding.add(mine, tiny.make("ct2", tmp_path / "made" / "small"))
    adding.add(mine, tiny.make("ggml", tmp_path / "made" / "small"), link=True)
    linked = adding.add(mine, tiny.make("pt", tmp_path / "made" / "linked"))
    linked.path.rename(tmp_path / "elsewhere.pt")
    linked.path.symlink_to(tmp_path / "elsewhere.pt")
    adding.add(mine, pipelines.pyannote(tmp_path / "made" / "speakers"), name="own")
    return Stores((mine,)).list()


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """A store on another machine, where nothing is yet."""
    return Store(tmp_path / "other machine" / "models")


def tar_of(refs: list[ModelRef]) -> bytes:
    out = io.BytesIO()
    bundle.write_tar(refs, out)
    return out.getvalue()


def take(data: bytes, into: Store, *, replace: bool = False) -> list[unbundle.Taken]:
    return unbundle.from_tar(io.BytesIO(data), [into], "a pipe", replace=replace)


def same(into: Store, refs: list[ModelRef]) -> None:
    """The store has these models, with all that is known of them, and nothing besides."""
    there = Stores((into,)).list()
    assert [(r.format, r.name, r.digest, r.source, r.added, r.licence) for r in there] == [
        (r.format, r.name, r.digest, r.source, r.added, r.licence) for r in refs
    ]
    assert {state.state for ref in there for state in files.verify(ref)} == {"ok"}
    assert not any(path.is_symlink() for path in into.folder.rglob("*"))
    assert list((into.folder / store.STAGING).iterdir()) == []


def test_a_store_goes_through_a_tar_and_a_pipe(refs: list[ModelRef], other: Store) -> None:
    data = tar_of(refs)
    taken = take(data, other)
    assert [one.new for one in taken] == [True] * 4
    same(other, refs)
    assert [one.new for one in take(data, other)] == [False] * 4, "what is there is passed over"
    same(other, refs)


def test_the_same_models_make_the_same_bytes(refs: list[ModelRef], other: Store, tmp_path: Path) -> None:
    data = tar_of(refs)
    take(data, other)
    for path in other.folder.rglob("*"):
        os.utime(path, (1, 1))
    again = tar_of(Stores((other,)).list())
    with tarfile.open(fileobj=io.BytesIO(data)) as one, tarfile.open(fileobj=io.BytesIO(again)) as two:
        assert one.getnames() == two.getnames()
    assert again == data, "wherever and whenever"


def test_tar_and_sha256sum_understand_it(
    refs: list[ModelRef], other: Store, needs_program: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "b.tar").write_bytes(tar_of(refs))
    subprocess.run([needs_program("tar"), "xf", "b.tar"], cwd=tmp_path, check=True)
    top = tmp_path / bundle.TOP
    check = [needs_program("sha256sum"), "--check", "--strict", "--quiet", bundle.SUMS]
    subprocess.run(check, cwd=top, check=True)
    assert len((top / bundle.SUMS).read_text().splitlines()) == sum(len(ref.files) + 1 for ref in refs)
    assert [ref.digest for ref in Stores((Store(top),)).list()] == [ref.digest for ref in refs], "it is a store"
    assert [one.new for one in unbundle.from_folders(top, [other], replace=False)] == [True] * 4
    same(other, refs)


def test_sums_of_odd_names(needs_program: Callable[[str], str], tmp_path: Path) -> None:
    for name in ("a\\b", "a\nb", "ä b'\"", "a\rb"):
        (tmp_path / name).write_bytes(name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        (tmp_path / "SUMS").write_text(bundle._sum(digest, name), newline="")
        subprocess.run([needs_program("sha256sum"), "-c", "--strict", "SUMS"], cwd=tmp_path, check=True)


# ---------------------------------------------------------------------- writing


def test_a_file_is_whole_or_not_there(refs: list[ModelRef], weird_tmp_path: Path) -> None:
    path = weird_tmp_path / "b.tar"
    assert bundle.tar_to(path, refs, replace=False) is True
    first = path.stat()
    assert bundle.tar_to(path, refs, replace=False) is False
    assert path.stat().st_ino == first.st_ino, "it is not written again"
    with pytest.raises(UsageError, match="a bundle of other models"):
        bundle.tar_to(path, refs[:1], replace=False)
    assert bundle.tar_to(path, refs[:1], replace=True) is True
    weights = refs[1].folder / refs[1].files[-1].path
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelMissing, match="has changed since it was added"):
        bundle.tar_to(path, refs, replace=True)
    weights.write_bytes(content[:-1])
    with pytest.raises(ModelMissing, match="bytes, and"):
        bundle.tar_to(weird_tmp_path / "new.tar", refs, replace=True)
    assert [p.name for p in weird_tmp_path.iterdir()] == ["b.tar"]
    with tarfile.open(path) as tar:
        assert len([name for name in tar.getnames() if name.endswith(manifest.MANIFEST)]) == 1


def test_what_is_no_bundle_is_not_written_over(refs: list[ModelRef], tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("my thesis")
    with pytest.raises(UsageError, match="something else is there"):
        bundle.tar_to(tmp_path / "x.tar", refs, replace=False)
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UsageError, match="something else is there"):
        bundle.tar_to(tmp_path / "pipe.tar", refs, replace=False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="other things"):
        bundle.folder_to(tmp_path / "folder", refs, replace=True)
    assert bundle.is_tar("a.TAR") and not bundle.is_tar("/media/stick/models")
    for name in ("a.tgz", "a.tar.gz", "a.zip"):
        with pytest.raises(UsageError, match="not compressed"):
            bundle.is_tar(name)


def test_a_folder_is_completed_and_brought_up_to_date(refs: list[ModelRef], other: Store, weird_tmp_path: Path) -> None:
    folder = weird_tmp_path / "stick"
    assert bundle.folder_to(folder, refs[:2], replace=False) == [True, True]
    (folder / bundle.INDEX).unlink()  # as one that was cut
    with pytest.raises(ModelMissing, match="no whole bundle"):
        unbundle.from_folders(folder, [other], replace=False)
    assert bundle.folder_to(folder, refs, replace=False) == [False, False, True, True]
    assert [one.new for one in unbundle.from_folders(folder, [other], replace=False)] == [True] * 4
    same(other, refs)
    assert bundle.folder_to(folder, refs[:1], replace=False) == [False]
    assert len(json.loads((folder / bundle.INDEX).read_bytes())["models"]) == 4, "the list is of all that is there"


def test_a_folder_with_a_damaged_or_another_model(refs: list[ModelRef], other: Store, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    bundle.folder_to(folder, refs, replace=False)
    weights = next(folder.glob("ct2/small/model.bin"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UsageError, match="a damaged one, of the same name: ct2/small"):
        bundle.folder_to(folder, refs, replace=False)
    with pytest.raises(ModelMissing, match="not what its digest says"):
        unbundle.from_folders(folder, [other], replace=False)
    assert bundle.folder_to(folder, refs, replace=True).count(True) == 1
    unbundle.from_folders(folder, [other], replace=False)
    shutil.rmtree(folder / "ggml")
    shutil.rmtree(other.folder)
    with pytest.raises(ModelMissing, match=r"ggml/small/kuulo-model\.json cannot be read"):
        unbundle.from_folders(folder, [other], replace=False)


def test_a_folders_sub_folder_may_not_lead_out_of_it(refs: list[ModelRef], other: Store, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    bundle.folder_to(folder, refs, replace=False)
    (folder / "pyannote" / "own" / "plda").rename(tmp_path / "plda")
    (folder / "pyannote" / "own" / "plda").symlink_to(tmp_path / "plda")
    with pytest.raises(ModelMissing, match="outside the model's folder"):
        unbundle.from_folders(folder, [other], replace=False)
    assert not (other.folder / "pyannote" / "own").exists()


# ---------------------------------------------------------------------- reading


def members(data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = []
        for member in tar:
            content = tar.extractfile(member)
            found.append((member, content.read() if content else b""))
    return found


def packed(parts: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in parts:
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, content: bytes = b"x", **what: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in what.items():
        setattr(member, key, value)
    return member, content


WEIGHTS = "kuulo-models/ct2/small/model.bin"

HOSTILE: dict[str, Callable[[list[tuple[tarfile.TarInfo, bytes]]], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "an absolute path": lambda parts: [*parts[:2], entry("/etc/cron.d/x"), *parts[2:]],
    "a path that leads up": lambda parts: [*parts[:2], entry("kuulo-models/../../x"), *parts[2:]],
    "a link first": lambda parts: [
        entry("kuulo-models/bundle.json", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        *parts[1:],
    ],
    "a link for weights": lambda parts: replaced(parts, WEIGHTS, type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
    "a hard link": lambda parts: replaced(parts, WEIGHTS, type=tarfile.LNKTYPE, linkname="/etc/passwd", size=0),
    "a device": lambda parts: replaced(parts, WEIGHTS, type=tarfile.CHRTYPE, devmajor=1, devminor=5, size=0),
    "a fifo": lambda parts: replaced(parts, WEIGHTS, type=tarfile.FIFOTYPE, size=0),
    "a folder": lambda parts: replaced(parts, WEIGHTS, type=tarfile.DIRTYPE, size=0),
    "a file twice": lambda parts: [
        both for part in parts for both in ([part, part] if part[0].name == WEIGHTS else [part])
    ],
    "another order": lambda parts: [*parts[:2], *reversed(parts[2:])],
    "one more": lambda parts: [*parts, entry("kuulo-models/x")],
    "one less": lambda parts: parts[:-1],
    "no list": lambda parts: parts[1:],
    "another list": lambda parts: [entry("kuulo-models/bundle.json", b"[]"), *parts[1:]],
    "a newer list": lambda parts: [entry("kuulo-models/bundle.json", b'{"schema": 9}'), *parts[1:]],
    "a deep list": lambda parts: [entry("kuulo-models/bundle.json", b"[" * 100_000), *parts[1:]],
    "weights of another length": lambda parts: [
        (part if part[0].name != WEIGHTS else entry(WEIGHTS, part[1] + b"more")) for part in parts
    ],
    "other weights": lambda parts: [
        (part if part[0].name != WEIGHTS else entry(WEIGHTS, b"\0" * len(part[1]))) for part in parts
    ],
    "nothing": lambda parts: [],
}


def replaced(parts: list[tuple[tarfile.TarInfo, bytes]], name: str, **what: Any) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [entry(name, b"", **what) if part[0].name == name else part for part in parts]


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_hostile_is_refused(what: str, refs: list[ModelRef], other: Store, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if other.folder.parent not in (path, *path.parents)}
    data = packed(HOSTILE[what](members(tar_of(refs))))
    with pytest.raises(ModelMissing) as caught:
        take(data, other)
    assert "bundle" in str(caught.value)
    assert {path for path in tmp_path.rglob("*") if other.folder.parent not in (path, *path.parents)} == before
    models, troubles = other.list()
    assert troubles == [] and {state.state for ref in models for state in files.verify(ref)} <= {"ok"}
    if what not in ("one more", "one less", "another order"):
        assert "small" not in {ref.name for ref in models if ref.format == "ct2"}
    staging = other.folder / store.STAGING
    assert not staging.exists() or list(staging.iterdir()) == []


INDEX_LIES = {
    "twice": lambda models: models + models[:1],
    "another format": lambda models: [{**models[0], "format": "../../x"}],
    "another name": lambda models: [{**models[0], "name": ".."}],
    "a path": lambda models: [{**models[0], "name": "a/b"}],
    "a digest": lambda models: [{**models[0], "digest": "0" * 64}, *models[1:]],
    "no size": lambda models: [{**models[0], "bytes": -1}],
    "a size": lambda models: [{**models[0], "bytes": 10**18}, *models[1:]],
    "words": lambda models: ["x"],
    "a number": lambda models: 7,
    "infinite": lambda models: [{**models[0], "bytes": float("inf")}],
}


@pytest.mark.parametrize("lie", INDEX_LIES)
def test_a_list_that_lies_is_refused(lie: str, refs: list[ModelRef], other: Store) -> None:
    parts = members(tar_of(refs))
    told = json.loads(parts[0][1])
    told["models"] = INDEX_LIES[lie](told["models"])
    parts[0] = entry(parts[0][0].name, json.dumps(told).encode())
    with pytest.raises(ModelMissing):
        take(packed(parts), other)
    assert Stores((other,)).list() == []


@pytest.mark.parametrize(
    "lie",
    [
        {"name": "other"}, {"format": "ggml"}, {"files": []}, {"schema": 9}, {"files": [{"path": "../x"}]},
        {"files": [{"path": "/etc/x", "sha256": "", "bytes": 1}]},
    ],
)  # fmt: skip
def test_a_manifest_that_lies_is_refused(lie: dict[str, Any], refs: list[ModelRef], other: Store) -> None:
    parts = members(tar_of(refs))
    at = next(i for i, part in enumerate(parts) if part[0].name == "kuulo-models/ct2/small/kuulo-model.json")
    parts[at] = entry(parts[at][0].name, json.dumps({**json.loads(parts[at][1]), **lie}).encode())
    with pytest.raises(ModelMissing, match="not what it should be"):
        take(packed(parts), other)
    assert "small" not in {ref.name for ref in Stores((other,)).list() if ref.format == "ct2"}


def test_a_model_that_would_not_be_added_is_not_unbundled(other: Store, tmp_path: Path) -> None:
    """A pickle that runs code, with digests that are right."""

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch /tmp/kuulo-was-here",)

    made = Store(tmp_path / "theirs")
    ref = adding.add(made, tiny.make("pt", tmp_path / "m"))
    tiny.checkpoint(ref.path, {"dims": Runs(), "model_state_dict": {}})
    digest = hashlib.sha256(ref.path.read_bytes()).hexdigest()
    told = json.loads((ref.folder / manifest.MANIFEST).read_bytes())
    told["files"][0] |= {"sha256": digest, "bytes": ref.path.stat().st_size}
    (ref.folder / manifest.MANIFEST).write_text(json.dumps(told))
    with pytest.raises(ModelMissing, match="is no good model"):
        take(tar_of(Stores((made,)).list()), other)
    assert Stores((other,)).list() == [] and not Path("/tmp/kuulo-was-here").exists()


def test_a_header_that_says_it_is_large_takes_no_memory(refs: list[ModelRef], other: Store) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        header = tarfile.TarInfo("x")
        header.size, header.type = 50 << 30, kind
        with pytest.raises(ModelMissing, match="no tar that can be read"):
            take(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096), other)
    huge = tarfile.TarInfo("kuulo-models/bundle.json")
    huge.size = 50 << 30
    with pytest.raises(ModelMissing, match=r"bundle\.json is of 53687091200 bytes"):
        take(huge.tobuf(tarfile.GNU_FORMAT) + bytes(4096), other)


@pytest.mark.parametrize("data", [b"", b"x" * 5000, bytes(10_240), b"\x1f\x8b" + bytes(1000)], ids=str)
def test_what_is_no_tar(data: bytes, other: Store) -> None:
    with pytest.raises(ModelMissing, match="not what it should be"):
        take(data[:10_240], other)


def test_wherever_it_is_cut_nothing_is_half_there_and_the_rest_comes_later(refs: list[ModelRef], other: Store) -> None:
    data = tar_of(refs)
    last = members(data)[-1][0]
    end = last.offset_data + last.size  # zeros alone come after it
    for cut in [*range(0, end, end // 60), end - 1]:
        with pytest.raises(ModelMissing):
            take(data[:cut], other)
        models, troubles = other.list()
        assert troubles == [] and {state.state for ref in models for state in files.verify(ref)} <= {"ok"}
    before = len(other.list()[0])
    assert 0 < before <= 4
    assert [one.new for one in take(data, other)].count(False) == before
    same(other, refs)


def test_another_model_of_the_same_name_stays_unless_it_is_to_be_replaced(
    refs: list[ModelRef], other: Store, tmp_path: Path
) -> None:
    mine = adding.add(other, tiny.make("ct2", tmp_path / "mine", encoder=3), name="small")
    data = tar_of(refs)
    with pytest.raises(UsageError, match="another model, or a damaged one, of the same name: ct2/small"):
        take(data, other)
    assert Stores((other,)).list() == [mine], "nothing came before that was seen"
    take(data, other, replace=True)
    same(other, refs)


def test_what_the_sites_store_has_is_not_taken_again(refs: list[ModelRef], other: Store, tmp_path: Path) -> None:
    site = Store(tmp_path / "site")
    take(tar_of(refs[:2]), site)
    taken = unbundle.from_tar(
        io.BytesIO(tar_of(refs)), [Store(site.folder, writable=False), other], "a pipe", replace=False
    )
    assert [one.new for one in taken] == [False, False, True, True]
    assert taken[0].path == site.place(refs[0].name, refs[0].format)
    assert len(other.list()[0]) == 2


def test_a_store_that_cannot_be_written_says_so(refs: list[ModelRef], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ModelMissing, match="cannot be written"):
        take(tar_of(refs), Store(tmp_path / "file" / "models"))
    with pytest.raises(UsageError, match="read-only"):
        take(tar_of(refs), Store(tmp_path / "models", writable=False))


def test_a_pipe_that_gives_little_at_a_time(refs: list[ModelRef], other: Store) -> None:
    """As ssh does: reads may be short, where the stream is not buffered."""
    data = tar_of(refs)
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        for start in range(0, len(data), 777):
            os.write(write, data[start : start + 777])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        unbundle.from_tar(stream, [other], "a pipe", replace=False)
    os.wait()
    same(other, refs)


# ---------------------------------------------------------------------- the commands


def test_the_commands(
    refs: list[ModelRef],
    kuulo: Kuulo,
    kuulo_command: list[str],
    kuulo_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    mine = {"KUULO_STORE": refs[0].origin}
    there = {"KUULO_STORE": str(tmp_path / "there")}
    ours, quiet = {**kuulo_environment, **mine}, {"stderr": subprocess.PIPE, "text": True, "check": False}
    made = kuulo("models", "bundle", "small", "-o", "b's.tar", env=mine)
    assert made.returncode == 0 and "small (ct2, 0 MB) is in b's.tar" in made.stdout, made.stderr
    assert "was already in" in kuulo("models", "bundle", "small", "-o", "b's.tar", env=mine).stdout
    only = kuulo("models", "bundle", "--format", "ggml", "-o", "stick", "--json", env=mine)
    assert [model["format"] for model in json.loads(only.stdout)["models"]] == ["ggml"]
    taken = json.loads(kuulo("models", "unbundle", "b's.tar", "--json", env=there).stdout)
    assert [(m["name"], m["new"]) for m in taken["models"]] == [("small", True)] * 2
    assert "was already in" in kuulo("models", "unbundle", "stick", env=there).stdout
    for arguments, code, words in (
        (("models", "bundle", "nothing", "-o", "x.tar"), 3, "no store has a model nothing"),
        (("models", "bundle", "-o", "x.tar.gz"), 2, "not compressed"),
        (("models", "bundle", "-o", "-", "--json"), 2, "no place for --json"),
        (("models", "bundle"), 2, "--output"),
        (("models", "unbundle", "nowhere.tar"), 3, "cannot be read"),
        (("models", "unbundle", "-"), 3, "no tar that can be read"),
    ):
        failed = kuulo(*arguments, env=mine)
        assert failed.returncode == code and words in failed.stderr, failed.stderr
    with Path("/dev/full").open("wb") as full:
        cut = subprocess.run([*kuulo_command, "models", "bundle", "small", "-o", "-"], stdout=full, env=ours, **quiet)
    assert cut.returncode == 3 and "the bundle was cut: No space left" in cut.stderr
    closed = 'exec "$@" >&- <&-'
    for arguments in (["bundle", "small", "-o", "-"], ["unbundle", "-"]):
        done = subprocess.run(["sh", "-c", closed, "sh", *kuulo_command, "models", *arguments], env=ours, **quiet)
        assert done.returncode == 2 and "or closed" in done.stderr, done.stderr
    (tmp_path / "plain file").write_text("")
    failed = kuulo("models", "bundle", "small", "-o", "plain file/stick", env=mine)
    assert failed.returncode == 3 and "the bundle cannot be written" in failed.stderr
    empty = kuulo("models", "bundle", "-o", "x.tar", env={"KUULO_STORE": str(tmp_path / "none")})
    assert empty.returncode == 3 and "no model to bundle" in empty.stderr


def test_through_a_pipe_between_two_processes(
    refs: list[ModelRef], kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    mine = {**kuulo_environment, "KUULO_STORE": refs[0].origin}
    theirs = {**kuulo_environment, "KUULO_STORE": str(tmp_path / "there")}
    with subprocess.Popen(
        [*kuulo_command, "models", "bundle", "-o", "-"], env=mine, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as sender:
        done = subprocess.run(
            [*kuulo_command, "models", "unbundle", "-"],
            env=theirs,
            stdin=sender.stdout,
            capture_output=True,
            check=False,
        )
    assert (sender.returncode, done.returncode) == (0, 0), done.stderr
    same(Store(tmp_path / "there"), refs)
    with subprocess.Popen(
        [*kuulo_command, "models", "bundle", "-o", "-"], env=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sender:
        assert sender.stdout and sender.stderr
        sender.stdout.close()
        said = sender.stderr.read().decode()
    assert sender.returncode == 3 and "the bundle was cut" in said and "Traceback" not in said


def test_several_at_once_do_not_hinder_each_other(
    refs: list[ModelRef], kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    bundle.tar_to(tmp_path / "b.tar", refs, replace=False)
    environment = {**kuulo_environment, "KUULO_STORE": str(tmp_path / "there")}
    command = [*kuulo_command, "models", "unbundle", str(tmp_path / "b.tar")]
    going = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in going:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    same(Store(tmp_path / "there"), refs)


def test_one_who_was_first_is_no_error(refs: list[ModelRef], other: Store) -> None:
    ref = refs[0]
    take(tar_of(refs), other)

    def chunks(file: manifest.ModelFile) -> Iterator[bytes]:
        yield (ref.folder / file.path).read_bytes()

    came = unbundle.put(other, bundle.Row.of(ref), bundle.manifest_bytes(ref), chunks, "a pipe")
    assert came.digest == ref.digest
    same(other, refs)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A store with a model that takes a while to read: 1.5 GB that are not on the disk."""
    ref = adding.add(Store(tmp_path / "large"), tiny.make("ct2", tmp_path / "m"), name="zz")
    with (ref.folder / "model.bin").open("r+b") as weights:
        weights.truncate(3 << 29)
    told = json.loads((ref.folder / manifest.MANIFEST).read_bytes())
    next(row for row in told["files"] if row["path"] == "model.bin")["bytes"] = 3 << 29
    (ref.folder / manifest.MANIFEST).write_text(json.dumps(told))
    yield tmp_path / "large"
    shutil.rmtree(tmp_path / "large")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_leaves_no_file(
    number: int, large: Path, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [*kuulo_command, "models", "bundle", "zz", "-o", str(out / "b.tar")]
    with subprocess.Popen(
        command, env={**kuulo_environment, "KUULO_STORE": str(large)}, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not any(path.stat().st_size > 1 << 20 for path in out.iterdir()):
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    assert process.returncode != 0 and not (out / "b.tar").exists()
    if number == signal.SIGINT:
        assert list(out.iterdir()) == []


def test_a_verify_that_is_stopped_goes_on(
    large: Path, kuulo: Kuulo, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    adding.add(Store(large), tiny.make("ct2", tmp_path / "first"), name="small")
    environment = {**kuulo_environment, "KUULO_STORE": str(large)}
    command = [*kuulo_command, "models", "verify", "--since", "1", "--threads", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"small (ct2): ok\n"
        process.send_signal(signal.SIGINT)
        out, said = process.communicate()
    assert process.returncode == 130 and b"the same command goes on" in said, said
    assert out == b"", "the other was being read"
    again = kuulo("models", "verify", "small", "--since", "1", env={"KUULO_STORE": str(large)})
    assert "4 of 4 files not read" in again.stdout, again.stdout
