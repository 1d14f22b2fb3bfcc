"""`kuulo doctor`."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import click

from kuulo.errors import EXIT_CANNOT_RUN, EXIT_OK

if TYPE_CHECKING:
    from kuulo.doctor.finding import Finding, Looking


@click.command()
@click.option("--site", "for_site", is_flag=True, help="Look at a centre's site file and at all that it names.")
@click.option("--deep", is_flag=True, help="Also what takes minutes: engines transcribe, stores are read and compared.")
@click.option("--quiet", "-q", is_flag=True, help="Show what is not ok alone.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def doctor(for_site: bool, deep: bool, quiet: bool, as_json: bool) -> int:
    """Can Kuulo do its work here? What was looked at, how it is, and what to do.

    \b
    kuulo doctor              can I run: engines, models, GPU, space
    kuulo doctor --site       a centre: Slurm, modules, stores, permissions, ...

    It changes nothing, needs no network, and waits for nothing longer than a minute. Exit code 3: something that is
    needed does not work. Warnings alone: 0. `kuulo selftest` tries all of it with a recording.
    """
    from kuulo.doctor import page
    from kuulo.doctor.examination import examine
    from kuulo.doctor.finding import OK, PROBLEM

    looking = _looking(for_site, deep)
    width = max(page.LEAST_WIDTH, shutil.get_terminal_size((100, 24)).columns)
    findings: list[Finding] = []
    area = ""
    for finding in examine(looking):
        findings.append(finding)
        if as_json or (quiet and finding.state == OK):
            continue
        if finding.area != area:
            area = finding.area
            click.echo(click.style(area, bold=True))
        click.echo("\n".join(page.lines(finding, width, click.style)))
    bad = any(finding.state == PROBLEM for finding in findings)
    if as_json:
        click.echo(json.dumps(page.to_json(findings, looking), indent=1))
    else:
        if bad and not quiet:
            click.echo(click.style("In short", bold=True))
            click.echo("\n".join(page.again(findings, width, click.style)))
        click.echo(click.style(page.verdict(findings), bold=True, fg="red" if bad else "green"))
    return EXIT_CANNOT_RUN if bad else EXIT_OK


def _looking(for_site: bool, deep: bool) -> Looking:
    from kuulo import site as sites
    from kuulo.doctor.finding import Looking
    from kuulo.errors import UsageError

    try:
        return Looking(sites.load(), os.environ, None, for_site, deep)
    except UsageError as error:
        return Looking(sites.Site(), os.environ, error, for_site, deep)
