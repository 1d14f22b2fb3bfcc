"""Looks whether Kuulo can do its work here, for a user (`kuulo doctor`) and for a centre (`kuulo doctor --site`).

| file | what is in it |
|---|---|
| `finding.py` | Finding: what was looked at, its state, what to do |
| `asking.py` | a program's answer, within a time limit |
| `examination.py` | the tables of checks; carries them out, none of which may hold up the others |
| `page.py` | findings for people and for machines |
| `program.py` `engines.py` `models.py` `space.py` `gpu.py` `containers.py` `caches.py` | can I run? |
| `site_file.py` `folders.py` `stores.py` `slurm.py` | what a centre has |
| `deployed.py` `modules.py` `portal.py` `mail.py` `leftovers.py` | what its users get, and what is left over |

A check is a function `(Looking) -> Iterator[Finding]`. What it could not look at, it says. It changes nothing.
"""
