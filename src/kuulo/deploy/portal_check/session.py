"""A session as the portal makes it: the template is staged, its ERB files rendered, and the job's script put together.

The order is that of ood_core's template "basic" (`lib/ood_core/batch_connect/template.rb`): change the folder, helpers,
host, before, the script in the background, after, `connection.yml`, wait, clean up.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo.deploy.portal_check import ruby
from kuulo.deploy.portal_check.ruby import Rendered, Task

HELPERS = """\
random_number () { echo $(( $1 + RANDOM % ($2 - $1 + 1) )); }
port_used () { return 0; }
find_port () { random_number "${2:-2000}" "${3:-65535}"; }
wait_until_port_used () { return 0; }
create_passwd () { echo "0123456789abcdef0123456789abcdef"; }
source_helpers () { :; }
export -f random_number port_used find_port wait_until_port_used create_passwd source_helpers"""
"""What the portal gives scripts, without looking for real ports."""


@dataclass(frozen=True)
class Staged:
    """A session's folder: what each ERB file of the template became, by its path in the template. A file that cannot be
    rendered is not there."""

    folder: Path
    rendered: Mapping[str, Rendered]


def staged(app: Path, sessions: Sequence[tuple[Path, Mapping[str, str]]]) -> list[Staged]:
    """Copy the app's template into the folder of each session and render what is ERB in it with the form's values; the
    modes are kept. Raises CannotRun and OSError."""
    tasks = []
    for folder, values in sessions:
        shutil.copytree(app / "template", folder, symlinks=True, dirs_exist_ok=True)
        files = sorted(path for path in folder.rglob("*.erb") if path.is_file())
        tasks += [Task(path, ruby.STAGE, values, {"staged_root": str(folder)}) for path in files]
    made = list(zip(tasks, ruby.render(tasks), strict=True))
    for task, one in made:
        mode = task.file.stat().st_mode
        task.file.unlink()
        if one.text is not None:
            target = task.file.with_suffix("")
            target.write_text(one.text, encoding="utf-8")
            target.chmod(mode & 0o7777)
    return [
        Staged(folder, {str(t.file.relative_to(folder)): one for t, one in made if t.file.is_relative_to(folder)})
        for folder, _ in sessions
    ]


def job_script(batch_connect: Mapping[str, Any], folder: Path) -> str:
    """The job's script, for what `submit.yml` says below `batch_connect`."""

    def said(name: str, default: str) -> str:
        return str(batch_connect.get(name, default))

    def sourced(part: str) -> str:
        file = said(f"{part}_file", f"{folder}/{part}.sh")
        return said(f"{part}_script", f'[[ -e "{file}" ]] && source "{file}"')

    timeout = said("timeout", "")
    script = f'"{said("script_file", f"{folder}/script.sh")}"'
    run = said("run_script", f"timeout {timeout} {script}" if timeout else script)
    params = batch_connect.get("conn_params") or []
    names = dict.fromkeys([*(str(p) for p in params if isinstance(params, list)), "host", "port", "password"])
    lines = "\\n".join(f"{name}: ${name}" for name in names)
    body = f"""\
cd {folder}
export host
export port
create_yml () {{
  ( umask 077; echo -e "{lines}" > "{folder}/connection.yml" )
}}
clean_up () {{
  echo "Cleaning up..."
  {sourced("clean")}
  [[ ${{SCRIPT_PID}} ]] && pkill -P ${{SCRIPT_PID}} || :
  pkill -P $$
  exit ${{1:-0}}
}}
{said("bash_helpers", HELPERS)}
source_helpers
{said("set_host", "host=$(hostname)")}
{sourced("before")}
echo "Script starting..."
{run} &
SCRIPT_PID=$!
{sourced("after")}
create_yml
wait ${{SCRIPT_PID}} || clean_up 1
clean_up
"""
    wrapped = said("script_wrapper", "%s").replace("%s", body).replace("%%", "%")
    return f"{said('header', '')}\n{wrapped}\n{said('footer', '')}\n"
