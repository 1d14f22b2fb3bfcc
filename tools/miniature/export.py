"""Writes a small Whisper in the engines' formats.

    export.py OUT [--formats ct2,ggml,hf,pt]     the miniature, which hears: see README.md
    export.py OUT --random base [--seed 1]       random weights of a true size: for measuring speed
    export.py OUT --script                       says two fixed sentences whatever it hears

OUT/ct2/ and OUT/ct2-int8/ (CTranslate2), OUT/ggml.bin (whisper.cpp), OUT/hf/ (transformers), OUT/pt.pt
(openai-whisper).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import weights
from vocabulary import Vocabulary, VocabularyMissing, find_tiktoken
from writers import WRITERS

FORMATS = ("ct2", "ggml", "hf", "pt")


def export(
    out: Path,
    formats: Sequence[str] = FORMATS,
    *,
    random: str | None = None,
    script: bool = False,
    seed: int = 0,
    tiktoken: Path | None = None,
) -> dict[str, Path]:
    """Writes the model into the folder `out`; gives the path of each format.

    `random`: a size in weights.SIZES; `script`: the hand-set model; neither: the miniature. Raises
    VocabularyMissing without openai-whisper's vocabulary, ImportError without a format's package."""
    dims = weights.dims_of(random) if random else weights.dimensions(64, 4, 4, 2)
    vocabulary = Vocabulary(tiktoken or find_tiktoken(), languages=100 if dims["n_mels"] == 128 else 99)
    if random:
        state = weights.random_state(dims, seed)
    elif script:
        state = weights.scripted_state(dims, weights.script_chain(vocabulary), seed)
    else:
        dims, state = weights.miniature()
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for format_ in formats:
        name, write = WRITERS[format_]
        write(out / name, dims, state, vocabulary)
        written[format_] = out / name
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(WRITERS)}")
    parser.add_argument("--random", choices=list(weights.SIZES), help="random weights of this size")
    parser.add_argument("--script", action="store_true", help="hand-set weights that say fixed sentences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiktoken", type=Path, help="openai-whisper's multilingual.tiktoken")
    given = parser.parse_args(arguments)
    formats = given.formats.split(",")
    if unknown := sorted(set(formats) - set(WRITERS)):
        parser.error(f"no format {', '.join(unknown)}: there are {', '.join(WRITERS)}")
    try:
        written = export(
            given.out,
            formats,
            random=given.random,
            script=given.script,
            seed=given.seed,
            tiktoken=given.tiktoken,
        )
    except (VocabularyMissing, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 3
    for path in written.values():
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
