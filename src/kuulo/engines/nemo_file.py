"""A `.nemo` file with a Sortformer: a tar archive of a configuration and a checkpoint, read without unpacking it.

    model_config.yaml    the model's class, the classes of its parts, and their settings
    model_weights.ckpt   the weights, as PyTorch saves them

NeMo makes objects of whatever classes a configuration names (`_target_`, by hydra); which it then makes is decided here
instead: a part is of the one class that it may have, nothing is nested in it, and other sections are left out. Kuulo
looks before a model comes into a store (models/nemo.py), and the engine again when it loads one.
Standard library alone at the top; parses on Python 3.9.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Mapping, Tuple

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"

SUFFIX = ".nemo"
TAR_MAGIC = b"ustar"
TAR_MAGIC_AT = 257
BLOCK = 512
"""Bytes; an archive ends with blocks of zeros."""

MOST_MEMBERS = 64
"""NeMo writes the two files and the folder; models with tokenizers have some more."""

LONGEST_CONFIG = 1_000_000
"""Bytes; a Sortformer's has some thousands."""

SAMPLE_RATE = 16_000
"""Hz; that of the samples which every engine gets."""

MOST_SPEAKERS = 32
"""Published models have 4."""

MODELS = (
    "nemo.collections.asr.models.sortformer_diar_models.SortformerEncLabelModel",
    "nemo.collections.asr.models.SortformerEncLabelModel",
)
"""What `target` may be."""

PARTS: Dict[str, Tuple[str, ...]] = {
    "preprocessor": (
        "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "nemo.collections.asr.modules.audio_preprocessing.AudioToMelSpectrogramPreprocessor",
    ),
    "encoder": (
        "nemo.collections.asr.modules.ConformerEncoder",
        "nemo.collections.asr.modules.conformer_encoder.ConformerEncoder",
    ),
    "transformer_encoder": (
        "nemo.collections.asr.modules.transformer.transformer_encoders.TransformerEncoder",
        "nemo.collections.asr.modules.transformer.TransformerEncoder",
    ),
    "sortformer_modules": (
        "nemo.collections.asr.modules.sortformer_modules.SortformerModules",
        "nemo.collections.asr.modules.SortformerModules",
    ),
    "loss": (
        "nemo.collections.asr.losses.bce_loss.BCELoss",
        "nemo.collections.asr.losses.BCELoss",
    ),
}
"""The parts that a Sortformer is made of (`SortformerEncLabelModel.__init__`, NeMo 3.0.0), and what their `_target_`
may be. What it makes for training (data, optimizer, augmentation) is left out."""

SETTINGS = (
    "ats_weight", "async_streaming", "eps", "max_batch_dur", "max_num_of_spks", "model_defaults", "negative_init_val",
    "pil_weight", "sample_rate", "streaming_mode",
)  # fmt: skip
"""Other sections that it reads."""

CLASS_KEYS = ("_target_", "target", "cls")
"""By which NeMo and hydra name what they make."""

TRAINING = ("nemo.", "torch.")
"""How classes begin that sections for training may name; these are left out."""

REFERENCE = re.compile(r"\$\{[\w.]+\}")
"""To another value of the configuration; `${name:...}` calls a function."""


class Broken(Exception):
    """The file is not what its format says, or could run code; the message is one clause for people."""


