"""`submit.yml`: what ood_core drops without a word, or takes otherwise than it was meant."""

from __future__ import annotations

import re
from typing import Any

from kuulo.deploy.portal_check import facts
from kuulo.deploy.portal_check.finding import Findings
from kuulo.deploy.portal_check.form import has_keys, near
from kuulo.deploy.portal_check.source import PLACEHOLDER, TAG, Source

FLAGS = ("email_on_started", "email_on_terminated", "submit_as_hold", "rerunnable", "copy_environment")


def check_submit(source: Source, said: Any, findings: Findings) -> None:
    """What is in it, rendered."""
    if said is None:
        return
    if not has_keys(source, said, facts.SUBMIT, "write batch_connect and script", findings):
        return
    for part, check in (("script", _check_script), ("batch_connect", _check_batch_connect)):
        below = said.get(part)
        if isinstance(below, dict):
            check(source, below, findings)
        elif below is not None:
            findings.add(
                source.name, source.line_of_key(part), f"{part} is not a map of keys", "write `key: value` below it"
            )


def check_text(source: Source, findings: Findings) -> None:
    """What is in it, as it is written: Ruby that stands outside of ERB's marks is text."""
    outside = TAG.sub(lambda m: "\n" * m[0].count("\n"), source.text)
    for number, line in enumerate(outside.splitlines(), start=1):
        if re.match(r"\s*(raise|abort|fail)\b\s*[\"'(]", line):
            findings.add(
                source.name,
                number,
                "`raise` outside of <% %> is text, and no error",
                "put it between <% and %>",
            )


def _check_script(source: Source, said: dict[str, Any], findings: Findings) -> None:
    for key in said:
        if key not in facts.SCRIPT:
            do = facts.INSTEAD.get(str(key))
            findings.add(
                source.name,
                source.line_of_key(str(key)),
                f"script: ood_core drops the key {key!r} without a word",
                f"write {do}" if do else near(str(key), facts.SCRIPT),
            )
    native = said.get("native")
    if native is not None and native != PLACEHOLDER and not isinstance(native, list):
        findings.add(
            source.name,
            source.line_of_key("native"),
            f"script: native is {native!r} and not a list",
            'native: ["--mem", "4G"] (Slurm; other schedulers have their own form)',
        )
    elif isinstance(native, list) and any(isinstance(each, (dict, list)) or each is None for each in native):
        findings.add(
            source.name,
            source.line_of_key("native"),
            "script: native has something in it that is no text",
            "texts alone",
        )
    environment = said.get("job_environment")
    if environment is not None and not isinstance(environment, dict):
        findings.add(
            source.name,
            source.line_of_key("job_environment"),
            "script: job_environment is not a map",
            "write `NAME: value` below it",
        )
    wall_time = said.get("wall_time")
    if wall_time not in (None, PLACEHOLDER) and not re.fullmatch(r"\d+", str(wall_time).strip()):
        findings.add(
            source.name,
            source.line_of_key("wall_time"),
            f"script: wall_time is {wall_time!r}, which counts as {_to_i(str(wall_time))} seconds",
            "a whole number of seconds",
        )
    for flag in FLAGS:
        if flag in said and isinstance(said[flag], str) and said[flag] != PLACEHOLDER:
            findings.add(
                source.name,
                source.line_of_key(flag),
                f"script: {flag} is the text {said[flag]!r}, which counts as true whatever it says",
                "true or false, without quotes",
            )


def _to_i(text: str) -> int:
    found = re.match(r"\s*[+-]?\d+", text)
    return int(found[0]) if found else 0


def _check_batch_connect(source: Source, said: dict[str, Any], findings: Findings) -> None:
    for key in said:
        if key not in facts.BATCH_CONNECT:
            findings.add(
                source.name,
                source.line_of_key(str(key)),
                f"batch_connect: there is no key {key!r}",
                near(str(key), facts.BATCH_CONNECT),
            )
    template = said.get("template", "basic")
    if template not in facts.TEMPLATES and template != PLACEHOLDER:
        findings.add(
            source.name,
            source.line_of_key("template"),
            f"batch_connect: there is no template {template!r}",
            near(str(template), facts.TEMPLATES),
        )
    wrapper = said.get("script_wrapper")
    if isinstance(wrapper, str) and PLACEHOLDER not in wrapper:
        bare = wrapper.replace("%%", "")
        if bare.count("%s") != 1 or bare.count("%") != 1:
            findings.add(
                source.name,
                source.line_of_key("script_wrapper"),
                "batch_connect: script_wrapper is a format: it needs %s once, and every other % twice",
                "%s where the script goes, %% for a percent sign",
            )
