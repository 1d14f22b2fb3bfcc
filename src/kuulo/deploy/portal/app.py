"""The app's files. Pure: Deployment -> Files.

Text of the site (its title, a partition's name) becomes YAML, JSON, Ruby or shell by a writer of that language, never
by being put between quotes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from kuulo.deploy.base import Deployment, File, Files
from kuulo.deploy.portal import asking, form, request
from kuulo.deploy.portal.form import Field
from kuulo.errors import UsageError

TEMPLATES = Path(__file__).with_name("templates")
TITLE = "Transcribe recordings"
CATEGORY = "Interactive Apps"
SUBCATEGORY = "Speech"
STEM = "kuulo"
"""The app's folder in the portal's folder of apps."""

MADE = "# Made by `kuulo deploy` from the site's file: change that, and deploy again.\n"


def render(deployment: Deployment) -> Files:
    """The app. Its folder is `[portal] folder` and then `kuulo`. Raises UsageError when the site does not say what the
    portal calls the cluster."""
    if not deployment.site.centre.portal.get("cluster"):
        raise UsageError(
            "the portal's app needs a cluster",
            looked_at=f"[portal] in {deployment.site.site_file or 'the site file'}",
            do='say what the portal calls it: cluster = "mycluster"',
        )
    fields = form.fields(deployment)
    return {
        "completed.html.erb": File(_card("completed")),
        "form.js": File(_template("form.js", {"MORE": json.dumps([f.name for f in fields if f.more])})),
        "form.yml": File(MADE + _yaml(_form(deployment, fields))),
        "icon.svg": File(_template("icon.svg")),
        "info.html.erb": File(_card("info")),
        "manifest.yml": File(MADE + _yaml(_manifest(deployment))),
        "submit.yml.erb": File(asking.text(deployment)),
        "template/before.sh": File(_template("before.sh")),
        f"template/{request.FILE}.erb": File(_request(fields)),
        "template/script.sh": File(
            _template("script.sh", {"PROGRAM": shlex.quote(str(deployment.program))}), mode=0o755
        ),
        "view.html.erb": File(_template("view.html.erb")),
    }


def _template(name: str, values: dict[str, str] | None = None) -> str:
    return asking.fill((TEMPLATES / name).read_text(encoding="utf-8"), values or {})


def _card(name: str) -> str:
    """A view of the session: what both read and how both write, then what it shows."""
    return _template("card.html.erb") + _template(f"{name}.html.erb")


def _manifest(deployment: Deployment) -> dict[str, Any]:
    centre = deployment.site.centre
    said = f"Transcripts of recordings{f' at {centre.name}' if centre.name else ''}: Kuulo {deployment.version}."
    if centre.url:
        said += f" [How to use it]({centre.url})"
    return {
        "name": centre.portal.get("title", TITLE),
        "category": centre.portal.get("category", CATEGORY),
        "subcategory": SUBCATEGORY,
        "role": "batch_connect",
        "description": said,
    }


def _form(deployment: Deployment, fields: Sequence[Field]) -> dict[str, Any]:
    centre = deployment.site.centre
    said = "Recordings become transcripts. Nothing leaves this cluster."
    if centre.contact:
        said += f" Questions: {centre.contact}"
    return {
        "cluster": centre.portal["cluster"],
        "title": centre.portal.get("title", TITLE),
        "description": said,
        "form": [f.name for f in fields],
        "attributes": {f.name: dict(f.attributes) for f in fields if f.attributes},
    }


def _request(fields: Sequence[Field]) -> str:
    """Ruby that writes the form's values as JSON: as data, whatever is in them. The portal keeps a form for hours, so
    one of another version may have other fields: those that are missing decide nothing."""
    names = [f.name for f in fields if f.name not in (form.MORE, form.ACCOUNTS)]
    rows = "\n".join(f"  {name}" for name in names)
    said = f'{{ "schema" => {request.SCHEMA}, "values" => values }}'
    return f"""<%-
require "json"
names = %w[
{rows}
].select {{ |name| context.respond_to?(name) }}
values = names.to_h {{ |name| [name, context.public_send(name).to_s] }}
-%>
<%= JSON.generate({said}) %>
"""


def _yaml(data: Any) -> str:
    """ASCII alone: the portal's server may have any locale."""
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=1_000_000)
    return f"---\n{text}"
