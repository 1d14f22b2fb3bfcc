"""Trains the miniature from nothing, on speech made as it goes.

    python tools/miniature/train.py FOLDER [--minutes 100] [--width 128]     all stages
    python tools/miniature/train.py FOLDER --resume                          goes on with the next stage after a stop
    python tools/miniature/train.py FOLDER --start FILE --only whole --minutes 60  more of a stage

FOLDER gets the spoken sentences (corpus/), the checkpoint of each stage and train.log. Times are shares of --minutes,
so that a slower or faster machine ends with a worse or better model, not with another recipe. The stages:

1. the encoder alone, on short windows: the word of each frame. (From CTC it would stay long on a plateau.)
2. the decoder too, on windows of 8 s that lie anywhere in the 30, its attention guided to the word to be written
3. whole windows of 30 s of every filling, with the text before them
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from network import POSITIONS, Labels, Whisper, log_mel, mel_filters
from torch import Tensor
from torch.nn import functional
from windows import PHONES, UNLABELLED, WORD_LABELS, Compact, Filling, Maker, Window
from words import WORDS

from kuulo.miniature.vocabulary import Vocabulary

HEADS, LAYERS = 2, (4, 3)
SHARDS = 160
LANGUAGE = 4.0


@dataclass(frozen=True)
class Stage:
    """`share` of the time; `batch` windows a step; `rate` at its highest; weights of the losses."""

    name: str
    share: float
    batch: int
    rate: float
    filling: Filling
    decoder: bool = True
    frames: float = 1.0
    guide: float = 0.0
    anywhere: bool = False


SHORT = Filling(seconds=8, prompts=0.0, first_second=False)
STAGES = (
    Stage("frames", 0.15, 32, 2e-3, Filling(seconds=5, nothing=0.03, crowded=0.8), decoder=False, anywhere=True),
    Stage("short", 0.31, 24, 1.5e-3, SHORT, guide=1.0, anywhere=True),
    Stage("whole", 0.54, 6, 1e-3, Filling(), frames=0.5, guide=0.3),
)


class Batches(torch.utils.data.IterableDataset):
    """Batches of a stage, made in other processes."""

    def __init__(self, folder: Path, stage: Stage, compact: Compact, seed: int) -> None:
        self.folder, self.stage, self.compact, self.seed = folder, stage, compact, seed

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        maker = Maker(self.folder, SHARDS, self.compact, self.seed + (worker.id if worker else 0))
        filters = mel_filters()
        while True:
            windows = [maker.window(self.stage.filling) for _ in range(self.stage.batch)]
            yield collate(windows, self.compact, filters, self._offset(maker))

    def _offset(self, maker: Maker) -> int:
        """Where the windows lie in the 30 s, in encoder frames."""
        if not self.stage.anywhere or maker.random.random() < 0.3:
            return 0
        return maker.random.randint(0, POSITIONS - int(self.stage.filling.seconds * 50))


def collate(windows: list[Window], compact: Compact, filters: Tensor, offset: int) -> tuple[Any, ...]:
    """(mel, given, wanted, frame labels, spans, offset); times moved by `offset`."""
    mel = log_mel(torch.from_numpy(np.stack([window.samples for window in windows])), filters)
    length = max(len(window.given) for window in windows)
    given = torch.full((len(windows), length), compact.special("endoftext"))
    wanted = torch.full((len(windows), length), UNLABELLED)
    spans = torch.zeros(2, len(windows), length, 2)
    for row, window in enumerate(windows):
        given[row, : len(window.given)] = torch.tensor(window.given)
        wanted[row, : len(window.wanted)] = torch.tensor(window.wanted)
        spans[0, row, : len(window.own)] = torch.tensor(window.own)
        spans[1, row, : len(window.spans)] = torch.tensor(window.spans)
    for tokens in (given, wanted):
        tokens[tokens >= compact.times] = (tokens[tokens >= compact.times] + offset).clamp(max=compact.times + 1500)
    labels = torch.from_numpy(np.stack([[window.frames, window.phones] for window in windows]))
    return mel, given, wanted, labels, spans, offset


def guidance(looked: list[Tensor], spans: Tensor) -> Tensor:
    """How far the attention is from being even over the frames of the word in question (a cross entropy, nats).

    Every head of the last two layers looks at the word to be written next; the first head of the first layer finds
    the one written last. openai-whisper takes word times from all heads of the later half of the layers."""
    total = torch.zeros(())
    place = torch.arange(looked[0].shape[-1])
    for layer, scores in enumerate(looked):
        begin, end = spans[0 if layer == 0 else 1].unbind(-1)
        inside = (place >= begin[..., None]) & (place < end[..., None])
        count = inside.sum(-1)
        heads = scores[:, :1] if layer == 0 else scores
        away = -(heads.float().log_softmax(-1) * inside[:, None]).sum(-1) / count.clamp(min=1)[:, None]
        asked = (count > 0)[:, None].expand_as(away)
        total = total + away[asked].mean()
    return total / len(looked)


def token_loss(logits: Tensor, wanted: Tensor, compact: Compact) -> Tensor:
    """Cross entropy; a time that is one or two steps off is not all wrong (weights of a bell of 1.2 steps).

    The language, one token of a window, counts LANGUAGE times."""
    logits = logits.float()
    logits[..., compact.junk] += math.log(compact.others)
    asked = wanted != UNLABELLED
    chances = logits[asked].log_softmax(-1)
    wanted = wanted[asked]
    steps = torch.arange(-3, 4)
    bell = torch.exp(-0.5 * (steps / 1.2) ** 2)
    is_time = wanted >= compact.times
    near = (wanted[:, None] + steps).clamp(compact.times, compact.junk - 1)
    near = torch.where(is_time[:, None], near, wanted[:, None])
    weight = torch.ones(len(wanted))
    for language in WORDS:
        weight[wanted == compact.special(language)] = LANGUAGE
    return -((chances.gather(1, near) * (bell / bell.sum())).sum(1) * weight).sum() / weight.sum()


def train(
    folder: Path,
    minutes: float,
    width: int,
    seed: int,
    stages: tuple[Stage, ...] = STAGES,
    resume: bool = False,
    start: Path | None = None,
) -> Path:
    """The path of the last checkpoint. `start`: the weights' compact file, to go on from."""
    torch.manual_seed(seed)
    compact = Compact(Vocabulary())
    model = Whisper(width, HEADS, LAYERS, compact.junk + 1, compact.times)
    classify = Labels(width, PHONES, len(WORD_LABELS) + 1)
    if start is not None:
        model.load_state_dict(stored_state(start), strict=False)
    done: list[str] = []
    path = folder / "checkpoint.pt"
    if resume and path.exists():
        stored = torch.load(path, weights_only=True)
        model.load_state_dict(stored["model"])
        classify.load_state_dict(stored["classify"])
        done = stored["done"]
    with (folder / "train.log").open("a") as log:
        print(f"{sum(p.numel() for p in model.parameters())} parameters, {compact.junk} tokens", file=log, flush=True)
        for number, stage in enumerate(stages):
            if stage.name in done:
                continue
            run_stage(model, classify, compact, folder, stage, minutes * stage.share, seed + 100 * number, log)
            done.append(stage.name)
            save(path, model, classify, done)
    return path


