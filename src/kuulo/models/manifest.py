"""What is known of one model: ModelRef, and its manifest, the file `kuulo-model.json` in the model's folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import atomic
from kuulo.models import catalog, check, paths
from kuulo.models.binary import Damaged

MANIFEST = "kuulo-model.json"
SCHEMA = 1


@dataclass(frozen=True)
class ModelFile:
    """One file: its name in the model's folder, its digest in hex, its size."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Repository:
    """A repository of the hub that files of a model came from.

    `accepted_by`: of a gated one, who had accepted its terms when it was pulled: the `account` ("hub": the name at the
    hub of the token's owner; "machine": the user's name on this machine, where the hub did not say). `accepted_at`:
    when it was pulled, ISO 8601 in UTC; the hub does not say when terms were accepted."""

    repo: str
    revision: str | None = None
    licence: str | None = None
    gated: bool = False
    accepted_by: str | None = None
    account: str | None = None
    accepted_at: str | None = None


@dataclass(frozen=True)
class ModelRef:
    """A model on this machine.

    `path`: what an engine is given, the folder or the one file. `repo`, `revision`: the Hugging Face repository and
    commit it came from, or None. `source`: the address or path it came from. `added`: when, ISO 8601 in UTC.
    `origin`: the store that has it, or "path" when it was given by path. `repositories`: all that it was pulled from;
    `repo` is the first of them."""

    name: str
    format: str
    path: Path
    files: tuple[ModelFile, ...]
    repo: str | None = None
    revision: str | None = None
    source: str | None = None
    licence: str | None = None
    gated: bool = False
    added: str | None = None
    origin: str = "path"
    multilingual: bool | None = None
    translates: bool | None = None
    repositories: tuple[Repository, ...] = ()

    @property
    def task(self) -> str:
        """What it is for: `transcribe`, `diarize` or `chat`."""
        return check.task_of(self.format)

    @property
    def folder(self) -> Path:
        """The folder that holds the files."""
        return self.path if self.format in check.FOLDERS else self.path.parent

    @property
    def bytes(self) -> int:
        """All files together."""
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        """sha256 over the lines `path sha256` of the files, sorted: the same files, the same digest, wherever they
        are. The one file of ggml, gguf, nemo and pt counts without its name."""
        single = self.format not in check.FOLDERS
        lines = sorted(f"{'' if single else file.path}\0{file.sha256}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def rank(self) -> int:
        """The lower, the better as a default; from the catalogue."""
        return catalog.rank(self.name)


def write(ref: ModelRef, folder: Path) -> None:
    """Writes the manifest into `folder`, which need not be where `ref` says it is yet."""
    atomic.write_json(
        folder / MANIFEST,
        {
            "schema": SCHEMA,
            "name": ref.name,
            "format": ref.format,
            "repo": ref.repo,
            "revision": ref.revision,
            "source": ref.source,
            "licence": ref.licence,
            "gated": ref.gated,
            "added": ref.added,
            "multilingual": ref.multilingual,
            "translates": ref.translates,
            "digest": ref.digest,
            "repositories": [dataclasses.asdict(repository) for repository in ref.repositories],
            "files": [{"path": f.path, "sha256": f.sha256, "bytes": f.bytes} for f in ref.files],
        },
    )


def read(folder: Path, origin: str) -> ModelRef:
    """The model in a store's folder STORE/FORMAT/NAME; raises Damaged for a manifest that is not understood."""
    format_, name = folder.parent.name, folder.name
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
        schema = data["schema"]
        if schema > SCHEMA:
            raise Damaged(f"its {MANIFEST} is of schema {schema}, which this Kuulo does not know")
        files = tuple(ModelFile(str(f["path"]), str(f["sha256"]), int(f["bytes"])) for f in data["files"])
        told = {key: data.get(key) for key in ("repo", "revision", "source", "licence", "added")}
        said = (data["name"], data["format"])
        repositories = tuple(_repository(row) for row in data.get("repositories", ()))
    except FileNotFoundError as error:
        raise Damaged(f"it has no {MANIFEST}") from error
    except OSError as error:
        raise Damaged(f"its {MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"its {MANIFEST} is not what it should be ({type(error).__name__}: {error})") from error
    if said != (name, format_):
        raise Damaged(f"its {MANIFEST} is of another model ({said[1]}/{said[0]})")
    if not files or not all(_may_be_in(format_, file.path) for file in files):
        raise Damaged(f"its {MANIFEST} names no files, or files outside the folder")
    return ModelRef(
        name=name,
        format=format_,
        path=folder if format_ in check.FOLDERS else folder / files[0].path,
        files=files,
        gated=bool(data.get("gated")),
        origin=origin,
        multilingual=data.get("multilingual"),
        translates=data.get("translates"),
        repositories=repositories,
        **told,
    )


def _repository(row: dict[str, Any]) -> Repository:
    """From a manifest, where keys of a newer Kuulo are passed over."""
    known = {field.name for field in dataclasses.fields(Repository)}
    return Repository(**{key: value for key, value in row.items() if key in known})


def _may_be_in(format_: str, name: str) -> bool:
    return paths.is_name(name) and name != MANIFEST and (format_ in check.NESTED or "/" not in name)
