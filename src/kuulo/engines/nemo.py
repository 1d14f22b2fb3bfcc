"""NVIDIA NeMo's Sortformer: one network that hears up to four speakers at once, from a `.nemo` file.

The file is not unpacked, and NeMo is given the classes that a Sortformer is made of, whatever else a configuration
names (nemo_file.py); weights are read with `weights_only`. Nothing is fetched, and nothing is told to anybody.
A streaming model (v2, v2.1) hears a recording in pieces of half a minute and keeps what it knows of the speakers from
piece to piece, so it needs no more memory for hours than for minutes; features are made piece by piece too, which NeMo
itself does for the whole recording at once. The others (v1) look at all of a recording at once.
Parses on Python 3.9; imports NeMo inside functions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from kuulo.engines import nemo_file
from kuulo.engines.base import SAMPLE_RATE, Diarization, EngineSpec, Native, Session, Unusable
from kuulo.engines.whisper_text import check_raw, torch_device
from kuulo.transcript import Turn
from kuulo.wire import Task

SPEC = EngineSpec(
    name="nemo",
    summary="NVIDIA NeMo's Sortformer on PyTorch: up to four speakers, also at once; best on a GPU.",
    url="https://github.com/NVIDIA-NeMo/NeMo",
    licence="Apache-2.0",
    package="nemo_toolkit",
    module="nemo.collections.asr",
    install="nemo_toolkit[asr]",
    tasks=("diarize",),
    devices=("cpu", "cuda"),
    model_formats=("nemo",),
    packages=("torch", "numpy"),
    options={
        "speakers": Native("", "as many as it hears, up to those that the model knows: four in the published ones"),
        "device": Native("to", "a PyTorch device"),
        "threads": Native("torch.set_num_threads"),
    },
    differs=(
        "it knows at most four speakers, and where there are more takes some of them for one",
        "how many there are cannot be said",
        "a model that is not a streaming one hears at most 12 minutes",
    ),
)

FEWEST_MOST = 4
"""Speakers of the published models: whoever says `1-4`, or more, asks for what they do anyway."""

STREAMING: Dict[str, int] = {
    "chunk_len": 340, "chunk_right_context": 40, "fifo_len": 40, "spkcache_update_period": 300,
}  # fmt: skip
"""How a streaming model hears a recording, in frames of 80 ms: the most exact of the four ways on the model card of
diar_streaming_sortformer_4spk-v2 ("very high latency"). What a file says itself is how it was trained."""

MORE_STREAMING = ("chunk_left_context", "spkcache_len")

TURNS: Dict[str, float] = {
    "onset": 0.5, "offset": 0.5, "pad_onset": 0.0, "pad_offset": 0.0, "min_duration_on": 0.0, "min_duration_off": 0.0,
}  # fmt: skip
"""How probabilities become turns, with NeMo's own values (`PostProcessingParams`); seconds."""

LONGEST_S = 720
"""Of a recording for a model that looks at all of it at once: its memory grows with the square of the length. 12
minutes are what fits into a GPU of 48 GB, by the model card of diar_sortformer_4spk-v1."""

RAW = (*STREAMING, *MORE_STREAMING, *TURNS, "longest_s")

WITHOUT = ("loss.", "spec_augmentation.")
"""Weights' names that a model has for training alone."""

GLOBAL_NORMALIZATIONS = ("per_feature", "all_features")
"""Of features by the whole recording; those cannot be made piece by piece."""

