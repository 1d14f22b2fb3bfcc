"""The table of options and its parsing."""

from __future__ import annotations

import pytest

from kuulo import engines, languages, options
from kuulo.errors import UsageError


def test_every_name_flag_and_variable_is_used_once() -> None:
    names = [o.name for o in options.OPTIONS]
    assert len(set(names)) == len(names)
    typed = [f for o in options.OPTIONS for flag in o.flags for f in flag.split("/")]
    assert len(set(typed)) == len(typed)
    assert all(o.group in options.GROUPS and o.help.endswith(".") for o in options.OPTIONS)


def test_every_default_is_a_value_of_its_option() -> None:
    for option in options.OPTIONS:
        options.parse(option, option.default)


def test_engines_honour_options_of_the_table_alone() -> None:
    honourable = {o.name for o in options.OPTIONS if o.engine}
    for spec in engines.specs():
        assert set(spec.options) <= honourable, spec.name


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90", 90_000),
        ("90.5", 90_500),
        ("1:30", 90_000),
        ("00:10:00", 600_000),
        ("100:00:00.25", 360_000_250),
        ("0", 0),
    ],
)
def test_times(text: str, ms: int) -> None:
    assert options.parse_time_ms(text) == ms


@pytest.mark.parametrize("text", ["", "-5", "1:2:3:4", "ten", "1e3", "nan", "5s", ":30", "00:00:00:00"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time") as caught:
        options.parse_time_ms(text)
    assert "00:10:00" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("beam_size", "0"), ("beam_size", "five"), ("beam_size", "1000"), ("temperature", "2"), ("temperature", "nan"),
        ("temperature", "a"), ("task", "summarise"), ("language", "klingon"), ("engine_option", "novalue"),
        ("engine_option", "a b=3"), ("word_times", "perhaps"), ("threads", "0"), ("compute_type", "float64"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_by_the_flags_name(name: str, text: str) -> None:
    option = options.BY_NAME[name]
    with pytest.raises(UsageError) as caught:
        options.parse(option, (text,) if option.kind == "pairs" else text)
    assert option.flags[0].split("/")[0] in str(caught.value)


def test_engine_options_keep_their_types() -> None:
    parsed = options.parse_pairs(("patience=2", "suppress_blank=false", "prefix=Well, so", "suppress_tokens=[-1]"))
    assert parsed == {"patience": 2, "suppress_blank": False, "prefix": "Well, so", "suppress_tokens": [-1]}


def test_formats_may_be_given_together_or_again() -> None:
    assert options.parse(options.BY_NAME["format"], ("srt,TXT", "docx", "srt")) == ("srt", "txt", "docx")


@pytest.mark.parametrize(
    ("text", "code"),
    [("fi", "fi"), ("Finnish", "fi"), (" SWEDISH ", "sv"), ("castilian", "es"), ("auto", "auto")],
)
def test_languages(text: str, code: str) -> None:
    assert languages.code(text) == code


def test_a_misspelt_language_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean finnish"):
        languages.code("finish")
