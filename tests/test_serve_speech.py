"""Recordings over OpenAI's API: `kuulo serve --speech`, with the miniature Whisper in faster-whisper behind it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pysubs2
import pytest
import webvtt

import llm_standin
import recordings
import sessions
from kuulo import engines
from models_fixture import Miniature
from serving import Serving, home, serving, until

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.engine("faster-whisper")

WEIRD = ["a\"b'c.flac", "../../etc/passwd", "/dev/zero", "new\nline.wav", "$(touch owned).mp3", "concat:a|b", "ü" * 300]


@pytest.fixture(scope="module")
def server(
    kuulo_command: list[str], miniature: Miniature, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("speech")
    words = ["--speech", "miniature", "--speech-name", "whisper-1", "--audio-limit", "20M"]
    with serving(kuulo_command, home(folder), folder, *words) as one:
        yield one


@pytest.fixture
def client(server: Serving) -> Iterator[Any]:
    with openai.OpenAI(base_url=server.url, api_key=server.key, max_retries=0, timeout=120) as one:
        yield one


@pytest.fixture
def http(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=120, trust_env=False) as one:
        yield one


def test_openais_client_gets_every_format(client: Any, miniature: Miniature) -> None:
    clip = miniature.clip("two_sentences")

    def ask(**more: Any) -> Any:
        return client.audio.transcriptions.create(model="whisper-1", file=clip.path, language="en", **more)

    said = ask()
    assert said.text == clip.text
    assert said.usage.seconds == 5
    assert ask(response_format="text") == f"{clip.text}\n"
    subtitles = pysubs2.SSAFile.from_string(ask(response_format="srt"))
    assert [line.text for line in subtitles] == [text for _, _, text in clip.segments]
    cues = webvtt.from_string(ask(response_format="vtt"))
    assert [cue.text for cue in cues] == [text for _, _, text in clip.segments]
    verbose = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (verbose.text, verbose.language, verbose.task) == (clip.text, "english", "transcribe")
    assert verbose.duration == pytest.approx(len(clip.samples()) / 16_000, abs=0.01)
    assert [word.word for word in verbose.words] == clip.text.split()
    assert all(0 <= word.start <= word.end <= verbose.duration for word in verbose.words)
    for heard, (start, end, _) in zip(verbose.segments, clip.segments, strict=True):
        assert heard.start == pytest.approx(start / 1000, abs=0.5)
        assert heard.end == pytest.approx(end / 1000, abs=0.5)
        assert heard.avg_logprob < 0 < heard.compression_ratio
    assert ask(response_format="verbose_json").words is None
    assert ask(response_format="verbose_json", timestamp_granularities=["word"]).segments is None


def test_openais_client_streams(client: Any, miniature: Miniature) -> None:
    clip = miniature.clip("two_sentences")
    events = list(client.audio.transcriptions.create(model="whisper-1", file=clip.path, stream=True))
    assert [event.type for event in events] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]
    assert events[-1].text == clip.text
    assert "".join(event.delta for event in events[:-1]) == clip.text


@pytest.mark.parametrize(("name", "language"), [("finnish", "fi"), ("swedish", "sv"), ("finnish", None)])
def test_the_language_is_each_requests_own(client: Any, miniature: Miniature, name: str, language: str | None) -> None:
    clip = miniature.clip(name)
    more = {"language": language} if language else {}
    said = client.audio.transcriptions.create(model="whisper-1", file=clip.path, response_format="verbose_json", **more)
    assert said.text == clip.text
    assert said.language == {"finnish": "finnish", "swedish": "swedish"}[name]


def worker_of(server: Serving) -> list[int]:
    """The workers that the server has."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == server.process.pid and b"kuulo.worker" in command:
            found.append(int(path.parent.name))
    return found


