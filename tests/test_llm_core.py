"""Language models: what is planned and refused, how a server is started and ends, how it is asked.

Most of it is asked of a stand-in (llm_standin.py), started as the engines start their own programs. What needs the
engines themselves is at the end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import gguf_file
import llm_standin
from conftest import ROOT, Kuulo
from kuulo import engines
from kuulo.environments import health
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun, EngineMissing, ModelMissing, OptionRefused, UsageError
from kuulo.llm import facts, memory, options, plan, provenance, schema, server, tiny
from kuulo.llm.client import (
    Client,
    Delta,
    KeyRefused,
    PromptTooLong,
    RequestRefused,
    ServerGone,
    Usage,
    body,
    refusal,
)
from kuulo.llm.endpoint import Endpoint
from kuulo.llm.memory import Shape
from kuulo.machine import Machine
from kuulo.plan import Facts, Model
from kuulo.site import Settings, Site
from own_environments import ENVIRONMENTS, IN_ENVIRONMENTS

# httpcore2 leaves a Unix socket to the garbage collector when nobody listens there.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket")

HELLO = [{"role": "user", "content": 'Hyvää päivää, "Ängström"; $(touch owned)\nnext line'}]
GB = 10**9


# ---------------------------------------------------------------------- options, in layers


def settle(environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    return options.settle(Site(), flags, environ or {})


def test_options_have_layers_and_their_own_variables(
    kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    assert settle().values["temperature"] == 0.0 and settle().origin["seed"] == "built in"
    assert settle({"KUULO_LLM_TEMPERATURE": "0.5"}).values["temperature"] == 0.5
    assert settle({"KUULO_TEMPERATURE": "0.5"}).values["temperature"] == 0.0, "that of recognition"
    assert settle({"KUULO_LLM_SEED": "3"}, seed="4").values["seed"] == 4
    assert settle(stop=("a,b", "c")).values["stop"] == ("a,b", "c"), "a comma is no separator here"
    site_file = tmp_path / "site.toml"
    site_file.write_text(
        '[llm]\ntemperature = 0.7\nstop = ["x", "y"]\nengine = "openai"\nendpoint = "http://127.0.0.1:1"\n'
    )
    user_file = Path(kuulo_environment["XDG_CONFIG_HOME"]) / "kuulo" / "config.toml"
    user_file.parent.mkdir(parents=True)
    user_file.write_text("[llm]\ntop-p = 0.9\nseed = 7\n")
    told = kuulo("llm", "explain", "--json", "--seed", "8", env={"KUULO_SITE": str(site_file)})
    assert told.returncode == 0, told.stderr
    asked = json.loads(told.stdout)["plan"]["options"]
    assert (asked["temperature"], asked["top_p"], asked["seed"], asked["stop"]) == (0.7, 0.9, 8, ["x", "y"])
    user_file.write_text("[llm]\nbeam_size = 3\n")
    assert "unknown option: beam_size in [llm]" in kuulo("llm", "explain").stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"temperature": "hot"}, "is not a number"),
        ({"temperature": "2.5"}, "more than 2"),
        ({"top_p": "-1"}, "less than 0"),
        ({"context": "3"}, "less than 64"),
        ({"seed": "-1"}, "less than 0"),
    ],
)
def test_values_that_cannot_be_are_refused(flags: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settle(**flags)


def test_a_schema_is_a_file_or_the_text_itself(tmp_path: Path) -> None:
    path = tmp_path / "my schema, the first.json"
    path.write_text('{"type": "object"}')
    assert schema.read(str(path)) == schema.read(' {"type": "object"}') == {"type": "object"}
    for text, said in (("{", "not JSON"), ("[1, 2]", "another kind"), (str(tmp_path / "none"), "cannot be read")):
        with pytest.raises(UsageError, match=said):
            schema.read(text)
    path.write_text("[]")
    with pytest.raises(UsageError, match="another kind"):
        schema.read(str(path))


def test_a_schema_is_also_fields_in_llms_short_form() -> None:
    """The same as simonw/llm makes of them, but that nothing else may be there."""
    wanted = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "height": {"type": "number", "description": "in metres"},
            "alive": {"type": "boolean"},
            "bio": {"type": "string", "description": "short, without dates: two sentences"},
        },
        "required": ["name", "age", "height", "alive", "bio"],
        "additionalProperties": False,
    }
    fields = [
        "name",
        "age int",
        "height float: in metres",
        " alive bool",
        "bio str: short, without dates: two sentences",
    ]
    assert schema.read("\r\n".join([*fields, ""])) == wanted
    fields[4] = "bio: brief"
    wanted["properties"]["bio"]["description"] = "brief"  # type: ignore[index]
    assert schema.read(",".join([*fields, ""])) == wanted
    several = schema.several(schema.read("name str"))
    assert several["properties"]["items"]["items"]["properties"] == {"name": {"type": "string"}}


@pytest.mark.parametrize("text", ["name, age int, bio: short description", "größe float\nort: a town, or a village\n"])
def test_the_short_form_means_what_it_means_to_llm(text: str) -> None:
    llm = pytest.importorskip("llm")
    theirs = {**llm.schema_dsl(text), "additionalProperties": False}
    assert schema.read(text) == theirs
    assert schema.several(theirs) == {**llm.schema_dsl(text, multi=True), "additionalProperties": False} | {
        "properties": {"items": {"type": "array", "items": theirs}}
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name, age integer", "the field age has the type 'integer', which is none of bool, float, int, str"),
        ("name, bio: short, not long", "the field not has the type 'long'"),
        ("name, age int years", "'age int years' is no field"),
        ("name, : nothing", "': nothing' is no field"),
        ("out/my file", "'out/my file' is no field"),
        ("name, age int, name", "the field name is there twice"),
        (" , ", "it has no field"),
        ("name", "one field alone is written 'name str'"),
        ("schema.json", "the schema cannot be read: .*No such file"),
        ("my notes: final.json", "the schema cannot be read: .*No such file"),
        ("x" * 5000, "the schema cannot be read"),
        ("name\0, age", "is no field"),
    ],
)
def test_a_schema_that_is_nothing_of_these_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        schema.read(text)
    assert re.search(said, str(refused.value)), refused.value
    assert "a file with a JSON schema, the JSON itself, or fields" in str(refused.value.do)


# ---------------------------------------------------------------------- memory


SEVEN_B = Shape(
    weights_bytes=4_700_000_000, layers=28, key_value=2 * 4 * 128, context=32768, vocabulary=152_064, embedding=3584
)


def test_memory_is_weights_and_cache_and_what_computing_needs() -> None:
    assert SEVEN_B.token_bytes == 2 * 28 * 1024
    need = memory.need(SEVEN_B, 8192)
    assert need.cache == 57_344 * 8192 and need.total == need.weights + need.cache + need.buffers
    assert memory.need(SEVEN_B, 8192, parallel=4).cache == 4 * need.cache
    fits = memory.largest_context(SEVEN_B, 6 * GB)
    assert memory.need(SEVEN_B, fits).total <= 6 * GB < memory.need(SEVEN_B, fits + memory.STEP).total
    assert memory.largest_context(SEVEN_B, 4 * GB) == 0
    assert memory.largest_context(SEVEN_B, 64 * GB) == 32768, "not more than it was trained for"
    assert memory.choose_context(SEVEN_B, 64 * GB) == memory.DEFAULT_CONTEXT
    assert memory.choose_context(SEVEN_B, 6 * GB) == min(fits, memory.DEFAULT_CONTEXT)


def model(name: str, format_: str = "gguf", rank: int = 1000) -> Model:
    return Model(name, format_, Path("/models") / name, "d" * 64, 1, "path", rank=rank)


def known(
    *models: Model,
    shapes: Mapping[str, Shape] | None = None,
    installed: tuple[str, ...] = ("llama-cpp",),
    memory_bytes: int = 16 * GB,
    gpus: int = 0,
    gpu_bytes: int | None = None,
    key: str | None = None,
) -> plan.ChatFacts:
    def find(name: str, formats: Any) -> Model:
        for one in models:
            if one.name == name and one.format in formats:
                return one
        raise ModelMissing(f"no store has {name}")

    return plan.ChatFacts(
        Facts(
            machine=Machine(4, memory_bytes, gpus),
            installed={name: name in (*installed, "openai") for name in engines.names()},
            models=models,
            find_model=find,
            stores="/models",
        ),
        shape_of=lambda one: (shapes or {}).get(one.name, SEVEN_B),
        gpu_bytes=gpu_bytes,
        key=key,
    )


def test_too_little_memory_names_what_would_fit() -> None:
    with pytest.raises(CannotRun) as told:
        plan.resolve(settle(model="big", context="32768"), known(model("big"), memory_bytes=6 * GB))
    assert "big takes 7.2 GB, and this machine or job gives 6.0 GB" in str(told.value)
    fits = memory.largest_context(SEVEN_B, 6 * GB)
    assert f"--context {fits}" in str(told.value)
    assert plan.resolve(settle(model="big"), known(model("big"), memory_bytes=6 * GB)).context == min(fits, 8192)
    small = dataclasses.replace(SEVEN_B, weights_bytes=GB)
    with pytest.raises(CannotRun, match="largest model of the store that fits is small: --model small"):
        plan.resolve(
            settle(model="big"), known(model("big"), model("small"), shapes={"small": small}, memory_bytes=3 * GB)
        )
    with pytest.raises(CannotRun, match="no model of the store fits"):
        plan.resolve(settle(model="big"), known(model("big"), memory_bytes=3 * GB))
    with pytest.raises(CannotRun, match="a smaller --parallel than 16"):
        plan.resolve(settle(model="big", parallel="16", context="8192"), known(model("big"), memory_bytes=7 * GB))


def test_on_a_gpu_its_memory_counts() -> None:
    at = {"gpus": 1, "gpu_bytes": 8 * GB, "memory_bytes": 2 * GB}
    assert plan.resolve(settle(model="big"), known(model("big"), **at)).need is not None  # type: ignore[arg-type]
    with pytest.raises(CannotRun, match=r"this machine or job gives 2\.0 GB"):
        plan.resolve(settle(model="big", device="cpu"), known(model("big"), **at))  # type: ignore[arg-type]
    with pytest.raises(CannotRun, match="no GPU is here"):
        plan.resolve(settle(model="big", device="cuda"), known(model("big")))


# ---------------------------------------------------------------------- plans and refusals


def test_without_a_name_the_best_model_and_engine_are_taken() -> None:
    chosen = plan.resolve(settle(), known(model("b", rank=20), model("a", rank=30), installed=("llama-cpp", "vllm")))
    assert (chosen.engine, chosen.model_name, chosen.context) == ("llama-cpp", "b", 8192)
    assert "best language model in the store" in chosen.why
    with pytest.raises(EngineMissing, match="no engine for language models is installed"):
        plan.resolve(settle(), known(model("a"), installed=()))
    with pytest.raises(ModelMissing, match="no store has a language model"):
        plan.resolve(settle(), known(model("whisper", "ct2")))
    with pytest.raises(ModelMissing, match="no store has x"):
        plan.resolve(settle(model="x"), known(model("a")))


def test_an_environments_name_is_that_of_its_engine() -> None:
    at = known(model("a", "hf-text"), installed=("transformers-chat",))
    assert plan.resolve(settle(engine="transformers"), at).engine == "transformers-chat"
    with pytest.raises(UsageError, match="the engine pocketsphinx cannot chat"):
        plan.resolve(settle(engine="pocketsphinx"), at)
    with pytest.raises(UsageError, match="no engine 'lama-cpp'"):
        plan.resolve(settle(engine="lama-cpp"), at)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"engine": "transformers-chat", "schema": "{}"}, "--schema.*llama-cpp, vllm, openai can"),
        ({"engine": "transformers-chat", "parallel": "4"}, "--parallel.*llama-cpp, vllm can"),
        ({"engine": "vllm", "gpu_layers": "4"}, "--gpu-layers.*llama-cpp can"),
        ({"engine": "vllm", "device": "cpu"}, "its devices are cuda"),
        ({"engine": "llama-cpp", "device": "cpu", "gpu_layers": "4"}, "there is no GPU to put layers on"),
        ({"endpoint": "http://h/v1", "context": "4096"}, "--context.*llama-cpp, vllm, transformers-chat can"),
        ({"endpoint": "http://h/v1", "engine_option": ("a=1",)}, "no server to start"),
    ],
)
def test_options_that_an_engine_cannot_honour_are_refused(flags: dict[str, str], said: str) -> None:
    every = known(model("a", "hf-text"), model("a"), installed=("llama-cpp", "vllm", "transformers-chat"), gpus=1)
    with pytest.raises(OptionRefused, match=said):
        plan.resolve(settle(**flags), every)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8000", ("http://127.0.0.1:8000/v1", None)),
        ("https://gw.example.org/v1/", ("https://gw.example.org/v1", None)),
        ("https://gw.example.org/api/openai", ("https://gw.example.org/api/openai", None)),
        ("unix:/run/x y.sock", ("http://localhost/v1", Path("/run/x y.sock"))),
    ],
)
def test_addresses(text: str, expected: tuple[str, Path | None]) -> None:
    assert plan.parse_endpoint(text) == expected


@pytest.mark.parametrize(
    "text", ["localhost:8000", "ftp://x", "http://", "http://user:secret@host/v1", "http://h/v1?x=1"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as told:
        plan.parse_endpoint(text)
    assert "secret" not in str(told.value)


def test_a_key_is_in_no_text(tmp_path: Path) -> None:
    chosen = plan.resolve(settle(endpoint="http://h"), known(key="sk-very-secret"))
    assert chosen.secret == "sk-very-secret"
    for text in (repr(chosen), json.dumps(chosen.to_json()), repr(known(key="sk-very-secret"))):
        assert "secret" not in text.replace("'secret'", "")
    assert "sk-very" not in repr(Endpoint("http://h/v1", None, "sk-very-secret", "m", "openai"))
    path = tmp_path / "key"
    path.write_text("sk-very-secret\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others may read"):
        facts.read_key_file(path)
    path.chmod(0o600)
    assert facts.read_key({"key_file": str(path), "endpoint": "http://h"}, {}) == "sk-very-secret"
    assert facts.read_key({"key_file": None, "endpoint": "http://h"}, {"KUULO_LLM_KEY": "a"}) == "a"
    away = {"OPENAI_API_KEY": "a"}
    assert facts.read_key({"key_file": None, "endpoint": "http://h"}, away) is None, "it is for nobody else"
    assert facts.read_key({"key_file": None, "endpoint": "https://api.openai.com/v1"}, away) == "a"


def test_the_plans_key_is_of_all_that_decides_an_answer() -> None:
    at = known(model("a"))
    first = plan.resolve(settle(), at)
    assert first.key == plan.resolve(settle(timeout="5", threads="2"), at).key
    others = [{"seed": "1"}, {"temperature": "1"}, {"system": "x"}, {"context": "512"}, {"engine_option": ("a=1",)}]
    keys = {plan.resolve(settle(**flags), at).key for flags in others}  # type: ignore[arg-type]
    assert len(keys | {first.key}) == len(others) + 1


# ---------------------------------------------------------------------- what is sent, what comes back


def test_what_is_sent_has_openais_names() -> None:
    at = Endpoint("http://h/v1", None, None, "m", "openai")
    values = settle(system="Be brief.", max_tokens="9", stop=("x",), top_p="0.5").values
    asked = body(at, HELLO, options.request_values(values))
    assert asked == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, HELLO[0]],
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 9,
        "seed": 0,
        "stop": ["x"],
    }
    own = [{"role": "system", "content": "Mine."}, *HELLO]
    assert body(at, own, {"system": "Be brief."})["messages"] == own
    schema = {"type": "object"}
    assert body(at, HELLO, {"schema": schema})["response_format"]["json_schema"]["schema"] == schema
    beside = dataclasses.replace(at, schema_as="json_object")
    assert body(beside, HELLO, {"schema": schema})["response_format"] == {"type": "json_object", "schema": schema}


@pytest.mark.parametrize(
    ("told", "tokens", "context"),
    [
        (
            {"type": "exceed_context_size_error", "message": "m", "n_prompt_tokens": 900, "n_ctx": 512},
            900,
            512,
        ),
        (
            {
                "code": "context_length_exceeded",
                "message": "This model's maximum context length is 2048 tokens. However, you requested 2500 tokens "
                "(2490 in the messages, 10 in the completion). Please reduce the length of the messages or completion.",
            },
            2500,
            2048,
        ),
        (
            {
                "type": "BadRequestError",
                "message": "This model's maximum context length is 4096 tokens. However, your request has 5000 input "
                "tokens. Please reduce the length of the input messages.",
            },
            5000,
            4096,
        ),
    ],
)
def test_servers_say_in_their_own_ways_that_a_prompt_is_too_long(told: Any, tokens: int, context: int) -> None:
    error = refusal(400, told, "h")
    assert isinstance(error, PromptTooLong)
    assert (error.tokens, error.context, error.over) == (tokens, context, tokens - context)
    assert f"by {tokens - context} tokens" in str(error) and "split the text" in str(error)


def test_what_people_asked_is_in_no_message() -> None:
    fastapi = {"detail": [{"loc": ["body", "stop"], "msg": "not a list", "input": "my private words"}]}
    error = refusal(422, fastapi, "h")
    assert isinstance(error, RequestRefused) and error.status == 422
    assert "body.stop: not a list" in str(error) and "private" not in str(error)


@pytest.mark.parametrize("unix", [False, True])
def test_an_endpoint_is_asked(unix: bool, tmp_path: Path) -> None:
    with llm_standin.running(tmp_path / "s", unix=unix, key="k") as endpoint, Client(endpoint) as client:
        assert client.models() == ["standin"]
        reply = client.chat(HELLO)
        assert reply.text == "Answer: " + HELLO[0]["content"] and reply.finish == "stop"
        assert reply.usage == Usage(prompt=7, answer=8)
        deltas = list(client.stream(HELLO, {"max_tokens": 3}))
        assert "".join(d.text for d in deltas) == "Answer: Hyvää päivää,"
        assert [d.finish for d in deltas if d.finish] == ["length"] and deltas[-1] == Delta(usage=Usage(7, 3))
        assert client.count("one two three") == 3
        counted = client.count_chat(HELLO)
        assert counted.tokens > 7 and not counted.exact
        with pytest.raises(RequestRefused, match="404"):
            client.request("GET", "/nonsense")
        with (
            pytest.raises(KeyRefused, match="refuses the key"),
            Client(dataclasses.replace(endpoint, key="wrong")) as other,
        ):
            other.chat(HELLO)


def test_a_prompt_over_the_context_says_by_how_much(tmp_path: Path) -> None:
    with llm_standin.running(tmp_path, context=10) as endpoint, Client(endpoint) as client:
        for ask in (client.chat, lambda m: list(client.stream(m))):
            with pytest.raises(PromptTooLong, match="by 15 tokens"):
                ask([{"role": "user", "content": "word " * 25}])


def test_a_server_that_dies_gives_an_error_and_no_hang(tmp_path: Path) -> None:
    with llm_standin.running(tmp_path / "a", dies_after=2) as endpoint, Client(endpoint) as client:
        heard = []
        with pytest.raises(ServerGone, match="ended in the middle"):
            for delta in client.stream(HELLO):
                heard.append(delta.text)
        assert "".join(heard) == "Answer: Hyvää"
        with pytest.raises(ServerGone, match="nothing answers"):
            client.chat(HELLO)
    with llm_standin.running(tmp_path / "b", dies_after=0) as endpoint, Client(endpoint) as client:  # noqa: SIM117
        with pytest.raises(ServerGone):
            client.chat(HELLO)
    with llm_standin.running(tmp_path / "c", slow=30) as endpoint, Client(endpoint, timeout=2) as client:  # noqa: SIM117
        with pytest.raises(ServerGone, match="says nothing any more"):
            list(client.stream(HELLO))


# ---------------------------------------------------------------------- servers


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return gguf_file.small(tmp_path / "tiny $(x) 'ö'.gguf")


def planned(
    path: Path, engine: str = "llama-cpp", environment: Environment | None = None, **flags: Any
) -> plan.ChatPlan:
    settings = settle(engine=engine, model=str(path), **flags)
    found = model("tiny", "gguf" if path.suffix == ".gguf" else "hf-text")
    small = Shape(weights_bytes=100_000, layers=2, key_value=64, context=2048)
    at = known(
        dataclasses.replace(found, name=str(path), path=path), shapes={str(path): small}, installed=(engine,), gpus=1
    )
    return dataclasses.replace(plan.resolve(settings, at), model_name="tiny", environment=environment)


@pytest.fixture
def with_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a stand-in of this name on the PATH."""

    def make(name: str, **more: Any) -> Path:
        folder = tmp_path / "programs"
        path = llm_standin.program(folder, name, **more)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        return path

    return make