MARGIN = 4
"""Frames of 10 ms beside a piece of features, which are then cut off: a window of 512 samples reaches 1.6 frames
beyond its own, and one sample more."""


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """A number of speakers, or a range that is narrower than what it does anyway."""
    least, most = options.get("speakers") or (1, FEWEST_MOST)
    if least > 1 or most < FEWEST_MOST:
        return {"speakers": "a Sortformer finds out itself how many there are, up to four"}
    return {}


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with NeMo itself."""
    device = str(options.get("device") or "auto")
    streaming = {**STREAMING, **{key: raw[key] for key in (*STREAMING, *MORE_STREAMING) if key in raw}}
    turns = {key: raw[key] for key in TURNS if key in raw}
    lines = [
        "import torch",
        "from nemo.collections.asr.models import SortformerEncLabelModel",
        f"model = SortformerEncLabelModel.restore_from({str(options.get('model_path'))!r},",
        f"    map_location={('cuda' if device == 'auto' else device)!r}).eval()",
        "if model.streaming_mode:",
        *(f"    model.sortformer_modules.{key} = {int(value)}" for key, value in streaming.items()),
    ]
    if not turns:
        return "\n".join([*lines, "turns = model.diarize(audio=[audio], sample_rate=16000)[0]"])
    return "\n".join(
        [
            *lines,
            "from nemo.collections.asr.parts.mixins.diarization import DiarizeConfig",
            "from nemo.collections.asr.parts.utils.vad_utils import load_postprocessing_from_yaml",
            "turning = load_postprocessing_from_yaml()",
            *(f"turning.{key} = {float(value)}" for key, value in turns.items()),
            "config = DiarizeConfig(sample_rate=16000, num_workers=0, postprocessing_params=turning)",
            "turns = model.diarize(audio=[audio], override_config=config)[0]",
        ]
    )


def load(task: Task) -> SortformerSession:
    """The network. Raises Unusable."""
    check_raw(SPEC.name, task.raw, RAW)
    path = Path(task.model_path or "")
    if not path.is_file():
        raise Unusable(f"there is no model: {path}", "kuulo models list --catalog")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    import torch

    if task.options.get("threads"):
        torch.set_num_threads(int(task.options["threads"]))
    device = torch_device(task.options.get("device"), torch)
    model = _model(path)
    if model.streaming_mode:
        for key, value in STREAMING.items():
            setattr(model.sortformer_modules, key, value)
        for key in (*STREAMING, *MORE_STREAMING):
            if key in task.raw:
                setattr(model.sortformer_modules, key, int(task.raw[key]))
        try:
            model.sortformer_modules._check_streaming_parameters()
        except (TypeError, ValueError) as error:
            raise Unusable(f"NeMo does not take these options: {error}", "see the model's card") from error
    turns = {key: float(task.raw.get(key, value)) for key, value in TURNS.items()}
    session = SortformerSession(model.to(torch.device(device)), turns, float(task.raw.get("longest_s", LONGEST_S)))
    session.device = device
    return session


def _model(path: Path) -> Any:
    """The network of the file, on the CPU, for inference. Raises Unusable."""
    again = "check it: kuulo models verify"
    try:
        with nemo_file.opened(path) as (config, weights):
            found = nemo_file.problems(config)
            if found:
                raise Unusable(f"{path.name} is no Sortformer: {found[0]}", again)
            import torch
            from nemo.collections.asr.models import SortformerEncLabelModel
            from omegaconf import OmegaConf

            resolved = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
            found = nemo_file.problems(resolved)
            if found:
                raise Unusable(f"{path.name} is no Sortformer: {found[0]}", again)
            model = SortformerEncLabelModel(cfg=OmegaConf.create(nemo_file.taken(resolved)))
            missed = model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=False)
    except Unusable:
        raise
    except nemo_file.Broken as error:
        raise Unusable(str(error), again) from error
    except Exception as error:  # whatever its parts raise
        raise Unusable(f"NeMo cannot load {path.name}: {type(error).__name__}: {error}", again) from error
    wrong = [key for key in (*missed.missing_keys, *missed.unexpected_keys) if not key.startswith(WITHOUT)]
    if wrong:
        raise Unusable(f"the weights of {path.name} are not those of its configuration: {wrong[0]}", again)
    # As NeMo's `diarize` does: no noise, and no more frames than there are.
    model.preprocessor.featurizer.dither = 0.0
    model.preprocessor.featurizer.pad_to = 0
    return model.eval()


class SortformerSession(Session):
    """A loaded network. `turns`: how probabilities become turns; `longest_s`: of a recording that is heard at once."""

    def __init__(self, model: Any, turns: Mapping[str, float], longest_s: float) -> None:
        self._model = model
        self._turns = dict(turns)
        self._longest_s = longest_s
        self._hop = model.preprocessor.featurizer.hop_length
        self._by_pieces = model.preprocessor.featurizer.normalize not in GLOBAL_NORMALIZATIONS

    def diarize(self, samples: Any) -> Diarization:
        """Who speaks when; turns may overlap. `samples`: float32 (n,), 16 kHz, n >= 1. Raises ValueError for what is
        too long for the model."""
        import torch

        if len(samples) // self._hop < 2:  # less than it makes a feature of
            return Diarization([])
        with torch.inference_mode():
            if self._model.streaming_mode and self._by_pieces:
                heard = self._in_pieces(samples)
            else:
                heard = self._at_once(samples)
        return Diarization(self._told(heard, len(samples) * 1000 // SAMPLE_RATE))

    def _at_once(self, samples: Any) -> Any:
        """The probabilities (frames, speakers) by NeMo's own forward."""
        if not self._model.streaming_mode and len(samples) > self._longest_s * SAMPLE_RATE:
            raise ValueError(
                f"this model looks at all of a recording at once, and {len(samples) // SAMPLE_RATE} s need too much "
                f"memory; take a streaming one, or --speaker-option longest_s=SECONDS"
            )
        sound, length = self._sound(samples)
        return self._model.forward(audio_signal=sound, audio_signal_length=length)[0].cpu()

    def _in_pieces(self, samples: Any) -> Any:
        """The same piece by piece, as NeMo's `forward_streaming`, but for features of one piece at a time."""
        import torch

        modules = self._model.sortformer_modules
        state = modules.init_streaming_state(1, self._model.async_streaming, self._model.device)
        frames, factor = len(samples) // self._hop, modules.subsampling_factor
        nothing = torch.zeros((1, 0, modules.n_spk), device=self._model.device)
        heard: List[Any] = []
        for start in range(0, frames, modules.chunk_len * factor):
            end = min(start + modules.chunk_len * factor, frames)
            left = min(modules.chunk_left_context * factor, start)
            right = min(modules.chunk_right_context * factor, frames - end)
            piece = self._features(samples, start - left, end + right)
            state, found = self._model.forward_streaming_step(
                processed_signal=piece,
                processed_signal_length=torch.tensor([piece.shape[1]], device=self._model.device),
                streaming_state=state,
                total_preds=nothing,
                left_offset=left,
                right_offset=right,
            )
            heard.append(found[0].cpu())
        return torch.cat(heard)

    def _features(self, samples: Any, start: int, end: int) -> Any:
        """Features (1, frames, bands) of the frames from `start` to `end`, as they are in the whole recording."""
        first = max(0, start - MARGIN)
        sound, length = self._sound(samples[first * self._hop : (end + MARGIN) * self._hop])
        features, _ = self._model.preprocessor(input_signal=sound, length=length)
        return features[:, :, start - first : end - first].transpose(1, 2)

    def _sound(self, samples: Any) -> Tuple[Any, Any]:
        import numpy as np
        import torch

        sound = torch.from_numpy(np.array(samples, np.float32))[None].to(self._model.device)
        return sound, torch.tensor([sound.shape[1]], device=self._model.device)

    def _told(self, heard: Any, length_ms: int) -> List[Turn]:
        """The turns in probabilities (frames, speakers), by NeMo's own rules."""
        from nemo.collections.asr.parts.utils.speaker_utils import generate_diarization_output_lines
        from nemo.collections.asr.parts.utils.vad_utils import ts_vad_post_processing

        factor = int(self._model.sortformer_modules.subsampling_factor)
        times = [
            [
                [round(start, 2), round(end, 2)]
                for start, end in ts_vad_post_processing(
                    heard[:, speaker], dict(self._turns), unit_10ms_frame_count=factor
                ).tolist()
            ]
            for speaker in range(heard.shape[1])
        ]
        return turns_of(generate_diarization_output_lines(times, len(times)), length_ms)


def turns_of(lines: Sequence[str], length_ms: int) -> List[Turn]:
    """Turns of NeMo's lines `START END speaker_N`, in seconds. Its last frame goes on after the recording's end: it is
    cut."""
    turns = []
    for line in lines:
        start, end, speaker = line.split()
        turn = Turn(round(float(start) * 1000), min(round(float(end) * 1000), length_ms), speaker)
        if turn.start_ms < turn.end_ms:
            turns.append(turn)
    return sorted(turns, key=lambda turn: (turn.start_ms, turn.end_ms, turn.speaker))
