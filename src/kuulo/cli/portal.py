"""`kuulo portal`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import progress

if TYPE_CHECKING:
    from kuulo.audio import Found
    from kuulo.deploy.portal.request import Request
    from kuulo.deploy.portal.status import Status
    from kuulo.llm.chain import Outcome as Followed
    from kuulo.llm.following import Following
    from kuulo.plan import Plan
    from kuulo.report import Report
    from kuulo.site import Site
    from kuulo.work import Work


@click.group()
def portal() -> None:
    """Open OnDemand: a form in the browser, a job, and a card that tells how it goes."""


@portal.command()
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder for the app's files.")
def render(output: Path) -> int:
    """Write this site's app, to look at it. `kuulo deploy` puts it where the portal finds it."""
    from kuulo import atomic, naming, site
    from kuulo.deploy import portal as app
    from kuulo.deploy.portal import here
    from kuulo.errors import CannotRun

    files = app.render(here.deployment(site.load()))
    try:
        for name, file in files.items():
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, file.text.encode(), mode=file.mode)
            path.chmod(file.mode)
    except OSError as error:
        raise CannotRun(
            f"the app cannot be written: {error.strerror}",
            looked_at=naming.shown(output),
            do="name another folder with --output",
        ) from error
    for name in files:
        click.echo(naming.shown(output / name))
    return 0


@portal.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--run/--no-run", default=True, help="Execute the app's scripts, with stubs.  [default: on]")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def check(folder: Path, run: bool, as_json: bool) -> int:
    """Look for mistakes in a batch-connect app, Kuulo's or any other: keys that the portal drops without a word, modes,
    values of the form that are executed.

    The app's Ruby is run, and its scripts are, with stubs for all that they call: check what you would install.
    """
    from kuulo.deploy.portal_check.check import check as look
    from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED

    found = look(folder, run=run)
    if as_json:
        said = {"schema": 1, "findings": [one.to_json() for one in found.findings], "notes": found.notes}
        click.echo(json.dumps(said, indent=1))
    else:
        for one in found.findings:
            click.echo(str(one))
        for note in found.notes:
            click.echo(f"not looked at: {note}", err=True)
        if not found.findings:
            click.echo("no mistake was found", err=True)
    return EXIT_SOME_FAILED if found.findings else EXIT_OK


@portal.command(hidden=True)
@click.argument("request", type=click.Path(path_type=Path))
def run(request: Path) -> int:
    """The transcription of a session: what its script calls."""
    from kuulo import site
    from kuulo.deploy.portal import request as requests
    from kuulo.deploy.portal.status import Status
    from kuulo.errors import KuuloError
    from kuulo.jobs import mail

    status = Status(request.absolute().parent)
    status.write()
    files, asked = site.load(), None
    try:
        asked = requests.read(request, files)
        return _transcribe(files, asked, status)
    except KuuloError as error:
        status.refused(error)
        raise
    finally:
        if asked and asked.email and files.jobs().mail == "sendmail":
            mail.send(status.mail(asked.email))


def _transcribe(files: Site, asked: Request, status: Status) -> int:
    """As `kuulo transcribe`, with the card told."""
    from kuulo import audio, plan, site, survey
    from kuulo.cli import transcribe
    from kuulo.errors import EXIT_INTERRUPTED

    found = audio.find([asked.recordings])
    settings = site.settle(files, asked.given)
    resolved = plan.resolve(settings, survey.facts(files), max(1, len(found.recordings)))
    then = transcribe.following(settings.values)
    card = Card(status, found, asked, then)
    try:
        return transcribe.carry_out(resolved, found, dry_run=False, watcher=card, then=then)
    except KeyboardInterrupt:  # told to stop while a language model works
        card.cut_short()
        return EXIT_INTERRUPTED


NO_GPU = "The job has a GPU, and yet the processor does the work: the engine cannot use it, or it does not work."


