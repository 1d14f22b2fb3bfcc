"""Settings in layers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kuulo import options, settings_file, site
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
        ("[defaults]\nbeam_size = 'many'\n", r"^beam_size in \[defaults\]: 'many' is not a number"),
        ("[defaults]\nbeam-size = true\n", r"^beam-size in \[defaults\]: true or false does not fit"),
        ("[defaults]\nbeam_size = 5.0\n", "a number with a point does not fit"),
        ("[defaults]\nbeam_size = 0\n", r"^beam_size in \[defaults\]: 0 is less than 1"),
        ("[defaults]\nbeam_size = 3\nbeam-size = 4\n", "twice"),
        ("[defaults]\ntemperature = 3\n", r"^temperature in \[defaults\]: temperature '3' is not between 0 and 1"),
        ("[defaults]\ntemperature = ['a']\n", r"^temperature in \[defaults\]: 'a' is not a temperature"),
        ("[forced]\nformat = 3\n", r"^format in \[forced\]: a whole number does not fit"),
        ("[defaults]\nformat = ['pdf']\n", r"^format in \[defaults\]: 'pdf' is no output format"),
        ("[defaults]\nfrom = -90\n", r"^from in \[defaults\]: '-90' is not a time"),
        ("[defaults]\nfrom = 2026-01-01\n", "a date does not fit"),
        ("[defaults]\noutput = 2024\n", "a whole number does not fit"),
        ('[defaults]\noutput = "a\\u0000b"\n', "NUL"),
        ("[defaults]\ntask = 'summarise'\n", r"^task in \[defaults\]: 'summarise' is none of"),
        ("[defaults]\nword_times = 2\n", "neither yes nor no"),
        ("[defaults]\nengine_option = { x = 2026-01-01 }\n", "the value of x"),
        ("[defaults]\nengine_option = 'novalue'\n", "is not KEY=VALUE"),
        (f"[defaults]\nthreads = 0x{'f' * 9999}\n", "too long"),
        (f"[defaults]\nthreads = {'9' * 9999}\n", "not TOML"),
        (f"a = {'[' * 9999}{']' * 9999}\n", "not TOML"),
        ("defaults = 3\n", "defaults in a settings file is not a table"),
        ("stores = '/x'\n", "stores in the site file: it is not a list of paths"),
        ("stores = ['']\n", "not a list of paths"),
        ("stores = ['models']\n", "stores in the site file: 'models' is not an absolute path"),
        ("name = 3\n", "name in the site file: it is not a text"),
        ('name = "a\\nb"\n', "name in the site file: it is not a text"),
        ("container = 'docker'\n", "'docker' is none of apptainer, singularity, charliecloud"),
        ("images = 'here'\n", "images in the site file: 'here' is not an absolute path"),
        ("[deploy]\nkeep = 0\n", r"keep in \[deploy\] in the site file: 0 is not a whole number from 1 on"),
        ("[deploy]\nfoldr = '/x'\n", r"\[deploy\] in the site file has no key 'foldr'"),
        ("[groups]\nstaff = 3\n", "staff in a settings file is not a table"),
        ("[groups.staff]\nengine = ['x']\n", r"\[groups.staff\] in the site file has no key 'engine'"),
        ("not toml", "not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_an_error_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        site.load(site_file(tmp_path, text))
    assert caught.value.looked_at == str(tmp_path / "site.toml")
    assert caught.value.do or "not TOML" in caught.value.what


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("from = 90", "90"),
        ("from = 90.5", "90.5"),
        ("from = 00:01:30", "00:01:30"),
        ("from = 00:01:30.250", "00:01:30.250"),
        ("from = '1:30'", "1:30"),
        ("temperature = 0.5", "0.5"),
        ("temperature = 0", "0"),
        ("temperature = [0, 0.2]", "0,0.2"),
        ("temperature = ['0', '0.2']", "0,0.2"),
        ("beam_size = 3", "3"),
        ("beam_size = '3'", "3"),
        ("word_times = true", True),
        ("word_times = 'no'", False),
        ("word_times = 0", False),
        ("format = 'srt,vtt'", ("srt,vtt",)),
        ("format = ['srt', 'vtt']", ("srt", "vtt")),
        ("format = []", ()),
        ("language = 'Finnish'", "Finnish"),
        ("task = 'translate'", "translate"),
        ("initial_prompt = '007'", "007"),
        ("engine_option = 'patience=2'", ("patience=2",)),
        ("engine_option = ['patience=2', 'prefix=Well, so']", ("patience=2", "prefix=Well, so")),
        ("engine_option = { patience = 2, prefix = '2' }", ("patience=2", 'prefix="2"')),
        ("engine_option = { suppress_tokens = [-1], x = true }", ("suppress_tokens=[-1]", "x=true")),
    ],
)
def test_a_value_reads_as_on_the_command_line(tmp_path: Path, line: str, typed: Any) -> None:
    name = line.partition(" ")[0]
    by_file = site.settle(site.load(site_file(tmp_path, f"[defaults]\n{line}\n")), {}, {})
    by_flag = site.settle(site.Site(), {name: typed}, {})
    assert by_file.values[name] == by_flag.values[name]
    assert by_file.origin[name] == "site"


def test_every_kind_of_option_has_its_types_and_an_example() -> None:
    kinds = {option.kind for option in options.OPTIONS}
    assert kinds <= set(settings_file.FITS) and kinds <= {*settings_file.EXAMPLES, "choice"}


def toml(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, int | float):
        return repr(value)
    return str(value.isoformat())


WORDS = [
    "", "fi", "auto", "translate", "srt,txt", "0,0.2", "1:30", "yes", "cuda:0", "a=1", 'a={"b": [1]}', "float16",
    "9" * 400, "1e9", "-1", "a=" + "[" * 9999, "\0", "٣", "²",
]  # fmt: skip
TEXTS = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    TEXTS
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.sampled_from([0, 1, 0.5])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(options.OPTIONS), VALUES, st.sampled_from(["defaults", "forced"]))
@example(options.BY_NAME["from"], "9" * 400, "defaults")
def test_no_value_in_a_file_is_more_than_an_error_that_names_file_and_key(
    option: options.Option, value: Any, table: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environ = site_file(Path(folder), f"[{table}]\n{option.name} = {toml(value)}\n")
        try:
            loaded = site.load(environ)
        except UsageError as error:
            assert error.what.startswith(f"{option.name} in [{table}]: ")
            assert error.looked_at == environ["KUULO_SITE"] and error.do
            return
        settled = site.settle(loaded, {}, {})
        assert settled.values[option.name] == getattr(loaded, table)[option.name]
        json.dumps(settled.values[option.name])


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(["stores", "defaults", "forced", "other"]), VALUES, max_size=3))
def test_nothing_on_top_of_a_file_is_more_than_an_error_that_names_it(data: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environ = site_file(Path(folder), "".join(f"{key} = {toml(value)}\n" for key, value in data.items()))
        try:
            site.load(environ)
        except UsageError as error:
            assert error.looked_at == environ["KUULO_SITE"]


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


def test_a_site_says_all_of_itself(tmp_path: Path) -> None:
    said = site.load(
        site_file(
            tmp_path,
            """
            name = "Example Centre"
            stores = ["/appl/models"]
            images = "/appl/images"
            engines = ["pocketsphinx"]
            [groups.staff]
            engines = ["faster-whisper"]
            [deploy]
            folder = "/appl/kuulo"
            keep = 3
            """,
        )
    ).centre
    assert said.name == "Example Centre"
    assert (said.stores, said.images) == ((Path("/appl/models"),), Path("/appl/images"))
    assert said.engines == ("pocketsphinx",)
    assert said.models is None
    assert said.groups == {"staff": {"engines": ("faster-whisper",)}}
    assert said.deploy == {"folder": "/appl/kuulo", "keep": 3}


def test_scratch_is_the_first_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    text = f'scratch = ["{tmp_path}/$SLURM_JOB_ID", "{tmp_path}/${{USER}}x", "{tmp_path}/$USER"]\n'
    environ = site_file(tmp_path, text)
    assert "scratch" not in site.load(environ).defaults
    assert site.load({**environ, "USER": "anna"}).defaults["scratch"] == str(tmp_path / "anna")
    (tmp_path / "17").mkdir()
    assert site.load({**environ, "USER": "anna", "SLURM_JOB_ID": "17"}).defaults["scratch"] == str(tmp_path / "17")
