"""Mail at the end of a job: who would send it, and whether that is here."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

from kuulo import schedulers
from kuulo.doctor.asking import ask
from kuulo.doctor.finding import OK, UNKNOWN, WARNING, Finding, Looking
from kuulo.errors import KuuloError
from kuulo.jobs.mail import SENDMAIL


def check(looking: Looking) -> Iterator[Finding]:
    """sendmail, or Slurm's MailProg. None is sent."""
    try:
        jobs = looking.site.jobs()
    except KuuloError:  # told with the site's file
        yield Finding("mail", UNKNOWN, "[jobs] is not understood", str(looking.site.site_file))
        return
    if jobs.mail == "sendmail" or (jobs.scheduler or schedulers.usual()) == "local":
        program = next((p for p in (shutil.which("sendmail"), *SENDMAIL) if p and os.access(p, os.X_OK)), None)
        if program:
            yield Finding("sendmail", OK, "it is here; compute nodes need it too", program)
        else:
            do = 'install one on the compute nodes, or mail = "scheduler" in [jobs]'
            yield Finding("sendmail", WARNING, "this machine has none; nodes may", ", ".join(SENDMAIL), do)
        return
    answer = ask(["scontrol", "show", "config"])
    found = re.search(r"^MailProg\s*=\s*(\S+)", answer.out, re.M)
    if not found:
        yield Finding(
            "mail", UNKNOWN, answer.why or "Slurm names no MailProg", answer.command, "ask Slurm's administrator"
        )
    elif os.access(found[1], os.X_OK):
        yield Finding("mail", OK, f"Slurm sends it with {found[1]}", answer.command)
    else:
        do = "it must be there on the controller's machine: MailProg in slurm.conf"
        yield Finding(
            "mail", UNKNOWN, f"Slurm sends it with {found[1]}, which is not on this machine", answer.command, do
        )
