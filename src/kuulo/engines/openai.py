"""openai: any server that speaks OpenAI's API, as the centre's gateway or one of your own. Nothing is started.

Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

from kuulo.engines.base import EngineSpec, Native

SPEC = EngineSpec(
    name="openai",
    summary="Any server that speaks OpenAI's API: the centre's gateway, or one that runs already.",
    url="https://platform.openai.com/docs/api-reference/chat",
    licence="whatever the server has",
    package="kuulo",
    module="json",
    install="kuulo",
    tasks=("chat",),
    devices=(),
    kind="endpoint",
    options={
        "system": Native("messages", "the first message, of the role system"),
        "temperature": Native("temperature"),
        "top_p": Native("top_p"),
        "max_tokens": Native("max_tokens"),
        "seed": Native("seed", "some servers do not honour it"),
        "stop": Native("stop"),
        "schema": Native("response_format", "json_schema; some servers do not honour it"),
    },
    differs=("What is asked leaves this machine, for wherever the endpoint is.",),
)


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    return {}
