"""CTranslate2's Whisper for several threads at a time: what they ask of it at once becomes one batch.

Parses on Python 3.9; imports CTranslate2 inside functions.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Hashable, List, Optional, Sequence


class _Encoded:
    """One recording's window as the encoder left it: row `row` of a batch's output."""

    def __init__(self, batch: Any, row: int, rows: int) -> None:
        self.batch, self.row, self.rows = batch, row, rows


class _Request:
    def __init__(self, kind: str, key: Hashable, payload: Any) -> None:
        self.kind, self.key, self.payload = kind, key, payload
        self.answer: Any = None
        self.error: Optional[BaseException] = None
        self.finished = False


class Batcher:
    """Stands in for `ctranslate2.models.Whisper`: calls from several threads become batches.

    When every thread that takes part waits for an answer, the last to come runs what is asked, equal calls
    together. Decoding is run when nothing else is asked, so that its batches are as large as they can be."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._turn = threading.Condition()
        self._taking_part = 0
        self._waiting: List[_Request] = []
        self._running = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def taking_part(self) -> Any:
        """A context in which this thread's calls are waited for by the others."""
        return _TakingPart(self)

    def count(self, change: int) -> None:
        with self._turn:
            self._taking_part += change
            self._turn.notify_all()

    # What faster-whisper calls, with the same arguments and answers.

    def encode(self, features: Any, to_cpu: bool = False) -> Any:
        return self._ask("encode", to_cpu, features)

    def detect_language(self, features: Any) -> Any:
        return [self._ask("detect_language", None, features)]

    def generate(self, features: Any, prompts: List[List[int]], **options: Any) -> Any:
        prompt = prompts[0]
        # CTranslate2 wants the prompts of a batch to be of one length with the start token at one place.
        key = (
            len(prompt),
            tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(options.items())),
        )
        return [self._ask("generate", key, (features, prompt, options))]

    def align(self, features: Any, start: Sequence[int], tokens: List[List[int]], frames: int, **options: Any) -> Any:
        key = (tuple(start), tuple(sorted(options.items())))
        return [self._ask("align", key, (features, list(start), tokens[0], frames, options))]

    def _ask(self, kind: str, key: Hashable, payload: Any) -> Any:
        request = _Request(kind, key, payload)
        with self._turn:
            self._waiting.append(request)
            self._turn.notify_all()
            while not request.finished:
                if not self._running and len(self._waiting) >= self._taking_part:
                    self._run_some()
                else:
                    self._turn.wait()
        if request.error is not None:
            raise request.error
        return request.answer

    def _run_some(self) -> None:
        """Run what waits (decoding only if nothing else does), with the lock given up meanwhile."""
        quick = [r for r in self._waiting if r.kind != "generate"]
        work = quick or self._waiting
        self._waiting = [r for r in self._waiting if r not in work]
        self._running = True
        self._turn.release()
        try:
            groups: Dict[Hashable, List[_Request]] = {}
            for request in work:
                groups.setdefault((request.kind, request.key), []).append(request)
            for group in groups.values():
                self._run(group)
        finally:
            self._turn.acquire()
            self._running = False
            self._turn.notify_all()

    def _run(self, group: List[_Request]) -> None:
        run: Callable[[List[Any]], List[Any]] = getattr(self, "_" + group[0].kind)
        try:
            answers = run([r.payload for r in group])
            for request, answer in zip(group, answers):
                request.answer = answer
        except Exception as error:  # every thread that asked gets it, as it would alone
            for request in group:
                request.error = error
        for request in group:
            request.finished = True

    def _encode(self, windows: List[Any]) -> List[Any]:
        # A batch of windows is no faster to encode on a CPU and takes more memory.
        if self._model.device == "cpu" or len(windows) == 1:
            return [_Encoded(self._model.encode(w), 0, 1) for w in windows]
        batch = self._model.encode(_stack(windows))
        return [_Encoded(batch, row, len(windows)) for row in range(len(windows))]

    def _detect_language(self, encoded: List[_Encoded]) -> List[Any]:
        return list(self._model.detect_language(_join(encoded)))

    def _generate(self, calls: List[Any]) -> List[Any]:
        encoded, prompts, options = [c[0] for c in calls], [c[1] for c in calls], calls[0][2]
        return list(self._model.generate(_join(encoded), prompts, **options))

    def _align(self, calls: List[Any]) -> List[Any]:
        encoded, start, options = [c[0] for c in calls], calls[0][1], calls[0][4]
        return list(self._model.align(_join(encoded), start, [c[2] for c in calls], [c[3] for c in calls], **options))


class _TakingPart:
    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def __enter__(self) -> None:
        self._batcher.count(1)

    def __exit__(self, *_: object) -> None:
        self._batcher.count(-1)


def _stack(views: Sequence[Any]) -> Any:
    """Storage views of shape (1, ...) as one of shape (n, ...)."""
    import ctranslate2
    import numpy as np

    return ctranslate2.StorageView.from_array(np.concatenate([np.asarray(v) for v in views]))


def _join(encoded: Sequence[_Encoded]) -> Any:
    """The rows as one batch; nothing is copied when they are a whole batch already."""
    import ctranslate2
    import numpy as np

    first = encoded[0]
    if len(encoded) == first.rows and all(e.batch is first.batch and e.row == i for i, e in enumerate(encoded)):
        return first.batch
    hosts: Dict[int, Any] = {}
    for e in encoded:
        if id(e.batch) not in hosts:
            view = e.batch if e.batch.device == "cpu" else e.batch.to_device(ctranslate2.Device.cpu)
            hosts[id(e.batch)] = np.asarray(view.to(ctranslate2.DataType.float32))
    rows = [hosts[id(e.batch)][e.row : e.row + 1] for e in encoded]
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.concatenate(rows)))
