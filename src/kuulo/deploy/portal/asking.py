"""What the job asks the scheduler for: `submit.yml.erb`, whose Ruby looks the form's values up or checks them and never
writes them as they are.

The resources are those of `[jobs.cpu]` and `[jobs.gpu]`; memory is by the model's size, as `kuulo submit` asks for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from kuulo.deploy.base import Deployment
from kuulo.deploy.portal import form, request
from kuulo.jobs import planning
from kuulo.jobs.settings import Place
from kuulo.plan import WORKER_OVERHEAD_BYTES

WARNING_S = 120
"""How long before its end the job is told: enough to stop in good order."""

CPUS_PER_WORKER = 4
LEAST_MB = 2048
CONTEXT_BYTES = 3 << 30
"""For what a language model reads and computes beside its weights; a context that does not fit is made smaller."""

TEMPLATE = """<%-
# What is asked of the scheduler. The form's values are looked up or checked here, and none is written as it is.
require "json"
hours = [[bc_num_hours.to_i, 1].max, @@MOST_HOURS@@].min
places = JSON.parse(@@PLACES@@)
place = places.fetch(respond_to?(:kuulo_place) ? kuulo_place.to_s : "cpu", places.values.last)
model = respond_to?(:kuulo_model) ? kuulo_model.to_s : ""
memory = place["memory"].fetch(model, place["memory"].values.max)
if respond_to?(:kuulo_then) && !kuulo_then.to_s.strip.empty?
  asked = respond_to?(:kuulo_then_option) ? kuulo_then_option.to_s[/^\\s*model\\s*=\\s*(\\S+)/, 1].to_s : ""
  following = JSON.parse(@@FOLLOWING@@)
  memory = [memory, following.fetch(asked, following.fetch("", 0))].max
end
address = kuulo_email.to_s.strip
raise "Mail to: this is no e-mail address" unless address.empty? || address.match?(/\\A@@ADDRESS@@\\z/)
script = place["script"].merge("wall_time" => hours * 3600)
script["native"] += ["--mem=#{memory}M"]
@@MAIL@@-%>
---
batch_connect:
  template: "basic"
script: <%= JSON.generate(script) %>
"""

MAIL = 'script = script.merge("email" => [address], "email_on_terminated" => true) unless address.empty?\n'


def text(deployment: Deployment) -> str:
    """The file. Pure."""
    jobs = deployment.site.jobs()
    places = {**({"gpu": _place(jobs.gpu, deployment, gpu=True)} if jobs.gpu else {}),
              "cpu": _place(jobs.cpu, deployment, gpu=False)}  # fmt: skip
    _, most = form.hours(deployment)
    made = {
        "MOST_HOURS": str(most),
        "PLACES": ruby(json.dumps(places)),
        "FOLLOWING": ruby(json.dumps(_following(deployment))),
        "ADDRESS": request.ADDRESS,
        "MAIL": MAIL if jobs.mail == "scheduler" else "",
    }
    return fill(TEMPLATE, made)


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with its @@NAME@@s filled in."""
    return re.sub(r"@@([A-Z_]+)@@", lambda match: values[match[1]], template)


def ruby(text: str) -> str:
    """Text as a Ruby string between ERB's marks."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("%>", "%%>")
    return f"'{quoted}'"


def _place(place: Place, deployment: Deployment, *, gpu: bool) -> dict[str, Any]:
    queue = place.queue
    asked = {"queue_name": queue.partition, "accounting_id": queue.account, "qos": queue.qos}
    if form.asks_account(deployment):
        del asked["accounting_id"]
    native = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={place.cpus}", f"--signal=B:USR1@{WARNING_S}"]
    if gpu:
        native.append(f"--gres={queue.gres or 'gpu'}:1")
    if queue.constraint:
        native.append(f"--constraint={queue.constraint}")
    native += [f"--{name}={value}" if value else f"--{name}" for name, value in queue.extra]
    return {
        "script": {**{name: value for name, value in asked.items() if value}, "native": native},
        "memory": _memory(deployment, 1 if gpu else max(1, place.cpus // CPUS_PER_WORKER)),
    }


def _memory(deployment: Deployment, workers: int) -> dict[str, int]:
    """MB by the model's name; that of the largest counts where none is chosen."""
    beside = max((m.bytes for m in form.models(deployment, "diarize")), default=0)
    sizes = {m.name: m.bytes for m in form.models(deployment)} or {"": 0}
    return {name: _megabytes(workers * _worker(size) + _worker(beside)) for name, size in sizes.items()}


def _following(deployment: Deployment) -> dict[str, int]:
    """MB for a language model by its name, which works when those of speech have ended; "" is the one that is asked
    where none is named. An endpoint takes nothing here."""
    if deployment.site.centre.llm.get("endpoint"):
        return {}
    sizes = {m.name: _megabytes(m.bytes + CONTEXT_BYTES) for m in form.language_models(deployment)}
    return {"": next(iter(sizes.values()), 0), **sizes}


def _worker(model_bytes: int) -> int:
    return WORKER_OVERHEAD_BYTES + 2 * model_bytes


def _megabytes(bytes_: int) -> int:
    need = planning.MEMORY_MARGIN * (bytes_ + planning.BASE_BYTES)
    return max(LEAST_MB, math.ceil(need / (planning.MEMORY_STEP_MB << 20)) * planning.MEMORY_STEP_MB)
