"""Tasks on transcripts: what is checked of a model's answers. The answers are scripted, the server is real."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import llm_standin
from conftest import Kuulo
from kuulo import schemas
from kuulo.errors import CannotRun, InputFailed, KuuloError, UsageError
from kuulo.formats.json import read_master
from kuulo.llm import chain, pseudonyms, rules, tasks, templates, transcripts
from kuulo.llm.asking import Asker, Misfit, NoAnswer, parsed, validate
from kuulo.llm.tasks import coding, pseudonymise, summary
from kuulo.llm.tasks.base import occurs
from kuulo.transcript import Transcript

SAID = [
    ("S1", "Um, hello, my name is Anna Virtanen, born on 12 March 1987 in Helsinki."),
    ("S2", "So, so where do you live now?"),
    ("S1", "I live in Turku, call me at +358 40 1234567, I have 3 kids."),
    ("S2", "Um."),
    ("S1", "Anna's mother looks after them, at 10:30 every day."),
]


def master(path: Path, said: list[tuple[str, str]] | None = None, label: str = "Anna") -> Path:
    """A master copy with the words' times: a segment every 5 s."""
    segments = []
    for number, (speaker, text) in enumerate(said or SAID):
        start, words = 5000 * number, text.split()
        times = [start + 4000 * n // len(words) for n in range(len(words) + 1)]
        segments.append(
            {
                "start_ms": start,
                "end_ms": start + 4000,
                "text": "".join(f" {word}" for word in words),
                "speaker": speaker,
                "confidence": 0.9,
                "decoding": {"seek": 0, "tokens": [1, 2, 3]},
                "words": [
                    {"text": f" {word}", "start_ms": a, "end_ms": b, "confidence": 0.8}
                    for word, a, b in zip(words, times, times[1:], strict=False)
                ],
            }
        )
    data = {
        "schema": 1,
        "audio": {"name": "anna.wav", "sha256": "0" * 64, "duration_ms": 5000 * len(segments)},
        "language": "en",
        "speakers": [{"id": "S1", "label": label}, {"id": "S2", "label": "S2"}],
        "segments": segments,
        "provenance": {
            "kuulo": "0",
            "key": "k",
            "steps": [
                {
                    "task": "transcribe",
                    "engine": "null",
                    "engine_version": "0",
                    "options": {"initial_prompt": "Anna Virtanen"},
                }
            ],
        },
    }
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


Task = Callable[..., tuple[Any, list[dict[str, Any]], str]]


@pytest.fixture
def task(kuulo: Kuulo, tmp_path: Path) -> Iterator[Task]:
    """`task(answers, "summary", "a.json", ...)`: exit code, the outcomes, standard error."""
    number = iter(range(100))

    def run(answers: Mapping[str, Any], *arguments: str, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
        texts = {pattern: said if isinstance(said, str) else json.dumps(said) for pattern, said in answers.items()}
        with llm_standin.running(tmp_path / f"server{next(number)}", answers=texts, **options) as endpoint:
            done = kuulo("llm", "task", *arguments, "--json", env={"KUULO_LLM_ENDPOINT": endpoint.base_url})
        outcomes = json.loads(done.stdout)["tasks"] if done.stdout else []
        return done.returncode, outcomes, done.stderr

    yield run


def lines(*texts: str) -> dict[str, Any]:
    return {"lines": [{"n": n, "text": text} for n, text in enumerate(texts, start=1)]}


# ------------------------------------------------------------------ checks of answers


def test_json_is_found_in_an_answer_and_what_breaks_a_schema_is_said_without_its_words() -> None:
    assert parsed('```json\n{"a": 1}\n```') == {"a": 1}
    assert parsed('<think>hm {</think>\n{"a": 1}') == {"a": 1}
    with pytest.raises(Misfit, match="not JSON at character 0"):
        parsed("Anna said")
    schema = {"type": "object", "properties": {"code": {"enum": ["x", "y"]}}}
    with pytest.raises(Misfit) as raised:
        validate({"code": "Anna's secret"}, schema)
    assert '$.code does not keep to the schema\'s enum: ["x", "y"]' in str(raised.value)
    assert "Anna" not in str(raised.value)


def test_a_quote_occurs_whatever_its_quotes_case_and_white_space_are_like() -> None:
    said = "Well, I don’t   know — maybe Anna’s mother."
    assert occurs("i don't know", said) and occurs("“Anna's mother”", said)
    assert occurs("Well ... maybe Anna's", said) and occurs("I don't know - maybe", said)
    assert not occurs("I know", said) and not occurs("ther", said) and not occurs("...", said)
    assert not occurs("maybe ... well", said)


class Scripted:
    """A model that gives these answers in turn."""

    context = 1000
    finish = "stop"

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def talk(self, messages: Any, schema: Any) -> str:
        self.asked.append(messages[-1]["content"])
        return self.answers.pop(0)

    def count(self, text: str) -> int | None:
        return len(text.split())

    def tell(self, options: Any) -> None:
        self.told = options

    def branch(self) -> Scripted:
        return self


class Meeting(Scripted):
    """A model that answers when so many are asking at the same time."""

    def __init__(self, number: int, ends: Mapping[str, BaseException] | None = None) -> None:
        super().__init__()
        self.all_here, self.ends = threading.Barrier(number), ends or {}

    def talk(self, messages: Any, schema: Any) -> str:
        self.all_here.wait(60)
        for words, error in self.ends.items():
            if words in messages[-1]["content"]:
                raise error
        return "Short [00:00:00]."


def test_an_answer_that_does_not_fit_is_asked_for_again_with_the_reason_and_then_given_up() -> None:
    schema = {"type": "object", "required": ["a"]}
    model = Scripted("no", '{"b": 1}', '{"a": 1}')
    asker = Asker(model)
    assert asker.data("s", "p", schema) == {"a": 1}
    assert "it is not JSON" in model.asked[1] and "required" in model.asked[2]
    assert (asker.asked, asker.refused) == (3, 2)
    with pytest.raises(NoAnswer, match="asked 3 times"):
        Asker(Scripted("", " ", "<think>only</think>")).text("s", "p")


# ------------------------------------------------------------------ summary


def test_a_time_that_is_not_in_the_transcript_is_marked(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    said = "Anna lives in Turku [00:00:10]. Born [0:00] in 1987. She moved [00:09:59]. At 10:30 her mother comes."
    code, (outcome,), err = task({"Summarise": said}, "summary", "a.json")
    assert code == 0 and outcome["state"] == "done", err
    text = (tmp_path / "a.summary.md").read_text()
    assert "[00:00:10]." in text and "[0:00]" in text and "At 10:30 her" in text
    assert "[00:09:59 (time not in the transcript)]" in text
    assert outcome["checks"] == {"parts": 1, "times": 3, "times_not_in_transcript": 1}
    assert "1 of the 3 times" in err and "Turku" not in err
    record = json.loads((tmp_path / "a.summary.json").read_text())
    made = record["provenance"]
    assert (made["model"], made["engine"], made["template"]["name"]) == ("standin", "openai", "summary")
    assert made["template"]["sha256"] == templates.find("summary").digest
    assert read_master(tmp_path / "a.json") == read_master(master(tmp_path / "b.json"))


def test_a_long_transcript_is_summarised_in_parts_and_the_parts_together(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json", [("S1", f"word{n} " * 20) for n in range(30)])
    answers = {
        "(?s)summaries of parts.*from a part": "All of it [00:00:05] [00:59:00].",
        "Summarise": "Something from a part [00:00:05].",
    }
    code, (outcome,), err = task(answers, "summary", "a.json", context=400)
    assert code == 0, err
    assert outcome["checks"]["parts"] > 3 and outcome["checks"]["times_not_in_transcript"] == 1
    assert "All of it [00:00:05] [00:59:00 (time not in the transcript)]." in (tmp_path / "a.summary.md").read_text()
    assert "tokens of context were assumed" not in err  # the server said how many


def test_an_answer_that_was_cut_is_said_to_be(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    answers = {"Summarise": "one two three four", "List": "one two three four"}
    code, outcomes, err = task(answers, "summary,topics", "a.json", "--max-tokens", "2")
    assert code == 1 and [o["state"] for o in outcomes] == ["done", "failed"]
    assert "1 answers were cut" in outcomes[0]["notes"][-1] and "one two\n" in (tmp_path / "a.summary.md").read_text()
    assert "it was cut: it is as long as it may be" in err


def test_a_mark_is_not_made_twice() -> None:
    material = transcripts.Material(Path("a"), "", (transcripts.Line(1, "hi", "", 0),))
    once, _, wrong = summary.checked_times("x [00:00:09]", material)
    assert summary.checked_times(once, material) == (once, 0, wrong)


# ------------------------------------------------------------------ results that are there


def test_what_is_done_is_not_done_again_and_what_was_changed_is_left_alone(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    answers = {"Summarise": "Short [00:00:00]."}
    assert task(answers, "summary", "a.json")[1][0]["state"] == "done"
    assert task(answers, "summary", "a.json")[1][0]["state"] == "skipped"
    assert task(answers, "summary", "a.json", "-p", "length", "50")[1][0]["state"] == "done"
    (tmp_path / "a.summary.md").write_text("my own words")
    code, (outcome,), err = task(answers, "summary", "a.json")
    assert code == 1 and outcome["state"] == "failed" and "was changed since" in err
    assert (tmp_path / "a.summary.md").read_text() == "my own words"
    assert task(answers, "summary", "a.json", "--overwrite")[0] == 0
    assert "Short" in (tmp_path / "a.summary.md").read_text()
    (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes())
    (tmp_path / "b.summary.json").write_text("{}")
    assert task(answers, "summary", "b.json")[0] == 1
    assert (tmp_path / "b.summary.json").read_text() == "{}"


def test_one_that_fails_does_not_stop_the_others_and_a_folder_is_its_masters(task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "out 'put'"
    (folder / "below").mkdir(parents=True)
    master(folder / "a.json")
    master(folder / "below" / "b ä.json")
    (folder / "report.json").write_text('{"counts": {}}')
    (folder / "c.json").write_text('{"schema": 1, "audio": 3, "segments": []}')
    code, outcomes, err = task({"Summarise": "Short."}, "summary", str(folder))
    assert code == 1
    assert {Path(o["source"]).name: o["state"] for o in outcomes} == {
        "a.json": "done",
        "b ä.json": "done",
        "c.json": "failed",
    }
    assert "quotes no times" in err and (folder / "below" / "b ä.summary.md").is_file()
    assert len(task({"Summarise": "Short."}, "summary", str(folder))[1]) == 3  # no results among them


def test_any_name_and_any_character_will_do(task: Task, tmp_path: Path, weird_name: str) -> None:
    path = tmp_path / f"{weird_name}.json"
    try:
        master(path, [("S1", "half \ud83d of $HOME ${x}"), ("S2", "=1+1 -rf")])
    except (OSError, UnicodeError):
        pytest.skip("no such name here")
    cleaned = lines("half \ud83d of $HOME", "=1+1")
    answers = {"Summarise": "Half \ud83d [00:00:00].", "Tidy": cleaned}
    code, outcomes, err = task(answers, "summary,cleanup", str(path))
    assert (code, [o["state"] for o in outcomes]) == (0, ["done", "done"]), err
    for suffix in (".summary.md", ".summary.json", ".cleaned.json", ".cleaned.diff", ".cleanup.json"):
        assert path.with_name(weird_name + suffix).is_file()


def test_several_transcripts_are_worked_on_at_a_time_and_told_of_in_order(tmp_path: Path) -> None:
    paths = [master(tmp_path / f"{n}.json", [("S1", f"number {n}")]) for n in range(6)]
    paths.insert(2, tmp_path / "none.json")
    made = chain.chain(("summary",), {})
    asker = Asker(Meeting(3, {"number 4": InputFailed("it is a hard one")}))
    told: list[chain.Outcome] = []
    outcomes = made.go(paths, asker, {}, at_once=3, watch=told.append)
    assert [one.source for one in outcomes] == [str(path) for path in paths] and len(told) == 7
    assert [one.state for one in outcomes] == ["done", "done", "failed", "done", "done", "failed", "done"]
    assert (asker.asked, asker.refused) == (6, 0)
    assert all((tmp_path / f"{n}.summary.md").is_file() == (n != 4) for n in range(6))
    again = made.go(paths[:2], Asker(Scripted()), {}, at_once=3)
    assert [one.state for one in again] == ["skipped", "skipped"]


def test_a_model_that_is_gone_ends_all_that_is_worked_on(tmp_path: Path) -> None:
    paths = [master(tmp_path / f"{n}.json", [("S1", f"number {n}")]) for n in range(6)]
    gone = Meeting(2, {"number": CannotRun("nothing answers")})
    with pytest.raises(CannotRun, match="nothing answers"):
        chain.chain(("summary",), {}).go(paths, Asker(gone), {}, at_once=2)
    assert not list(tmp_path.glob("*.summary.*"))


# ------------------------------------------------------------------ clean-up


def test_a_cleaned_transcript_keeps_the_times_of_words_and_the_master_stays(task: Task, tmp_path: Path) -> None:
    before = master(tmp_path / "a.json").read_bytes()
    answer = lines(
        "Hello, my name is Anna Virtanen, born on 12 March 1987 in Helsinki.",
        "So where do you live now?",
        "As an AI I cannot say where anybody has a house or a telephone or children.",
        "",
        SAID[4][1],
    )
    code, (outcome,), err = task({"Tidy": answer}, "cleanup", "a.json")
    assert code == 0, err
    assert (tmp_path / "a.json").read_bytes() == before
    assert outcome["checks"] == {"lines": 5, "changed": 3, "left_since_strange": 1}
    assert "strays from what was said: 00:00:10" in err
    after = read_master(tmp_path / "a.cleaned.json")
    jsonschema.validate(json.loads((tmp_path / "a.cleaned.json").read_text()), schemas.transcript())
    assert [s.text for s in after.segments] == [
        " Hello, my name is Anna Virtanen, born on 12 March 1987 in Helsinki.",
        " So where do you live now?",
        " " + SAID[2][1],
        " " + SAID[4][1],
    ]
    old = read_master(tmp_path / "a.json")
    assert after.segments[0].words[1:] == old.segments[0].words[2:]
    assert after.segments[2:] == (old.segments[2], old.segments[4])
    assert (after.segments[0].flags, after.segments[0].speaker) == (("cleaned",), "S1")
    assert after.provenance and after.provenance.steps[-1].task == "cleanup"
    diff = (tmp_path / "a.cleaned.diff").read_text()
    assert "-[00:00:05] S2: So, so where do you live now?\n+[00:00:05] S2: So where do you live now?\n" in diff
    assert "-[00:00:15] S2: Um.\n" in diff and "As an AI" not in diff
    assert applied(diff, tmp_path) == [line.shown() for line in transcripts.read(tmp_path / "a.cleaned.json").lines]


def test_a_line_without_a_fitting_answer_stays_and_is_said_and_takes_no_other_with_it(
    task: Task, tmp_path: Path
) -> None:
    master(tmp_path / "a.json", [("S1", "so so one"), ("S1", "bad bad bad bad"), ("S1", "so so three")])
    answers = {r"1 \[00:00:00\] Anna: so so one\n*$": lines("so one"), r"Anna: so so three": "nonsense"}
    answers = {
        "(?m)^2 ": "too many lines for me",
        "so so one": lines("so one"),
        "bad bad": "never JSON",
        "so so three": lines("so three"),
    }
    code, (outcome,), err = task(answers, "cleanup", "a.json")
    assert (code, outcome["state"]) == (1, "partly"), err
    assert "no answer that fits, left as they were: 00:00:05" in outcome["why"]
    assert [s.text for s in read_master(tmp_path / "a.cleaned.json").segments] == [
        " so one",
        " bad bad bad bad",
        " so three",
    ]
    again = task({"(?m)^": lines("so one", "bad bad", "so three")}, "cleanup", "a.json")
    assert again[1][0]["state"] == "done"  # what was done in part is done again


def applied(diff: str, folder: Path) -> list[str]:
    """The lines of the transcript in `folder` after its difference, by the program patch."""
    patch = shutil.which("patch")
    if patch is None:
        pytest.skip("needs the program patch")
    text = transcripts.shown(transcripts.read(folder / "a.json").lines)
    (folder / "text").write_text(text + "\n", encoding="utf-8")
    (folder / "diff").write_text(diff, encoding="utf-8")
    subprocess.run([patch, "-s", "text", "diff"], cwd=folder, check=True)
    return (folder / "text").read_text(encoding="utf-8").splitlines()


# ------------------------------------------------------------------ translation


def test_a_translation_has_every_segment_and_a_wrong_number_of_lines_is_refused(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    finnish = ["Hei.", "Missä asut?", "Turussa.", "Öö.", "Äiti."]
    answers = {"did not fit": lines(*finnish), "Translate": lines(*finnish[:4])}
    code, (_outcome,), err = task(answers, "translation", "a.json", "-p", "to", "Finnish")
    assert code == 0 and "1 answers did not fit" in err, err
    after, before = read_master(tmp_path / "a.fi.json"), read_master(tmp_path / "a.json")
    assert [s.text.strip() for s in after.segments] == finnish
    assert after.language == "fi" and {s.language for s in after.segments} == {"fi"}
    for new, old in zip(after.segments, before.segments, strict=True):
        assert (new.start_ms, new.end_ms, new.speaker, new.words) == (old.start_ms, old.end_ms, old.speaker, ())
    assert (tmp_path / "a.translation-fi.json").is_file()


def test_a_line_that_was_not_translated_is_marked_and_said(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json", [("S1", "one thing to say here"), ("S1", "two")])
    answers = {"Translate": lines("one thing to say here", "")}
    code, (outcome,), err = task(answers, "translation", "a.json", "-p", "to", "fi")
    assert code == 1 and outcome["checks"] == {"lines": 2, "untranslated": 1, "unchanged": 1}
    assert "came back as they were: 00:00:00" in err and "not translated, in the original language: 00:00:05" in err
    segments = read_master(tmp_path / "a.fi.json").segments
    assert (segments[1].text, segments[1].flags) == (" two", ("not-translated",))


def test_a_subtitle_file_is_translated_too(task: Task, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:01,500 --> 00:00:02,000\nHello.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("no times", encoding="utf-8")
    code, outcomes, _ = task({"Translate": lines("Hei.")}, "translation", "a.srt", "b.txt", "-p", "to", "fi")
    assert code == 1 and [o["state"] for o in outcomes] == ["done", "failed"]
    assert "needs a transcript with times" in outcomes[1]["why"]
    segment = read_master(tmp_path / "a.fi.json").segments[0]
    assert (segment.text, segment.start_ms, segment.end_ms) == (" Hei.", 1500, 2000)


# ------------------------------------------------------------------ topics


def test_topics_refer_to_lines_that_are_there(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")

    def topics(last: int) -> dict[str, Any]:
        stretch = [{"from": 1, "to": 1}, {"from": 3, "to": last}]
        return {"topics": [{"title": "Home", "summary": "Where she lives.", "lines": stretch}]}

    code, (outcome,), err = task({"did not fit": topics(4), "List": topics(9)}, "topics", "a.json")
    assert code == 0, err
    assert outcome["checks"] == {"parts": 1, "topics": 1, "lines": 5, "lines_without_topic": 2}
    page = (tmp_path / "a.topics.md").read_text()
    assert "## Home\n\nWhere she lives.\n\n[00:00:00], [00:00:10] to [00:00:15]\n" in page
    found = json.loads((tmp_path / "a.topics.json").read_text())["result"]["topics"]
    assert found[0]["stretches"][1] == {"from_line": 3, "to_line": 4, "start_ms": 10000, "end_ms": 19000}


def test_topics_of_parts_are_put_together_and_none_is_lost(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json", [("S1", f"{'early' if n < 10 else 'late'} " * 20) for n in range(20)])

    def topic(title: str, line: int) -> dict[str, Any]:
        return {"topics": [{"title": title, "summary": "", "lines": [{"from": line, "to": line}]}]}

    answers = {
        "Put those together": {"topics": [{"title": "First two", "summary": "s", "of": [1, 2]}]},
        "(?m)^1 ": topic("A", 1),
        "(?m)^9 ": topic("B", 9),
        "(?m)^16 ": topic("C", 16),
        "(?m)^20 ": topic("C", 20),
    }
    code, (outcome,), err = task(answers, "topics", "a.json", context=400)
    assert code == 0, err
    found = json.loads((tmp_path / "a.topics.json").read_text())["result"]["topics"]
    assert found[0]["title"] == "First two" and len(found[0]["stretches"]) == 2
    assert outcome["checks"]["topics"] == outcome["checks"]["parts"] - 1


# ------------------------------------------------------------------ coding


BOOK = "code;description;examples\nfamily;Who is family;my mother\nhome;=Where somebody lives;\n"


def test_coding_has_no_other_codes_and_every_quote_is_looked_up(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    (tmp_path / "book.csv").write_text(BOOK, encoding="utf-8-sig")

    def codings(code: str) -> dict[str, Any]:
        return {
            "codings": [
                {"line": 5, "code": code, "quote": "anna’s mother looks after them"},
                {"line": 1, "code": "home", "quote": "I live in Turku"},
                {"line": 3, "code": "home", "quote": "I live in a castle"},
            ]
        }

    answers = {"did not fit": codings("family"), "code book": codings("invented")}
    code, (outcome,), err = task(answers, "coding", "a.json", "-p", "codebook", "book.csv")
    assert code == 0, err
    assert "1 answers did not fit" in err and "1 of 3 quotes are not in the transcript" in err and "castle" not in err
    assert outcome["checks"] == {"parts": 1, "codings": 3, "moved": 1, "not_in_transcript": 1}
    with (tmp_path / "a.coding.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["line"], r["code"], r["speaker"], r["start"], r["check"]) for r in rows] == [
        ("3", "home", "Anna", "10.000", coding.MOVED),
        ("3", "home", "Anna", "10.000", coding.NOT_THERE),
        ("5", "family", "Anna", "20.000", coding.FOUND),
    ]
    record = json.loads((tmp_path / "a.coding.json").read_text())
    assert record["result"]["by_code"] == {"family": 1, "home": 1}
    assert record["provenance"]["parameters"]["codebook"].endswith("book.csv")


def test_a_changed_code_book_is_another_task(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    book = tmp_path / "book.toml"
    book.write_text('[codes]\nhome = "Where somebody lives"\n', encoding="utf-8")
    answers: dict[str, Any] = {"code book": {"codings": []}}
    given = ("coding", "a.json", "-p", "codebook", "book.toml")
    assert task(answers, *given)[1][0]["state"] == "done"
    assert task(answers, *given)[1][0]["state"] == "skipped"
    book.write_text('[codes]\nhome = "Where somebody lived"\n', encoding="utf-8")
    assert task(answers, *given)[1][0]["state"] == "done"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "name,what\na,b\n", "does not name the columns"),
        ("a.csv", "code,description\n", "it has no codes"),
        ("a.csv", "code,description\na,b\na,c\n", "in it twice"),
        ("a.csv", "code,description\n,b\n", "has no name"),
        ("a.toml", "codes = 3", "no table [codes]"),
        ("a.toml", "[codes", "not understood"),
    ],
)
def test_a_code_book_that_is_wrong_says_why(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as raised:
        coding.read(tmp_path / name)
    assert words in str(raised.value)


def test_an_unanswered_part_fails_the_task_and_nothing_is_written(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    (tmp_path / "book.csv").write_text(BOOK, encoding="utf-8")
    code, (outcome,), _ = task({"code book": "no JSON"}, "coding", "a.json", "-p", "codebook", "book.csv")
    assert (code, outcome["state"]) == (1, "failed") and "asked 3 times" in outcome["why"]
    assert sorted(p.name for p in tmp_path.glob("a.*")) == ["a.json"]


# ------------------------------------------------------------------ pseudonyms


def kinds(text: str, language: str = "en", region: str = "") -> list[tuple[str, str]]:
    """What rules find, each stretch once, the surest first."""
    chosen: list[rules.Span] = []
    for span in rules.spans(text, language, region):
        if all(span.end <= one.start or span.start >= one.end for one in chosen):
            chosen.append(span)
    return [(text[s.start : s.end], s.kind) for s in sorted(chosen, key=lambda s: s.start)]


def test_rules_find_addresses_telephones_dates_and_numbers() -> None:
    assert kinds("a.b@c.fi or https://x.org/y?z, +358 40 1234567") == [
        ("a.b@c.fi", "contact"),
        ("https://x.org/y?z", "contact"),
        ("+358 40 1234567", "contact"),
    ]
    assert kinds("call 040 123 4567 now", "fi", "FI") == [("040 123 4567", "contact")]
    for text, language in (
        ("12 March 1987", "en"),
        ("the 3rd of May", "en"),
        ("March 2001", "en"),
        ("12.3.1987", "en"),
        ("1987-03-12", "en"),
        ("12. maaliskuuta 1987", "fi"),
        ("toukokuussa 2001", "fi"),
        ("12. März 1987", "de"),
        ("le 3 mars 2020", "fr"),
        ("den 12 mars 1987", "sv"),
        ("12 March 1987", "xx"),
    ):
        assert [kind for _, kind in kinds(f"Well, {text} it was", language)] == ["date"], text
    assert kinds("She may march in May, 3 kids and 1,500 euros") == [("3", "number"), ("1,500", "number")]
    assert kinds("born 010190-123A, account FI21 12345600000785, at 3pm") == [
        ("010190-123A", "number"),
        ("FI21", "number"),
        ("12345600000785", "number"),
        ("3pm", "number"),
    ]
    assert kinds("nothing here") == []


FOUND = {
    "found": [
        {"text": "Anna Virtanen", "kind": "person", "base": "Anna Virtanen"},
        {"text": "Helsinki", "kind": "place", "base": "Helsinki"},
        {"text": "Turku", "kind": "place", "base": "Turku"},
        {"text": "Stockholm", "kind": "place", "base": "Stockholm"},
    ]
}


def test_names_are_replaced_alike_and_nothing_tells_who_it_was(
    task: Task, tmp_path: Path, kuulo_environment: Mapping[str, str]
) -> None:
    master(tmp_path / "a.json")
    master(tmp_path / "b.json", [("S2", "HELSINKI is where Anna met Turku's mayor, helsinki-style.")], label="S1")
    answers = {"HELSINKI": {"found": []}, "List all": FOUND}
    code, outcomes, err = task(answers, "pseudonymise", "a.json", "b.json", "-p", "project", "care work")
    assert code == 0, err
    first = read_master(tmp_path / "a.pseudonymised.json")
    jsonschema.validate(json.loads((tmp_path / "a.pseudonymised.json").read_text()), schemas.transcript())
    assert [s.text.strip() for s in first.segments] == [
        "Um, hello, my name is [Person 1], born on [Date 1] in [Place 1].",
        "So, so where do you live now?",
        "I live in [Place 2], call me at [Contact 1], I have [Number 1] kids.",
        "Um.",
        "[Person 1]'s mother looks after them, at [Number 2] every day.",
    ]
    assert read_master(tmp_path / "b.pseudonymised.json").segments[0].text == (
        " [Place 1] is where [Person 1] met [Place 2]'s mayor, helsinki-style."
    )
    whole = "".join((tmp_path / f"{n}.pseudonymised.json").read_text() for n in "ab")
    whole += "".join((tmp_path / f"{n}.pseudonymise.json").read_text() for n in "ab") + err
    assert not re.search(r"Anna|Virtanen|Helsinki|Turku|1987|1234567|\"tokens|initial_prompt|anna", whole)
    assert [s.label for s in first.speakers] == ["[Person 1]", "S2"]
    words = first.segments[0].words
    assert [w.text for w in words[5:9]] == [" [Person 1],", " born", " on", " [Date 1]"]
    before = read_master(tmp_path / "a.json").segments[0].words
    assert (words[5].start_ms, words[5].end_ms) == (before[5].start_ms, before[6].end_ms)
    assert "".join(w.text for w in words) == first.segments[0].text
    assert outcomes[0]["checks"]["replaced"] == 8 and "1 names that the model gave are not in the transcript" in err
    key = Path(kuulo_environment["XDG_DATA_HOME"]) / "kuulo" / "pseudonyms" / "care work.json"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert "Anna Virtanen" in key.read_text()
    assert not [
        p for p in tmp_path.glob("*.json") if "Anna Virtanen" in p.read_text() and p.name not in ("a.json", "b.json")
    ]


def test_a_later_transcript_has_the_same_pseudonyms_and_an_earlier_one_is_not_asked_about_again(
    task: Task, tmp_path: Path
) -> None:
    master(tmp_path / "a.json")
    key = ("-p", "key", str(tmp_path / "keys" / "k.json"))
    assert task({"List all": FOUND}, "pseudonymise", "a.json", *key)[0] == 0
    master(tmp_path / "b.json", [("S1", "Turku and Kerava again, mother.")], label="S1")
    found = {
        "found": [
            {"text": "Kerava", "kind": "place", "base": "Kerava"},
            {"text": "mother", "kind": "person", "base": "mother"},
        ]
    }
    code, _, err = task({"List all": found}, "pseudonymise", "b.json", *key)
    assert code == 0
    assert "[Place 2] and [Place 3] again, [Person 2]." in (tmp_path / "b.pseudonymised.json").read_text()
    assert "1 other transcripts of the project may have its new names: do all again" in err
    code, _, err = task({"List all": "never"}, "pseudonymise", "a.json", "b.json", *key)
    assert code == 0 and "0 questions" in err, err
    assert "[Person 1]'s [Person 2] looks" in (tmp_path / "a.pseudonymised.json").read_text()


def test_nothing_is_written_when_the_models_pass_failed_on_a_part(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json", [("S1", f"word{n} " * 20) for n in range(30)])
    master(tmp_path / "b.json")
    answers = {"word29": "no JSON", "word0": {"found": []}, "word[1-9]": {"found": []}, "List all": FOUND}
    code, outcomes, _err = task(answers, "pseudonymise", "a.json", "b.json", context=400)
    assert code == 1 and [o["state"] for o in outcomes] == ["failed", "done"]
    assert "names were not looked for in 1 parts" in outcomes[0]["why"] and "to 00:02:29" in outcomes[0]["why"]
    assert not (tmp_path / "a.pseudonymised.json").exists() and (tmp_path / "b.pseudonymised.json").exists()


def test_kinds_can_be_kept_and_words_that_look_like_names_are_pointed_at(task: Task, tmp_path: Path) -> None:
    master(tmp_path / "a.json", [("S1", "Helsinki in March 2001, Helsingissä and Helsinkiin, 5 times.")], label="S1")
    code, _, err = task({"List all": FOUND}, "pseudonymise", "a.json", "-p", "keep", "date,number")
    assert code == 0, err
    assert (
        "[Place 1] in March 2001, Helsingissä and Helsinkiin, 5 times."
        in (tmp_path / "a.pseudonymised.json").read_text()
    )
    assert "to look at, words begin as names that were replaced: 00:00:00" in err


def test_a_key_that_others_may_read_or_that_another_run_uses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    with pseudonyms.opened(path, "p") as key:
        key.entry("person", "Annan", "Anna")
        assert key.entry("person", "Annalle", "anna").pseudonym == key.entry("person", "ANNA").pseudonym == "Person 1"
        assert key.entry("place", "Anna").pseudonym == "Place 1"
        key.write()
        with pytest.raises(KuuloError, match="another run"), pseudonyms.opened(path, "p"):
            pass
    with pseudonyms.opened(path, "p") as key:
        assert key.entry("person", "Annan").forms == ["Annan", "Annalle", "ANNA"]
    path.chmod(0o640)
    with pytest.raises(UsageError, match="others may read"), pseudonyms.opened(path, "p"):
        pass
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(UsageError, match="no key of pseudonyms"), pseudonyms.opened(path, "p"):
        pass
    with pytest.raises(UsageError, match="no name for a project"):
        pseudonyms.default_path("../../etc")


def test_words_that_a_pseudonym_covers_become_one_with_what_is_around_it(tmp_path: Path) -> None:
    transcript = read_master(master(tmp_path / "a.json", [("S1", "(Anna Virtanen-Korhonen), Anna.")]))
    with pseudonyms.opened(tmp_path / "k.json", "p") as key:
        key.entry("person", "Anna Virtanen", "Anna")
        key.entry("person", "Anna")
        values = {"keep": "", "region": ""}
        work: Any = dataclasses.make_dataclass("W", ["values"])(values)
        work.value = values.__getitem__
        replacer = pseudonymise.Replacer(key, work)
        segment = replacer.segment(transcript.segments[0], "en", pseudonymise.Counter())
    assert [w.text for w in segment.words] == [" ([Person 1]-Korhonen),", " [Person 1]."]
    assert segment.text == " ([Person 1]-Korhonen), [Person 1]." and segment.decoding is None


# ------------------------------------------------------------------ what is asked wrongly


def test_what_cannot_be_is_refused_before_anything_is_asked(kuulo: Kuulo, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    env = {"KUULO_LLM_ENDPOINT": "http://127.0.0.1:9/v1", "KUULO_LLM_MODEL": "m"}
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (("poetry", "a.json"), "there is no task 'poetry'"),
        (("summary",), "no transcript was named"),
        (("translation", "a.json"), "translation needs -p to"),
        (("translation", "a.json", "-p", "to", "Klingon"), "is no language"),
        (("coding", "a.json", "-p", "codebook", "missing.csv"), "cannot be read"),
        (("summary", "a.json", "-p", "colour", "red"), "nothing is called 'colour'"),
        (("summary,topics", "a.json", "-t", "x"), "-t is for one task"),
        (("summary", "empty"), "no master copy"),
        (("pseudonymise", "a.json", "-p", "region", "Finland"), "no country's code"),
        (("pseudonymise", "a.json", "-p", "keep", "cats"), "no kind 'cats'"),
    ):
        done = kuulo("llm", "task", *arguments, env=env)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
    gone = kuulo("llm", "task", "summary", "a.json", env=env)
    assert gone.returncode == 3 and "nothing answers at the endpoint" in gone.stderr


def test_every_task_has_a_template_a_line_and_parameters_with_help(kuulo: Kuulo) -> None:
    listed = json.loads(kuulo("llm", "task", "--json").stdout)["tasks"]
    assert [t["name"] for t in listed] == sorted(tasks.TASKS)
    for name in tasks.TASKS:
        module = tasks.module(name)
        assert module.TASK.name == name and templates.find(name).origin == "built in"
        assert all(p.help for p in module.TASK.parameters)
    dry = kuulo("llm", "task", "--help")
    assert dry.returncode == 0 and "--endpoint" in dry.stdout


def test_a_dry_run_asks_nothing(kuulo: Kuulo, tmp_path: Path) -> None:
    master(tmp_path / "a.json")
    env = {"KUULO_LLM_ENDPOINT": "http://127.0.0.1:9/v1"}
    done = kuulo("llm", "task", "summary", "a.json", "--dry-run", env=env)
    assert done.returncode == 0 and "a.json -> a.summary.json" in done.stdout, done.stderr
    made = chain.chain(["summary"], {"length": "9"})
    assert made.links[0].variables == {"length": "9"}


# ------------------------------------------------------------------ after a transcription


def test_tasks_follow_a_transcription_in_one_run(kuulo: Kuulo, tmp_path: Path, spoken: Path) -> None:
    answers = {"Summarise": "Something is said [00:00:00]."}
    with llm_standin.running(tmp_path / "server", answers=answers) as endpoint:
        env = {"KUULO_LLM_ENDPOINT": endpoint.base_url}
        given = ("transcribe", spoken, "-m", "miniature", "-o", "out", "--then", "summary")
        dry = kuulo(*given, "--dry-run", env=env)
        assert "then summary: template summary (built in), openai" in dry.stdout, dry.stderr
        done = kuulo(*given, "--then-option", "length=20", "--json", env=env)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert [one["state"] for one in report["then"]] == ["done"]
        assert json.loads((tmp_path / "out" / "report.json").read_text())["then"] == report["then"]
        text = (tmp_path / "out" / f"{spoken.stem}.summary.md").read_text()
        assert "Something is said" in text
        again = json.loads(kuulo(*given, "--then-option", "length=20", "--json", env=env).stdout)
        assert again["files"][0]["state"] == "skipped" and again["then"][0]["state"] == "skipped"
    gone = kuulo(*given, "--then-option", "model=m", env=env)
    assert gone.returncode == 1 and "nothing answers at the endpoint" in gone.stderr
    early = kuulo("transcribe", spoken, "-m", "miniature", "-o", "new", "--then", "coding", env=env)
    assert early.returncode == 2 and not (tmp_path / "new").exists()
    assert "coding needs -p codebook" in early.stderr


@pytest.fixture
def spoken() -> Path:
    """A short recording that the miniature understands."""
    return Path(__file__).parent / "audio" / "miniature" / "held_out_en.flac"


def test_transcript_is_unchanged_where_nothing_is_replaced(tmp_path: Path) -> None:
    transcript: Transcript = read_master(master(tmp_path / "a.json", [("S2", "nothing here at all")], label="S1"))
    assert transcripts.of_transcript(tmp_path / "a.json", "", transcript).lines[0].text == "nothing here at all"
