"""Who says what in a recording that is heard to its end and whose speakers are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from kuulo import roster as rosters
from kuulo import speakers
from kuulo.plan import Plan
from kuulo.roster import Match
from kuulo.work import Work


def lay(plan: Plan, one: Work, known: Mapping[str, Match]) -> None:
    """Lay the turns over the segments, or number the speakers of turns without words. `known`: whom the roster has
    near to the speakers, by what the turns call them."""
    one.segments = sorted(one.segments, key=lambda segment: segment.start_ms)
    names: dict[str, str] = {}
    if one.turns is not None and plan.diarizer:
        laid, who = speakers.lay(one.segments, one.turns)
        one.segments, names = list(laid), {speaker.label: speaker.id for speaker in who}
    elif one.turns is not None:
        names = {name: f"S{n}" for n, name in enumerate(dict.fromkeys(t.speaker for t in one.turns), start=1)}
        one.turns = [dataclasses.replace(turn, speaker=names[turn.speaker]) for turn in one.turns]
    one.called = {id_: name for name, id_ in names.items()}
    one.known = {names[name]: match for name, match in known.items() if name in names}


def recognise(plan: Plan, one: Work) -> dict[str, Match]:
    """Whom the roster has near to the speakers, by what the turns call them."""
    if not plan.roster or not one.voices:
        return {}
    if plan.roster.engine not in rosters.MEASURED:
        one.outcome.warn(
            f"nobody is named: how far apart {plan.roster.engine}'s voices of different people are was not measured"
        )
    return rosters.identify(plan.roster, one.voices)
