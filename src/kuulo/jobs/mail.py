"""One mail about a whole job, when it is over. It has numbers and no names of files: mail leaves the house."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from email.message import EmailMessage

from kuulo.jobs.batch import Job
from kuulo.jobs.folder import Folder

SENDMAIL = ("/usr/sbin/sendmail", "/usr/lib/sendmail")


def message(to: str, job: Folder, summary: str, failed: int) -> EmailMessage:
    """The mail. Pure."""
    made = EmailMessage()
    made["To"] = to
    made["Subject"] = f"Kuulo job {job.name}: {f'{failed} failed' if failed else 'all done'}"
    made.set_content(f"{summary}.\n\nkuulo jobs show {job.name}\n")
    return made


def tell(batch: Job, job: Folder, summary: str, failed: int) -> None:
    """Send the mail about a job."""
    send(message(str(batch.mail), job, summary, failed))


def send(made: EmailMessage) -> None:
    """Send a mail with sendmail. What goes wrong is said in the log: the transcripts are there all the same."""
    program = next((p for p in (shutil.which("sendmail"), *SENDMAIL) if p and os.access(p, os.X_OK)), None)
    if program is None:
        sys.stderr.write("no mail was sent: this node has no sendmail\n")
        return
    try:
        subprocess.run([program, "-oi", "-t"], input=bytes(made), check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"no mail was sent: {error}\n")
