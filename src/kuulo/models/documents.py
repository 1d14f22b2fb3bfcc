"""The JSON files that stand beside a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

USUAL_MELS = 80
"""What feature extractors take to be the number of mel bands when no file says."""


def load(path: Path, kind: type = dict) -> tuple[Any, list[str]]:
    """The content (None with a problem), and what is wrong: missing, unreadable, not JSON, not a `kind`."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None, [f"{path.name} is missing"]
    except OSError as error:
        return None, [f"{path.name} cannot be read: {error.strerror}"]
    except (ValueError, RecursionError):
        return None, [f"{path.name} is not valid JSON"]
    if not isinstance(value, kind):
        return None, [f"{path.name} has JSON of another kind than it should ({type(value).__name__})"]
    return value, []


def mel_problems(folder: Path, mels: int | None, *, required: bool = False) -> list[str]:
    """Whether preprocessor_config.json says the number of mel bands that the weights have."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        if required or (mels is not None and mels != USUAL_MELS):
            return [f"preprocessor_config.json is missing (the model has {mels} mel bands)"]
        return []
    value, found = load(path)
    if found:
        return found
    said = value.get("feature_size", USUAL_MELS)
    if mels is not None and said != mels:
        return [f"preprocessor_config.json says {said} mel bands, and the weights have {mels}"]
    return []
