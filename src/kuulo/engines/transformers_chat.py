"""transformers-chat: text models in Hugging Face folders, by Hugging Face transformers and a small server of ours.

The server is `transformers_chat_server.py`, in the engine's environment, which is that of the engine `transformers`.
Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Mapping

from kuulo.engines.base import EngineSpec, Native, Refused, ServerCommand, ServerTask, Unusable

SPEC = EngineSpec(
    name="transformers-chat",
    summary="Hugging Face transformers: text models in Hugging Face folders, one question at a time.",
    url="https://github.com/huggingface/transformers",
    licence="Apache-2.0",
    package="transformers",
    module="transformers",
    install="transformers torch",
    tasks=("chat",),
    devices=("cpu", "cuda"),
    model_formats=("hf-text",),
    kind="server",
    same_seed_same_text=True,
    packages=("torch",),
    environment="transformers",
    options={
        "system": Native("messages", "the first message, of the role system"),
        "temperature": Native("temperature", "0 is do_sample=False"),
        "top_p": Native("top_p"),
        "max_tokens": Native("max_new_tokens"),
        "seed": Native("torch.manual_seed"),
        "stop": Native("stop", "by our server: it ends where the text has it"),
        "context": Native("", "by our server: longer prompts are refused"),
        "device": Native("device"),
        "threads": Native("torch.set_num_threads"),
    },
    differs=("One question is answered at a time; others wait.", "Code that a model's folder brings is never run."),
)

CONFIG = "transformers-chat.json"


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    return {}


def serve(task: ServerTask) -> ServerCommand:
    """Our server, in the engine's Python; what it needs to know, with the key, is in a file."""
    if task.python is None:
        raise Unusable("transformers is not installed", "kuulo engines install transformers")
    if task.raw:
        raise Refused(f"transformers-chat has no option {sorted(task.raw)[0]}", "leave --engine-option out")
    config = {
        "model_path": task.model_path,
        "model": task.model_name,
        "socket": task.socket,
        "key": task.key,
        "context": task.options["context"],
        "device": task.options["device"],
        "threads": task.options["threads"],
    }
    path = str(Path(task.folder) / CONFIG)
    return ServerCommand(
        (task.python, "-m", "kuulo.engines.transformers_chat_server", path),
        files={CONFIG: json.dumps(config)},
        on_socket=True,
        ready_path="/v1/models",
    )
