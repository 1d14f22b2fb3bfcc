"""Writes the locks of the engines' environments anew: src/kuulo/environments/ENGINE/VARIANT.lock.

    python tools/locks.py [ENGINE...|kuulo] [--find-links FOLDER]

`kuulo` is the command line in container images: src/kuulo/deploy/kuulo/any.lock.

Uses the network. --find-links names a folder with wheels that no index in reach has, PyTorch's CPU build: for the
variants alone that have an index of their own for it, since any other would take it for the CUDA build.
A lock begins with the digest of what it was made from: tests/test_environments.py says when one is out of date.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from kuulo.deploy.definition import COMMAND_LINE
from kuulo.environments import recipe, uv
from kuulo.environments.recipe import Recipe, Variant

HEADER = "# Made by tools/locks.py from {name}, sha256 {digest}\n"


def lock(chosen: Recipe, variant: Variant, find_links: list[str]) -> None:
    lowest = re.search(r"3\.\d+", chosen.python)
    assert lowest, f"{chosen.engine}: no version of Python in {chosen.python!r}"
    with tempfile.TemporaryDirectory() as folder:
        out, left_out = Path(folder, "out.lock"), Path(folder, "without.txt")
        left_out.write_text("".join(f"{name} ; sys_platform == 'never'\n" for name in variant.without))
        command = [
            uv.program(),
            "pip",
            "compile",
            "--universal",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
            "--quiet",
        ]
        command += ["--python-version", lowest[0], "--override", str(left_out), "--output-file", str(out)]
        if variant.index:
            command += [part for given in find_links for part in ("--find-links", given)]
        subprocess.run([*command, str(variant.wanted)], check=True)
        text = out.read_text()
    # Packages that no platform wants stand in a universal lock none the less.
    text = "".join(block for block in re.split(r"(?m)^(?=\S)", text) if "sys_platform == 'never'" not in block)
    header = HEADER.format(name=variant.wanted.name, digest=recipe.wanted_digest(variant))
    variant.lock.write_text(header + text)
    print(f"{variant.lock.relative_to(recipe.FOLDER.parent)}: {len(re.findall(r'(?m)^[a-z0-9]', text))} packages")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", default=[*recipe.names(), COMMAND_LINE.engine])
    parser.add_argument("--find-links", action="append", default=[])
    given = parser.parse_args()
    for name in given.engines:
        chosen = COMMAND_LINE if name == COMMAND_LINE.engine else recipe.read(name)
        for variant in chosen.variants.values():
            lock(chosen, variant, given.find_links)
    return 0


if __name__ == "__main__":
    sys.exit(main())
