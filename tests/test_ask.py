"""`kuulo ask`, `kuulo chat` and templates, over a stand-in server: real processes, real HTTP."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import llm_standin
from conftest import Kuulo
from kuulo.errors import UsageError
from kuulo.llm import templates, transcripts
from kuulo.llm.transcripts import Counter, Line, Part

ANSWERS = {
    "(?s)answers to one question.*colour": "Together: blue [00:00:04].",
    "part 1 of": "From the first part: green.",
    "part [2-9]": "From a later part: blue.",
    "cut me": "one two three four five six",
    "bad json": "this is no JSON",
    "age of (.|\\n)*did not fit": '{"age": 7}',
    "age of": '{"age": "seven"}',
    "Who is interviewed": '{"name": "Anna Virtanen", "born": 1987, "home": "Turku"}',
}


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Any]:
    with llm_standin.running(tmp_path / "server", answers=ANSWERS, context=200) as endpoint:
        yield endpoint


@pytest.fixture
def env(standin: Any) -> Mapping[str, str]:
    return {"KUULO_LLM_ENDPOINT": standin.base_url}


def master(path: Path, texts: list[str], speakers: tuple[str, ...] = ("Anna", "")) -> Path:
    """A master copy of these segments, one every 4 s, of the speakers in turn."""
    segments = [
        {
            "start_ms": 4000 * n,
            "end_ms": 4000 * n + 3500,
            "text": f" {text}",
            "speaker": f"S{n % len(speakers) + 1}",
        }
        for n, text in enumerate(texts)
    ]
    data = {
        "schema": 1,
        "audio": {"name": "a.wav", "sha256": "0" * 64, "duration_ms": 4000 * len(texts)},
        "language": "en",
        "speakers": [{"id": f"S{n}", "label": name or f"S{n}"} for n, name in enumerate(speakers, start=1)],
        "segments": segments,
    }
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


# ------------------------------------------------------------------ ask


def test_a_question_is_answered_as_it_comes_and_whole(kuulo: Kuulo, env: Mapping[str, str]) -> None:
    streamed = kuulo("ask", "Hyvää", "yötä $(touch owned) 'x'", env=env)
    assert (streamed.returncode, streamed.stdout) == (0, "Answer: Hyvää yötä $(touch owned) 'x'\n"), streamed.stderr
    assert kuulo("ask", "--no-stream", "Hello", env=env).stdout == "Answer: Hello\n"


def test_standard_input_and_files_go_before_the_question(
    kuulo: Kuulo, env: Mapping[str, str], tmp_path: Path, weird_name: str
) -> None:
    path = tmp_path / f"{weird_name}.json"
    try:
        master(path, ["Hello there.", "Good day."])
    except (OSError, UnicodeError):
        pytest.skip("no such name here")
    done = kuulo("ask", "-f", path, "Who says what?", env=env, input="from a pipe\n")
    assert done.returncode == 0, done.stderr
    assert "[00:00:00] Anna: Hello there.\n[00:00:04] S2: Good day.\n\nfrom a pipe\n\nWho says what?" in done.stdout


def test_a_subtitle_file_and_a_text_with_times_keep_them(kuulo: Kuulo, env: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHei.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("plain words", encoding="utf-8")
    done = kuulo("ask", "-f", "a.srt", "-f", "b.txt", "What?", env=env)
    assert "Transcript a.srt:\n[00:00:01] Hei.\n\nFile b.txt:\nplain words\n\nWhat?" in done.stdout
    material = transcripts.read(_text(tmp_path / "c.txt", "[00:01:02] Anna: Moi: hei\n\n[01:00:00.5] Loppu\nno time\n"))
    assert [(line.clock, line.speaker, line.text) for line in material.lines] == [
        ("00:01:02", "Anna", "Moi: hei"),
        ("01:00:00", "", "Loppu"),
        ("", "", "no time"),
    ]


def test_the_answer_for_machines_says_how_it_was_made(kuulo: Kuulo, env: Mapping[str, str]) -> None:
    said = json.loads(kuulo("ask", "--json", "-o", "temperature", "0.5", "--seed", "7", "Hi", env=env).stdout)
    assert said["text"] == "Answer: Hi"
    assert said["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}
    made = said["provenance"]
    assert (made["model"], made["engine"], made["options"]["temperature"], made["options"]["seed"]) == (
        "standin",
        "openai",
        0.5,
        7,
    )
    assert len(made["template"]["sha256"]) == 64


def test_an_answer_that_was_cut_is_said_to_be(kuulo: Kuulo, env: Mapping[str, str]) -> None:
    done = kuulo("ask", "--max-tokens", "2", "-u", "cut me", env=env)
    assert done.stdout == "one two\n"
    assert "the answer was cut" in done.stderr and "tokens: 2 asked, 2 answered" in done.stderr


def test_an_answer_to_a_schema_is_checked_and_asked_for_again(kuulo: Kuulo, env: Mapping[str, str]) -> None:
    schema = '{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}'
    done = kuulo("ask", "--schema", schema, "the age of Anna", env=env)
    assert json.loads(done.stdout) == {"age": 7}, done.stderr
    never = kuulo("ask", "--schema", schema, "bad json", env=env)
    assert never.returncode == 1 and never.stdout == ""
    assert "asked 3 times" in never.stderr and "this is no" not in never.stderr


def test_a_schema_in_the_short_form(kuulo: Kuulo, env: Mapping[str, str]) -> None:
    done = kuulo("ask", "--schema", "age int", "the age of Anna", env=env)
    assert json.loads(done.stdout) == {"age": 7}, done.stderr
    told = kuulo("ask", "--schema", "name, born int, home: the town", "Who is interviewed?", env=env)
    assert told.stdout == '{\n "name": "Anna Virtanen",\n "born": 1987,\n "home": "Turku"\n}\n'
    shown = kuulo("ask", "--schema", "age int: in years, name", "--dry-run", "Who?", env=env)
    assert '"age": {"type": "integer", "description": "in years"}, "name": {"type": "string"}' in shown.stdout
    refused = kuulo("ask", "--schema", "age number", "Who?", env=env)
    assert refused.returncode == 2 and "has the type 'number'" in refused.stderr


def test_a_schema_of_several_answers(kuulo: Kuulo, env: Mapping[str, str]) -> None:
    done = kuulo("ask", "--schema-multi", "name, age int", "who was there", env=env)
    assert json.loads(done.stdout) == {"items": [{"name": "text", "age": 0}]}, done.stderr
    refused = kuulo("ask", "--schema-multi", "name, age int", "--schema", "name str", "who was there", env=env)
    assert refused.returncode == 2 and "both given" in refused.stderr
    twice = kuulo("ask", "--schema-multi", "name str", "-o", "schema", "name str", "who was there", env=env)
    assert twice.returncode == 2 and "schema is given twice" in twice.stderr


def test_dry_run_shows_what_the_model_would_be_told(kuulo: Kuulo, env: Mapping[str, str], tmp_path: Path) -> None:
    master(tmp_path / "a.json", ["Hello."])
    done = kuulo("ask", "--dry-run", "-s", "Be short.", "-f", "a.json", "Why?", env=env)
    assert done.returncode == 0
    assert "system:\nBe short.\nuser:\nTranscript a.json:\n[00:00:00] Anna: Hello.\n\nWhy?\n" in done.stdout
    said = json.loads(kuulo("ask", "--dry-run", "--json", "Why?", env=env).stdout)
    assert said["messages"] == [{"role": "user", "content": "Why?"}]
    alone = kuulo("ask", "--dry-run", "Why?", "-e", "llama-cpp", "-m", "no-such-model")
    assert alone.returncode == 3 and "user:\nWhy?" in alone.stdout


def test_a_prompt_over_the_context_says_by_how_much_and_can_be_split(
    kuulo: Kuulo, env: Mapping[str, str], tmp_path: Path
) -> None:
    master(tmp_path / "long.json", [f"word{n} " * 20 for n in range(20)])
    done = kuulo("ask", "-f", "long.json", "Which colour?", env=env)
    assert done.returncode == 1 and done.stdout == ""
    assert "longer than the model's context by 2" in done.stderr and "--split" in done.stderr
    assert "word1" not in done.stderr
    split = kuulo("ask", "--split", "-f", "long.json", "Which colour?", env=env)
    assert (split.returncode, split.stdout) == (0, "Together: blue [00:00:04].\n"), split.stderr


def test_a_server_that_dies_is_an_error_and_not_a_hang(kuulo: Kuulo, tmp_path: Path) -> None:
    with llm_standin.running(tmp_path / "dying", dies_after=2) as endpoint:
        done = kuulo("ask", "one two three four", env={"KUULO_LLM_ENDPOINT": endpoint.base_url}, timeout=60)
    assert done.returncode == 3
    assert "ended in the middle" in done.stderr


def test_what_is_asked_wrongly_is_refused(kuulo: Kuulo, env: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "binary.bin").write_bytes(b"\xff\x00\xfe")
    for arguments, words in (
        (("ask",), "nothing is asked"),
        (("ask", "-p", "a", "b", "x"), "-p is for a template's variables"),
        (("ask", "-o", "warmth", "1", "x"), "there is no such option"),
        (("ask", "-o", "seed", "1", "--seed", "2", "x"), "given twice"),
        (("ask", "-f", "missing.json", "x"), "cannot be read"),
        (("ask", "-f", "binary.bin", "x"), "is not text"),
        (("ask", "-t", "no-such", "x"), "there is no template"),
        (("ask", "-t", "translation", "x"), "a variable that nobody gave: to"),
        (("ask", "-t", "summary", "-p", "colour", "x", "x"), "has no variable 'colour'"),
    ):
        done = kuulo(*arguments, env=env)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
        assert done.stdout == ""


@pytest.mark.engine("transformers-chat")
def test_a_real_model_is_asked_and_talked_with_in_a_server_of_its_own(kuulo: Kuulo, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = Path(__file__).parent / "llm" / "tiny"
    known = json.loads((model.parent / "tiny.json").read_text(encoding="utf-8"))
    question, answer = next(iter(known.items()))
    given = ("-e", "transformers", "-m", str(model))
    done = kuulo("ask", *given, "--json", question)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["text"] == answer and len(said["provenance"]["model_sha256"]) == 64
    talked = kuulo("chat", *given, input=f"{question}\n/reset\n{question}\n")
    assert talked.stdout == f"{answer}\n{answer}\n", talked.stderr
    write = json.dumps({"custom_id": "a", "body": {"messages": [{"role": "user", "content": question}]}})
    (tmp_path / "p.jsonl").write_text(write, encoding="utf-8")
    assert kuulo("llm", "batch", "p.jsonl", *given).returncode == 0
    (line,) = (tmp_path / "p.answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] == answer


# ------------------------------------------------------------------ templates


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_template_is_used_with_its_system_options_and_variables(
    kuulo: Kuulo, env: Mapping[str, str], kuulo_environment: Mapping[str, str]
) -> None:
    folder = Path(kuulo_environment["XDG_CONFIG_HOME"]) / "kuulo" / "templates"
    _text(
        folder / "greet.toml",
        'description = "Greets."\nsystem = "You are $who."\nprompt = "Greet $whom for $$5: $input"\n'
        '[defaults]\nwho = "kind"\n[options]\nmax_tokens = 4\n',
    )
    done = kuulo("ask", "-t", "greet", "-p", "whom", "Anna", "now", env=env)
    assert done.stdout == "Answer: Greet Anna for\n", done.stderr
    shown = kuulo("ask", "--dry-run", "-t", "greet", "-p", "whom", "Anna", "now", env=env).stdout
    assert "You are kind." in shown and "for $5: now" in shown
    replaced = kuulo("ask", "--dry-run", "-t", "greet", "-s", "Costs $9", "-p", "whom", "A", env=env)
    assert "system:\nCosts $9\n" in replaced.stdout, replaced.stderr
    listed = json.loads(kuulo("llm", "templates", "list", "--json").stdout)["templates"]
    mine = next(t for t in listed if t["name"] == "greet")
    assert (mine["origin"], mine["missing"]) == ("user", ["whom"])
    assert {"summary", "coding"} <= {t["name"] for t in listed if t["origin"] == "built in"}
    said = kuulo("llm", "templates", "show", "greet").stdout
    assert "Greet $whom" in said and "whom = (must be given)" in said and mine["sha256"] in said


def test_templates_of_simonw_llm_are_read(tmp_path: Path) -> None:
    made = templates.read(
        _text(
            tmp_path / "t.yaml",
            "system: Be brief\nprompt: 'Say: $input'\nmodel: m\ndefaults: {}\n"
            "options: {temperature: 0.5}\nschema_object: {type: object}\n",
        )
    )
    assert (made.system, made.model, dict(made.schema or {}), made.options["temperature"]) == (
        "Be brief",
        "m",
        {"type": "object"},
        0.5,
    )
    assert made.filled({}, "hi") == ("Be brief", "Say: hi")
    assert templates.read(_text(tmp_path / "u.yaml", "just this")).filled({}, "hi") == ("", "just this\n\nhi")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt = 3", "prompt is no text"),
        ("prompt = 'a'\ncolour = 'red'", "unknown key: colour"),
        ("prompt = 'costs 5 $'", "a $ that begins no variable"),
        ("description = 'x'", "neither prompt nor system"),
        ("prompt = 'a'\n[defaults]\nb = 'c'", "which no text has"),
        ("prompt = 'a", "not understood"),
        ("prompt = 'a'\nmerge = 'b'", "merge is no table"),
    ],
)
def test_a_template_that_is_wrong_says_why(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        templates.read(_text(tmp_path / "t.toml", text))
    assert words in str(raised.value) and "t.toml" in str(raised.value)


def test_shipped_templates_are_whole_and_what_is_typed_has_no_variables() -> None:
    for name in templates.built_in():
        made = templates.find(name)
        assert made.description and made.prompt and len(made.digest) == 64
        values = dict.fromkeys(made.missing, "VALUE")
        system, prompt = made.filled(values, "THE INPUT")
        assert system and "THE INPUT" in prompt and "$" not in system + prompt
    assert templates.plain("a $b", "c").filled({}, "d $e")[0] == "a $b"


# ------------------------------------------------------------------ splitting


def _count(text: str) -> int:
    return len(text.split())


def test_parts_fit_overlap_and_lose_nothing() -> None:
    lines = [Line(n, " ".join([f"w{n}"] * (1 + n % 7)), "A", n * 1000) for n in range(1, 60)]
    parts = transcripts.split(lines, 30, _count, overlap=2, numbered=True)
    assert len(parts) > 3
    assert all(_count(transcripts.shown(part.lines, numbered=True)) <= 30 for part in parts)
    assert [line for part in parts for line in part.new] == lines
    assert all(
        part.overlap and part.lines[0] == before.lines[-part.overlap] for before, part in itertools.pairwise(parts)
    )
    assert transcripts.split(lines, 10_000, _count) == [Part(tuple(lines))]
    assert transcripts.split([], 10, _count) == []


def test_a_line_that_is_too_long_is_cut_between_words() -> None:
    long = Line(1, " ".join(f"w{n}" for n in range(100)), "A", 0)
    parts = transcripts.split([long], 20, _count)
    assert " ".join(line.text for part in parts for line in part.new) == long.text
    assert {line.number for part in parts for line in part.lines} == {1}
    with pytest.raises(UsageError, match="too small for even one word"):
        transcripts.split([Line(1, "a b")], 0, _count)


def test_tokens_are_estimated_and_that_is_known_where_nobody_counts() -> None:
    counter = Counter(lambda text: None)
    assert counter("ääkköset") >= 4 and not counter.exact
    exact = Counter(_count)
    assert exact("a b c") == 3 and exact.exact


# ------------------------------------------------------------------ chat


def test_a_conversation_is_kept_only_when_asked_for(kuulo: Kuulo, env: Mapping[str, str], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    done = kuulo("chat", env=env, input="Hello\n\n/help\n/nonsense\nAgain\n/exit\nnot this\n")
    assert (done.returncode, done.stdout) == (0, "Answer: Hello\nAnswer: Again\n"), done.stderr
    assert "/multi" in done.stderr and "/nonsense is not known" in done.stderr
    assert set(tmp_path.rglob("*")) == before
    done = kuulo("chat", "--save", "talk.json", env=env, input="Hello\n")
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "talk.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [m["content"] for m in json.loads(kept.read_text())["conversation"]] == ["Hello", "Answer: Hello"]
    again = kuulo("chat", "--continue", "talk.json", env=env, input="/multi\nMore\nlines\n/end\n/undo\nLast\nquit\n")
    assert again.stdout == "Answer: More\nlines\nAnswer: Last\n"
    said = json.loads(kept.read_text())
    assert [m["role"] for m in said["conversation"]] == ["user", "assistant"] * 2
    assert said["provenance"]["model"] == "standin"


def test_a_talk_about_a_transcript_goes_on_after_what_does_not_fit(
    kuulo: Kuulo, env: Mapping[str, str], tmp_path: Path
) -> None:
    master(tmp_path / "a.json", ["Hello."])
    long = "word " * 300
    typed = f"{long}\n/file missing.txt\n/file a.json\nWho?\n/save talk.json\n/reset\nNew\n"
    done = kuulo("chat", env=env, input=typed)
    assert done.returncode == 0, done.stderr
    assert "longer than the model's context by" in done.stderr and "cannot be read" in done.stderr
    assert "[00:00:00] Anna: Hello.\n\nWho?\nAnswer: New\n" in done.stdout
    assert next(m["content"] for m in json.loads((tmp_path / "talk.json").read_text())["conversation"]) == "New"
    for arguments, words in (
        (("--save", "talk.json"), "a file of this name is there"),
        (("--continue", "a.json"), "is no conversation"),
        (("--continue", "missing.json"), "cannot be read"),
        (("--continue", "talk.json", "--save", "b.json"), "leave --save out"),
    ):
        refused = kuulo("chat", *arguments, env=env, input="x\n")
        assert refused.returncode == 2 and words in refused.stderr, refused.stderr


def test_prompts_go_over_the_socket_and_not_into_command_lines(kuulo: Kuulo, tmp_path: Path) -> None:
    with llm_standin.running(tmp_path / "s", unix=True, key="sekret") as endpoint:
        env = {"KUULO_LLM_ENDPOINT": f"unix:{endpoint.socket}", "KUULO_LLM_KEY": "sekret"}
        assert kuulo("ask", "Hi", env=env).stdout == "Answer: Hi\n"
        wrong = kuulo("ask", "Hi", env={**env, "KUULO_LLM_KEY": "wrong"})
        assert (
            wrong.returncode == 3
            and "refuses the key" in wrong.stderr
            and "wrong" not in wrong.stderr.split("key", 1)[1]
        )
        log = (tmp_path / "s" / "standin.log").read_text()
    assert "Hi" not in log and os.fspath(endpoint.socket)
