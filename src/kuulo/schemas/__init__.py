"""JSON Schemas (draft 2020-12) of the files that Kuulo writes, for other programs."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any


def transcript() -> dict[str, Any]:
    """The schema of the master copy, `NAME.json`."""
    text = importlib.resources.files(__name__).joinpath("transcript.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
