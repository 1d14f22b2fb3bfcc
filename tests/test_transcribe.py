"""`kuulo transcribe` as its users have it: a real process, a real worker, real files.

The engine `null` says a fixed sentence for each 30 s and can be told to crash; what is tested with it is everything
around an engine. `test_transcribe_engines.py` has the engines.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recordings

Kuulo = Callable[..., subprocess.CompletedProcess[str]]


def write_wav(path: Path, seconds: float) -> Path:
    """A quiet 16 kHz recording."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(b"\x01\x00\xff\xff" * int(seconds * 8_000))
    return path


def null(*more: str) -> list[str]:
    return ["--engine", "null", *more]


def read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def states(output: Path) -> dict[str, str]:
    return {Path(f["source"]).name: f["state"] for f in read(output / "report.json")["files"]}


def texts(master: Path) -> list[str]:
    return [s["text"] for s in read(master)["segments"]]


def test_a_recording_becomes_a_master_copy_and_other_formats(kuulo: Kuulo, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "interview.wav", 65)
    done = kuulo("transcribe", recording, *null(), "-f", "txt,srt,vtt,docx", "-o", "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == [
        "interview.docx", "interview.json", "interview.srt", "interview.txt", "interview.vtt", "report.json",
    ]  # fmt: skip
    master = read(out / "interview.json")
    assert [s["text"] for s in master["segments"]] == [" Window 0.", " Window 1.", " Window 2."]
    assert master["audio"]["name"] == "interview.wav" and master["audio"]["duration_ms"] == 65_000
    step = master["provenance"]["steps"][0]
    assert step["engine"] == "null" and step["device"] == "cpu" and step["why"]
    assert len(master["provenance"]["key"]) == 64
    assert done.stdout == ""
    assert "1 done" in done.stderr


