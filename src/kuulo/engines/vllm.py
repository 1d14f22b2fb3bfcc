"""vLLM: language models on GPUs, many questions at a time.

Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping

from kuulo.engines.base import EngineSpec, Native, ServerCommand, ServerTask, Unusable
from kuulo.engines.programs import find_in, flags

PROGRAM = "vllm"

RESERVED = frozenset(
    {
        "allowed-local-media-path", "api-key", "config", "enable-log-requests", "headless", "host", "load-format",
        "max-model-len", "max-num-seqs", "middleware", "model", "port", "root-path", "served-model-name",
        "tensor-parallel-size", "tool-parser-plugin", "tp", "trust-remote-code", "uds",
    }
)  # fmt: skip
"""Flags that Kuulo sets, and such as would open it, run code of others, or log what is asked."""

SPEC = EngineSpec(
    name="vllm",
    summary="vLLM: language models on GPUs, many questions at a time.",
    url="https://github.com/vllm-project/vllm",
    licence="Apache-2.0",
    package="vllm",
    module="vllm",
    install="vllm",
    tasks=("chat",),
    devices=("cuda",),
    model_formats=("hf-text",),
    kind="server",
    programs=(PROGRAM,),
    options={
        "system": Native("messages", "the first message, of the role system"),
        "temperature": Native("temperature"),
        "top_p": Native("top_p"),
        "max_tokens": Native("max_tokens"),
        "seed": Native("seed", "the same text only while nothing else is computed at the same time"),
        "stop": Native("stop"),
        "schema": Native("response_format", "json_schema; the answer cannot be anything else"),
        "context": Native("--max-model-len"),
        "parallel": Native("--max-num-seqs"),
        "tensor_parallel": Native("--tensor-parallel-size"),
        "device": Native("", "cuda"),
    },
    differs=(
        "The same seed need not give the same text: what else is computed in a batch changes the rounding.",
        "Without --parallel it answers as many questions at a time as memory allows.",
    ),
)


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    return {}


def serve(task: ServerTask) -> ServerCommand:
    """`vllm serve`. Of its routes, only those under /v1 ask for the key: it listens where nobody else comes."""
    found = find_in(task.folders, PROGRAM)
    start = [found] if found else [str(task.python), "-m", "vllm.entrypoints.cli.main"] if task.image else None
    if start is None:
        raise Unusable("there is no program vllm", "kuulo engines install vllm, on a machine with a GPU")
    options = task.options
    words: List[str] = [
        *start, "serve", task.model_path, "--served-model-name", task.model_name, "--uds", task.socket,
        "--max-model-len", str(options["context"]),
        "--tensor-parallel-size", str(options["tensor_parallel"] or 1),
        "--disable-uvicorn-access-log", "--no-enable-log-requests",
    ]  # fmt: skip
    if options["parallel"] > 1:
        words += ["--max-num-seqs", str(options["parallel"])]
    words += flags(task.raw, RESERVED)
    environ = {
        "VLLM_API_KEY": task.key,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(Path(task.folder) / "vllm"),
    }
    return ServerCommand(tuple(words), environ, on_socket=True, ready_path="/health", secret=("VLLM_API_KEY",))
