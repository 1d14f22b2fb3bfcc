"""Makes the file of the speaker encoder from the package resemblyzer: src/kuulo/engines/resemblyzer.npz.

    python tools/voices.py PRETRAINED.pt        # from the wheel: pip download --no-deps resemblyzer

Of the checkpoint (17 MB) the encoder's weights alone are kept, as float16: without the training's optimizer, its loss's
two numbers and the rest. Resemblyzer is under the Apache licence 2.0: see NOTICE.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch

from kuulo.atomic import write_bytes

FILE = Path(__file__).resolve().parents[1] / "src" / "kuulo" / "engines" / "resemblyzer.npz"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    given = parser.parse_args()
    state = torch.load(given.checkpoint, weights_only=True, map_location="cpu")["model_state"]
    kept = {name: tensor.numpy() for name, tensor in state.items() if name.startswith(("lstm.", "linear."))}
    packed = io.BytesIO()
    np.savez_compressed(packed, **{name: array.astype(np.float16) for name, array in kept.items()})
    write_bytes(FILE, packed.getvalue())
    print(f"{FILE}: {FILE.stat().st_size} bytes, {sum(array.size for array in kept.values())} weights")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
