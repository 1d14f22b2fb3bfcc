"""llama.cpp, by its own server llama-server where it is found, else by llama-cpp-python's.

Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping

from kuulo.engines.base import EngineSpec, Native, Refused, ServerCommand, ServerTask, Unusable
from kuulo.engines.programs import find_in, flags, not_yours

PROGRAM = "llama-server"

FILES = (
    "chat_template_file", "control_vector", "grammar_file", "json_schema_file", "lookup_cache_dynamic",
    "lookup_cache_static", "lora", "mmproj", "model_draft", "clip_model_path", "lora_base", "lora_path",
)  # fmt: skip

SPEC = EngineSpec(
    name="llama-cpp",
    summary="llama.cpp: GGUF models, on a CPU or a GPU; the default for language models.",
    url="https://github.com/ggml-org/llama.cpp",
    licence="MIT",
    package="llama-cpp-python",
    module="llama_cpp",
    install="llama-cpp-python[server]",
    tasks=("chat",),
    devices=("cpu", "cuda"),
    model_formats=("gguf",),
    kind="server",
    same_seed_same_text=True,
    files=FILES,
    programs=(PROGRAM,),
    schema_as="json_object",
    options={
        "system": Native("messages", "the first message, of the role system"),
        "temperature": Native("temperature"),
        "top_p": Native("top_p"),
        "max_tokens": Native("max_tokens"),
        "seed": Native("seed"),
        "stop": Native("stop"),
        "schema": Native("response_format", "becomes a grammar: the answer cannot be anything else"),
        "context": Native("--ctx-size", "times --parallel; llama-cpp-python: n_ctx"),
        "parallel": Native("--parallel", "llama-server alone"),
        "gpu_layers": Native("--gpu-layers", "llama-cpp-python: n_gpu_layers"),
        "tensor_parallel": Native("--tensor-split", "with --split-mode row, over so many GPUs"),
        "device": Native("--gpu-layers", "cpu is 0"),
        "threads": Native("--threads", "llama-cpp-python: n_threads"),
    },
    differs=(
        "The same seed on the same machine gives the same text. With --parallel above 1 it need not: what else is "
        "computed in the same batch changes the rounding.",
    ),
)

RESERVED = frozenset(
    {
        "alias", "api-key", "api-key-file", "api-prefix", "c", "context-size", "ctx-size", "gpu-layers", "hf",
        "hf-file", "hf-repo", "hff", "hfr", "host", "log-file", "m", "media-path", "model", "model-url", "models-dir",
        "models-preset", "mu", "n-gpu-layers", "ngl", "np", "parallel", "path", "port", "reuse-port", "slot-save-path",
        "slots", "t", "tensor-split", "threads", "tools", "tools-runtime", "ui-mcp-proxy", "v", "verbose",
        "webui-mcp-proxy",
    }
)  # fmt: skip
"""Flags of llama-server that Kuulo sets, and such as would open it, fetch, run programs, or log what is asked."""

RESERVED_PYTHON = frozenset(
    {"hf_model_repo_id", "hf_pretrained_model_name_or_path", "model", "model_alias", "n_ctx", "n_gpu_layers",
     "n_threads", "n_threads_batch", "rpc_servers", "tensor_split", "verbose"}
)  # fmt: skip

ALL_LAYERS = 999
"""More layers than a model has: all of them."""


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    if str(options.get("device", "")) == "cpu" and options.get("gpu_layers"):
        return {"gpu_layers": "with --device cpu there is no GPU to put layers on"}
    return {}


def serve(task: ServerTask) -> ServerCommand:
    """llama-server, or llama-cpp-python's where there is none."""
    program = find_in(task.folders, PROGRAM)
    if program:
        return _llama_server([program], task)
    if task.image:
        return _llama_server([str(task.python), "-m", "kuulo.engines.llama_cpp_program"], task)
    if task.python is None:
        raise Unusable(f"there is no {PROGRAM} and no llama-cpp-python", "kuulo engines install llama-cpp")
    if task.options["parallel"] > 1:
        raise Refused(
            "--parallel above 1 needs llama-server: llama-cpp-python's server answers one question at a time",
            "put llama-server on the PATH, or leave --parallel out",
        )
    return _python_server(task.python, task)


def _layers(options: Mapping[str, Any]) -> int:
    if options["device"] == "cpu":
        return 0
    return ALL_LAYERS if options["gpu_layers"] is None else int(options["gpu_layers"])


def _llama_server(start: List[str], task: ServerTask) -> ServerCommand:
    options = task.options
    words: List[str] = [
        *start, "--model", task.model_path, "--alias", task.model_name, "--host", task.socket,
        "--ctx-size", str(options["context"] * options["parallel"]), "--parallel", str(options["parallel"]),
        "--threads", str(options["threads"]), "--gpu-layers", str(_layers(options)),
        "--jinja", "--offline", "--no-ui", "--no-slots", "--fit", "off", "--no-kv-unified",
    ]  # fmt: skip
    if options["tensor_parallel"] and options["tensor_parallel"] > 1:
        words += ["--split-mode", "row", "--tensor-split", ",".join(["1"] * options["tensor_parallel"])]
    words += flags(task.raw, RESERVED)
    return ServerCommand(
        tuple(words), {"LLAMA_API_KEY": task.key}, on_socket=True, ready_path="/health", secret=("LLAMA_API_KEY",)
    )


def _python_server(python: str, task: ServerTask) -> ServerCommand:
    """Its application in uvicorn, which can listen on a socket; its settings, with the key, are in a file."""
    options = task.options
    taken = sorted(RESERVED_PYTHON & set(task.raw))
    if taken:
        raise not_yours(taken[0])
    model = {
        "model": task.model_path,
        "model_alias": task.model_name,
        "n_ctx": options["context"],
        "n_threads": options["threads"],
        "n_threads_batch": options["threads"],
        "n_gpu_layers": -1 if _layers(options) == ALL_LAYERS else _layers(options),
        "logits_all": False,
        "verbose": False,
        **task.raw,
    }
    if options["tensor_parallel"] and options["tensor_parallel"] > 1:
        model["split_mode"], model["tensor_split"] = 2, [1.0] * options["tensor_parallel"]
    settings = {"api_key": task.key, "interrupt_requests": False, "models": [model]}
    return ServerCommand(
        (
            python, "-m", "uvicorn", "--factory", "llama_cpp.server.app:create_app", "--uds", task.socket,
            "--no-access-log", "--log-level", "warning",
        ),
        {"CONFIG_FILE": str(Path(task.folder) / "llama-cpp.json")},
        {"llama-cpp.json": json.dumps(settings)},
        on_socket=True,
        ready_path="/v1/models",
    )  # fmt: skip
