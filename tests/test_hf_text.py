"""Text models in Hugging Face folders: told apart from Whispers, and what is wrong with some."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny
from conftest import ROOT, Kuulo
from kuulo.models import check, hf_text

MODEL = ROOT / "tests" / "llm" / "tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "my model ö"))


def change(folder: Path, **more: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def test_a_text_model_is_no_whisper_and_the_other_way_round(folder: Path, tmp_path: Path) -> None:
    assert check.detect_format(folder) == "hf-text" and check.task_of("hf-text") == "chat"
    assert check.problems("hf-text", folder) == []
    whisper = tiny.make("hf", tmp_path / "whisper")
    assert check.detect_format(whisper) == "hf"
    change(whisper, architectures=["WhisperForConditionalGeneration"])
    assert check.detect_format(whisper) == "hf"


def test_what_its_files_tell(folder: Path) -> None:
    shape = hf_text.text_shape(folder)
    assert (shape.architecture, shape.layers, shape.context, shape.vocabulary) == ("llama", 2, 2048, 384)
    assert shape.key_value == 2 * 2 * 16 and shape.template is True
    assert shape.weights_bytes == (folder / "model.safetensors").stat().st_size
    (folder / "chat_template.jinja").unlink()
    assert hf_text.template(folder) is None
    settings = folder / "tokenizer_config.json"
    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    settings.write_text(json.dumps({"chat_template": several}))
    assert hf_text.template(folder) == "d"


def test_folders_that_are_damaged_or_would_run_code_are_refused(folder: Path) -> None:
    change(folder, auto_map={"AutoModelForCausalLM": "own.Model"})
    assert "never does" in check.problems("hf-text", folder)[0]
    change(folder, auto_map=None)
    (folder / "tokenizer.json").unlink()
    assert check.problems("hf-text", folder) == ["tokenizer.json is missing"]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "truncated" in check.problems("hf-text", folder)[0]
    weights.rename(folder / "pytorch_model.bin")
    assert "a pickle" in check.problems("hf-text", folder)[0]
    change(folder, architectures=["LlamaForSequenceClassification"])
    assert check.detect_format(folder) != "hf-text"
    assert "does not continue text" in check.problems("hf-text", folder)[0]


def test_the_store_takes_it(kuulo: Kuulo, folder: Path) -> None:
    (folder / "own.py").write_text("raise SystemExit")
    added = kuulo("models", "add", folder, "--name", "tiny")
    assert added.returncode == 0, added.stderr
    (row,) = json.loads(kuulo("models", "list", "--json").stdout)["models"]
    assert (row["task"], row["format"], row["engines"]) == ("chat", "hf-text", ["vllm", "transformers-chat"])
    assert not list(Path(row["path"]).glob("*.py")), "no code of the folder comes with it"