def test_a_server_runs_on_a_private_socket_with_a_key_of_its_own(gguf: Path, with_program: Any, tmp_path: Path) -> None:
    with_program("llama-server")
    scratch = tmp_path / "scratch ö"
    with server.running(planned(gguf, context="512", parallel="3"), scratch) as endpoint:
        assert endpoint.socket is not None and endpoint.socket.is_socket()
        assert scratch.stat().st_mode & 0o777 == 0o700
        assert endpoint.key and len(endpoint.key) > 30 and (endpoint.model, endpoint.context) == ("tiny", 512)
        with Client(endpoint) as client:
            assert client.chat(HELLO).text.startswith("Answer: Hyvää")
        processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert endpoint.key not in processes, "a command line is seen by everybody"
        with pytest.raises(KeyRefused), Client(dataclasses.replace(endpoint, key=None)) as nobody:
            nobody.chat(HELLO)
    with pytest.raises(ServerGone), Client(endpoint) as client:
        client.chat(HELLO)
    assert "Hyvää" not in (scratch / "server.log").read_text()


def test_a_scratch_folder_with_a_long_name_has_its_socket_elsewhere(
    gguf: Path, with_program: Any, tmp_path: Path
) -> None:
    with_program("llama-server")
    with server.running(planned(gguf), tmp_path / ("long" * 30)) as endpoint:
        assert endpoint.socket is not None and len(os.fsencode(endpoint.socket)) < 108
        place = endpoint.socket.parent
        with Client(endpoint) as client:
            assert client.models() == ["tiny"]
    assert not place.exists()


