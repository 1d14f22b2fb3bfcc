"""pyannote.audio's speaker pipeline: a folder with config.yaml and, in folders beside it, all the parts that it names.

    config.yaml                        the pipeline's class, its parts and settings
    segmentation/pytorch_model.bin     who speaks, in windows of some seconds
    embedding/pytorch_model.bin        a vector for a voice
    plda/xvec_transform.npz, plda.npz  how vectors are compared

How pyannote.audio 4.0.7 finds the parts (`core/pipeline.py: expand_subfolders`, `core/model.py`, `core/plda.py`):
`$model/NAME` is the folder NAME beside config.yaml. Anything else is a path from the current folder, and where there is
nothing it is fetched from the hub; a part that is not named at all is fetched too. So `$model/NAME` alone is accepted.

pyannote.audio imports the classes that config.yaml and a checkpoint name, and unpickles checkpoints without
`weights_only`: see ACCEPTED for what they may name, and `pickled.py` for how it is found out.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from kuulo import atomic
from kuulo.models import paths, pickled
from kuulo.models.binary import Damaged
from kuulo.models.shape import Shape

NAME = "pyannote.audio pipeline"
CONFIG = "config.yaml"
LONGEST_CONFIG = 100_000
"""Bytes; pyannote's own have less than 1000."""

CHECKPOINT = "pytorch_model.bin"
ARRAYS = {"xvec_transform.npz": ("mean1", "mean2", "lda"), "plda.npz": ("mu", "tr", "psi")}
"""The arrays of a PLDA's files: utils/vbx.py, `vbx_setup`."""

LONGEST_ARRAYS = 100_000_000
"""Bytes; pyannote's have 0.3 MB."""

PARTS = {"segmentation": (CHECKPOINT,), "embedding": (CHECKPOINT,), "plda": tuple(ARRAYS)}
"""Parts of a pipeline with their files. pyannote.audio 4 loads all of them, also a plda that the clustering does not
use."""

ACCEPTED = (
    "pyannote.audio.pipelines.SpeakerDiarization",
    "pyannote.audio.pipelines.speaker_diarization.SpeakerDiarization",
)
"""Classes that config.yaml may name."""

SECTIONS = frozenset({"dependencies", "freeze", "params", "pipeline", "version"})
"""What config.yaml may have; `preprocessors` would import and call what it names."""

SETTINGS = frozenset(
    {
        "clustering", "der_variant", "embedding_batch_size", "embedding_exclude_overlap", "legacy",
        "segmentation_batch_size", "segmentation_step",
    }
)  # fmt: skip
"""Parameters of the class beside the parts."""

ARCHITECTURES = {"segmentation": "pyannote.audio.models.segmentation", "embedding": "pyannote.audio.models.embedding"}
"""Where the class that a checkpoint names must be."""

GLOBALS = pickled.TENSOR_GLOBALS | {
    "__builtin__ dict", "__builtin__ float", "__builtin__ int", "__builtin__ list", "__builtin__ long",
    "__builtin__ str", "collections defaultdict", "omegaconf.base ContainerMetadata", "omegaconf.base Metadata",
    "omegaconf.dictconfig DictConfig", "omegaconf.listconfig ListConfig", "omegaconf.nodes AnyNode",
    "pyannote.audio.core.model Introspection", "pyannote.audio.core.task Problem",
    "pyannote.audio.core.task Resolution", "pyannote.audio.core.task Specifications",
    "torch.torch_version TorchVersion", "typing Any",
}  # fmt: skip
"""What a checkpoint of Lightning with a model of pyannote.audio names. The optimizer's settings are omegaconf's in the
older ones; read from the checkpoint in the package whisperx 3.8.6."""


def matches(path: Path) -> bool:
    """Whether the folder has this format's main file."""
    try:
        return isinstance(_config(path / CONFIG).get("pipeline"), dict)
    except Damaged:
        return False


def wanted(names: list[str]) -> list[str]:
    """Those of a repository's files, with their folders, that may be of a pipeline."""
    files = {file for part in PARTS.values() for file in part}
    parts = [n for n in names if "/" in n and n.rpartition("/")[2] in files and paths.is_name(n) and n.isprintable()]
    return sorted([CONFIG, *parts]) if CONFIG in names else []


def names(path: Path) -> list[str]:
    """The files of the pipeline in a folder, sorted: config.yaml, and of the parts what is there."""
    try:
        config = _config(path / CONFIG)
    except Damaged:
        config = {}
    found = [CONFIG]
    for part, files in PARTS.items():
        folder = _folder_of(config, part) or part
        found += [f"{folder}/{file}" for file in files]
    return sorted(n for n in dict.fromkeys(found) if paths.is_inside(path, n) and (path / n).is_file())


def localize(path: Path) -> bool:
    """Lets config.yaml name the parts that lie in segmentation/, embedding/ and plda/ beside it, where it names a
    repository, a path or nothing; gives whether it was changed. The rest of it stays."""
    config = _config(path / CONFIG)
    pipeline = config.get("pipeline")
    if not isinstance(pipeline, dict):
        return False
    params = pipeline.setdefault("params", {})
    if not isinstance(params, dict):
        return False
    changed = False
    for part, files in PARTS.items():
        there = all((path / part / file).is_file() for file in files)
        if there and _folder_of(config, part) is None:
            params[part] = f"$model/{part}"
            changed = True
    if changed:
        import yaml  # type: ignore[import-untyped, unused-ignore]

        atomic.write_bytes(path / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())
    return changed


