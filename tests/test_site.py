"""Settings in layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuulo import site
from kuulo.errors import UsageError


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def site_file(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    return {"KUULO_SITE": str(path)}


def user_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config" / "kuulo" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def test_later_layers_win_and_say_so(tmp_path: Path) -> None:
    environ = site_file(
        tmp_path, '[defaults]\nlanguage = "Finnish"\nbeam-size = 3\nmodel = "small"\nformat = ["vtt"]\n'
    )
    user_file(tmp_path, "[defaults]\nbeam_size = 4\nmodel = 'base'\n")
    environ["KUULO_MODEL"] = "medium"
    settings = site.settle(site.load(environ), {"task": "translate"}, environ)
    assert settings.values["language"] == "fi" and settings.origin["language"] == "site"
    assert settings.values["beam_size"] == 4 and settings.origin["beam_size"] == "user"
    assert settings.values["model"] == "medium" and settings.origin["model"] == "environment"
    assert settings.values["task"] == "translate" and settings.origin["task"] == "flag"
    assert settings.values["format"] == ("vtt",)
    assert settings.origin["device"] == "built in"
    assert set(settings.given()) == {"language", "beam_size", "model", "task", "format"}


def test_a_forced_value_cannot_be_changed(tmp_path: Path) -> None:
    environ = site_file(tmp_path, '[forced]\ndevice = "cpu"\n')
    loaded = site.load(environ)
    assert site.settle(loaded, {}, {}).values["device"] == "cpu"
    assert site.settle(loaded, {"device": "cpu"}, {}).origin["device"] == "forced"
    with pytest.raises(UsageError, match="set by this site"):
        site.settle(loaded, {"device": "cuda"}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[defalts]\n", "unknown key: defalts"),
        ("[defaults]\nbeam = 3\n", "unknown option: beam"),
        ("[defaults]\nbeam_size = 'many'\n", "--beam-size"),
        ("not toml", "not TOML"),
    ],
)
def test_a_file_that_is_not_understood_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        site.load(site_file(tmp_path, text))


def test_a_site_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not there"):
        site.load({"KUULO_SITE": str(tmp_path / "none.toml")})


def test_without_files_all_is_built_in() -> None:
    settings = site.settle(site.Site(), {}, {})
    assert settings.given() == {}
    assert settings.values["beam_size"] == 5


def test_an_environment_variable_that_is_wrong_is_refused() -> None:
    with pytest.raises(UsageError, match="--beam-size"):
        site.settle(site.Site(), {}, {"KUULO_BEAM_SIZE": "x"})