def is_archive(path: Path) -> bool:
    """Whether the file is named as NeMo's are, or is a tar archive."""
    with path.open("rb") as file:
        head = file.read(BLOCK)
    return path.suffix == SUFFIX or head[TAR_MAGIC_AT:].startswith(TAR_MAGIC)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Tuple[Dict[str, Any], IO[bytes]]]:
    """The configuration, as YAML says it and not looked at yet, and the checkpoint. Raises Broken."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = _members(path, archive)
            config, weights = (archive.extractfile(members[name]) for name in (CONFIG, WEIGHTS))
            assert config and weights, "regular files have content"
            yield _parsed(config.read(LONGEST_CONFIG)), weights
    except tarfile.TarError as error:
        raise Broken(f"{path.name} is no whole archive of NeMo ({error})") from error


def problems(config: Mapping[str, Any]) -> List[str]:
    """What is wrong with a configuration, or would have NeMo make or call something else than a Sortformer."""
    target = config.get("target")
    if target not in MODELS:
        return [f"{CONFIG} names the class {target!r}, and {MODELS[0]} alone is accepted"]
    for part, classes in PARTS.items():
        section = config.get(part)
        if not isinstance(section, dict):
            return [f"{CONFIG} has no {part}"]
        if section.get("_target_") not in classes:
            return [f"{CONFIG} names the class {section.get('_target_')!r} as {part}, and {classes[0]} is accepted"]
    found = [problem for key, value in config.items() if key != "target" for problem in _nested(key, value)]
    return found or _value_problems(config)


def taken(config: Mapping[str, Any]) -> Dict[str, Any]:
    """What of a configuration NeMo is given: the parts, each by the name of its class, and the settings."""
    parts = {part: {**config[part], "_target_": classes[0]} for part, classes in PARTS.items()}
    return {**{key: config[key] for key in SETTINGS if key in config}, **parts, "target": MODELS[0]}


def _members(path: Path, archive: tarfile.TarFile) -> Dict[str, tarfile.TarInfo]:
    """The files by name, once it is clear that each is there once, whole, and below the folder."""
    members: Dict[str, tarfile.TarInfo] = {}
    for member in archive:
        name = member.name[2:] if member.name.startswith("./") else member.name
        if member.isdir() and name in ("", "."):
            continue
        if len(members) >= MOST_MEMBERS:
            raise Broken(f"{path.name} has more than {MOST_MEMBERS} files, far more than NeMo writes")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise Broken(f"{path.name} has {name[:80]!r}, which is no plain file")
        if not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise Broken(f"{path.name} has {name[:80]!r}, which is outside the archive's folder")
        if name in members:
            raise Broken(f"{path.name} has {name[:80]!r} twice")
        members[name] = member
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise Broken(f"{path.name} has no {name}")
    if members[CONFIG].size > LONGEST_CONFIG:
        raise Broken(f"{path.name} has a {CONFIG} of {members[CONFIG].size} bytes, far more than NeMo writes")
    _check_end(path, members)
    return members


def _check_end(path: Path, members: Mapping[str, tarfile.TarInfo]) -> None:
    """After the last file stands a block of zeros: the archive was not cut, nor is a header damaged."""
    end = max(member.offset_data + -(-member.size // BLOCK) * BLOCK for member in members.values())
    with path.open("rb") as file:
        file.seek(end)
        if file.read(BLOCK) != bytes(BLOCK):
            raise Broken(f"{path.name} is truncated or damaged: its archive has no end")


def _parsed(raw: bytes) -> Dict[str, Any]:
    """The content of model_config.yaml; raises Broken."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    class Plain(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
        """Without references, by which a short file can become a long one."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("references are not accepted")
            return super().compose_node(parent, index)

    try:
        config = yaml.load(raw, Loader=Plain)  # noqa: S506 it is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise Broken(f"{CONFIG} is not valid YAML") from error
    if not isinstance(config, dict):
        raise Broken(f"{CONFIG} is no configuration of a model")
    return config


def _nested(place: str, value: Any, depth: int = 0) -> List[str]:
    """Classes below a section's own, functions that a text would call, and hydra's other words."""
    if isinstance(value, str) and "${" in REFERENCE.sub("", value):
        return [f"{CONFIG} has {value[:80]!r} in {place}, which could call a function"]
    inside = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if _is_list(value) else []
    found: List[str] = []
    for key, below in inside:
        own = depth == 0 and key == "_target_" and place in PARTS
        named = not own and (key in CLASS_KEYS or str(key).startswith("_"))
        if place not in PARTS and place not in SETTINGS:  # which NeMo is not given
            named = key == "_target_" and not str(below).startswith(TRAINING)
        if named:
            return [f"{CONFIG} has {str(key)[:80]!r} in {place}, which could make anything: it is not loaded"]
        found += _nested(place, below, depth + 1)
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _value_problems(config: Mapping[str, Any]) -> List[str]:
    rate = config["preprocessor"].get("sample_rate")
    if rate != SAMPLE_RATE and not REFERENCE.fullmatch(str(rate)):
        return [f"{CONFIG} says {str(rate)[:20]} Hz, and recordings are heard at {SAMPLE_RATE}"]
    speakers = config.get("max_num_of_spks")
    if type(speakers) is not int or not 1 <= speakers <= MOST_SPEAKERS:
        return [f"{CONFIG} says that there are {str(speakers)[:20]} speakers at most"]
    return []
