"""An engine for tests that says that it computes on a GPU, and knows what the clip says.

FAKE_ENGINE_SAYS: other words; FAKE_ENGINE_DEVICE: another device; FAKE_ENGINE_SECONDS: how long a clip takes it;
FAKE_ENGINE_MARK: a file that it makes when it begins with one.
"""

import os
import time
from pathlib import Path

from kuulo.engines.base import EngineSpec, Language, Native, Session
from kuulo.transcript import Segment

SPEC = EngineSpec(
    name="imagined",
    summary="Knows what the clip says.",
    url="https://example.org",
    licence="MIT",
    package="imagined",
    module="imagined_engine",
    install="imagined",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    options={name: Native(name) for name in ("language", "task", "device")},
    model_formats=("ct2",),
)


def refuse(options):
    return {}


def native(options, raw):
    return "pass"


class _Session(Session):
    device = os.environ.get("FAKE_ENGINE_DEVICE", "cuda:0")

    def transcribe(self, samples, state=None):
        if os.environ.get("FAKE_ENGINE_MARK"):
            Path(os.environ["FAKE_ENGINE_MARK"]).touch()
        time.sleep(float(os.environ.get("FAKE_ENGINE_SECONDS", "0.02")))
        yield Language("en")
        words = os.environ.get("FAKE_ENGINE_SAYS", "Good morning, mother. Always good coffee.")
        yield Segment(0, len(samples) // 16, " " + words)


def load(task):
    return _Session()
