"""What the engine pyannote does in less memory than pyannote.audio, against pyannote.audio's own and SciPy's.

Most of it needs pyannote.audio and fastcluster, which are in an environment of their own: the first lines of
docs/engines/speakers.md, "Run for this page"."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import speaker_models
from kuulo.engines import pyannote, pyannote_memory
from kuulo.engines.base import Unusable
from kuulo.wire import Task

SOURCES = Path(pyannote_memory.__file__).resolve().parents[2]
FIELD, SHIFT = 991, 270
"""Samples that a frame of PyanNet sees, and from one to the next."""
STEP = 0.1
"""A class's number (nobody, 1, 2, 3, 1+2, 1+3, 2+3) -> a sample's value."""


# ---------------------------------------------------------------------- the tree of centroids


def voices(number: int, speakers: int, spread: float, size: int = 32) -> Any:
    """Unit vectors (number, size) around as many directions as there are speakers."""
    random = np.random.default_rng(number)
    made = random.normal(size=(speakers, size))[random.integers(speakers, size=number)]
    made = made + spread * random.normal(size=made.shape)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def heights(tree: Any) -> list[float]:
    """Where a tree may be cut: between any two of its heights, under and over all, and where community-1 cuts it."""
    ends = np.unique(np.concatenate([[0.0], tree[:, 2], [tree[:, 2].max() + 1]]))
    ends = ends[np.concatenate([[True], np.diff(ends) > 1e-7])]  # those of the same rows are 0 but for rounding
    middles = (ends[1:] + ends[:-1]) / 2
    return [0.6, *middles[:: max(1, len(middles) // 20)]]


def groups(labels: Any) -> Any:
    """For each row the first row of its group: the same for the same groups, whatever their numbers are."""
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    return first[group]


@pytest.mark.parametrize("spread", [0.01, 0.5, 10.0])
@pytest.mark.parametrize("number", [2, 3, 4, 10, 100, 600])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_tree_is_scipys(number: int, spread: float, kind: type) -> None:
    """The same nodes in the same order, so that flat clusters have the same numbers too."""
    pytest.importorskip("fastcluster")
    from scipy.cluster.hierarchy import fcluster, linkage

    rows = voices(number, 3, spread).astype(kind)
    kept = rows.copy()
    ours, theirs = pyannote_memory.linkage(rows, method="centroid"), linkage(rows, method="centroid")
    assert np.array_equal(rows, kept)
    assert np.array_equal(ours[:, [0, 1, 3]], theirs[:, [0, 1, 3]])
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=1e-10, atol=1e-12)
    for height in heights(theirs):
        assert np.array_equal(fcluster(ours, height, "distance"), fcluster(theirs, height, "distance"))


@pytest.mark.parametrize(("number", "times"), [(1, 2), (1, 50), (2, 3), (10, 2), (100, 7), (300, 3)])
def test_the_same_row_again_is_in_the_same_group(number: int, times: int) -> None:
    """Which of the same rows comes first may differ, and the groups' numbers with it."""
    pytest.importorskip("fastcluster")
    from scipy.cluster.hierarchy import fcluster, linkage

    rows = np.repeat(voices(number, 3, 0.5), times, axis=0)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    ours, theirs = pyannote_memory.linkage(rows, method="centroid"), linkage(rows, method="centroid")
    np.testing.assert_allclose(np.sort(ours[:, 2]), np.sort(theirs[:, 2]), rtol=1e-10, atol=1e-7)
    for height in heights(theirs):
        assert np.array_equal(groups(fcluster(ours, height, "distance")), groups(fcluster(theirs, height, "distance")))


def test_other_trees_are_scipys_own() -> None:
    pytest.importorskip("fastcluster")
    from scipy.cluster.hierarchy import linkage

    rows = voices(50, 3, 0.5)
    for method, metric in (("average", "cosine"), ("ward", "euclidean"), ("single", "euclidean")):
        assert np.array_equal(
            pyannote_memory.linkage(rows, method=method, metric=metric), linkage(rows, method, metric)
        )
    for value in (np.nan, np.inf):
        rows[7, 3] = value
        for function in (pyannote_memory.linkage, linkage):
            with pytest.raises(ValueError, match="finite"):
                function(rows, method="centroid")


