"""How long prompts take a language model, for who plans jobs.

Work is counted in tokens of answers; a token of a prompt is a share of one, since prompts are read many tokens at a
time. A speed is such tokens in a second, of all that a task asks at a time. Finished jobs say how fast it was; where
none did, what is known of memory's speed does: to write a token, all weights are read once for everybody who waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import speeds
from kuulo.jobs.batch import Pace
from kuulo.llm.batch import Request
from kuulo.llm.plan import ENDPOINT, ChatPlan
from kuulo.speeds import GUESS, Observation, Table, Work

PROMPT_SHARE = 0.2
"""What a token of a prompt costs of one of an answer, when many are asked at a time."""

CHARACTERS = 4
"""Of a prompt for a token, about, in European languages."""

USUAL_ANSWER = 400
"""Tokens of an answer that are expected, where fewer are not its limit."""

BYTES_PER_S = {"cpu": 15e9, "cuda": 500e9}
"""Of weights that are read in a second: carefully, of a node with two memory channels, and of an older GPU."""

TOGETHER = {"cpu": 3, "cuda": 8}
"""How many answers are written in the time of one, at most, when as many are asked for."""

UNKNOWN_SPEED = 10.0
"""Tokens in a second of an endpoint that nobody has measured."""

LOAD_S = 60.0
LEAST_TOKENS = 200.0
"""Of fewer, starting up is most of it."""


def work(plan: ChatPlan, concurrency: int, cpus: int) -> Work:
    """What is done, as tables of speeds have it."""
    return Work(plan.engine, plan.model_name or "", device(plan), cpus, batch_size=concurrency)


def device(plan: ChatPlan) -> str:
    """Where it computes: cpu, cuda, or an endpoint, which has a place of its own."""
    if plan.spec.kind == ENDPOINT:
        return ENDPOINT
    return "cuda" if plan.on_gpu else "cpu"


def estimate(plan: ChatPlan, concurrency: int, cpus: int, tables: Sequence[Table], place: str) -> Pace:
    """How fast it will be, carefully: as it was measured, else a guess from the size of the model."""
    wanted = work(plan, concurrency, cpus)
    measured = speeds.measured(wanted, tables, place)
    if measured is not None:
        return measured
    memory = plan.need.total if plan.need else 0
    if wanted.device == ENDPOINT or plan.need is None:
        return Pace(UNKNOWN_SPEED, 0.0, 0.0, memory, GUESS, "a guess: this endpoint was not measured yet")
    alone = BYTES_PER_S[wanted.device] / max(1, plan.need.weights)
    speed = min(alone, 100.0) * min(concurrency, TOGETHER[wanted.device])
    return Pace(speed, LOAD_S, 0.0, memory, GUESS, "a guess from the size of the model: it was not measured yet")


def cost(request: Request, max_tokens: int | None) -> float:
    """What a prompt costs, in tokens of answers. `max_tokens`: of an answer, where the prompt itself does not say."""
    body: Mapping[str, Any] = request.body or {}
    if not body:
        return 0.0
    most = body.get("max_completion_tokens") or body.get("max_tokens") or max_tokens
    answer = min(most, USUAL_ANSWER) if isinstance(most, int) and most > 0 else USUAL_ANSWER
    return tokens(characters(request) / CHARACTERS, answer)


def tokens(prompt: float, answer: float) -> float:
    """Tokens of prompts and of answers as one number."""
    return PROMPT_SHARE * prompt + answer


def characters(request: Request) -> int:
    """How long a prompt is."""
    return sum(_characters(message.get("content")) for message in (request.body or {}).get("messages", ()))


def _characters(content: Any) -> int:
    """A message's content is a text, or parts with texts."""
    if isinstance(content, list):
        return sum(len(str(part.get("text", ""))) for part in content if isinstance(part, Mapping))
    return len(content) if isinstance(content, str) else 0


def observation(
    wanted: Work, *, done: float, elapsed_s: float, load_s: float, memory_bytes: int, place: str, node: str, at: str
) -> Observation | None:
    """What a task's figures say; None when it did too little to say anything."""
    if done < LEAST_TOKENS or elapsed_s <= 0:
        return None
    return Observation(wanted, done / elapsed_s, load_s, memory_bytes, done, place, node, at)