class Card(progress.Lines):
    """Tells the log, and the card of the session."""

    def __init__(self, status: Status, found: Found, asked: Request, then: Following | None = None) -> None:
        super().__init__()
        self._then = then
        self._followed: list[Mapping[str, Any]] = []
        self._report: Report | None = None
        self._status, self._found, self._top, self._on_gpu = status, found, Path(asked.recordings), asked.on_gpu
        self._begun: set[str] = set()
        self._results: Any = None

    def chosen(self, plan: Plan) -> None:
        from kuulo.deploy.portal import status
        from kuulo.results import Results

        super().chosen(plan)
        self._results = Results(plan)
        self._status.write(
            engine=plan.engine,
            model=plan.model.name if plan.model else None,
            output=status.link(self._results.folder),
        )

    def begins(self, works: Sequence[Work]) -> None:
        super().begins(works)
        self._tell()

    def ready(self, device: str, compute_type: str | None) -> None:
        super().ready(device, compute_type)
        told = {"note": NO_GPU} if self._on_gpu and device == "cpu" else {}
        if told:
            self.say(NO_GPU)
        self._tell(device=device, **told)

    def hears(self, work: Work) -> None:
        self._begun.add(work.id)
        if self._status.due:
            self._tell()

    def progress(self, work: Work) -> None:
        super().progress(work)
        if self._status.due:
            self._tell()

    def ends(self, work: Work) -> None:
        super().ends(work)
        if self._status.due:
            self._tell()

    def stopped(self, report: Report) -> None:
        super().stopped(report)
        self._status.ended(report, self._rows(), stopped=True)

    def summary(self, report: Report) -> None:
        super().summary(report)
        self._report = report
        if self._then is None:
            self._status.ended(report, self._rows())
        else:
            self._tell(then=self._following())

    def followed(self, one: Followed) -> None:
        self._followed.append(one.to_json())
        if self._status.due:
            self._status.write(then=self._following())

    def over(self, ended: Sequence[Mapping[str, Any]]) -> None:
        self._followed = list(ended)  # also what ended them all
        assert self._report is not None
        self._status.ended(self._report, self._rows(), self._following())

    def cut_short(self) -> None:
        """It was told to stop while a language model worked."""
        if self._then is not None and self._report is not None:
            self._status.ended(self._report, self._rows(), self._following(), stopped=True)

    def _following(self) -> dict[str, Any]:
        from kuulo import report
        from kuulo.deploy.portal import status

        assert self._then is not None and self._report is not None
        rows = [status.row_of_task(one, self._then.names) for one in self._followed]
        transcripts = self._report.count(report.DONE) + self._report.count(report.SKIPPED)
        return status.following(self._then.names, rows, transcripts * len(self._then.chain.links))

    def _tell(self, **said: Any) -> None:
        from kuulo.deploy.portal import status

        total = self.total_ms()
        percent = min(100, 100 * self.done_ms() // total) if total else 0
        self._status.write(state=status.RUNNING, percent=percent, **said, **status.counted(self._rows()))

    def _rows(self) -> list[dict[str, Any]]:
        """What the card says of each recording."""
        from kuulo import report
        from kuulo.deploy.portal import status
        from kuulo.report import Outcome

        failures = [
            status.row(self._called(path), Outcome(path, report.FAILED, why=error.what, do=error.do))
            for path, error in self._found.failures
        ]
        return [*map(self._row, self.works), *failures]

    def _row(self, work: Work) -> dict[str, Any]:
        from kuulo.deploy.portal import status

        paths = [self._results.target(work, name) for name in (*self._results.formats, "json")]
        percent = min(100, 100 * work.done_ms // work.length_ms) if work.length_ms else None
        begun = work.id in self._begun
        return status.row(self._called(work.path), work.outcome, paths, begun=begun, percent=percent)

    def _called(self, path: str | Path) -> str:
        """A recording's name: below the folder that was chosen."""
        from kuulo import naming

        whole = Path(path)
        below = whole.is_relative_to(self._top) and whole != self._top
        return naming.shown(whole.relative_to(self._top) if below else whole.name)