def problems(path: Path) -> list[str]:
    """What is wrong with the folder; empty when nothing is."""
    try:
        config = _config(path / CONFIG)
    except Damaged as error:
        return [str(error)]
    found = _config_problems(config)
    for part, files in PARTS.items():
        folder = _folder_of(config, part)
        if found or folder is None:
            continue
        for file in files:
            found += _file_problems(path, part, f"{folder}/{file}")
    return found


def shape(path: Path) -> Shape:
    """Nothing: a pipeline has none of a Whisper's dimensions."""
    return Shape()


def _config(path: Path) -> dict[str, Any]:
    """The content of config.yaml; raises Damaged."""
    import yaml

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        """Without references, by which a short file can become a long one."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("references are not accepted")
            return super().compose_node(parent, index)

    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST_CONFIG + 1)
        config = yaml.load(raw, Loader=Plain) if len(raw) <= LONGEST_CONFIG else None  # noqa: S506 it is a SafeLoader
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise Damaged(f"{path.name} is not valid YAML") from error
    if not isinstance(config, dict):
        raise Damaged(f"{path.name} is no configuration of a pipeline")
    return config


def _params(config: dict[str, Any]) -> dict[str, Any]:
    pipeline = config.get("pipeline")
    params = pipeline.get("params") if isinstance(pipeline, dict) else None
    return params if isinstance(params, dict) else {}


def _folder_of(config: dict[str, Any], part: str) -> str | None:
    """The folder beside config.yaml that it names for a part; None where it names anything else."""
    value = _params(config).get(part)
    folder = value.removeprefix("$model/") if isinstance(value, str) and value.startswith("$model/") else ""
    # "@" would be a revision of a repository.
    return folder if paths.is_name(folder) and folder.isprintable() and "@" not in folder else None


def _config_problems(config: dict[str, Any]) -> list[str]:
    pipeline, params = config.get("pipeline"), _params(config)
    if not isinstance(pipeline, dict):
        return [f"{CONFIG} names no pipeline"]
    if pipeline.get("name") not in ACCEPTED:
        return [f"{CONFIG} names the class {pipeline.get('name')!r}, and {ACCEPTED[0]} alone is accepted"]
    more = [*(set(config) - SECTIONS), *(set(pipeline) - {"name", "params"}), *(set(params) - SETTINGS - set(PARTS))]
    if more:
        return [f"{CONFIG} has {sorted(map(str, more))[0]!r}, which is not accepted in a pipeline of speakers"]
    return [_part_problem(part, params.get(part)) for part in PARTS if _folder_of(config, part) is None]


def _part_problem(part: str, value: Any) -> str:
    here = f"put {' and '.join(PARTS[part])} into {part}/ beside it and add the folder"
    if value is None:
        return f"{CONFIG} names no {part}, which pyannote.audio then fetches: {here}"
    return f"{CONFIG} names the {part} {value!r}, which pyannote.audio does not look for beside it: {here}"


def _file_problems(folder: Path, part: str, name: str) -> list[str]:
    path = folder / name
    if not paths.is_inside(folder, name):
        return [f"{name} is outside the folder"]
    if not path.is_file():
        return [f"{name} is missing"]
    try:
        return _array_problems(path) if path.name in ARRAYS else _checkpoint_problems(path, part)
    except Damaged as error:
        return [f"{part}: {error}"]


def _checkpoint_problems(path: Path, part: str) -> list[str]:
    """Whether it is a checkpoint of a model that pyannote.audio may be let load; raises Damaged for what could run
    code.

    Read are: the names of all globals, the class and its module (which pyannote.audio imports), whether there are
    tensors, and `_instantiator` among the hyperparameters (which Lightning imports)."""
    content = pickled.values(path, GLOBALS, new=True)
    said = content.get("pyannote.audio") if isinstance(content, dict) else None
    named = said.get("architecture") if isinstance(said, dict) else None
    if not isinstance(named, dict) or not isinstance(content.get("state_dict"), dict) or not content["state_dict"]:
        return [f"{part}: {path.name} is no checkpoint of a model of pyannote.audio"]
    module, name = named.get("module"), named.get("class")
    place = ARCHITECTURES[part]
    if not isinstance(module, str) or not (module == place or module.startswith(f"{place}.")):
        return [f"{part}: {path.name} names a class in {module!r}, and it must be in {place}"]
    if not all(word.isidentifier() for word in (*module.split("."), str(name))):
        return [f"{part}: {path.name} names no class, but {name!r} in {module!r}"]
    hyperparameters = content.get("hyper_parameters", {})
    if not isinstance(hyperparameters, dict) or "_instantiator" in hyperparameters:
        return [f"{part}: {path.name} names a function that makes the model, which can run code: it is not loaded"]
    return []


def _array_problems(path: Path) -> list[str]:
    """Whether an .npz file has its arrays, complete. numpy refuses pickled ones when it loads them."""
    try:
        with zipfile.ZipFile(path) as archive:
            there = {entry.filename: entry.file_size for entry in archive.infolist()}
            broken = archive.testzip() if sum(there.values()) <= LONGEST_ARRAYS else None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise Damaged(f"{path.name} is truncated or damaged ({error})") from error
    if sum(there.values()) > LONGEST_ARRAYS:
        raise Damaged(f"{path.name} has arrays of {sum(there.values())} bytes, far more than a PLDA has")
    if broken:
        raise Damaged(f"{path.name} is damaged: {broken} is not what it was")
    lost = [name for name in ARRAYS[path.name] if f"{name}.npy" not in there]
    return [f"{path.name} has no array {lost[0]!r}"] if lost else []
