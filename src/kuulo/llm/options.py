"""THE table of the options of language models: one name and one meaning on every engine that can honour them.

Flags, the `KUULO_LLM_*` variables, the values under `[llm]` in the site's and the user's file, the help and the
refusals come from it, as those of recognition come from `kuulo.options`. What comes later wins: built in, the site's
file, the user's, the environment, flags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kuulo import site
from kuulo.options import Option
from kuulo.site import Settings, Site


@dataclass(frozen=True)
class ChatOption(Option):
    """An option of language models. `request`: it is sent with each question; without it, it is the server's."""

    request: bool = False

    @property
    def variable(self) -> str:
        return "KUULO_LLM_" + self.name.upper()


GROUPS = ("Model", "Answer", "Server")

OPTIONS: tuple[ChatOption, ...] = (
    # Model
    ChatOption(
        "engine", ("--engine", "-e"), "str", None, "Model",
        "Implementation to use. Without it: the best installed one that has the model.", metavar="NAME", result=True,
    ),
    ChatOption(
        "model", ("--model", "-m"), "str", None, "Model",
        "Language model: a name in the store (`kuulo models list`) or a path. Without it: the best one in the store. "
        "Of an endpoint: its own name for it.", metavar="NAME|PATH", result=True,
    ),
    ChatOption(
        "endpoint", ("--endpoint",), "str", None, "Model",
        "Ask this address, which speaks OpenAI's API, instead of starting a server: http://HOST:PORT/v1, or "
        "unix:/PATH/OF/SOCKET.", metavar="URL", result=True,
    ),
    ChatOption(
        "key_file", ("--key-file",), "str", None, "Model",
        "File with the endpoint's key, which nobody else may read (0600). Without it: the variable KUULO_LLM_KEY, then "
        "OPENAI_API_KEY where the endpoint is OpenAI's.", metavar="FILE",
    ),
    # Answer
    ChatOption(
        "system", ("--system", "-s"), "str", None, "Answer",
        "What the model is told before the question: who it is, how it should answer.", metavar="TEXT",
        engine=True, result=True, request=True,
    ),
    ChatOption(
        "temperature", ("--temperature",), "float", 0.0, "Answer",
        "How freely words are chosen; 0 always takes the likeliest.", metavar="T",
        engine=True, result=True, minimum=0, maximum=2, request=True,
    ),
    ChatOption(
        "top_p", ("--top-p",), "float", None, "Answer",
        "Choose among the likeliest words that together have this probability. Without it: the engine's.", metavar="P",
        engine=True, result=True, minimum=0, maximum=1, request=True,
    ),
    ChatOption(
        "max_tokens", ("--max-tokens",), "int", None, "Answer",
        "Longest answer, in tokens. Without it: until the model ends, or its context is full.", metavar="N",
        engine=True, result=True, minimum=1, request=True,
    ),
    ChatOption(
        "seed", ("--seed",), "int", 0, "Answer",
        "Number from which chance is made: the same gives the same answer, where the engine can.", metavar="N",
        engine=True, result=True, minimum=0, maximum=2**31 - 1, request=True,
    ),
    ChatOption(
        "stop", ("--stop",), "texts", (), "Answer",
        "End the answer before this text. May be repeated.", metavar="TEXT", engine=True, result=True, request=True,
    ),
    ChatOption(
        "schema", ("--schema",), "str", None, "Answer",
        "What the answer must keep to: a JSON schema, as a file or as it is, or fields: \"name, age int, bio: in a "
        "sentence\".", metavar="FILE|JSON|FIELDS",
        engine=True, result=True, request=True,
    ),
    # Server
    ChatOption(
        "context", ("--context",), "int", None, "Server",
        "Tokens of question and answer together. Without it: as many as the model was trained for, memory allows and "
        "8192.", metavar="N", engine=True, result=True, minimum=64, maximum=2**24,
    ),
    ChatOption(
        "parallel", ("--parallel",), "int", 1, "Server",
        "Questions that are answered at the same time, each with its context.", metavar="N",
        engine=True, minimum=1, maximum=1024,
    ),
    ChatOption(
        "gpu_layers", ("--gpu-layers",), "int", None, "Server",
        "Layers of the model that are on the GPU. Without it: all where there is a GPU, else none.", metavar="N",
        engine=True, minimum=0, maximum=10_000,
    ),
    ChatOption(
        "tensor_parallel", ("--tensor-parallel",), "int", None, "Server",
        "GPUs among which each layer is split. Without it: 1.", metavar="N", engine=True, minimum=1, maximum=64,
    ),
    ChatOption(
        "device", ("--device",), "str", "auto", "Server", "auto, cpu or cuda.", metavar="DEVICE", engine=True,
    ),
    ChatOption(
        "threads", ("--threads",), "int", None, "Server",
        "CPU threads. Without it: the cores that we may use.", metavar="N", engine=True, minimum=1, maximum=1024,
    ),
    ChatOption(
        "engine_option", ("--engine-option",), "pairs", (), "Server",
        "Anything else, passed to the engine's server as it is, by its native name. May be repeated.",
        metavar="KEY=VALUE", result=True,
    ),
    ChatOption(
        "timeout", ("--timeout",), "int", 600, "Server",
        "Seconds that a server may take to load the model, and that an answer may stand still.", metavar="N",
        minimum=1, maximum=86_400,
    ),
    ChatOption(
        "scratch", ("--scratch",), "str", None, "Server",
        "Folder for the server's socket, log and caches; emptied at the end. Without it: the system's.",
        metavar="FOLDER",
    ),
)  # fmt: skip

BY_NAME: dict[str, ChatOption] = {o.name: o for o in OPTIONS}

KEY_VARIABLE = "KUULO_LLM_KEY"
"""Has an endpoint's key. It is no option: a key on a command line is seen by everybody on the machine."""


def settle(site_: Site, flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Every option's value from all layers. `flags` has those that were typed. Raises UsageError, also for another
    value than one that the site forces."""
    return site.settled(
        OPTIONS,
        (
            ("site", site_.centre.llm),
            ("user", site_.user_llm),
            ("environment", from_environment(environ)),
            ("flag", flags),
        ),
    )


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The options that KUULO_LLM_* variables set. An empty variable sets nothing."""
    return {o.name: environ[o.variable] for o in OPTIONS if environ.get(o.variable)}


def request_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of settled values, those that are sent with each question."""
    return {o.name: values[o.name] for o in OPTIONS if o.request and o.name in values}