def test_words_appear_on_standard_output_and_in_the_log_only_when_asked(kuulo: Kuulo, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", 5)
    quiet = kuulo("transcribe", recording, *null(), "-o", "out")
    assert "Window" not in quiet.stdout + quiet.stderr
    assert "Window" not in (tmp_path / "out" / ".kuulo" / "log.txt").read_text()
    asked = kuulo("transcribe", recording, *null(), "-o", "out", "--print")
    assert asked.stdout == "Window 0.\n"


def test_nothing_is_left_outside_the_output_folder(
    kuulo: Kuulo, tmp_path: Path, kuulo_environment: dict[str, str]
) -> None:
    recording = write_wav(tmp_path / "a.wav", 5)
    before = set(tmp_path.rglob("*"))
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    new = set(tmp_path.rglob("*")) - before
    assert {p.relative_to(tmp_path).parts[0] for p in new} == {"out"}
    assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []
    assert not list((tmp_path / "out" / ".kuulo").rglob("*.jsonl"))


def test_a_second_run_skips_and_a_new_format_needs_no_engine(kuulo: Kuulo, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", 5)
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    stamp = (tmp_path / "out" / "a.json").stat().st_mtime_ns
    again = kuulo("transcribe", recording, *null(), "-o", "out", "-f", "txt,srt,tsv")
    assert again.returncode == 0 and states(tmp_path / "out") == {"a.wav": "skipped"}
    assert (tmp_path / "out" / "a.tsv").read_text().startswith("start\tend\ttext")
    assert (tmp_path / "out" / "a.json").stat().st_mtime_ns == stamp
    os.utime(recording)  # touched, the same content
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    assert states(tmp_path / "out") == {"a.wav": "skipped"}


def test_formats_that_a_killed_run_did_not_come_to_are_made_by_the_next(kuulo: Kuulo, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", 35)
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    stale = tmp_path / "out" / "a.srt"
    of_an_older_plan = stale.read_bytes()
    assert kuulo("transcribe", recording, *null("--to", "10"), "-o", "out").returncode == 0
    (tmp_path / "out" / "a.txt").unlink()
    stale.write_bytes(of_an_older_plan)
    os.utime(stale, ns=(0, 0))
    assert kuulo("transcribe", recording, *null("--to", "10"), "-o", "out").returncode == 0
    assert states(tmp_path / "out") == {"a.wav": "skipped"}
    assert (tmp_path / "out" / "a.txt").read_text() == "Window 0.\n"
    assert stale.read_bytes() != of_an_older_plan and "Window 1." not in stale.read_text()


@pytest.mark.parametrize("foreign", [True, False], ids=["foreign", "edited"])
@pytest.mark.parametrize("how", [["--to", "10"], ["--skip"]], ids=["another plan", "a skipping run"])
def test_a_format_that_is_not_as_kuulo_wrote_it_is_left_alone_and_named(
    kuulo: Kuulo, tmp_path: Path, foreign: bool, how: list[str]
) -> None:
    recording, out = write_wav(tmp_path / "a.wav", 35), tmp_path / "out"
    first = ["-f", "txt"] if foreign else []
    assert kuulo("transcribe", recording, *null(), *first, "-o", "out").returncode == 0
    mine = out / "a.srt"
    mine.write_text("my own work")
    os.utime(mine, ns=(0, 0))
    for _ in range(2):  # it is said as long as it is so
        done = kuulo("transcribe", recording, *null(*how), "-o", "out")
        assert done.returncode == 0, done.stderr
        assert mine.read_text() == "my own work"
        (file,) = read(out / "report.json")["files"]
        assert "out/a.srt" in file["warning"] and "move it away" in file["warning"]
        assert "out/a.srt" not in file["outputs"] and "a.srt" in done.stderr
    assert (out / "a.txt").read_text().startswith("Window 0.\n")
    mine.rename(tmp_path / "kept.srt")
    done = kuulo("transcribe", recording, *null(*how), "-o", "out")
    assert "Window 0." in mine.read_text() and "left alone" not in done.stderr
    mine.write_text("my own work")
    assert kuulo("transcribe", recording, *null(), "--overwrite", "-o", "out").returncode == 0
    assert "Window 0." in mine.read_text()


def test_a_file_with_the_very_content_that_is_to_be_written_is_not_in_the_way(kuulo: Kuulo, tmp_path: Path) -> None:
    recording, out = write_wav(tmp_path / "a.wav", 35), tmp_path / "out"
    assert kuulo("transcribe", recording, *null(), "-f", "txt", "-o", "out").returncode == 0
    assert kuulo("export", out / "a.json", "-f", "srt").returncode == 0
    os.utime(out / "a.srt", ns=(0, 0))
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    assert "warning" not in read(out / "report.json")["files"][0]
    assert kuulo("transcribe", recording, *null("--to", "10"), "-o", "out").returncode == 0
    assert "Window 1." not in (out / "a.srt").read_text()


def test_a_master_copy_that_was_edited_gives_new_formats_and_is_not_replaced(kuulo: Kuulo, tmp_path: Path) -> None:
    recording, master = write_wav(tmp_path / "a.wav", 35), tmp_path / "out" / "a.json"
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    master.write_text(master.read_text().replace("Window 1.", "By hand."))
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    assert (tmp_path / "out" / "a.txt").read_text() == "Window 0.\nBy hand.\n"
    done = kuulo("transcribe", recording, *null("--to", "10"), "-o", "out")
    assert done.returncode == 1 and "out/a.json" in done.stderr and "--overwrite" in done.stderr
    assert "By hand." in master.read_text()
    assert kuulo("transcribe", recording, *null("--to", "10"), "--overwrite", "-o", "out").returncode == 0
    assert texts(master) == [" Window 0."]


def test_another_plan_or_another_recording_is_done_again(kuulo: Kuulo, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", 35)
    out = tmp_path / "out"
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    assert kuulo("transcribe", recording, *null("--to", "10"), "-o", "out").returncode == 0
    assert states(out) == {"a.wav": "done"} and texts(out / "a.json") == [" Window 0."]
    write_wav(recording, 95)
    assert kuulo("transcribe", recording, *null("--to", "10"), "-o", "out").returncode == 0
    assert states(out) == {"a.wav": "done"}
    assert kuulo("transcribe", recording, *null("--to", "40"), "--skip", "-o", "out").returncode == 0
    assert states(out) == {"a.wav": "skipped"}
    assert kuulo("transcribe", recording, *null("--to", "10"), "--overwrite", "-o", "out").returncode == 0
    assert states(out) == {"a.wav": "done"}


def test_a_clip_range_keeps_the_recordings_own_times(kuulo: Kuulo, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", 100)
    done = kuulo("transcribe", recording, *null("--from", "00:00:20", "--to", "1:00", "--word-times"), "-o", "out")
    assert done.returncode == 0, done.stderr
    segments = read(tmp_path / "out" / "a.json")["segments"]
    assert [(s["start_ms"], s["end_ms"]) for s in segments] == [(20_000, 50_000), (50_000, 60_000)]
    assert segments[0]["words"][0]["start_ms"] == 20_000


def test_what_fails_is_told_and_the_rest_goes_on(kuulo: Kuulo, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_wav(folder / "good.wav", 5)
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("these are notes and no sound\n" * 50)
    done = kuulo("transcribe", folder, tmp_path / "none.wav", *null(), "-o", "out", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["counts"] == {"done": 1, "skipped": 0, "failed": 3, "stopped": 0}
    why = {Path(f["source"]).name: f.get("why", "") for f in report["files"]}
    assert "empty" in why["empty.wav"]
    assert why["text.mp3"] and why["none.wav"] and not why["good.wav"]
    assert read(tmp_path / "out" / "report.json")["counts"] == report["counts"]
    for name in ("empty.wav", "text.mp3", "none.wav"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_every_kind_of_bad_input_gets_its_line_and_the_good_ones_are_done(kuulo: Kuulo, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "no recordings here").mkdir(parents=True)
    write_wav(folder / "good.wav", 5)
    write_wav(folder / "blink.wav", 0.01)
    (folder / "empty.wav").touch()
    (folder / "notes.wav").write_text("Interviewer: hello\n" * 99)
    recordings.silent_film(folder / "film.mp4")
    recordings.wav_with_rate_zero(folder / "zero.wav")
    cut = write_wav(folder / "cut.wav", 60)
    cut.write_bytes(cut.read_bytes()[:320_044])
    mp3 = recordings.write(folder / "cut.mp3", ".mp3", seconds=20)
    mp3.write_bytes(mp3.read_bytes()[: mp3.stat().st_size // 2])
    recordings.write(folder / "six channels.wav", ".96k.wav")
    os.mkfifo(folder / "pipe.wav")
    done = kuulo("transcribe", "in", "in/no recordings here", "in/none.wav", *null(), "-o", "out", timeout=60)
    assert done.returncode == 1, done.stderr
    files = {Path(f["source"]).name: f for f in read(tmp_path / "out" / "report.json")["files"]}
    good = {"good.wav", "blink.wav", "cut.wav", "cut.mp3", "six channels.wav"}
    assert {name for name, f in files.items() if f["state"] == "done"} == good
    reasons = {
        "empty.wav": "empty",
        "notes.wav": "not audio",
        "film.mp4": "no sound",
        "zero.wav": "",
        "pipe.wav": "no ordinary file",
        "no recordings here": "no recording",
        "none.wav": "no such file",
    }
    assert {name for name, f in files.items() if f["state"] == "failed"} == set(reasons)
    for name, reason in reasons.items():
        assert files[name]["why"] and reason in files[name]["why"], files[name]
    assert "0:00:10.0" in files["cut.wav"]["warning"] and files["cut.mp3"]["warning"]
    assert "Traceback" not in done.stderr


def test_same_names_never_overwrite_each_other(kuulo: Kuulo, tmp_path: Path) -> None:
    for folder in ("d1", "d2"):
        (tmp_path / folder).mkdir()
        write_wav(tmp_path / folder / "x.wav", 5)
    write_wav(tmp_path / "d1" / "y.wav", 35)
    (tmp_path / "d1" / "y.w64").write_bytes((tmp_path / "d1" / "y.wav").read_bytes())
    done = kuulo("transcribe", "d1/x.wav", "d2/x.wav", "d1/y.wav", "d1/y.w64", *null(), "-o", "out")
    assert done.returncode == 0, done.stderr
    masters = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.json"))
    assert masters == ["d1/x.json", "d2/x.json", "report.json", "y.w64.json", "y.wav.json"]


def test_a_later_recording_of_the_same_stem_gets_its_own_name(kuulo: Kuulo, tmp_path: Path) -> None:
    first = write_wav(tmp_path / "a.wav", 5)
    assert kuulo("transcribe", first, *null(), "-o", "out").returncode == 0
    second = tmp_path / "a.w64"
    write_wav(second, 40)
    assert kuulo("transcribe", second, *null(), "-o", "out").returncode == 0
    assert texts(tmp_path / "out" / "a.json") == [" Window 0."]
    assert texts(tmp_path / "out" / "a.w64.json") == [" Window 0.", " Window 1."]


def test_recordings_of_one_name_from_two_places_keep_their_results_in_later_runs_too(
    kuulo: Kuulo, tmp_path: Path
) -> None:
    for folder, seconds in (("d1", 5), ("d2", 40)):
        (tmp_path / folder).mkdir()
        write_wav(tmp_path / folder / "x.wav", seconds)
        assert kuulo("transcribe", f"{folder}/x.wav", *null(), "-o", "out").returncode == 0
    assert texts(tmp_path / "out" / "x.json") == [" Window 0."]
    assert texts(tmp_path / "out" / "x.wav.json") == [" Window 0.", " Window 1."]
    (tmp_path / "d1").rename(tmp_path / "moved")
    assert kuulo("transcribe", "moved/x.wav", *null(), "-o", "out").returncode == 0
    assert states(tmp_path / "out") == {"x.wav": "skipped"}
    write_wav(tmp_path / "moved" / "x.wav", 65)  # edited where it is now
    assert kuulo("transcribe", "moved/x.wav", *null(), "-o", "out").returncode == 0
    assert texts(tmp_path / "out" / "x.json") == [" Window 0.", " Window 1.", " Window 2."]
    assert texts(tmp_path / "out" / "x.wav.json") == [" Window 0.", " Window 1."]
    (tmp_path / "d3").mkdir()
    write_wav(tmp_path / "d3" / "x.wav", 95)
    assert kuulo("transcribe", "d3/x.wav", *null(), "-o", "out").returncode == 0
    assert len(texts(tmp_path / "out" / "x.wav (2).json")) == 4


def test_a_file_that_is_not_ours_is_left_alone(kuulo: Kuulo, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", 5)
    (tmp_path / "out").mkdir()
    notes = tmp_path / "out" / "a.txt"
    notes.write_text("my own notes")
    done = kuulo("transcribe", recording, *null(), "-o", "out")
    assert done.returncode == 1 and "not written by Kuulo" in done.stderr
    assert notes.read_text() == "my own notes"
    assert kuulo("transcribe", recording, *null(), "-o", "out", "--overwrite").returncode == 0
    assert notes.read_text() == "Window 0.\n"


def test_formats_of_kuulo_without_their_master_copy_are_written_anew(kuulo: Kuulo, tmp_path: Path) -> None:
    recording, out = write_wav(tmp_path / "a.wav", 35), tmp_path / "out"
    assert kuulo("transcribe", recording, *null(), "-o", "out").returncode == 0
    (out / "a.json").unlink()
    assert kuulo("transcribe", recording, *null("--to", "10"), "-o", "out").returncode == 0
    assert (out / "a.txt").read_text() == "Window 0.\n"


def test_any_name(kuulo: Kuulo, tmp_path: Path, weird_name: str) -> None:
    folder = tmp_path / weird_name
    folder.mkdir()
    recording = write_wav(folder / f"{weird_name}.wav", 5)
    done = kuulo("transcribe", "--print", *null(), "-o", folder / "out", "--", os.path.relpath(recording, tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Window 0.\n"
    assert (folder / "out" / f"{weird_name}.txt").read_text() == "Window 0.\n"
    assert not (tmp_path / "owned").exists()
    read(folder / "out" / f"{weird_name}.json")


def test_standard_input(kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", 5)
    with recording.open("rb") as stdin:
        done = subprocess.run(
            [*kuulo_command, "transcribe", "-", *null(), "--print", "-o", str(tmp_path / "out")],
            stdin=stdin, capture_output=True, text=True, env=kuulo_environment, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Window 0.\n" and (tmp_path / "out" / "stdin.json").exists()


# ---------------------------------------------------------------------- stopped and killed runs


def start(command: list[str], environment: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=environment, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def with_hangup(disposition: str, command: list[str], *, on_terminal: bool = False) -> list[str]:
    """The command as a process that begins with this for SIGHUP, "SIG_DFL" or "SIG_IGN", and hears Ctrl-C, whatever the
    tests have (a shell's jobs in the background ignore SIGINT); its standard input is its terminal if asked."""
    code = [
        "import os, signal, sys",
        f"signal.signal(signal.SIGHUP, signal.{disposition})",
        "signal.signal(signal.SIGINT, signal.SIG_DFL)",
        *(["os.login_tty(0)"] if on_terminal else []),
        "os.execv(sys.argv[1], sys.argv[1:])",
    ]
    return [sys.executable, "-c", "; ".join(code), *command]


def wait_for_segments(output: Path, count: int, terminal: int | None = None) -> None:
    """Until a journal has that many segments; what comes from the terminal meanwhile is read."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if terminal is not None and select.select([terminal], [], [], 0)[0]:
            os.read(terminal, 65_536)
        for journal in output.glob(".kuulo/partial/*.jsonl"):
            if journal.read_bytes().count(b'"segment"') >= 2 * count:
                return
        time.sleep(0.02)
    raise AssertionError("the run heard nothing")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_run_goes_on_inside_the_recording(
    how: signal.Signals,
    kuulo: Kuulo,
    kuulo_command: list[str],
    kuulo_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    recording = write_wav(tmp_path / "a.wav", 300)
    undisturbed = kuulo("transcribe", recording, *null(), "-o", "reference")
    assert undisturbed.returncode == 0
    slow = [*kuulo_command, "transcribe", str(recording), *null("--engine-option", "wait_ms=250"), "-o", "out"]
    process = start(with_hangup("SIG_DFL", slow), kuulo_environment, tmp_path)
    wait_for_segments(tmp_path / "out", 3)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=20)
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert "give the same command again" in stderr
        assert states(tmp_path / "out") == {"a.wav": "stopped"}
        assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []
    assert not (tmp_path / "out" / "a.json").exists()
    done = subprocess.run(slow, env=kuulo_environment, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
    resumed = read(tmp_path / "out" / "report.json")["files"][0]["resumed_at_ms"]
    assert resumed >= 60_000
    assert read(tmp_path / "out" / "a.json")["provenance"]["resumed"] == resumed
    assert texts(tmp_path / "out" / "a.json") == texts(tmp_path / "reference" / "a.json")


def test_a_closed_terminal_stops_a_run_and_leaves_nothing_in_scratch(
    kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    recording = write_wav(tmp_path / "a.wav", 300)
    slow = [*kuulo_command, "transcribe", str(recording), *null("--engine-option", "wait_ms=250"), "-o", "out"]
    terminal, inside = os.openpty()
    process = subprocess.Popen(
        with_hangup("SIG_DFL", slow, on_terminal=True), stdin=inside, stdout=inside, stderr=inside,
        env=kuulo_environment, cwd=tmp_path,
    )  # fmt: skip
    os.close(inside)
    wait_for_segments(tmp_path / "out", 3, terminal)
    os.close(terminal)
    for _ in range(50):  # again while it tidies up, as shells do
        time.sleep(0.005)
        process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 130
    assert states(tmp_path / "out") == {"a.wav": "stopped"}
    assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []


def test_a_run_that_is_to_outlive_its_terminal_does(
    kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    recording = write_wav(tmp_path / "a.wav", 150)
    slow = [*kuulo_command, "transcribe", str(recording), *null("--engine-option", "wait_ms=250"), "-o", "out"]
    process = start(with_hangup("SIG_IGN", slow), kuulo_environment, tmp_path)
    wait_for_segments(tmp_path / "out", 2)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert states(tmp_path / "out") == {"a.wav": "done"}


def test_a_workers_end_follows_its_parents(
    kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    recording = write_wav(tmp_path / "a.wav", 300)
    marker = tmp_path / "tmp"
    process = start(
        [*kuulo_command, "transcribe", str(recording), *null("--engine-option", "wait_ms=500"), "-o", "out"],
        kuulo_environment,
        tmp_path,
    )
    wait_for_segments(tmp_path / "out", 1)
    process.kill()
    process.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and workers_in(marker):
        time.sleep(0.1)
    assert workers_in(marker) == []


def workers_in(folder: Path) -> list[int]:
    """Processes whose working folder is below `folder`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if str((process / "cwd").readlink()).startswith(str(folder)):
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def test_a_worker_that_dies_once_loses_nothing(kuulo: Kuulo, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_wav(tmp_path / f"{name}.wav", 100)
    once = tmp_path / "crashed"
    done = kuulo(
        "transcribe", "a.wav", "b.wav", "c.wav", "-o", "out",
        *null("--engine-option", "crash_at_ms=60000", "--engine-option", f'crash_once="{once}"'),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert once.exists() and "was killed (SIGKILL" in done.stderr
    for name in ("a", "b", "c"):
        assert texts(tmp_path / "out" / f"{name}.json") == [" Window 0.", " Window 1.", " Window 2.", " Window 3."]


def test_a_recording_that_kills_its_worker_twice_is_given_up_and_the_rest_done(kuulo: Kuulo, tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", 20)
    write_wav(tmp_path / "long.wav", 100)
    done = kuulo("transcribe", "short.wav", "long.wav", "-o", "out", *null("--engine-option", "crash_at_ms=60000"))
    assert done.returncode == 1
    assert states(tmp_path / "out") == {"short.wav": "done", "long.wav": "failed"}
    assert "--workers 1" in done.stderr


def test_an_exception_in_the_engine_is_that_recordings(kuulo: Kuulo, tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", 20)
    write_wav(tmp_path / "long.wav", 100)
    done = kuulo("transcribe", "short.wav", "long.wav", "-o", "out", *null("--engine-option", "fail_at_ms=60000"))
    assert done.returncode == 1 and "asked to fail" in done.stderr
    assert states(tmp_path / "out") == {"short.wav": "done", "long.wav": "failed"}


# ---------------------------------------------------------------------- wrong usage and what cannot run


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "no recording was named"),
        (["a.wav", "--engine", "nul"], 2, "there is no engine"),
        (["a.wav", "-f", "pdf"], 2, "pdf"),
        (["a.wav", "--nonsense"], 2, "--nonsense"),
        (["a.wav", "-l", "klingon"], 2, "klingon"),
        (["a.wav", "--engine", "null", "--engine-option", "bogus=1"], 3, "unknown option 'bogus'"),
        (["a.wav", "--engine", "faster-whisper", "-m", "large-v3"], 3, "kuulo models pull large-v3"),
        (["a.wav", "-l", "fi"], 3, "kuulo models pull"),
        (["a.wav", "--engine", "null", "-o", "a.wav/out"], 3, "output folder"),
        (["a.wav", "--engine", "null", "--scratch", "missing"], 3, "scratch"),
        (["a.wav", "--overwrite", "--skip"], 2, "one at most"),
        (["a.wav", "--engine", "pocketsphinx", "--task", "translate"], 2, "--task"),
    ],
)
def test_exit_codes_tell_the_truth(kuulo: Kuulo, tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    write_wav(tmp_path / "a.wav", 2)
    done = kuulo("transcribe", *arguments)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "transcripts" / "a.json").exists()


def test_variables_set_options(kuulo: Kuulo, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 2)
    env = {"KUULO_ENGINE": "null", "KUULO_OUTPUT": "elsewhere", "KUULO_FORMAT": "vtt"}
    assert kuulo("transcribe", "a.wav", env=env).returncode == 0
    assert (tmp_path / "elsewhere" / "a.vtt").exists() and not (tmp_path / "elsewhere" / "a.txt").exists()


def test_a_dry_run_shows_everything_and_does_nothing(kuulo: Kuulo, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 2)
    done = kuulo("transcribe", "a.wav", "--dry-run", "-f", "srt")
    assert done.returncode == 0, done.stderr
    assert "pocketsphinx" in done.stdout and "transcripts/a.json" in done.stdout and "kuulo.worker" in done.stdout
    assert not (tmp_path / "transcripts").exists()
    plan = json.loads(kuulo("transcribe", "a.wav", "--dry-run", "--json").stdout)
    assert plan["engine"] == "pocketsphinx" and plan["recordings"][0]["outputs"][0] == "transcripts/a.json"


def test_progress_off_a_terminal_has_no_bars(kuulo: Kuulo, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 35)
    done = kuulo("transcribe", "a.wav", *null(), "-o", "out")
    assert "\x1b" not in done.stderr and "\r" not in done.stderr
    silent = kuulo("transcribe", "a.wav", *null(), "-o", "out2", "--quiet")
    assert (silent.stdout, silent.stderr) == ("", "")
