"""The app of Open OnDemand: a form made from the table of options, a job that runs `kuulo` on it, and a card that tells
how it goes.

| file | what is in it |
|---|---|
| `form.py` | the fields: which options, with which values |
| `app.py` | the app's files: Deployment -> Files |
| `asking.py` | what the job asks the scheduler for |
| `request.py` | what was said in the form, read and checked |
| `here.py` | what it is made from when nobody deploys |
| `status.py` | how the job goes, for the card |
| `wording.py` | what the form calls options |
| `templates/` | the files that are the same everywhere |
"""

from __future__ import annotations

from kuulo.deploy.portal.app import render

__all__ = ["render"]
