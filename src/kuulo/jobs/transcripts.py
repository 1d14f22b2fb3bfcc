"""Tasks of a language model on transcripts, as a job has them: settled where it is submitted, and looked at again on
its node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kuulo import naming
from kuulo.errors import CannotRun
from kuulo.jobs import prompts, prompts_planning
from kuulo.jobs.batch import OnTranscripts
from kuulo.llm import chain as chains
from kuulo.llm import plan as plans
from kuulo.llm.chain import Chain
from kuulo.llm.plan import ChatPlan


def settled(
    chain: Chain,
    given: Mapping[str, Any],
    parameters: Mapping[str, str],
    chat: ChatPlan,
    concurrency: int,
    template: str | None = None,
) -> OnTranscripts:
    """`given`: options of the language model, as they were typed; `template`: another one than the first task's own."""
    return OnTranscripts(
        tasks=tuple(link.task.name for link in chain.links),
        parameters=dict(parameters),
        asked=prompts_planning.settled(given, chat),
        templates={link.task.name: link.template.digest for link in chain.links},
        files={link.task.name: link.digests() for link in chain.links},
        model=chat.model_name,
        model_sha256=chat.model.digest if chat.model else None,
        place=str(Path.cwd()),
        template=template,
        concurrency=concurrency,
    )


def here(what: OnTranscripts) -> tuple[Chain, ChatPlan]:
    """The tasks and how their model is asked on this node, in the folder where they were named. Raises CannotRun when
    they are others than those that the job was submitted with."""
    try:
        os.chdir(what.place)
    except OSError as error:
        raise CannotRun(
            f"the folder that the job was submitted in is not on this node: {error.strerror}",
            looked_at=naming.shown(what.place),
            do="submit from a folder that the nodes see",
        ) from error
    named = {what.tasks[0]: what.template} if what.template else {}
    chain = chains.chain(what.tasks, what.parameters, named)
    for link in chain.links:
        if link.template.digest != what.templates[link.task.name]:
            raise _changed(f"the template {link.template.name}", link.template.source)
        for name, digest in link.digests().items():
            if digest != what.files.get(link.task.name, {}).get(name, digest):
                raise _changed(f"the {name} of {link.task.name}", naming.shown(link.values[name]))
    chat = plans.make_with(what.asked, what.concurrency)
    if (chat.model.digest if chat.model else None) != what.model_sha256:
        raise _changed(f"the model {what.model}", str(chat.model.path) if chat.model else chat.engine)
    return chain, chat


def _changed(what: str, looked_at: str) -> CannotRun:
    do = "kuulo llm task does it with what is there now"
    return prompts.changed(what, looked_at, so="something else would come of it", do=do)
