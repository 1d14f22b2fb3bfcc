"""Where a model can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

CHAT = "chat"
"""The task of the engines that have one."""


@dataclass(frozen=True)
class Endpoint:
    """An address that speaks OpenAI's API.

    `base_url` ends in /v1, without a slash; of one on a Unix socket, `socket`, its host is never looked up. `key`: what
    is sent as bearer; it is in no text that is shown. `model`: the name to ask for. `context`: tokens of prompt and
    answer together, where that is known. `schema_as`: how it takes a JSON schema: `json_schema`, as OpenAI, or
    `json_object`, with the schema beside it. `version`: the engine's, where that is known."""

    base_url: str
    socket: Path | None
    key: str | None = field(repr=False)
    model: str
    engine: str
    context: int | None = None
    schema_as: str = "json_schema"
    version: str = ""

    @property
    def root_url(self) -> str:
        """The address without /v1: where servers have what is not OpenAI's."""
        return self.base_url.removesuffix("/v1")
