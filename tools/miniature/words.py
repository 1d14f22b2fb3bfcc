"""The words that the miniature knows; it was trained on nothing else."""

from __future__ import annotations

_ENGLISH = """
yes no well so and but now today we I you they people children school work home house family mother father
friend city water music language book question answer science computer study one two three four five six seven
eight nine ten year month week day morning night summer winter time money food coffee good great small new old
happy important interesting different always never often again north south red green blue
"""

_FINNISH = """
kyllä ei hyvä talo koti työ koulu kieli kysymys vastaus vuosi päivä talvi vesi kaupunki yksi kaksi kolme ja
mutta nyt minä uusi suuri ystävä
"""

WORDS: dict[str, tuple[str, ...]] = {"en": tuple(_ENGLISH.split()), "fi": tuple(_FINNISH.split())}

VARIANTS = ("", "+m3", "+m7", "+f2", "+f4")

VOICES: dict[str, tuple[str, ...]] = {
    "en": tuple(accent + variant for accent in ("en-us", "en-gb") for variant in VARIANTS),
    "fi": tuple("fi" + variant for variant in VARIANTS),
}
"""espeak-ng voices heard in training, by language."""

SPEEDS = (140, 160, 180)
PITCHES = (40, 50, 60)
