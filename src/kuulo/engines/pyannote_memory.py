"""What pyannote.audio 4 does with a whole recording at once, in less memory, with the same results.

- `linkage`: SciPy's has the distances of all n pieces of speech from each other, 8 n^2 bytes. fastcluster's
  `linkage_vector` reckons each one when it is looked at, and has the n pieces alone. For centroids, by which published
  pipelines cluster, it makes the same tree but for the last digits of the heights, in two to three times the time.
- `get_embeddings` copies the scores of all windows as float64, and `reconstruct` does for each speaker. Here the first
  is asked for some hundred windows at a time, and the second's are made one by one while they are added up.
- Scores that are 0 and 1 alone need no float32: `shrink`.

pyannote.audio has no setting for any of it. Its functions are replaced only where they are, word for word, those that
this was written for; otherwise they stay, and a warning says so. Parses on Python 3.9; imports what it needs inside
functions.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import textwrap
import warnings
from types import MethodType, SimpleNamespace
from typing import Any, Iterator, Tuple

METHODS = {
    "get_embeddings": "19803508237b708a024fc84dd84ddad31fed38cbae26eb6ee2807793f27daa84",
    "reconstruct": "69ca7aee52e019c645cd52d9fb21c6480b777c003cfdb787de6c77a1227b57c5",
}
"""Of SpeakerDiarization in pyannote.audio 4.0.7: SHA-256 of the source, less its indentation."""
ALL_PAIRS = ("AgglomerativeClustering", "VBxClustering")
"""Ways to cluster that call `linkage`: all but KMeans, and the oracle's, which nobody can have here."""
WINDOWS = 512
"""Whose voices are asked for at once, about: their scores are copied, 11 MB for three speakers."""
NOBODY = -2
"""In the place of a cluster: a window's speaker who never speaks."""


def bound(pipeline: Any) -> bool:
    """Changes a loaded pipeline. True where its clustering has the distances of all pairs all the same: by another
    method than centroids, without fastcluster, or in a version of pyannote.audio that is not known."""
    for name, ours in (("get_embeddings", get_embeddings), ("reconstruct", reconstruct)):
        if digest(getattr(type(pipeline), name, None)) == METHODS[name]:
            setattr(pipeline, name, MethodType(ours, pipeline))
        else:
            warnings.warn(f"This pyannote.audio has another {name}: it stays, and takes more memory.", stacklevel=2)
    if pipeline.klustering not in ALL_PAIRS:
        return False
    centroids = pipeline.klustering == "VBxClustering" or pipeline.clustering.method == "centroid"
    return not (centroids and linkage_of_vectors())


def shrink(scores: Any) -> None:
    """Makes a quarter of the scores of all windows (`data`: windows, frames, speakers, float32) where they are 0 and 1
    alone, as those of segmentation 3.0 and later: what pyannote.audio sums and multiplies of them stays the same."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        small = scores.data.astype(np.uint8)
    if np.array_equal(small, scores.data):
        scores.data = small


def digest(function: Any) -> str:
    """SHA-256 of a function's source, less its indentation; empty where there is none."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()


def linkage_of_vectors() -> bool:
    """Has pyannote.audio cluster without all pairs, in this process; whether it does."""
    from pyannote.audio.pipelines import clustering
    from scipy.cluster import hierarchy

    used = getattr(clustering, "linkage", None)
    if used is linkage:
        return True
    if used is not hierarchy.linkage:
        warnings.warn("This pyannote.audio does not cluster by SciPy's linkage: it stays as it is.", stacklevel=3)
        return False
    if importlib.util.find_spec("fastcluster") is None:
        warnings.warn("fastcluster is not installed: clustering has the distances of all pairs.", stacklevel=3)
        return False
    clustering.linkage = linkage
    return True


def linkage(rows: Any, method: str = "single", metric: str = "euclidean") -> Any:
    """As scipy.cluster.hierarchy.linkage of rows (n, d), n >= 2: the tree (n - 1, 4), in each step two nodes, their
    distance, and how many rows they have. By centroids in memory of n d numbers.

    Of distances that are equal to the last digit another may come first. Where rows are the same, the groups are too,
    in another order; where different rows are equally far apart, centroids have more than one answer.
    Raises ValueError where something is not finite, as SciPy's.
    Source: D. Müllner, fastcluster, Journal of Statistical Software 53(9), 2013.
    """
    import fastcluster
    import numpy as np
    from scipy.cluster import hierarchy

    if method != "centroid" or metric != "euclidean":
        return hierarchy.linkage(rows, method=method, metric=metric)
    if not np.isfinite(rows).all():
        raise ValueError("some voices are not finite numbers")
    return fastcluster.linkage_vector(rows, method=method, metric=metric)


def get_embeddings(
    self: Any, file: Any, binary_segmentations: Any, exclude_overlap: bool = False, hook: Any = None
) -> Any:
    """As SpeakerDiarization.get_embeddings, in pieces of whole batches: a network is given the same batches."""
    import numpy as np
    from pyannote.core import SlidingWindowFeature

    heard, window = binary_segmentations.data, binary_segmentations.sliding_window
    at_once = self.embedding_batch_size * max(1, WINDOWS // self.embedding_batch_size)
    made: Any = None
    for first in range(0, len(heard), at_once):
        piece = SlidingWindowFeature(heard[first : first + at_once], Later(window, first))
        voices = type(self).get_embeddings(self, file, piece, exclude_overlap=exclude_overlap, hook=hook)
        if made is None:
            made = np.empty((len(heard), *voices.shape[1:]), voices.dtype)
        made[first : first + at_once] = voices
    return made


class Later:
    """A sliding window from its number `first` on, with the same times to the last digit."""

    def __init__(self, window: Any, first: int) -> None:
        self._window, self._first = window, first
        self.duration, self.step = window.duration, window.step

    def __getitem__(self, number: int) -> Any:
        return self._window[self._first + number]


def reconstruct(self: Any, segmentations: Any, hard_clusters: Any, count: Any) -> Any:
    """As SpeakerDiarization.reconstruct."""
    return self.to_diarization(ByCluster(segmentations, hard_clusters), count)


class ByCluster:
    """Scores by cluster (windows, frames, clusters), as pyannote.audio's SlidingWindowFeature of them. A window's are
    made when it is asked for: the most that its speakers in a cluster have, and not a number for other clusters."""

    def __init__(self, segmentations: Any, clusters: Any) -> None:
        self._heard, self._clusters = segmentations, clusters
        windows, frames, _ = segmentations.data.shape
        self.sliding_window = segmentations.sliding_window
        self.data = SimpleNamespace(shape=(windows, frames, int(clusters.max()) + 1))

    def __iter__(self) -> Iterator[Tuple[Any, Any]]:
        import numpy as np

        for clusters, (chunk, heard) in zip(self._clusters, self._heard):
            made = np.full(self.data.shape[1:], np.nan)
            for cluster in np.unique(clusters):
                if cluster != NOBODY:
                    made[:, cluster] = heard[:, clusters == cluster].max(axis=1)
            yield chunk, made
