"""From a request to a plan: which engine, which model, what is refused, how the machine is shared out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kuulo import engines, plan, site
from kuulo.errors import EngineMissing, ModelMissing, OptionRefused, UsageError
from kuulo.machine import Machine
from kuulo.plan import Facts, Model

GB = 10**9
LAPTOP = Machine(cores=8, memory_bytes=16 * GB, gpus=0)


def model(name: str, format_: str, rank: int = 10, **more: Any) -> Model:
    values: dict[str, Any] = {"multilingual": True, "translates": True, "bytes": GB // 2, **more}
    return Model(
        name,
        format_,
        Path(f"/store/{format_}/{name}"),
        f"digest of {name} {format_}",
        origin="store",
        rank=rank,
        **values,
    )


SMALL = model("small", "ct2", 30)
MEDIUM_GGML = model("medium", "ggml", 20)
TURBO = model("large-v3-turbo", "ct2", 1, translates=False)
ENGLISH = model("small.en", "pt", 31, multilingual=False, translates=False)


def facts(*models: Model, installed: Sequence[str] | None = None, machine: Machine = LAPTOP) -> Facts:
    def find(name: str, formats: Sequence[str]) -> Model:
        for format_ in formats:
            for one in models:
                if (one.name, one.format) == (name, format_):
                    return one
        raise ModelMissing(f"model {name} ({', '.join(formats)}) is in no store", do=f"kuulo models pull {name}")

    everything = [*(s.name for s in engines.specs()), *(s.name for s in engines.specs("diarize"))]
    there = everything if installed is None else installed
    return Facts(machine, {n: n in there for n in everything}, models, find, "/store")


def resolve(known: Facts, recordings: int = 1, **flags: Any) -> plan.Plan:
    return plan.resolve(site.settle(site.Site(), flags, {}), known, recordings)


def test_the_built_in_engine_serves_while_no_model_is_there() -> None:
    chosen = resolve(facts())
    assert chosen.engine == "pocketsphinx" and chosen.model is None
    assert "no Whisper model" in chosen.why
    assert chosen.notes


def test_without_a_model_another_language_names_the_command_that_gets_one() -> None:
    with pytest.raises(ModelMissing, match="kuulo models pull") as caught:
        resolve(facts(), language="fi")
    assert "/store" in str(caught.value)


def test_a_model_in_the_store_makes_its_engine_the_default() -> None:
    chosen = resolve(facts(SMALL))
    assert (chosen.engine, chosen.model) == ("faster-whisper", SMALL)


def test_the_best_model_decides_then_the_order_of_the_engines() -> None:
    assert resolve(facts(SMALL, MEDIUM_GGML)).engine == "whisper-cpp"
    assert resolve(facts(SMALL, MEDIUM_GGML, TURBO)).model == TURBO
    both = model("medium", "ct2", 20)
    assert resolve(facts(MEDIUM_GGML, both)).engine == "faster-whisper"


def test_the_built_in_model_serves_only_who_names_it_and_says_what_it_is() -> None:
    own = model("miniature", "ct2", 1, built_in=True)
    assert resolve(facts(own)).model is None and resolve(facts(own, SMALL)).model == SMALL
    with pytest.raises(ModelMissing, match="no store has a model for faster-whisper"):
        resolve(facts(own), engine="faster-whisper")
    named = resolve(facts(own, SMALL), model="miniature")
    assert named.model == own and "demonstration" in named.notes[0] and "models pull small" in named.notes[0]
    assert resolve(facts(SMALL), model="small").notes == ()


def test_a_named_model_takes_the_first_engine_that_has_it() -> None:
    assert resolve(facts(SMALL, MEDIUM_GGML), model="medium").engine == "whisper-cpp"
    with pytest.raises(ModelMissing, match="kuulo models pull large-v3"):
        resolve(facts(SMALL), model="large-v3")


def test_no_engine_stands_in_for_one_that_was_named() -> None:
    with pytest.raises(ModelMissing):
        resolve(facts(SMALL), engine="whisper-cpp", model="small")
    with pytest.raises(EngineMissing, match="kuulo engines install whisper-cpp"):
        resolve(facts(MEDIUM_GGML, installed=["faster-whisper"]), engine="whisper-cpp")
    with pytest.raises(UsageError, match="did you mean faster-whisper"):
        resolve(facts(SMALL), engine="fasterwhisper")


def test_hidden_engines_are_never_chosen_but_can_be_named() -> None:
    assert resolve(facts(), engine="pocketsphinx").engine == "pocketsphinx"
    assert "null" not in [s.name for s in engines.specs()]


@pytest.mark.parametrize(
    ("engine", "flags", "says"),
    [
        ("openai-whisper", {"hotwords": "Kuulo"}, "--hotwords.*faster-whisper"),
        ("openai-whisper", {"batch_size": 8}, "--batch-size.*faster-whisper"),
        ("whisper-cpp", {"hotwords": "x"}, "--hotwords"),
        ("pocketsphinx", {"language": "fi"}, "--language"),
        ("pocketsphinx", {"task": "translate"}, "--task.*faster-whisper"),
        ("pocketsphinx", {"beam_size": 3}, "--beam-size"),
        (
            "faster-whisper",
            {"batch_size": 8, "condition_on_previous_text": True},
            "--condition-on-previous-text",
        ),
        ("faster-whisper", {"batch_size": 8, "temperature": "0,0.2"}, "--temperature"),
        ("faster-whisper", {"device": "tpu"}, "--device.*cpu, cuda"),
        ("faster-whisper", {"device": "cuda:x"}, "--device"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_engines_that_can(
    engine: str, flags: Mapping[str, Any], says: str
) -> None:
    models = [model("small", f) for f in ("ct2", "pt", "ggml", "hf")]
    with pytest.raises(OptionRefused, match=says):
        resolve(facts(*models), engine=engine, **flags)


def test_all_refusals_are_told_at_once() -> None:
    with pytest.raises(OptionRefused) as caught:
        resolve(facts(model("small", "pt")), engine="openai-whisper", hotwords="x", batch_size=4)
    assert "--hotwords" in str(caught.value) and "--batch-size" in str(caught.value)


def test_asking_for_what_would_be_anyway_is_not_refused() -> None:
    chosen = resolve(facts(), engine="pocketsphinx", task="transcribe", batch_size=1, language="en")
    assert chosen.engine == "pocketsphinx"


def test_models_that_cannot_are_refused() -> None:
    with pytest.raises(OptionRefused, match="cannot translate"):
        resolve(facts(TURBO), task="translate")
    with pytest.raises(OptionRefused, match="English"):
        resolve(facts(ENGLISH), language="fi")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"from": "10", "to": "5"}, "--to is not after --from"),
        ({"max_line_width": 40}, "--word-times"),
        ({"max_line_count": 2, "word_times": True}, "--max-line-width"),
    ],
)
def test_contradictions_are_refused(flags: Mapping[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        resolve(facts(SMALL), **flags)


@pytest.mark.parametrize(
    ("machine", "recordings", "flags", "expected"),
    [
        (Machine(2, 16 * GB, 0), 1, {}, (1, 2)),
        (Machine(2, 16 * GB, 0), 200, {}, (2, 1)),
        (Machine(64, 256 * GB, 0), 1, {}, (1, 8)),
        (Machine(64, 256 * GB, 0), 10, {}, (10, 6)),
        (Machine(8, 4 * GB, 0), 200, {}, (2, 4)),
        (Machine(8, GB // 2, 0), 200, {}, (1, 8)),
        (Machine(8, 16 * GB, 0), 200, {"threads": 4}, (2, 4)),
        (Machine(8, 16 * GB, 0), 200, {"workers": 3}, (3, 2)),
        (Machine(8, 16 * GB, 1), 200, {}, (1, 8)),
        (Machine(8, 16 * GB, 1), 200, {"device": "cpu"}, (8, 1)),
    ],
)
def test_cores_and_memory_are_shared_out(
    machine: Machine, recordings: int, flags: Mapping[str, Any], expected: tuple[int, int]
) -> None:
    chosen = resolve(facts(SMALL, machine=machine), recordings, **flags)
    assert (chosen.workers, chosen.threads) == expected


def test_the_key_changes_with_what_changes_the_words_alone() -> None:
    base = resolve(facts(SMALL)).key
    same = [
        {"format": ("docx",)},
        {"output": "elsewhere"},
        {"threads": 2},
        {"quiet": True},
        {"device": "cpu"},
    ]
    other = [{"beam_size": 1}, {"language": "fi"}, {"from": "10"}, {"word_times": True}, {"speech_detection": True},
             {"engine_option": ("patience=2",)}]  # fmt: skip
    assert {resolve(facts(SMALL), **f).key for f in same} == {base}
    keys = {resolve(facts(SMALL), **f).key for f in other} | {base}
    assert len(keys) == len(other) + 1
    assert resolve(facts(dataclasses.replace(SMALL, digest="other"))).key != base
    assert len({resolve(facts(SMALL)).key_for(d) for d in ("a" * 64, "b" * 64)}) == 2


def test_files_that_an_engine_is_told_of_are_named_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers stand in scratch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/x")
    given = ("align_model=fi/model", "nltk_data=~/nltk", "chunk_size=20", "vad_onset=0.5")
    raw = resolve(facts(SMALL), engine="whisperx", word_times=True, language="fi", engine_option=given).raw
    assert raw == {
        "align_model": str(tmp_path / "fi" / "model"), "nltk_data": "/home/x/nltk", "chunk_size": 20, "vad_onset": 0.5,
    }  # fmt: skip
    spec = engines.spec("llama-cpp")
    assert spec.files_of({"chat-template-file": "a.jinja", "--lora": "/b", "cache_prompt": "a"}) == {
        "chat-template-file": str(tmp_path / "a.jinja"),
        "--lora": "/b",
    }


def test_files_of_pocketsphinx_are_options_that_it_has() -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    of_files = {one.name for one in pocketsphinx.Config().describe()}
    assert set(engines.spec("pocketsphinx").files) <= of_files


def test_a_plan_is_json() -> None:
    import json

    text = json.dumps(resolve(facts(SMALL), temperature="0").to_json())
    assert json.loads(text)["options"]["temperature"] == [0.0]


SORTFORMER = model("sortformer", "nemo")


def diarizing(*models: Model, **flags: Any) -> plan.Plan:
    everyone = [s.name for s in engines.specs("diarize")]
    return plan.resolve_diarization(site.settle(site.Site(), flags, {}), facts(*models, installed=everyone))


@pytest.mark.parametrize("number", ["2", "2-5", "1-3", "7"])
def test_a_number_of_speakers_is_not_given_to_an_engine_that_cannot_be_told_it(number: str) -> None:
    named = {"speaker_engine": "nemo", "speaker_model": "sortformer"}
    for given in ({"speaker_engine": "nemo"}, {"speaker_model": "sortformer"}, named):
        with pytest.raises(OptionRefused, match=f"--speakers {number}: .*itself how many"):
            diarizing(SORTFORMER, speakers=number, **given)
    assert diarizing(SORTFORMER, speakers=number).engine == "resemblyzer", "the next that can"
    with pytest.raises(OptionRefused, match="itself how many"):
        resolve(facts(TURBO, SORTFORMER, installed=["faster-whisper", "nemo"]), speakers=number, speaker_engine="nemo")


@pytest.mark.parametrize("number", ["auto", "1-4", "1-9"])
def test_what_such_an_engine_does_anyway_may_be_asked_for(number: str) -> None:
    chosen = diarizing(SORTFORMER, speakers=number)
    assert (chosen.engine, chosen.model) == ("nemo", SORTFORMER)
    onnx = model("speakers", "speakers-onnx")
    assert diarizing(SORTFORMER, onnx, speakers=number).engine == "sherpa-speakers", "which may find any number"