def test_a_tree_takes_no_memory_for_all_pairs() -> None:
    """In a process of its own, since it is the most that one ever had: 8 bytes for each of 8000^2 would be 512 MB."""
    pytest.importorskip("fastcluster")
    code = (
        "import resource, scipy.cluster.hierarchy, numpy as np\n"
        "from kuulo.engines import pyannote_memory\n"
        "rows = np.random.default_rng(0).normal(size=(8_000, 4))\n"
        "pyannote_memory.linkage(rows[:10], method='centroid')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pyannote_memory.linkage(rows, method='centroid')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 32 << 20


# ---------------------------------------------------------------------- scores


def test_scores_are_kept_small_where_nothing_is_lost() -> None:
    heard = np.random.default_rng(0).integers(0, 2, size=(20, 30, 3)).astype(np.float32)
    scores = SimpleNamespace(data=heard)
    pyannote_memory.shrink(scores)
    assert scores.data.nbytes * 4 == heard.nbytes and np.array_equal(scores.data, heard)
    for value in (0.5, -1.0, 256.0, np.nan, np.inf):
        other = heard.copy()
        other[3, 4, 1] = value
        scores = SimpleNamespace(data=other)
        pyannote_memory.shrink(scores)
        assert scores.data is other


# ---------------------------------------------------------------------- pyannote itself, where it is installed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyannote.audio", reason="pyannote.audio is in an environment of its own")
    pytest.importorskip("fastcluster")
    return speaker_models.pyannote_folder(tmp_path_factory.mktemp("pyannote"), steps=0)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Any]:
    """pyannote.audio's module of clustering as it was imported, and so again after the test."""
    from pyannote.audio.pipelines import clustering
    from scipy.cluster import hierarchy

    monkeypatch.setattr(clustering, "linkage", hierarchy.linkage)
    yield clustering


def session(folder: Path, raw: dict[str, Any] | None = None) -> Any:
    return pyannote.load(Task("diarize", "pyannote", "tones", str(folder), {"device": "cpu"}, raw or {}))


