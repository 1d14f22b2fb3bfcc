"""Prints as JSON what faster-whisper itself hears in each recording, one after the other: {file name: text}.

python bench/one_by_one.py MODEL BEAM_SIZE COMPUTE_TYPE RECORDING...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from faster_whisper import WhisperModel


def main(model_path: str, beam_size: str, compute_type: str, *recordings: str) -> None:
    model = WhisperModel(model_path, device="cpu", compute_type=compute_type, local_files_only=True)
    texts = {}
    for recording in recordings:
        segments, _ = model.transcribe(
            recording,
            language="en",
            beam_size=int(beam_size),
            temperature=[0.0],
            condition_on_previous_text=False,
        )
        texts[Path(recording).name] = "".join(segment.text for segment in segments)
    print(json.dumps(texts))


if __name__ == "__main__":
    main(*sys.argv[1:])
