"""What sherpa-onnx does not do by itself: windows, characters over several tokens, and errors where it would exit."""

from __future__ import annotations

import base64
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from kuulo import engines
from kuulo.engines import sherpa_onnx
from kuulo.engines.base import Unusable
from kuulo.transcript import Segment
from kuulo.wire import Task
from models_fixture import Miniature

SECOND = 16_000


def load(folder: Path, **options: Any) -> Any:
    if not engines.installed(sherpa_onnx.SPEC):
        pytest.skip("sherpa-onnx is not installed")
    return sherpa_onnx.load(Task("transcribe", "sherpa-onnx", "m", str(folder), {"device": "cpu", **options}, {}))


def noise(seconds: float) -> Any:
    return np.random.default_rng(0).standard_normal(int(seconds * SECOND)).astype(np.float32) * 0.1


def test_windows_cover_all_that_sounds_and_nothing_else() -> None:
    gap = np.zeros(40 * SECOND, np.float32)
    samples = np.concatenate([gap, noise(70), gap, noise(3), gap])
    found = list(sherpa_onnx.windows(samples))
    assert all(0 < end - start <= sherpa_onnx.WINDOW_MS for start, end in found)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))
    heard = np.zeros(len(samples), bool)
    for start, end in found:
        heard[start * 16 : end * 16] = True
    assert heard[np.abs(samples) >= sherpa_onnx.NOTHING].all()
    assert len(found) <= 5 and found[0][0] == 40_000 - sherpa_onnx.LEAD_MS
    assert list(sherpa_onnx.windows(samples, found[2][0])) == found[2:], "it goes on as it would have"


@pytest.mark.parametrize("samples", [1, 16, 1600, 100 * SECOND])
def test_silence_is_one_window(samples: int) -> None:
    (window,) = sherpa_onnx.windows(np.zeros(samples, np.float32))
    assert window[0] == 0 and 0 < window[1] <= sherpa_onnx.WINDOW_MS


def with_tokens(model: Path, folder: Path, changes: dict[bytes, bytes]) -> Path:
    """A copy of the model in which some tokens stand for other bytes."""
    shutil.copytree(model, folder)
    lines = []
    for line in (folder / "tokens.txt").read_text("ascii").splitlines():
        text, number = line.split(" ")
        raw = base64.b64decode(text + "==")
        lines.append(f"{base64.b64encode(changes.get(raw, raw)).decode() or '='} {number}\n")
    (folder / "tokens.txt").write_text("".join(lines), "ascii")
    return folder


def test_a_character_over_two_tokens_is_put_together(miniature: Miniature, tmp_path: Path) -> None:
    split = {b" children": b" \xc3", b" and": b"\xa4iti", b" people": b" \xf0\x9f"}
    session = load(with_tokens(miniature.path("onnx"), tmp_path / "model", split), word_times=True, language="en")
    said = session.transcribe(miniature.clip("three_children").samples())
    (segment,) = [s for s in said if isinstance(s, Segment)]
    assert segment.text == " Three äiti two \N{REPLACEMENT CHARACTER}."
    assert [word.text for word in segment.words] == [" Three", " äiti", " two", " \N{REPLACEMENT CHARACTER}."]


def test_word_times_need_a_model_that_gives_its_attention(miniature: Miniature, tmp_path: Path) -> None:
    """The library would give words without times, and a warning in its log."""
    folder = tmp_path / "model"
    shutil.copytree(miniature.path("onnx"), folder)
    (folder / "decoder.onnx").write_bytes(tiny.onnx_file(("logits", "out_k", "out_v"), {}))
    with pytest.raises(Unusable, match="attention") as caught:
        load(folder, word_times=True)
    assert "export-onnx-with-attention.py" in caught.value.do


def test_what_would_end_the_process_is_looked_at_before(miniature: Miniature, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="language 'yue'"):
        load(miniature.path("onnx"), language="yue")
    with pytest.raises(Unusable, match="built without CUDA"):
        load(miniature.path("onnx"), device="cuda")
    folder = tmp_path / "model"
    shutil.copytree(miniature.path("onnx"), folder)
    whole = (folder / "encoder.onnx").read_bytes()
    (folder / "encoder.onnx").write_bytes(whole.replace(b"sot_sequence", b"sot_sequenze"))
    with pytest.raises(Unusable, match="has no sot_sequence"):
        load(folder)
    (folder / "encoder.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unusable, match="truncated"):
        load(folder)