def test_one_worker_hears_all_of_them_whatever_they_ask(server: Serving, client: Any, miniature: Miniature) -> None:
    before = worker_of(server)
    assert len(before) == 1
    asked: list[dict[str, Any]] = [
        {"language": "en"},
        {"language": "en", "prompt": "Three children"},
        {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
    ]
    clips = [miniature.clip(name) for name in ("two_sentences", "three_children")]
    jobs = [(clip, more) for clip in clips for more in asked for _ in range(2)]

    def ask(job: tuple[Any, dict[str, Any]]) -> str:
        return str(client.audio.transcriptions.create(model="whisper-1", file=job[0].path, **job[1]).text)

    one_by_one = [ask(job) for job in jobs[::2]]
    assert one_by_one[0] == clips[0].text != one_by_one[1]  # the prompt counts
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        heard = list(pool.map(ask, jobs))
    assert heard[::2] == heard[1::2] == one_by_one
    assert worker_of(server) == before


def test_names_of_files_are_no_paths(server: Serving, client: Any, miniature: Miniature) -> None:
    clip = miniature.clip("three_children")
    for name in WEIRD:
        said = client.audio.transcriptions.create(model="whisper-1", file=(name, clip.path.read_bytes()))
        assert said.text == clip.text
    assert not (server.folder.parent / "owned").exists()


def test_nothing_is_left_of_an_upload(server: Serving, client: Any, miniature: Miniature) -> None:
    clip = miniature.clip("three_children")
    client.audio.transcriptions.create(model="whisper-1", file=clip.path)
    scratch = Path(server.process_environ["TMPDIR"])

    def left() -> list[Path]:
        """Files with something in them; one may go while it is looked at: the answer is there a moment before."""
        found = []
        for path in scratch.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.suffix not in (".log", ".py", ".pyc") and path.stat().st_size > 0:
                    found.append(path)
        return found

    until(lambda: not left(), 10)
    logs = b"".join(path.read_bytes() for path in scratch.rglob("*.log"))
    assert clip.text.split()[0].encode() not in logs and clip.text.encode() not in server.said.read_bytes()


def test_a_recording_that_is_none_is_refused(client: Any, tmp_path: Path) -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    for data in (b"", b"hello", playlist, b"ffconcat version 1.0\nfile /etc/hostname\n", os.urandom(5000)):
        with pytest.raises(openai.BadRequestError) as refused:
            client.audio.transcriptions.create(model="whisper-1", file=("a.wav", data))
        assert refused.value.code == "invalid_recording"
    silence = recordings.wav(tmp_path / "s.wav", recordings.tone(1.0) * 0)
    assert client.audio.transcriptions.create(model="whisper-1", file=silence).text == ""


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"model": "gpt-4o-transcribe"}, "model"),
        ({"model": ""}, "model"),
        ({"language": "klingon"}, "language"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "7"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"response_format": "docx"}, "response_format"),
        ({"response_format": "srt", "timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"response_format": "verbose_json", "timestamp_granularities[]": "letter"}, "timestamp_granularities"),
        ({"stream": "true", "response_format": "vtt"}, "response_format"),
        ({"stream": "perhaps"}, "stream"),
        ({"include[]": "logprobs"}, "include"),
        ({"chunking_strategy": "auto"}, "chunking_strategy"),
        ({"vad_filter": "true"}, "vad_filter"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    http: httpx.Client, miniature: Miniature, form: dict[str, str], param: str
) -> None:
    file = {"file": ("a.flac", miniature.clip("three_children").path.read_bytes())}
    refused = http.post("/audio/transcriptions", data={"model": "whisper-1", **form}, files=file)
    assert refused.status_code in (400, 404)
    assert refused.json()["error"]["param"] == param


def test_forms_that_are_none_are_refused(http: httpx.Client) -> None:
    for kind, data, status in (
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"--x\r\n", 400),
        ("multipart/form-data; boundary=x", b"garbage", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--x--',
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--", 400),
    ):
        refused = http.post("/audio/transcriptions", content=data, headers={"Content-Type": kind})
        assert refused.status_code == status, (data, refused.text)
        assert refused.json()["error"]["type"] == "invalid_request_error"
    many = {f"f{n}": ("a", b"x") for n in range(5)}
    assert http.post("/audio/transcriptions", data={"model": "whisper-1"}, files=many).status_code == 400


def test_an_upload_over_the_limit_is_413(http: httpx.Client, client: Any) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"x" * (30 << 20)))
    assert refused.value.status_code == 413
    with_key = http.post("/audio/transcriptions", files={"file": ("a", io.BytesIO(b"x" * (25 << 20)))})
    assert with_key.status_code == 413


def test_this_model_cannot_translate_and_says_so(http: httpx.Client, miniature: Miniature) -> None:
    """(Not by OpenAI's client, which warns that this route is old.)"""
    file = {"file": ("a.flac", miniature.clip("finnish").path.read_bytes())}
    refused = http.post("/audio/translations", data={"model": "whisper-1"}, files=file)
    assert refused.status_code == 400
    assert "cannot translate" in refused.json()["error"]["message"]