def hearing(pipeline: Any) -> Any:
    """Replaces what its networks find out, which takes long, by what the samples of a recording say: who speaks, and
    how he sounds, a little different each time."""
    import torch

    sounds = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))

    def segment(sound: Any) -> Any:
        heard = (sound[:, 0, FIELD // 2 : -(FIELD // 2) : SHIFT] / STEP).round().long()
        return torch.nn.functional.one_hot(heard, 7).float().log()

    def embed(sound: Any, weights: Any = None) -> Any:
        heard = (sound[:, 0, FIELD // 2 : -(FIELD // 2) : SHIFT] / STEP).round().long()
        spoken = torch.nn.functional.one_hot(heard, 7).float()[:, : weights.shape[1], 1:4]
        noise = torch.randn(len(sound), 16, generator=torch.Generator().manual_seed(int(weights.sum())))
        return (spoken * weights[:, : spoken.shape[1], None]).sum(1) @ sounds / 100 + 0.3 * noise

    pipeline._segmentation.model.forward, pipeline._embedding.model_.forward = segment, embed
    return pipeline


def talk(seconds: int) -> Any:
    """Samples: turns of 1 to 8 s by three speakers, some of them at once."""
    random = np.random.default_rng(seconds)
    turns = [np.full(int(random.uniform(1, 8) * 16_000), STEP * random.integers(7)) for _ in range(seconds)]
    return np.concatenate(turns)[: seconds * 16_000].astype(np.float32)


def outcome(pipeline: Any, **options: Any) -> tuple[Any, list[str], dict[str, Any]]:
    """What a pipeline says, and what it has made on the way."""
    made: dict[str, Any] = {}
    samples = pytest.importorskip("torch").from_numpy(talk(90))
    output = pipeline(
        {"waveform": samples[None], "sample_rate": 16_000, "uri": "x"},
        hook=lambda step, what, **_: made.update({step: what.data if hasattr(what, "sliding_window") else what}),
        **options,
    )
    tracks = [str(track) for track in output.speaker_diarization.itertracks(yield_label=True)]
    tracks += [str(track) for track in output.exclusive_speaker_diarization.itertracks(yield_label=True)]
    return output, tracks, made


@pytest.mark.parametrize(
    ("batch", "options"), [(1, {}), (3, {"num_speakers": 1}), (5, {"num_speakers": 2}), (2, {"max_speakers": 2})]
)
@pytest.mark.parametrize("clustering", ["VBxClustering", "AgglomerativeClustering"])
def test_a_pipeline_says_the_same_as_without(
    clustering: str, options: dict[str, int], batch: int, folder: Path, apart: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: turns, voices, and scores on the way. In several pieces, the last one shorter."""
    from pyannote.audio import Pipeline

    session(folder)  # settles how checkpoints are read
    apart.linkage = pytest.importorskip("scipy.cluster.hierarchy").linkage
    monkeypatch.setattr(pyannote_memory, "WINDOWS", 4)
    plain, bound = hearing(Pipeline.from_pretrained(folder)), hearing(Pipeline.from_pretrained(folder))
    for pipeline in (plain, bound):
        if clustering == "AgglomerativeClustering":
            pipeline.klustering, pipeline.clustering = clustering, apart.AgglomerativeClustering(metric="cosine")
            pipeline.instantiate({
                "segmentation": {"min_duration_off": 0.0},
                "clustering": {"method": "centroid", "threshold": 0.7, "min_cluster_size": 2},
            })  # fmt: skip
        pipeline.embedding_batch_size = batch
    expected, tracks, made = outcome(plain, **options)
    assert pyannote_memory.bound(bound) is False and apart.linkage is pyannote_memory.linkage
    seen, ours, ours_made = outcome(bound, **options)
    assert ours == tracks and len(tracks) > 4
    assert np.array_equal(seen.speaker_embeddings, expected.speaker_embeddings)
    assert made.keys() == ours_made.keys() >= {"embeddings", "discrete_diarization"}
    for step in ("embeddings", "discrete_diarization", "speaker_counting", "segmentation"):
        assert ours_made[step].dtype == made[step].dtype and np.array_equal(ours_made[step], made[step]), step
    assert len(made["embeddings"]) > 20


def test_small_scores_change_nothing(folder: Path) -> None:
    pipeline = hearing(session(folder)._pipeline)
    expected, tracks, made = outcome(pipeline)
    assert made["segmentation"].dtype == np.float32
    torch = pytest.importorskip("torch")
    sound = {"waveform": torch.from_numpy(talk(90))[None], "sample_rate": 16_000, "uri": "x"}
    kinds: list[Any] = []

    def hook(step: str, what: Any, **_: Any) -> None:
        if step == "segmentation" and what is not None:
            pyannote_memory.shrink(what)
            kinds.append(what.data.dtype)

    seen = pipeline(sound, hook=hook)
    ours = [str(track) for track in seen.speaker_diarization.itertracks(yield_label=True)]
    ours += [str(track) for track in seen.exclusive_speaker_diarization.itertracks(yield_label=True)]
    assert kinds == [np.uint8] and ours == tracks
    assert np.array_equal(seen.speaker_embeddings, expected.speaker_embeddings)


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("name", ["VBxClustering", "AgglomerativeClustering"])
def test_one_piece_of_speech_and_two(pieces: int, name: str, folder: Path, apart: Any) -> None:
    from pyannote.core import SlidingWindow, SlidingWindowFeature

    pipeline = session(folder)._pipeline
    clustering = pipeline.clustering
    if name == "AgglomerativeClustering":
        clustering = apart.AgglomerativeClustering(metric="cosine")
        clustering.instantiate({"method": "centroid", "threshold": 0.7, "min_cluster_size": 1})
    heard = np.zeros((pieces, 20, 3), np.float32)
    heard[:, :, 0] = 1
    scores = SlidingWindowFeature(heard, SlidingWindow(10, 1))
    rows = np.random.default_rng(1).normal(size=(pieces, 3, 16))

    def labels() -> Any:
        return clustering(embeddings=rows.copy(), segmentations=scores, min_clusters=1, max_clusters=9)[0]

    assert apart.linkage is pyannote_memory.linkage
    ours = labels()
    apart.linkage = pytest.importorskip("scipy.cluster.hierarchy").linkage
    assert np.array_equal(ours, labels())


def test_another_pyannote_stays_as_it_is_and_says_so(folder: Path, apart: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other, pytest.warns(UserWarning, match="another reconstruct"):
        other.setitem(pyannote_memory.METHODS, "reconstruct", "0" * 64)
        made = session(folder)
    assert "reconstruct" not in vars(made._pipeline) and "get_embeddings" in vars(made._pipeline)
    assert not made._all_pairs
    another = lambda rows, method, metric: None  # noqa: E731
    apart.linkage = another
    with pytest.warns(UserWarning, match="does not cluster by SciPy's"):
        assert session(folder)._all_pairs
    assert apart.linkage is another
    monkeypatch.delattr(apart, "linkage")
    with pytest.warns(UserWarning, match="does not cluster by SciPy's"):
        assert session(folder)._all_pairs


def test_without_fastcluster_all_pairs_are_refused_where_they_do_not_fit(
    folder: Path, apart: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    samples, many = talk(120), {"segmentation_step": "0.01"}
    made = session(folder, many)
    hearing(made._pipeline)
    assert made.diarize(samples).turns, "nothing is compared with all"
    apart.linkage = pytest.importorskip("scipy.cluster.hierarchy").linkage
    find = pyannote_memory.importlib.util.find_spec
    hidden = lambda name, *more: None if name == "fastcluster" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(pyannote_memory.importlib.util, "find_spec", hidden)
    with pytest.warns(UserWarning, match="fastcluster is not installed"):
        made = session(folder, many)
    hearing(made._pipeline)
    with pytest.raises(Unusable, match="too much speech"):
        made.diarize(samples)
    with pytest.warns(UserWarning, match="fastcluster is not installed"):
        made = session(folder, {"segmentation_step": 0.5})
    hearing(made._pipeline)
    assert made.diarize(samples).turns


def test_other_ways_to_cluster_have_all_pairs(folder: Path, apart: Any) -> None:
    pipeline = session(folder)._pipeline
    for name, method, all_pairs in (
        ("AgglomerativeClustering", "average", True),
        ("AgglomerativeClustering", "centroid", False),
        ("KMeansClustering", None, False),
    ):
        pipeline.klustering, pipeline.clustering = name, SimpleNamespace(method=method)
        assert pyannote_memory.bound(pipeline) is all_pairs
