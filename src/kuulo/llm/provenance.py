"""What an answer was made with, as transcripts have it: enough to ask again and to say same or different."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import kuulo
from kuulo.llm import options
from kuulo.llm.client import Usage
from kuulo.llm.endpoint import Endpoint
from kuulo.llm.plan import ChatPlan

SCHEMA = 1

REPEATABLE = "the same seed on the same machine gives the same text"
NOT_REPEATABLE = "the same seed need not give the same text"


def of(
    plan: ChatPlan,
    endpoint: Endpoint,
    *,
    template: Mapping[str, Any] | None = None,
    usage: Usage | None = None,
    finish: str | None = None,
) -> dict[str, Any]:
    """For the JSON that is written beside an answer. `template`: name and digest of one (llm/templates.py). The text
    that was asked is not in it; a system text and a schema are told by their digests."""
    asked = {
        o.name: plan.options[o.name] for o in options.OPTIONS if o.result and plan.options[o.name] not in (None, ())
    }
    told = {k: v for k, v in asked.items() if k not in ("engine", "model", "endpoint", "engine_option")}
    for name in ("system", "schema"):
        if name in told:
            told[name] = {"sha256": digest(told[name])}
    return {
        "schema": SCHEMA,
        "kuulo": kuulo.__version__,
        "task": "chat",
        "engine": plan.engine,
        "engine_version": endpoint.version or None,
        "environment": plan.environment.lock_sha256 if plan.environment else None,
        "model": endpoint.model,
        "model_sha256": plan.model.digest if plan.model else None,
        "model_revision": plan.model.revision if plan.model else None,
        "chat_template_sha256": chat_template(plan),
        "template": dict(template) if template else None,
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()},
        "engine_options": dict(plan.raw),
        "context": endpoint.context,
        "key": plan.key,
        "usage": {"prompt_tokens": usage.prompt, "completion_tokens": usage.answer} if usage else None,
        "finish": finish,
        "repeatable": repeatable(plan),
    }


def repeatable(plan: ChatPlan) -> str:
    """Whether asking again gives the same text, as far as the engine promises it."""
    promised = plan.spec.same_seed_same_text and plan.options["parallel"] == 1
    return REPEATABLE if promised else NOT_REPEATABLE


def chat_template(plan: ChatPlan) -> str | None:
    """sha256 of the model's chat template, where it has one that we can read."""
    from kuulo.models import check
    from kuulo.models.binary import Damaged

    if plan.model is None or plan.model.format not in check.CHATTING:
        return None
    try:
        text = check.FORMATS[plan.model.format].template(plan.model.path)
    except (Damaged, OSError):
        return None
    return digest(text) if text else None


def digest(value: Any) -> str:
    """sha256 of a text, or of JSON with its keys sorted."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