def test_there_is_no_language_model(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["whisper-1"]
    with pytest.raises(openai.NotFoundError, match="no language model"):
        client.chat.completions.create(model="whisper-1", messages=[{"role": "user", "content": "x"}])


def test_both_from_one_server(kuulo_command: list[str], miniature: Miniature, tmp_path: Path) -> None:
    clip = miniature.clip("three_children")
    with llm_standin.running(tmp_path / "engine") as endpoint:
        words = ["--endpoint", endpoint.base_url, "--speech", str(miniature.path("ct2")), "--speech-name", "whisper-1"]
        with (
            serving(kuulo_command, home(tmp_path), tmp_path, *words) as one,
            openai.OpenAI(base_url=one.url, api_key=one.key, max_retries=0) as client,
        ):
            assert [model.id for model in client.models.list()] == ["standin", "whisper-1"]
            said = client.audio.transcriptions.create(model="whisper-1", file=clip.path).text
            file = {"file": ("a.flac", clip.path.read_bytes())}
            translated = httpx.post(
                f"{one.url}/audio/translations", headers=one.headers, files=file, timeout=60, trust_env=False,
                data={"model": "whisper-1", "response_format": "verbose_json"},
            )  # fmt: skip
            assert translated.json()["task"] == "translate"  # nobody knows of this folder that it cannot
            answer = client.chat.completions.create(model="standin", messages=[{"role": "user", "content": said}])
            assert answer.choices[0].message.content == f"Answer: {clip.text}"


# ------------------------------------------------------------------ what an engine takes with each clip


@pytest.mark.parametrize("name", [spec.name for spec in engines.specs() if spec.by_clip])
def test_a_session_that_is_told_other_options_hears_as_one_that_was_loaded_with_them(
    name: str, miniature: Miniature
) -> None:
    other = {"language": "fi", "word_times": True, "beam_size": 5, "initial_prompt": "Hyvää yötä."}
    assert {*other} <= {*engines.spec(name).by_clip} <= {*engines.spec(name).options}
    module, samples = engines.module(name), miniature.clip("finnish").samples()
    first = module.load(sessions.task(miniature, name, language="en"))
    before = list(first.transcribe(samples))
    loaded = list(module.load(sessions.task(miniature, name, **other)).transcribe(samples))
    assert list(first.told(other).transcribe(samples)) == loaded != before
    assert list(first.transcribe(samples)) == before  # the session itself is as it was


# ------------------------------------------------------------------ workers that die, clients that leave


@pytest.fixture
def slow(kuulo_command: list[str], tmp_path: Path) -> Iterator[Serving]:
    """A server whose engine waits a second for each 30 s of sound."""
    environ = {**home(tmp_path), "KUULO_ENGINE_OPTION": "wait_ms=1000", "KUULO_STORE": str(tmp_path / "none")}
    with serving(kuulo_command, environ, tmp_path, "--speech-engine", "null") as one:
        yield one


def upload(server: Serving, seconds: float, folder: Path, **form: str) -> Any:
    path = recordings.wav(folder / f"{seconds}.wav", recordings.tone(seconds, rate=8000) * 0, 8000)
    with path.open("rb") as file:
        return httpx.post(
            f"{server.url}/audio/transcriptions", headers=server.headers, data={"model": "its own", **form},
            files={"file": file}, timeout=60, trust_env=False,
        )  # fmt: skip


def test_a_worker_that_dies_loses_nothing(slow: Serving, tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = pool.submit(upload, slow, 100, tmp_path)
        time.sleep(1.5)
        (worker,) = worker_of(slow)
        os.kill(worker, signal.SIGKILL)
        said = asked.result()
    assert said.json()["text"] == "Window 0. Window 1. Window 2. Window 3."
    assert upload(slow, 10, tmp_path).json()["text"] == "Window 0."


def test_a_client_that_leaves_ends_the_hearing(slow: Serving, tmp_path: Path) -> None:
    """300 s would take ten; the next recording would wait for it."""
    path = recordings.wav(tmp_path / "long.wav", recordings.tone(3000, rate=8000) * 0, 8000)
    with path.open("rb") as file, pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{slow.url}/audio/transcriptions", headers=slow.headers, data={"model": "its own"},
            files={"file": file}, timeout=2, trust_env=False,
        )  # fmt: skip
    until(lambda: not list(Path(slow.process_environ["TMPDIR"]).rglob("*.f32")))
    assert upload(slow, 10, tmp_path).json()["text"] == "Window 0."


def test_a_stream_is_sent_while_it_is_heard_and_broken_off_with_an_error(slow: Serving, tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "long.wav", recordings.tone(3000, rate=8000) * 0, 8000)
    with (
        path.open("rb") as file,
        httpx.stream(
            "POST", f"{slow.url}/audio/transcriptions", headers=slow.headers,
            data={"model": "its own", "stream": "true"}, files={"file": file}, timeout=60, trust_env=False,
        ) as stream,
    ):  # fmt: skip
        lines = (line for line in stream.iter_lines() if line)
        assert json.loads(next(lines)[6:]) == {"type": "transcript.text.delta", "delta": "Window 0."}
        slow.process.terminate()
        last = [json.loads(line[6:]) for line in lines][-1]
    assert last["error"]["code"] == "server_ending"
    assert slow.process.wait(30) == 0
    assert list(Path(slow.process_environ["TMPDIR"]).iterdir()) == []


def test_recordings_that_kill_their_worker_are_an_error(kuulo_command: list[str], tmp_path: Path) -> None:
    environ = {**home(tmp_path), "KUULO_ENGINE_OPTION": "crash_at_ms=30000", "KUULO_STORE": str(tmp_path / "none")}
    with serving(kuulo_command, environ, tmp_path, "--speech-engine", "null") as one:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(upload, one, seconds, tmp_path) for seconds in (10, 45, 11)]
            said = [each.result() for each in asked]
        assert [each.status_code for each in said] == [200, 502, 200]
        assert "died over it" in said[1].json()["error"]["message"]
        streamed = upload(one, 45, tmp_path, stream="true")
        assert json.loads(streamed.text.strip().split("\n\n")[-1][6:])["error"]["code"] == "engine_failed"
