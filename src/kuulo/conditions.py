"""How a clip of a voice would sound elsewhere: with noise, in a room, by telephone. Pure: samples -> samples.

An encoder's embedding tells of the sound as much as of the voice: in a room or by telephone a voice is as far from
itself as from others. So a roster has each voice as it was recorded and as it would sound elsewhere, and a speaker is
compared with all of these. The limits are in roster.py. The same clip gives the same sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kuulo.engines.base import SAMPLE_RATE

SILENT = 0.01
"""Of the loudest sample: what is below is not counted as speech, when noise is so many dB below it."""

DIRECT_S = 0.003
"""From the direct sound to the first that comes back."""


def _noise(samples: Any, below_db: float, slope: float = 0.0) -> Any:
    """With noise so far below the speech, whose power falls with the frequency to the power of `slope`: 0 is white, 1
    pink."""
    import numpy as np

    count = len(samples)
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(size=count))
    spectrum *= np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 50) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, count)
    loud = samples[np.abs(samples) > SILENT * np.abs(samples).max(initial=0)]
    level = float(np.sqrt(np.mean(loud**2))) if len(loud) else 0.0
    return samples + noise * (level * 10 ** (-below_db / 20) / max(float(noise.std()), 1e-9))


def _room(samples: Any, decay_s: float, direct: float) -> Any:
    """In a room whose sound has fallen by 60 dB after `decay_s`, noise that decays exponentially (Polack's model);
    `direct`: the amplitude of what comes straight, where what comes back has the power 1."""
    import numpy as np
    from scipy.signal import fftconvolve

    times = np.arange(int(1.2 * decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    echo = np.random.default_rng(2).normal(size=len(times)) * 10 ** (-3 * times / decay_s)
    echo[: int(DIRECT_S * SAMPLE_RATE)] = 0
    echo /= np.sqrt(np.sum(echo**2))
    echo[0] = direct
    return fftconvolve(samples, echo)[: len(samples)]


def _telephone(samples: Any) -> Any:
    """Through the band of a telephone, 300 to 3400 Hz, in the 8 bit of ITU-T G.711 (mu-law)."""
    import numpy as np
    from scipy.signal import butter, resample_poly, sosfilt

    band = sosfilt(butter(4, [300, 3400], "bandpass", fs=SAMPLE_RATE // 2, output="sos"), resample_poly(samples, 1, 2))
    band *= 0.9 / max(float(np.abs(band).max(initial=0)), 1e-6)
    coded = np.round(np.sign(band) * np.log1p(255 * np.abs(band)) / np.log(256) * 127) / 127
    heard = np.sign(coded) * (256 ** np.abs(coded) - 1) / 255
    return resample_poly(heard, 2, 1)[: len(samples)]


CONDITIONS: Mapping[str, Callable[[Any], Any]] = {
    "white noise 20 dB below": lambda samples: _noise(samples, 20),
    "white noise 12 dB below": lambda samples: _noise(samples, 12),
    "pink noise 15 dB below": lambda samples: _noise(samples, 15, 1),
    "pink noise 8 dB below": lambda samples: _noise(samples, 8, 1),
    "room of 0.3 s": lambda samples: _room(samples, 0.3, 1.0),
    "room of 0.6 s": lambda samples: _room(samples, 0.6, 0.8),
    "room of 0.4 s with noise": lambda samples: _noise(_room(samples, 0.4, 1.0), 15),
    "telephone": _telephone,
}


def heard(samples: Any, condition: str) -> Any:
    """Samples, float32 (n,) at 16 kHz, n >= 1, as they would sound there, from -0.9 to 0.9: how loud is not kept."""
    import numpy as np

    found = np.asarray(CONDITIONS[condition](np.asarray(samples, np.float64)))
    return (found * (0.9 / max(float(np.abs(found).max(initial=0)), 1e-6))).astype(np.float32)
