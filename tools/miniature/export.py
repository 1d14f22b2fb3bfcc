"""Writes a small Whisper in the engines' formats.

    export.py OUT [--formats ct2,ggml,hf,onnx,pt]   the miniature, which hears: see README.md
    export.py OUT --random base [--seed 1]          random weights of a true size: for measuring speed
    export.py OUT --script                          says two fixed sentences whatever it hears

OUT/ct2/ and OUT/ct2-int8/ (CTranslate2), OUT/ggml.bin (whisper.cpp), OUT/hf/ (transformers), OUT/onnx/ (sherpa-onnx),
OUT/pt.pt (openai-whisper). `--weights FILE` takes other trained weights than the installed ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import untrained

from kuulo import miniature
from kuulo.miniature import weights
from kuulo.miniature.weights import Whisper
from kuulo.miniature.writers import WRITERS

FORMATS = ("ct2", "ggml", "hf", "onnx", "pt")


def export(whisper: Whisper, out: Path, formats: Sequence[str] = FORMATS) -> dict[str, Path]:
    """Writes the model into the folder `out`; gives the path of each format."""
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for format_ in formats:
        name, write = WRITERS[format_]
        write(out / name, whisper)
        written[format_] = out / name
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(WRITERS)}")
    parser.add_argument("--random", choices=list(untrained.SIZES), help="random weights of this size")
    parser.add_argument("--script", action="store_true", help="hand-set weights that say fixed sentences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, default=miniature.WEIGHTS, help="a compact file of trained weights")
    given = parser.parse_args(arguments)
    formats = given.formats.split(",")
    if unknown := sorted(set(formats) - set(WRITERS)):
        parser.error(f"no format {', '.join(unknown)}: there are {', '.join(WRITERS)}")
    if given.random:
        whisper = untrained.random(given.random, given.seed)
    elif given.script:
        whisper = untrained.scripted(given.seed)
    else:
        whisper = weights.trained(given.weights)
    for path in export(whisper, given.out, formats).values():
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