def test_it_counts_as_running_when_it_answers_not_when_it_listens(
    gguf: Path, with_program: Any, tmp_path: Path
) -> None:
    with_program("llama-server", starts_in=1.0)
    with server.running(planned(gguf), tmp_path / "s") as endpoint, Client(endpoint) as client:
        assert client.chat(HELLO).finish == "stop"
    with_program("llama-server", starts_in=600.0)
    with (
        pytest.raises(server.ServerDied, match="did not answer within 1 s"),
        server.running(planned(gguf), tmp_path / "t", timeout=1),
    ):
        pass


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fails": 7, "says": "error: cannot load the model"}, r"ended \(exit code 7\)(.|\n)*cannot load the model"),
        ({"dies_after": 0}, r"ended \(exit code 3\)"),
    ],
)
def test_a_server_that_does_not_start_says_why(
    more: Any, said: str, gguf: Path, with_program: Any, tmp_path: Path
) -> None:
    with_program("llama-server", **more)
    with pytest.raises(server.ServerDied, match=said), server.running(planned(gguf), tmp_path / "s"):
        pass


def test_a_server_that_dies_in_the_middle_is_told_with_its_log(gguf: Path, with_program: Any, tmp_path: Path) -> None:
    with_program("llama-server", dies_after=4, says="a line of the log")
    with pytest.raises(server.ServerDied, match="exit code 3") as told:  # noqa: SIM117
        with server.running(planned(gguf), tmp_path / "s") as endpoint, Client(endpoint) as client:
            list(client.stream(HELLO))
    assert "a line of the log" in str(told.value)


