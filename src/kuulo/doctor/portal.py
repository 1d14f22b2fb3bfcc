"""The portal (Open OnDemand): its folder and Kuulo's apps in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking

MANIFEST = "manifest.yml"
FORMS = ("form.yml", "form.yml.erb")
CLUSTERS = Path("/etc/ood/config/clusters.d")
SCRIPTS = ("template/script.sh", "template/script.sh.erb")


def check(looking: Looking) -> Iterator[Finding]:
    """The apps, as far as their files tell; `kuulo portal check` looks at all of one."""
    portal = looking.site.centre.portal
    folder = Path(portal.get("folder", ""))
    if not portal:
        yield Finding("portal", OK, "the site's file has no [portal]: there are no apps")
        return
    yield from _cluster(str(portal.get("cluster", "")))
    if not portal.get("folder") or not folder.is_dir():
        do = "is this the portal's machine? Else run this there"
        yield Finding("apps", UNKNOWN, "the portal's folder of apps is not here", str(folder), do)
        return
    try:
        apps = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}")) if _is_ours(path.parent)]
    except OSError as error:
        yield Finding("apps", UNKNOWN, f"they cannot be listed: {error.strerror}", str(folder))
        return
    if not apps:
        yield Finding("apps", PROBLEM, "none of its apps is Kuulo's", str(folder), "kuulo deploy apply")
    for app in apps:
        yield _app(app, str(portal.get("cluster", "")))


def _cluster(name: str) -> Iterator[Finding]:
    if not name:
        do = 'cluster = "...", as the portal calls it'
        yield Finding("cluster", PROBLEM, "[portal] does not name it", "the site's file", do)
    elif CLUSTERS.is_dir():
        there = [path for path in CLUSTERS.glob("*.y*ml") if path.stem == name]
        if there:
            yield Finding("cluster", OK, name, str(there[0]))
        else:
            known = ", ".join(sorted(path.stem for path in CLUSTERS.glob("*.y*ml"))) or "none"
            do = "correct cluster in [portal]"
            yield Finding("cluster", PROBLEM, f"the portal knows no {name!r}, but {known}", str(CLUSTERS), do)


def _is_ours(app: Path) -> bool:
    return any("kuulo" in _text(app / name).lower() for name in (MANIFEST, *FORMS, "submit.yml.erb", *SCRIPTS))


def _app(app: Path, cluster: str) -> Finding:
    """Its files are there, are YAML, and name the cluster."""
    try:
        manifest = yaml.safe_load(_text(app / MANIFEST)) or {}
        forms = [yaml.safe_load(_text(app / name)) for name in FORMS[:1] if (app / name).is_file()]
    except yaml.YAMLError as error:
        do = "kuulo deploy apply"
        return Finding(app.name, PROBLEM, f"a file is not YAML: {str(error).splitlines()[0]}", str(app), do)
    wrong = []
    if not isinstance(manifest, dict) or manifest.get("role") != "batch_connect":
        wrong.append(f"{MANIFEST} has no role: batch_connect")
    if not any((app / name).is_file() for name in FORMS):
        wrong.append("it has no form")
    for form in forms:
        named = form.get("cluster") if isinstance(form, dict) else None
        if cluster and named and cluster not in ([named] if isinstance(named, str) else named):
            wrong.append(f"its form is for the cluster {named}")
    scripts = [app / name for name in SCRIPTS if (app / name).is_file()]
    if not scripts:
        wrong.append("it has no script")
    wrong += [f"{path.name} is not executable" for path in scripts if not path.stat().st_mode & 0o001]
    if wrong:
        return Finding(app.name, PROBLEM, "; ".join(wrong), str(app), f"kuulo deploy apply, kuulo portal check {app}")
    state, found = (OK, "its files are in order") if os.access(app, os.R_OK | os.X_OK) else (WARNING, "not readable")
    return Finding(app.name, state, found, str(app))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
