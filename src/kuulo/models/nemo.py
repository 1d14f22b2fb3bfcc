"""NeMo's model that tells speakers apart: one `.nemo` file with a Sortformer, read as engines/nemo_file.py says.

`problems` looks at all that NeMo would be given: the archive's files, the classes that the configuration names, and the
checkpoint's pickle, opcode by opcode (`pickled.py`). The engine loads the checkpoint with `weights_only=True`, which
holds to the same line.
"""

from __future__ import annotations

from pathlib import Path

from kuulo.engines import nemo_file
from kuulo.models import pickled
from kuulo.models.binary import Damaged
from kuulo.models.shape import Shape

NAME = "NeMo (Sortformer)"

WEIGHTS_OF = ("encoder.", "sortformer_modules.", "transformer_encoder.")
"""Parts that have weights, as their names begin in a checkpoint."""


def matches(path: Path) -> bool:
    """Whether the file is named as NeMo's are, or is a tar archive."""
    return nemo_file.is_archive(path)


def problems(path: Path) -> list[str]:
    """What is wrong with the file; empty when nothing is."""
    try:
        with nemo_file.opened(path) as (config, weights):
            found = nemo_file.problems(config)
            if found:
                return found
            content = pickled.values_in(weights, nemo_file.WEIGHTS, pickled.TENSOR_GLOBALS)
    except (nemo_file.Broken, Damaged) as error:
        return [str(error)]
    names = [str(name) for name in content] if isinstance(content, dict) else []
    lost = [part for part in WEIGHTS_OF if not any(name.startswith(part) for name in names)]
    return [f"{nemo_file.WEIGHTS} has no weights of {lost[0].rstrip('.')}"] if lost else []


def shape(path: Path) -> Shape:
    """Nothing: it has none of a Whisper's dimensions."""
    return Shape()
