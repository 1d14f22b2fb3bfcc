"""`kuulo llm batch`: OpenAI's batch format in and out, over a stand-in server; killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import llm_standin
from conftest import Kuulo
from kuulo.errors import UsageError
from kuulo.llm import batch, templates
from test_ask import master


def asked(number: int, text: str = "", **body: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text or f"question {number}"}
    return {
        "custom_id": f"q{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "standin", "messages": [message], **body},
    }


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(line: Mapping[str, Any]) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


def questions(folder: Path) -> int:
    """How often the stand-in in this folder was asked."""
    return (folder / "standin.log").read_text().count("POST /v1/chat/completions")


def test_answers_come_in_the_order_of_the_questions_with_a_ledger(
    kuulo: Kuulo, tmp_path: Path, weird_name: str
) -> None:
    source = tmp_path / f"{weird_name}.jsonl"
    try:
        write(source, [asked(n) for n in range(50)])
    except (OSError, UnicodeError):
        pytest.skip("no such name here")
    with llm_standin.running(tmp_path / "s", slow=0.01) as endpoint:
        done = kuulo("llm", "batch", "--json", "--", source, env={"KUULO_LLM_ENDPOINT": endpoint.base_url})
        assert questions(tmp_path / "s") == 50
    assert done.returncode == 0, done.stderr
    out = tmp_path / f"{weird_name}.answers.jsonl"
    lines = read(out)
    assert [line["custom_id"] for line in lines] == [f"q{n}" for n in range(50)]
    assert [said(line) for line in lines] == [f"Answer: question {n}" for n in range(50)]
    assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in lines)
    report = json.loads(done.stdout)
    assert report["counts"] == {"requests": 50, "answered": 50, "refused": 0, "bad": 0, "kept": 0, "cut": 0}
    assert report["usage"] == {"prompt_tokens": 100, "completion_tokens": 150}
    assert report["provenance"]["model"] == "standin" and report["concurrency"] == batch.AT_ONCE
    assert json.loads((tmp_path / f"{weird_name}.answers.report.json").read_text()) == report
    assert not list(tmp_path.glob("*.partial"))
    assert "question" not in done.stderr


def test_lines_that_are_not_understood_are_reported_in_their_place_and_the_others_go_on(
    kuulo: Kuulo, tmp_path: Path
) -> None:
    rows: list[Any] = [
        asked(0),
        "no JSON",
        "[1]",
        {"body": {"messages": []}},
        {"custom_id": "a", "url": "/v1/embeddings", "body": {}},
        {"custom_id": "b"},
        {"custom_id": "c", "body": {"messages": []}},
        {**asked(0), "body": asked(0)["body"]},
        asked(8, model="gpt-4"),
        asked(9, stream=True),
        asked(11, "half \ud83d"),
        asked(13, temperature=float("nan")),
        asked(10, "long " * 60),
        "",
        asked(12, "cut this answer please", max_tokens=2),
    ]
    with llm_standin.running(tmp_path / "s", context=50) as endpoint:
        env = {"KUULO_LLM_ENDPOINT": endpoint.base_url}
        done = kuulo("llm", "batch", write(tmp_path / "p.jsonl", rows), "-o", "o.jsonl", env=env)
        assert questions(tmp_path / "s") == 3
        lines = read(tmp_path / "o.jsonl")
        other = kuulo("llm", "batch", "p.jsonl", "-o", "any.jsonl", "--any-model", "-q", env=env)
    assert done.returncode == 1 and other.returncode == 1
    assert [(line["custom_id"], line["error"] and line["error"]["message"]) for line in lines] == [
        ("q0", None),
        (None, "the line is not JSON"),
        (None, "the line is JSON of another kind than an object"),
        (None, "it has no custom_id, which is a text"),
        ("a", "its url is another than /v1/chat/completions"),
        ("b", "it has no body, which is an object"),
        ("c", "its body has no messages"),
        ("q0", "line 1 has the same custom_id"),
        ("q8", "it asks for the model 'gpt-4', and this one is standin"),
        ("q9", "it wants a stream, which a batch cannot give"),
        ("q11", "its body has a number or a character that JSON cannot hold"),
        ("q13", "its body has a number or a character that JSON cannot hold"),
        ("q10", None),
        ("q12", None),
    ]
    too_long = lines[12]["response"]
    assert too_long["status_code"] == 400 and too_long["body"]["error"]["code"] == "context_length_exceeded"
    assert said(lines[13]) == "Answer: cut"
    assert "2 of 14 answered, 1 refused, 11 not understood" in done.stderr and "1 answers were cut" in done.stderr
    assert "line 2: the line is not JSON" in done.stderr
    assert said(read(tmp_path / "any.jsonl")[8]) == "Answer: question 8"


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_and_asks_nothing_twice(
    kuulo: Kuulo, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path, kill: int
) -> None:
    write(tmp_path / "p.jsonl", [asked(n) for n in range(60)])
    partial = tmp_path / "o.jsonl.partial"
    with llm_standin.running(tmp_path / "s", holds_after=12) as endpoint:
        env = {**kuulo_environment, "KUULO_LLM_ENDPOINT": endpoint.base_url}
        command = [*kuulo_command, "llm", "batch", "p.jsonl", "-o", "o.jsonl", "--concurrency", "4"]
        running = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
        while not partial.exists() or partial.read_bytes().count(b"\n") < 12:
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(kill)
        _, err = running.communicate()
        assert not (tmp_path / "o.jsonl").exists() and stat.S_IMODE(partial.stat().st_mode) == 0o600
        assert partial.read_bytes().count(b"\n") == 12
        if kill == signal.SIGTERM:
            assert running.returncode == 130 and "what was answered is kept" in err
        with partial.open("ab") as file:
            file.write(b'{"asked": "cut sho')
    with llm_standin.running(tmp_path / "elsewhere") as endpoint:  # the same model, served at another address
        done = kuulo("llm", "batch", "p.jsonl", "-o", "o.jsonl", env={"KUULO_LLM_ENDPOINT": endpoint.base_url})
        assert done.returncode == 0, done.stderr
    assert questions(tmp_path / "elsewhere") == 48
    assert "60 of 60 answered (12 of them before)" in done.stderr
    assert [said(line) for line in read(tmp_path / "o.jsonl")] == [f"Answer: question {n}" for n in range(60)]
    assert not partial.exists()


def test_what_is_done_is_not_asked_again_and_other_files_are_left_alone(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [asked(0), asked(1, "long " * 60)])
    (tmp_path / "theirs.jsonl").write_text("mine")
    with llm_standin.running(tmp_path / "s", context=50) as endpoint:
        env = {"KUULO_LLM_ENDPOINT": endpoint.base_url}
        given = ("llm", "batch", "p.jsonl", "-o", "o.jsonl")
        assert kuulo(*given, env=env).returncode == 1
        again = kuulo(*given, env=env)
        assert again.returncode == 1 and "all is done already" in again.stderr and "--retry" in again.stderr
        assert questions(tmp_path / "s") == 2
        retried = kuulo(*given, "--retry", env=env)
        assert questions(tmp_path / "s") == 3 and "1 of 2 answered (1 of them before)" in retried.stderr
        other = kuulo(*given, "--temperature", "1", env=env)
        assert other.returncode == 2 and "not of this batch" in other.stderr
        assert kuulo(*given, "--temperature", "1", "--overwrite", env=env).returncode == 1
        assert questions(tmp_path / "s") == 5
        assert kuulo("llm", "batch", "p.jsonl", "-o", "theirs.jsonl", env=env).returncode == 2
    assert (tmp_path / "theirs.jsonl").read_text() == "mine"


def test_a_server_that_dies_ends_the_run_and_the_answers_are_kept(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [asked(n) for n in range(5)])
    with llm_standin.running(tmp_path / "dying", dies_after=0) as endpoint:
        gone = kuulo("llm", "batch", "p.jsonl", env={"KUULO_LLM_ENDPOINT": endpoint.base_url}, timeout=60)
    assert gone.returncode == 3 and ("ended in the middle" in gone.stderr or "nothing answers" in gone.stderr)
    assert not (tmp_path / "p.answers.jsonl").exists()
    with llm_standin.running(tmp_path / "s") as endpoint:
        done = kuulo("llm", "batch", "p.jsonl", env={"KUULO_LLM_ENDPOINT": endpoint.base_url})
    assert done.returncode == 0 and len(read(tmp_path / "p.answers.jsonl")) == 5


def test_a_folder_is_asked_about_file_by_file(kuulo: Kuulo, tmp_path: Path) -> None:
    folder = tmp_path / "fol der"
    (folder / "below").mkdir(parents=True)
    master(folder / "a.json", ["Hello."])
    (folder / "below" / "b ä.txt").write_text("plain", encoding="utf-8")
    (folder / "report.json").write_text("{}")
    (folder / "sound.wav").write_bytes(b"\0")
    (folder / ".hidden.txt").write_text("no")
    with llm_standin.running(tmp_path / "s") as endpoint:
        env = {"KUULO_LLM_ENDPOINT": endpoint.base_url}
        done = kuulo("llm", "batch", folder, "-t", "summary", "-p", "length", "9", "-o", "o.jsonl", env=env)
        assert done.returncode == 0, done.stderr
        dry = kuulo("llm", "batch", folder, "-t", "summary", "--dry-run", env=env)
        assert "questions: 2, 16 at a time" in dry.stdout
        assert questions(tmp_path / "s") == 2
    assert "left out, neither transcripts nor texts: report.json, sound.wav" in done.stderr
    lines = read(tmp_path / "o.jsonl")
    assert [line["custom_id"] for line in lines] == ["a.json", "below/b ä.txt"]
    assert "about 9 words" in said(lines[0]) and "[00:00:00] Anna: Hello." in said(lines[0])
    report = json.loads((tmp_path / "o.report.json").read_text())
    assert report["provenance"]["template"]["sha256"] == templates.find("summary").digest


def test_parts_are_answered_apart_and_make_the_whole(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [*[asked(n) for n in range(7)], "no JSON"])
    with llm_standin.running(tmp_path / "s") as endpoint:
        env = {"KUULO_LLM_ENDPOINT": endpoint.base_url}
        codes = [kuulo("llm", "batch", "p.jsonl", "--part", f"{n}/10", env=env).returncode for n in range(1, 11)]
        assert questions(tmp_path / "s") == 7
    assert codes == [0] * 9 + [1]
    whole = [line for path in sorted(tmp_path.glob("p.answers.*-of-10.jsonl")) for line in read(path)]
    assert [line["custom_id"] for line in whole] == [*(f"q{n}" for n in range(7)), None]
    for text in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(UsageError, match="I from 1 to N"):
            batch.part([], tmp_path / "o.jsonl", text)


def test_what_cannot_be_is_refused(kuulo: Kuulo, tmp_path: Path) -> None:
    env = {"KUULO_LLM_ENDPOINT": "http://127.0.0.1:9/v1", "KUULO_LLM_MODEL": "standin"}
    write(tmp_path / "p.jsonl", [asked(0)])
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "folder").mkdir()
    for arguments, words in (
        (("missing.jsonl",), "cannot be read"),
        (("empty.jsonl",), "no prompts in the file"),
        (("folder",), "what is asked about each file?"),
        (("folder", "-t", "summary"), "nothing to ask about"),
        (("folder", "-t", "translation"), "nobody gave: to"),
        (("p.jsonl", "-t", "summary"), "-t is for a folder"),
        (("p.jsonl", "--retry", "--overwrite"), "give one of them"),
    ):
        done = kuulo("llm", "batch", *arguments, env=env)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
    assert kuulo("llm", "batch", "p.jsonl", env=env).returncode == 3


def test_answers_of_another_model_or_other_options_are_not_taken_for_these(tmp_path: Path) -> None:
    journal = batch.Journal(tmp_path / "o.partial")
    one = batch.request(1, json.dumps(asked(1)).encode())
    journal.open()
    journal.add(one.digest("plan A"), {"custom_id": "q1", "response": {"status_code": 200, "body": {}}, "error": None})
    journal.close()
    kept = journal.read()
    assert one.digest("plan A") in kept and one.digest("plan B") not in kept
    assert batch.is_final(kept[one.digest("plan A")])
    for status, final in ((400, True), (404, True), (429, False), (500, False), (503, False)):
        assert batch.is_final({"response": {"status_code": status}}) is final
    assert not batch.is_final({"response": None})


def test_requests_are_read_with_byte_order_marks_and_any_line_end(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(asked(n)).encode() for n in range(2)) + b"\r\n")
    assert [one.custom_id for one in batch.read(path)] == ["q0", "q1"]
    path.write_bytes(b"\xff\xfe\n" + os.urandom(20).replace(b"\n", b"") + b"\n")
    assert {one.why for one in batch.read(path)} == {"the line is not JSON"}
    with pytest.raises(UsageError):
        batch.read(tmp_path)