DRIVER = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
import test_llm_core as t
from kuulo.llm import server
with server.running(t.planned(Path(sys.argv[1])), Path(sys.argv[2])) as endpoint:
    print(endpoint.socket, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_us_however_we_end(number: int, gguf: Path, with_program: Any, tmp_path: Path) -> None:
    with_program("llama-server")
    code = DRIVER.format(paths=[str(ROOT / part) for part in ("src", "tests", "tools")])
    us = subprocess.Popen(
        [sys.executable, "-c", code, str(gguf), str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert us.stdout is not None
    assert us.stdout.readline().strip()
    assert len(_processes_with(str(gguf))) >= 2  # ours, the warden, the server
    us.send_signal(number)
    us.wait(60)
    us.stdout.close()
    deadline = time.monotonic() + 30
    while left := _processes_with(str(gguf)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _processes_with(text: str) -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(text) in said:
            lines.append(said.replace(b"\0", b" ").decode(errors="replace"))
    return lines


def test_what_would_set_its_options_or_is_a_secret_is_kept_from_it(
    gguf: Path, with_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    with_program("llama-server")
    one = server.Server(planned(gguf), tmp_path / "s", 60.0)
    try:
        one.start()
        assert one.process is not None
        environ = Path(f"/proc/{one.process.pid}/environ").read_bytes()
        assert b"LLAMA_ARG_CTX" not in environ and b"OPENAI_API_KEY" not in environ and b"HF_HUB_OFFLINE=1" in environ
    finally:
        one.stop()
        one.stop()


def test_several_may_ask_at_once(gguf: Path, with_program: Any, tmp_path: Path) -> None:
    with_program("llama-server")
    answers: dict[int, str] = {}
    with server.running(planned(gguf, parallel="8"), tmp_path / "s") as endpoint, Client(endpoint) as client:

        def ask(number: int) -> None:
            answers[number] = client.chat([{"role": "user", "content": f"number {number}"}]).text

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {n: f"Answer: number {n}" for n in range(24)}


def test_an_endpoint_without_a_name_of_a_model_has_one_or_is_asked_which(tmp_path: Path) -> None:
    with llm_standin.running(tmp_path, unix=True, model="only") as there:
        chosen = plan.resolve(settle(endpoint=f"unix:{there.socket}"), known())
        assert chosen.engine == "openai" and not chosen.starts_server
        with server.running(chosen, tmp_path) as endpoint, Client(endpoint) as client:
            assert client.chat(HELLO).model == "only"
        assert "POST http://localhost/v1/chat/completions" in server.native(chosen)


APPTAINER = """#!{python}
import json, os, sys
words = sys.argv[1:]
program = words.index("-I")  # the image's Python
launcher, rest = words[program + 1], words[program + 2 :]
place = rest.index("--environment") + 1
environ = json.load(open(rest[place]))
environ["PYTHONPATH"] = os.path.dirname(launcher)  # which an image has at a place of its own
environ["PATH"] = {programs!r} + ":" + environ["PATH"]
command = rest[rest.index("--") + 1 :]
os.execve(sys.executable, [sys.executable, *command[1:]], environ)
"""


def test_an_engine_in_a_container_image_is_started_in_it(
    gguf: Path, with_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = with_program("llama-server").parent
    starter = tmp_path / "bin" / "apptainer"
    starter.parent.mkdir()
    starter.write_text(APPTAINER.format(python=sys.executable, programs=str(programs)))
    starter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{starter.parent}:/usr/bin:/bin")
    image = tmp_path / "images" / "image.squashfs"
    image.parent.mkdir()
    image.write_bytes((b"hsqs" + bytes(36) + struct.pack("<Q", 4096)).ljust(4096, b"\0"))  # a header alone
    environment = Environment("llama-cpp", image.parent, "any", "3.11.7", "0" * 64, image=image.name)
    chosen = planned(gguf, environment=environment)
    for scratch in (tmp_path / "s", tmp_path / ("long" * 30)):
        with server.running(chosen, scratch) as endpoint, Client(endpoint) as client:
            assert client.chat(HELLO).text.startswith("Answer: Hyvää")
            assert endpoint.key and endpoint.key not in " ".join(_processes_with(str(gguf)))
    assert "-m kuulo.engines.llama_cpp_program --model" in server.native(chosen)


# ---------------------------------------------------------------------- native commands


def test_the_exact_native_command_is_shown(gguf: Path, with_program: Any) -> None:
    program = with_program("llama-server")
    shown = server.native(
        planned(gguf, context="512", parallel="2", threads="3", device="cpu", engine_option=("flash_attn=on",))
    )
    assert shown.startswith(f"LLAMA_API_KEY=KEY {program} --model '/")
    for words in (
        "--host SOCKET",
        "--ctx-size 1024",
        "--parallel 2",
        "--threads 3",
        "--gpu-layers 0",
        "--flash-attn on",
    ):
        assert words in shown, words


def test_a_file_that_llama_cpp_is_told_of_is_named_from_the_root(
    gguf: Path, with_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stands in scratch."""
    with_program("llama-server")
    monkeypatch.chdir(tmp_path)
    shown = server.native(planned(gguf, engine_option=("chat_template_file=a.jinja", "lora=b.gguf")))
    assert f"--chat-template-file {tmp_path}/a.jinja --lora {tmp_path}/b.gguf" in shown


def test_vllm_is_started_with_all_that_it_needs(with_program: Any, tmp_path: Path) -> None:
    with_program("vllm")
    folder = tmp_path / "model"
    folder.mkdir()
    chosen = planned(folder, "vllm", context="1024", tensor_parallel="2", parallel="16")
    shown = server.native(chosen)
    for words in (
        f"vllm serve {folder} --served-model-name tiny --uds SOCKET", "--max-model-len 1024",
        "--tensor-parallel-size 2", "--max-num-seqs 16", "VLLM_API_KEY=KEY", "VLLM_NO_USAGE_STATS=1",
    ):  # fmt: skip
        assert words in shown, words
    with server.running(chosen, tmp_path / "s") as endpoint, Client(endpoint) as client:
        assert client.chat(HELLO, {"schema": {"type": "object", "properties": {"a": {"enum": [1]}}}}).text == '{"a": 1}'
        assert endpoint.schema_as == "json_schema"


@pytest.mark.parametrize(
    ("engine", "option"),
    [
        ("llama-cpp", "host=0.0.0.0"),
        ("llama-cpp", "api_key=x"),
        ("llama-cpp", "tools=all"),
        ("vllm", "trust_remote_code=true"),
        ("vllm", "uds=/tmp/x"),
    ],
)
def test_raw_options_that_would_open_a_server_or_run_code_are_refused(
    engine: str, option: str, gguf: Path, with_program: Any, tmp_path: Path
) -> None:
    with_program({"llama-cpp": "llama-server"}.get(engine, engine))
    with pytest.raises(OptionRefused, match="not for you to set"):
        server.native(planned(gguf if engine == "llama-cpp" else tmp_path, engine, engine_option=(option,)))


def test_without_the_program_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="kuulo engines install vllm"):
        server.native(planned(tmp_path, "vllm"))


def test_explain_shows_options_memory_and_command(kuulo: Kuulo, gguf: Path, with_program: Any) -> None:
    with_program("llama-server")
    told = kuulo("llm", "explain", "-m", gguf, "--context", "512", env={"PATH": os.environ["PATH"]})
    assert told.returncode == 0, told.stderr
    assert "weights" in told.stdout and "llama-server --model" in told.stdout and "--max-tokens" in told.stdout
    refused = kuulo("llm", "explain", "-e", "vllm", "--gpu-layers", "3")
    assert "llama-cpp can" in refused.stdout


# ---------------------------------------------------------------------- provenance


def test_provenance_says_what_an_answer_was_made_with(gguf: Path, with_program: Any) -> None:
    with_program("llama-server")
    chosen = planned(gguf, system="private words", seed="5")
    endpoint = Endpoint("http://localhost/v1", None, "k", "tiny", "llama-cpp", 2048)
    told = provenance.of(
        chosen, endpoint, template={"name": "summary", "sha256": "0"}, usage=Usage(3, 4), finish="stop"
    )
    assert told["model_sha256"] == "d" * 64 and told["options"]["seed"] == 5 and told["context"] == 2048
    assert told["chat_template_sha256"] == provenance.digest("{{ messages }}")
    assert told["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}
    assert "private" not in json.dumps(told) and told["options"]["system"]["sha256"] == provenance.digest(
        "private words"
    )
    assert told["repeatable"] == provenance.REPEATABLE
    assert provenance.repeatable(planned(gguf, parallel="2")) == provenance.NOT_REPEATABLE


# ---------------------------------------------------------------------- the engines themselves, with a model that knows

TINY = ROOT / "tests" / "llm"
ASKED: dict[str, str] = json.loads((TINY / "tiny.json").read_text(encoding="utf-8"))
STORY = [{"role": "user", "content": "Tell me a story."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "size": {"enum": ["small", "large"]}},
    "required": ["city", "size"],
    "additionalProperties": False,
}


def llama_cpp() -> Environment:
    found = ENVIRONMENTS.find("llama-cpp")
    if found is None:
        pytest.skip(f"needs the environment of llama-cpp, which `make test` makes: {ENVIRONMENTS.folders}")
    return found


def without_its_program(environment: Environment, folder: Path) -> Environment:
    """The same packages, without llama-server: llama-cpp-python's own server is all that is left."""
    (theirs,) = environment.folder.glob("lib/python*/site-packages")
    ours = folder / theirs.relative_to(environment.folder)
    ours.mkdir(parents=True)
    for path in theirs.iterdir():
        if path.name != "bin":
            (ours / path.name).symlink_to(path)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(environment.interpreter.resolve())
    (folder / "pyvenv.cfg").write_bytes((environment.folder / "pyvenv.cfg").read_bytes())
    return dataclasses.replace(environment, folder=folder)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("llama-server", marks=pytest.mark.engine("llama-cpp")),
        pytest.param("llama-cpp-python", marks=pytest.mark.engine("llama-cpp")),
        pytest.param("transformers", marks=pytest.mark.engine("transformers-chat")),
    ],
)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Endpoint]]:
    """Which server, and its endpoint, with 512 tokens of context."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "src"))
        if request.param == "transformers":
            if not engines.installed(engines.spec("transformers-chat")):
                pytest.skip("needs transformers")
            chosen = planned(TINY / "tiny", "transformers-chat", context="512", device="cpu")
        else:
            environment = llama_cpp()
            if request.param == "llama-cpp-python":
                environment = without_its_program(environment, folder / "environment")
                patch.setenv("PATH", "/usr/bin:/bin")
            chosen = planned(tiny.FILES["gguf"], environment=environment, context="512", device="cpu")
            assert (request.param == "llama-server") == ("llama-server --model" in server.native(chosen))
        with server.running(chosen, folder / "s") as endpoint:
            yield request.param, endpoint


@pytest.fixture
def asked(real: tuple[str, Endpoint]) -> Iterator[Client]:
    with Client(real[1], timeout=120) as client:
        yield client


def test_it_knows_what_it_was_taught(asked: Client) -> None:
    for question, answer in ASKED.items():
        reply = asked.chat([{"role": "user", "content": question}], {"temperature": 0, "max_tokens": 80})
        assert (reply.text, reply.finish) == (answer, "stop"), question
        assert reply.usage and reply.usage.prompt > 5 and reply.usage.answer > 1


def test_an_answer_comes_in_pieces_and_ends_where_it_is_told(asked: Client) -> None:
    whole = ASKED["Tell me a story."]
    deltas = list(asked.stream(STORY, {"temperature": 0}))
    assert "".join(d.text for d in deltas) == whole and len(deltas) > 10
    assert [d.finish for d in deltas if d.finish] == ["stop"]
    stopped = asked.chat(STORY, {"temperature": 0, "stop": ["boats", "never"]})
    assert stopped.text == whole.partition("boats")[0] and stopped.finish == "stop"
    cut = asked.chat(STORY, {"temperature": 0, "max_tokens": 3})
    assert whole.startswith(cut.text) and cut.finish == "length" and cut.usage and cut.usage.answer == 3


def test_the_same_seed_gives_the_same_text(asked: Client) -> None:
    unknown = [{"role": "user", "content": "zz #7 qq"}]

    def told(seed: int) -> str:
        return asked.chat(unknown, {"temperature": 2, "top_p": 1, "seed": seed, "max_tokens": 30}).text

    assert told(1) == told(1) == told(1)
    assert len({told(seed) for seed in range(1, 9)}) > 1, "another seed gives another text"


def test_a_schema_is_kept_to(real: tuple[str, Endpoint], asked: Client) -> None:
    values = {"schema": SCHEMA, "temperature": 0, "max_tokens": 480}
    if real[0] == "transformers":
        with pytest.raises(RequestRefused, match="cannot honour response_format"):
            asked.chat(STORY, values)
        return
    # llama-cpp-python's grammar lets line breaks into texts, which JSON wants to have escaped.
    said = json.loads(asked.chat(STORY, values).text, strict=real[0] == "llama-server")
    assert set(said) == {"city", "size"} and said["size"] in ("small", "large") and len(said["city"]) <= 12


def test_a_real_prompt_that_is_too_long(real: tuple[str, Endpoint], asked: Client) -> None:
    long = [{"role": "user", "content": "capital of Finland " * 300}]
    counted = asked.count_chat(long)
    assert counted.tokens > 512
    for ask in (asked.chat, lambda m: list(asked.stream(m))):
        with pytest.raises(PromptTooLong) as told:
            ask(long)
        assert told.value.context == 512 and told.value.over
        if counted.exact:
            assert abs(told.value.over - (counted.tokens - 512)) < 20
    assert asked.chat(STORY, {"max_tokens": 2}).text, "and it goes on"


def test_real_servers_refuse_wrong_keys_and_unknown_routes(real: tuple[str, Endpoint], asked: Client) -> None:
    with Client(dataclasses.replace(real[1], key="wrong")) as other, pytest.raises(KeyRefused):
        other.chat(STORY)
    with pytest.raises(RequestRefused, match="404"):
        asked.request("GET", "/nonsense")


def test_odd_texts_go_through(asked: Client) -> None:
    for text in ("", " ", "\0", "ä" * 50, "日本語 🎈", "<|im_end|>\n<|im_start|>system", '"\\\n\t$(x)`'):
        assert asked.chat([{"role": "user", "content": text}], {"max_tokens": 4}).finish in ("stop", "length")


@pytest.mark.engine("llama-cpp")
def test_the_check_of_an_installation_has_it_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By llama-server, and by what is there without it."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    right = "it answered 29 of 29 words of 3 answers with the model tiny, on the CPU"
    assert health.check(llama_cpp()) == right
    assert health.check(without_its_program(llama_cpp(), tmp_path / "environment")) == right


@pytest.mark.engine("llama-cpp")
def test_selftest_asks_the_real_one(kuulo: Kuulo) -> None:
    llama_cpp()
    done = kuulo("selftest", "-e", "llama-cpp", "--json", env=IN_ENVIRONMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    (one,) = json.loads(done.stdout)["nodes"][0]["outcomes"]
    assert one["stages"][1] == {**one["stages"][1], "name": "answers", "found": "29 of 29 words of 3 answers"}


@pytest.mark.engine("llama-cpp")
def test_llama_server_answers_many_at_once_and_a_kill_is_told(tmp_path: Path) -> None:
    chosen = planned(tiny.FILES["gguf"], environment=llama_cpp(), context="256", parallel="8", device="cpu")
    one = server.Server(chosen, tmp_path / "s", 120.0)
    try:
        one.start()
        answers: dict[str, str] = {}
        with Client(one.endpoint, timeout=120) as client:

            def ask(question: str) -> None:
                answers[question] = client.chat([{"role": "user", "content": question}], {"temperature": 0}).text

            threads = [threading.Thread(target=ask, args=(question,)) for question in ASKED]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sum(answers[q] == a for q, a in ASKED.items()) >= len(ASKED) - 2, "rounding may cost one"
            pieces = client.stream(STORY, {"temperature": 0})
            next(pieces)
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                if b"llama-server" in line.read_bytes().split(b"\0")[0] and os.fsencode(tmp_path) in line.read_bytes():
                    os.kill(int(line.parent.name), signal.SIGKILL)
            with pytest.raises(ServerGone):
                list(client.stream(STORY, {"temperature": 0}))
            pieces.close()
        assert one.has_ended() and "SIGKILL" in str(one.death())
    finally:
        one.stop()


@pytest.mark.engine("llama-cpp")
def test_a_file_that_passes_its_header_and_is_no_model_is_told_by_the_engine(tmp_path: Path) -> None:
    path = gguf_file.small(tmp_path / "nonsense.gguf")
    with (
        pytest.raises(server.ServerDied, match="its log"),
        server.running(planned(path, environment=llama_cpp(), device="cpu"), tmp_path / "s"),
    ):
        pass