def stored_state(path: Path) -> dict[str, Tensor]:
    """The tensors in a compact file (see compact.py), as `network.Whisper` has them."""
    with np.load(path) as stored:
        names = [name for name in stored.files if name.startswith(("encoder.", "decoder."))]
        return {name: torch.from_numpy(stored[name].astype(np.float32)) for name in names}


def run_stage(
    model: Whisper,
    classify: Labels,
    compact: Compact,
    folder: Path,
    stage: Stage,
    minutes: float,
    seed: int,
    log: Any,
) -> None:
    parameters = [*model.parameters(), *classify.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.01)
    batches = torch.utils.data.DataLoader(
        Batches(folder / "corpus", stage, compact, seed), batch_size=None, num_workers=1, prefetch_factor=4
    )
    sums = np.zeros(5)
    started = saved = time.monotonic()
    for step, (mel, given, wanted, labels, spans, offset) in enumerate(batches):
        elapsed = (time.monotonic() - started) / 60 / minutes
        if elapsed >= 1:
            break
        rate = stage.rate * min(1, (step + 1) / 200) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * elapsed)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            audio, half = model.encoder(mel, offset)
            logits, looked = model.decoder(given, audio) if stage.decoder else (None, None)
        heard, phones = classify(audio, half)
        words, sounds = labels.unbind(1)
        frame_loss = functional.cross_entropy(heard.flatten(0, 1), words.flatten(), ignore_index=UNLABELLED)
        phone_loss = functional.cross_entropy(phones.flatten(0, 1), sounds.flatten(), ignore_index=UNLABELLED)
        loss = stage.frames * (frame_loss + phone_loss)
        text_loss = guide_loss = torch.zeros(())
        if logits is not None and looked is not None:
            text_loss = token_loss(logits, wanted, compact)
            guide_loss = guidance(looked, spans)
            loss = loss + text_loss + stage.guide * guide_loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            asked = words > 0
            right = ((heard.argmax(-1) == words) & asked).sum() / asked.sum().clamp(min=1)
            losses = (text_loss, frame_loss, phone_loss, guide_loss)
            sums += [*(loss.item() for loss in losses), right.item()]
        if step % 50 == 49:
            minute = (time.monotonic() - started) / 60
            text, frame, phone, guide, word = sums / 50
            speed = (step + 1) * stage.batch / minute / 60
            report = f"{stage.name} {minute:.1f} min step {step + 1} text {text:.3f} frames {frame:.3f}"
            report += f" phones {phone:.3f} guide {guide:.3f}"
            print(f"{report} words right {word:.3f} rate {rate:.1e} windows/s {speed:.1f}", file=log, flush=True)
            sums[:] = 0
        if time.monotonic() - saved > 240:
            save(folder / "partial.pt", model, classify, [])
            saved = time.monotonic()


def save(path: Path, model: Whisper, classify: Labels, done: list[str]) -> None:
    staged = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "classify": classify.state_dict(), "done": done}, staged)
    staged.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--start", type=Path, help="go on from the weights in this compact file")
    parser.add_argument("--only", choices=[stage.name for stage in STAGES], help="this stage alone")
    parser.add_argument("--stages", type=json.loads, default={}, help='{"whole": {"share": 1.0}} changes a stage')
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    stages = tuple(replace(stage, **given.stages.get(stage.name, {})) for stage in STAGES)
    if given.only:
        stages = tuple(replace(stage, share=1.0) for stage in stages if stage.name == given.only)
    train(given.folder, given.minutes, given.width, given.seed, stages, given.resume, given.start)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
