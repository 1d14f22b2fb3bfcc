"""Finding, probing and decoding recordings, good and bad."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import faster_whisper
import numpy as np
import pytest

import recordings
from kuulo import audio
from kuulo.errors import InputFailed

EXAMPLE = Path(__file__).parent.parent / "examples" / "jfk.flac"


def decoded(path: Path, tmp_path: Path, **range_ms: int) -> tuple[np.ndarray, audio.Decoded]:
    pcm = tmp_path / "out.f32"
    answer = audio.decode(path, pcm, **range_ms)
    return np.fromfile(pcm, "<f4"), answer


# ---------------------------------------------------------------------- what is good


@pytest.mark.parametrize("kind", recordings.KINDS)
def test_every_kind_gives_the_samples_that_faster_whisper_hears(kind: str, tmp_path: Path) -> None:
    path = recordings.write(tmp_path / f"a{kind}", kind)
    samples, answer = decoded(path, tmp_path)
    reference = faster_whisper.decode_audio(str(path))
    assert answer.samples == len(samples) and answer.complete and answer.warning is None
    assert len(samples) == len(reference)
    assert np.abs(samples - reference).max() < 1e-4
    assert abs(answer.duration_ms - 3000) < 120
    probe = audio.probe(path)
    assert probe.duration_ms is not None and abs(probe.duration_ms - 3000) < 150
    assert probe.sample_rate == recordings.KINDS[kind][2] or kind in (".opus", ".webm")


def test_the_example_is_read_whole(tmp_path: Path) -> None:
    samples, answer = decoded(EXAMPLE, tmp_path)
    assert answer.duration_ms == 11_000
    assert np.array_equal(samples, faster_whisper.decode_audio(str(EXAMPLE)))


# .mka holds AC-3, whose 256 samples of delay older programs (FFmpeg 5.1) leave in.
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with the program ffmpeg")
@pytest.mark.parametrize("kind", [kind for kind in recordings.KINDS if kind != ".mka"])
def test_every_kind_gives_the_samples_that_ffmpeg_gives(kind: str, tmp_path: Path) -> None:
    path = recordings.write(tmp_path / f"a{kind}", kind)
    samples, _ = decoded(path, tmp_path)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-f", "s16le", "-ac", "1", "-ar", "16000", "-"]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    reference = np.frombuffer(output, "<i2").astype(np.float32) / 32768
    assert abs(len(samples) - len(reference)) <= 64
    both = min(len(samples), len(reference))
    assert np.abs(samples[:both] - reference[:both]).max() < 1e-3


@pytest.mark.parametrize("kind", [".wav", ".mp3", ".m4a", ".opus"])
@pytest.mark.parametrize(("from_ms", "to_ms"), [(500, None), (None, 1200), (700, 1900), (2990, 60_000)])
def test_a_range_is_cut_to_the_sample(kind: str, from_ms: int | None, to_ms: int | None, tmp_path: Path) -> None:
    path = recordings.write(tmp_path / f"a{kind}", kind)
    whole, _ = decoded(path, tmp_path)
    part, answer = decoded(path, tmp_path, from_ms=from_ms, to_ms=to_ms)
    expected = whole[(from_ms or 0) * 16 : None if to_ms is None else to_ms * 16]
    assert np.array_equal(part, expected)
    assert answer.offset_ms == (from_ms or 0) and answer.warning is None


def test_a_hundredth_of_a_second_is_a_recording(tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "a.wav", recordings.tone(0.01))
    assert decoded(path, tmp_path)[1].samples == 160


def test_any_name(weird_tmp_path: Path, weird_name: str, tmp_path: Path) -> None:
    path = recordings.wav(weird_tmp_path / f"{weird_name}.wav", recordings.tone(0.1))
    assert decoded(path, tmp_path)[1].samples == 1600
    found = audio.find([str(weird_tmp_path)])
    assert [r.path for r in found.recordings] == [path]


@pytest.mark.parametrize("from_ms", [None, 30_000])
def test_decoding_stops_when_it_is_told_to(from_ms: int | None, tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "a.wav", recordings.tone(60))
    stop = threading.Event()
    stop.set()
    answer = audio.decode(path, tmp_path / "out.f32", from_ms=from_ms, stop=stop)
    assert answer.samples < 16_000 and not answer.complete


def test_a_recording_whose_rate_changes_is_read_to_its_end(tmp_path: Path) -> None:
    first = recordings.write(tmp_path / "a.mp3", ".mp3", 5, container={"write_xing": "0", "id3v2_version": "0"})
    second = recordings.write(tmp_path / "b.mp3", ".mp3", 5, rate=22_050, container={"id3v2_version": "0"})
    joined = tmp_path / "ab.mp3"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    samples, _ = decoded(joined, tmp_path)
    assert abs(len(samples) - 10 * 16_000) < 3_000
    alone, _ = decoded(second, tmp_path)
    tail = 2 * 16_000
    assert abs(np.abs(samples[-tail:]).mean() - np.abs(alone[-tail:]).mean()) < 0.01


@pytest.mark.parametrize(
    ("kind", "container", "encoder"),
    [(".aac", {}, {}), (".mp3", {"write_xing": "0"}, {"flags": "+qscale", "global_quality": "236"})],
    ids=["aac", "mp3 without a count"],
)
def test_a_length_that_is_guessed_is_no_promise(
    kind: str, container: dict[str, str], encoder: dict[str, str], tmp_path: Path
) -> None:
    samples = recordings.quiet_then_loud(20, 44_100)
    path = recordings.write(tmp_path / f"a{kind}", kind, samples=samples, container=container, encoder=encoder)
    guess = audio.probe(path).duration_ms
    assert guess is not None and guess > 40_000  # else this tests nothing
    _, answer = decoded(path, tmp_path)
    assert answer.warning is None and abs(answer.duration_ms - 20_000) < 100


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        (b"JUNK", bytes(28), True),
        (b"bext", b"metadata of a field recorder".ljust(602, b"~"), True),
        (b"bext", b"data".ljust(100_000, b"~"), True),
        (b"LIST", b"INFOICMT\x1c\0\0\0raw data of the interview\0\0\0", False),
    ],
)
def test_what_else_a_wav_file_holds_is_no_promise(name: bytes, content: bytes, first: bool, tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "a.wav", recordings.tone(10))
    recordings.with_chunk(path, name, content, first=first)
    assert decoded(path, tmp_path)[1].warning is None
    path.write_bytes(path.read_bytes()[:-160_000])
    answer = decoded(path, tmp_path)[1]
    assert answer.duration_ms == 5_000 and answer.warning == (
        "it ends at 0:00:05.0, though its header promises 0:00:10.0"
    )


def test_a_wav_header_of_a_stream_promises_nothing(tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "a.wav", recordings.tone(2))
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000):
        data = bytearray(path.read_bytes())
        data[40:44] = size.to_bytes(4, "little")
        path.write_bytes(data)
        assert decoded(path, tmp_path)[1] == audio.Decoded(32_000, 0)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """Peak memory of decoding an hour is that of a minute, but for a few MB."""
    peaks = []
    for minutes in (1, 60):
        path = tmp_path / f"{minutes}.wav"
        recordings.wav(path, np.tile(recordings.tone(6), minutes * 10))
        code = (
            "import sys; from pathlib import Path; from kuulo import audio\n"
            "audio.decode(Path(sys.argv[1]), Path(sys.argv[2]))\n"
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
        )
        command = [sys.executable, "-c", code, str(path), str(tmp_path / "out.f32")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < peaks[0] + 20_000  # kB; an hour of samples would be 230,000


# ---------------------------------------------------------------------- what is not


def test_what_is_no_recording_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("Interviewer: hello\n" * 100)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    bad = {
        "none.wav": "no such file",
        "empty.wav": "empty",
        "text.wav": "not audio or video",
        "folder": "a folder",
        "fifo": "no ordinary file",
        "film.mp4": "no sound",
        "zero.wav": "sample rate|not audio",
        "header.wav": "no sound",
        "channels.wav": "no channels",
        "a" * 300: "cannot be looked at",
    }
    recordings.silent_film(tmp_path / "film.mp4")
    recordings.wav_with_rate_zero(tmp_path / "zero.wav")
    recordings.wav_with_no_channels(tmp_path / "channels.wav")
    recordings.wav(tmp_path / "header.wav", np.zeros(0, np.float32))
    began = time.monotonic()
    for name, reason in bad.items():
        with pytest.raises(InputFailed, match=reason):
            audio.decode(tmp_path / name, tmp_path / "out.f32")
    assert time.monotonic() - began < 10


def test_a_socket_is_no_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        with pytest.raises(InputFailed, match="no ordinary file"):
            audio.check_file(Path("sock"))


def test_what_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "a.wav", recordings.tone(0.1))
    path.chmod(0)
    code = (
        "import os, sys; from pathlib import Path; from kuulo import audio\n"
        "from kuulo.errors import InputFailed\n"
        "os.getuid() == 0 and os.setuid(65534)\n"
        "try: audio.check_file(Path('a.wav'))\n"
        "except InputFailed as error: print(error)"
    )
    tmp_path.chmod(0o755)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "may not read" in ran.stdout


def test_a_truncated_recording_gives_what_is_there_and_a_warning(tmp_path: Path) -> None:
    whole = recordings.wav(tmp_path / "a.wav", recordings.tone(20))
    whole.write_bytes(whole.read_bytes()[: 44 + 16_000 * 2 * 7])
    samples, answer = decoded(whole, tmp_path)
    assert len(samples) == 7 * 16_000
    assert not answer.complete and answer.warning is not None and "0:00:07.0" in answer.warning

    mp3 = recordings.write(tmp_path / "b.mp3", ".mp3", seconds=20)
    mp3.write_bytes(mp3.read_bytes()[: mp3.stat().st_size // 2])
    samples, answer = decoded(mp3, tmp_path)
    assert 9 < len(samples) / 16_000 < 11
    assert answer.warning is not None


@pytest.mark.parametrize("kind", [".aac", ".aiff", ".flac", ".m4a", ".mka", ".ogg", ".opus", ".webm"])
def test_half_a_recording_is_never_taken_for_a_whole(kind: str, tmp_path: Path) -> None:
    container = {"movflags": "faststart"} if kind == ".m4a" else {}
    path = recordings.write(tmp_path / f"a{kind}", kind, seconds=20, container=container)
    assert decoded(path, tmp_path)[1].warning is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 33])
    samples, answer = decoded(path, tmp_path)
    assert 8 < len(samples) / 16_000 < 12
    assert not answer.complete and answer.warning is not None
    assert "0:00:09." in answer.warning or "0:00:10." in answer.warning


def test_what_ffmpeg_says_of_damage_is_not_shown(tmp_path: Path) -> None:
    path = recordings.write(tmp_path / "a.mp3", ".mp3", seconds=10)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = os.urandom(3000)
    path.write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from kuulo import audio\n"
        "print(audio.decode(Path(sys.argv[1]), Path(sys.argv[2])).warning)"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "out.f32")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "damaged from 0:00:0" in ran.stdout and ran.stderr == ""


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = recordings.write(tmp_path / "a.flac", ".flac", seconds=20)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = os.urandom(4000)
    path.write_bytes(data)
    samples, answer = decoded(path, tmp_path)
    assert len(samples) > 15 * 16_000
    assert answer.warning is not None


def test_a_range_beyond_the_end_says_how_long_the_recording_is(tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "a.wav", recordings.tone(2))
    with pytest.raises(InputFailed, match=r"0:00:02\.0 long"):
        decoded(path, tmp_path, from_ms=5000)


def test_a_name_is_never_taken_for_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:x.wav", "concat:a|b.wav", "data:a.wav"):
        recordings.wav(Path(name), recordings.tone(0.1))
        assert decoded(Path(name), tmp_path)[1].samples == 1600


def test_a_playlist_opens_no_connection_and_no_other_file(tmp_path: Path) -> None:
    recordings.wav(tmp_path / "other.wav", recordings.tone(1))
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return  # closed
                caller.close()
                callers.append(caller)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        texts = {
            "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{address}\n#EXT-X-ENDLIST\n",
            "b.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.wav\n#EXT-X-ENDLIST\n",
            "c.wav": f"ffconcat version 1.0\nfile '{address}'\n",
            "d.wav": "ffconcat version 1.0\nfile 'other.wav'\n",
        }
        try:
            for name, text in texts.items():
                (tmp_path / name).write_text(text)
                with pytest.raises(InputFailed):
                    decoded(tmp_path / name, tmp_path)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert not callers


# ---------------------------------------------------------------------- finding


def test_a_folder_is_searched_and_what_gives_nothing_is_told(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.mp3", "sub/c.m4a", ".hidden.wav", ".git/d.wav", "notes.txt", "sub/e.mov"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "nothing").mkdir()
    found = audio.find([str(tmp_path / "in"), str(tmp_path / "nothing"), str(tmp_path / "none.wav"), "-"])
    names = [str(r.path.relative_to(tmp_path / "in")) for r in found.recordings if r.base]
    assert names == ["a.mp3", "b.WAV", "sub/c.m4a", "sub/e.mov"]
    assert found.recordings[-1] == audio.Recording(Path("-"))
    assert [(Path(p).name, "no recording" in e.what or "no such" in e.what) for p, e in found.failures] == [
        ("nothing", True),
        ("none.wav", True),
    ]


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.touch()
    found = audio.find([str(path), str(tmp_path), str(path)])
    assert [r.path for r in found.recordings] == [path]


def test_what_cannot_be_looked_at_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "a.wav", recordings.tone(0.1))
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    bad = ["a" * 300, str(tmp_path / "gone.wav"), str(tmp_path / "circle.wav"), f"{path}/b.wav"]
    found = audio.find([*bad, str(path)])
    assert [r.path for r in found.recordings] == [path]
    assert [name for name, _ in found.failures] == bad


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    for name in ("open", "shut"):
        (tmp_path / "in" / name).mkdir(parents=True)
        recordings.wav(tmp_path / "in" / name / "a.wav", recordings.tone(0.1))
    tmp_path.chmod(0o755)
    (tmp_path / "in" / "shut").chmod(0)
    code = (
        "import os; from kuulo import audio\n"
        "os.getuid() == 0 and os.setuid(65534)\n"
        "found = audio.find(['in'])\n"
        "print([str(r.path) for r in found.recordings], [(n, e.what) for n, e in found.failures])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / "in" / "shut").chmod(0o755)
    assert ran.stdout.strip() == "['in/open/a.wav'] [('in/shut', 'it cannot be looked at: Permission denied')]"
