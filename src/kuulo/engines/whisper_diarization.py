"""whisper-diarization: `diarize.py`, faster-whisper with an aligner and NeMo's speakers.

It is a repository and no package: the user clones it and says where it is. Beside the recording it writes a .srt, a
sentence each with its speaker, which is read here. What it is made of was read in its code of July 2025 (diarize.py,
helpers.py, diarization/msdd/msdd.py), which was run. Parses on Python 3.9.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

from kuulo.engines import programs
from kuulo.engines.base import (
    AUDIO,
    SAMPLE_RATE,
    CommandLine,
    EngineSpec,
    Language,
    Native,
    Progress,
    Said,
    Session,
    Unusable,
)
from kuulo.engines.programs import Failed
from kuulo.engines.whisper_text import check_raw, milliseconds, refuse_by_model, split_device, torch_device
from kuulo.transcript import Segment
from kuulo.wire import Task

BEAM = 5
FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

SPEC = EngineSpec(
    name="whisper-diarization",
    summary="faster-whisper, an aligner, punctuation and NeMo's speakers, as a program: sentences with speakers.",
    url="https://github.com/MahmoudAshraf97/whisper-diarization",
    licence="BSD-2-Clause; its aligner CC-BY-NC-4.0",
    package="nemo-toolkit",
    module="nemo",
    install="'nemo_toolkit[asr]>=2.3,<3' 'faster-whisper>=1.1' nltk "
    "git+https://github.com/oliverguhr/deepmultilingualpunctuation.git "
    "git+https://github.com/MahmoudAshraf97/ctc-forced-aligner.git",
    tasks=("transcribe",),
    devices=("cpu", "cuda"),
    model_formats=("ct2",),
    kind="program",
    packages=(
        "faster-whisper",
        "ctranslate2",
        "torch",
        "transformers",
        "ctc-forced-aligner",
        "deepmultilingualpunctuation",
        "numpy",
    ),
    options={
        "language": Native("--language", "auto: faster-whisper finds it, and the program does not write which"),
        "task": Native("", "transcribe alone"),
        "beam_size": Native("", "5, always"),
        "temperature": Native("", "0 to 1 in steps of 0.2; above --batch-size 1: 0 alone"),
        "condition_on_previous_text": Native("", "with --batch-size 1 always, above it never"),
        "batch_size": Native("--batch-size", "1 is said as 0: one window after the other; its own default is 8"),
        "compute_type": Native("", "int8 on a CPU, float16 on a GPU, always"),
        "device": Native("--device", "cpu or cuda"),
    },
    differs=(
        "its own default model is medium.en, which knows English alone; Kuulo always names one",
        "speakers are always told apart, at most 8, and how many cannot be said",
        "segments are sentences, cut where the speaker changes; it has times of words and does not write them",
        "it adds full stops, question and exclamation marks in 12 languages, by a model of its own",
        "voices are not separated from music (--no-stem) but with --engine-option stemming=true",
        "speech detection is always on",
        "its other models (NeMo's, the aligner, punctuation) have to be in caches that the engine options name",
        "the program is started, and all models loaded, for each recording",
    ),
    files=("hf_home", "nemo_cache", "repository", "torch_home"),
    # The safe value in the source of AaltoRSE/speech2text, with speakers.
    speeds={"cuda": 15},
)

VARIABLE = "KUULO_WHISPER_DIARIZATION"
SCRIPT = "diarize.py"
RAW = ("hf_home", "nemo_cache", "repository", "stemming", "suppress_numerals", "torch_home")

CLONE = (
    "git clone https://github.com/MahmoudAshraf97/whisper-diarization, then say where it is with --engine-option "
    f"repository=FOLDER or {VARIABLE}"
)
MODULES = {
    "ctc_forced_aligner": ("alignment_utils.py", "get_alignments", "MahmoudAshraf97/ctc-forced-aligner"),
    "deepmultilingualpunctuation": ("punctuationmodel.py", "chunk_size", "oliverguhr/deepmultilingualpunctuation"),
}
STEMMING = {"demucs": ("separate.py", "", "MahmoudAshraf97/demucs")}
"""Modules that its script imports: a file of each, a word that has to be in it, and the repository that it is from. The
package index has another ctc-forced-aligner, and a deepmultilingualpunctuation that is older under the same version."""

ALIGNER = "MahmoudAshraf/mms-300m-1130-forced-aligner"
PUNCTUATION = "kredor/punctuate-all"
SEPARATOR = "955717e8-8726e21a.th"
"""demucs's model htdemucs (its remote/files.txt), which it loads with torch.hub."""

PUNCTUATED = ("bg", "cs", "de", "en", "es", "fr", "it", "nl", "pl", "pt", "sk", "sl")
"""Languages for which it loads the model of punctuation (helpers.py, punct_model_langs)."""

NEMO = {"vad_multilingual_marblenet": "classification_models.py", "diar_msdd_telephonic": "msdd_models.py"}
"""NeMo's models that it loads, and where in NeMo's `collections/asr/models` their addresses are. The speaker model that
its settings name too, titanet_large, is not loaded: the one inside diar_msdd_telephonic is."""

FETCH = "run diarize.py once by hand where there is a network: see docs/engines/whisper-diarization.md"

SILENT = "AssertionError: Empty transcript"
"""What ctc-forced-aligner says when faster-whisper heard nothing."""

UNPUNCTUATED = re.compile(r"Punctuation restoration is not available for (\w+) language")
"""The one place where the program says which language it found."""

NO_SPEECH = "All files present in manifest contains silence"
"""What NeMo says when its speech detection heard none; the program then ends, whatever faster-whisper heard."""

NOT_SEPARATED = "Source splitting failed"
CUE = re.compile(
    r"(?m)^\d+\n(\d+):(\d\d):(\d\d),(\d{3}) --> (\d+):(\d\d):(\d\d),(\d{3})\nSpeaker (\d+): ?(.*)$"
)  # helpers.py, write_srt


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """What is fixed in its code, and what the model does not know."""
    refused = refuse_by_model(options)
    batched = int(options.get("batch_size") or 1) > 1
    if options.get("task") == "translate":
        refused["task"] = "it has no translation"
    if options.get("beam_size") not in (None, BEAM):
        refused["beam_size"] = f"it is {BEAM} in the program"
    temperatures = tuple(options.get("temperature") or ())
    if temperatures and temperatures != ((0.0,) if batched else FALLBACK):
        fixed = "0 with --batch-size above 1" if batched else "0,0.2,0.4,0.6,0.8,1 with --batch-size 1"
        refused["temperature"] = f"it is {fixed}"
    if options.get("condition_on_previous_text") is batched:
        does = "decodes every window alone" if batched else "always lets a window know the one before"
        refused["condition_on_previous_text"] = f"with --batch-size {'above 1' if batched else '1'} it {does}"
    name, _, index = str(options.get("device") or "auto").partition(":")
    if index not in ("", "0"):
        refused["device"] = "it takes the first GPU that it sees: set CUDA_VISIBLE_DEVICES"
    if options.get("compute_type") not in (None, "auto", {"cpu": "int8", "cuda": "float16"}.get(name)):
        refused["compute_type"] = "it is int8 on a CPU and float16 on a GPU"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """Python that starts the program, and what stands in its environment."""
    line = command(options, raw)
    shown = ", ".join(repr(word) for word in line.arguments)
    kept = ", ".join(f"{key}={value!r}" for key, value in {**_caches(raw), **raw}.items())
    return f"import subprocess\nsubprocess.run([{shown}], check=True)" + (f"  # {kept}" if kept else "")


def command(options: Mapping[str, Any], raw: Mapping[str, Any]) -> CommandLine:
    """The program's command line; it writes .txt and .srt beside the recording."""
    folder = str(raw.get("repository") or os.environ.get(VARIABLE) or "whisper-diarization")
    name, _ = split_device(options.get("device"))
    device = [] if name == "auto" else ["--device", name]
    words = ["python", f"{folder}/{SCRIPT}", *_arguments(options, raw, AUDIO, str(options.get("model_path"))), *device]
    notes = [f"set {key}={shlex.quote(value)} before it" for key, value in _caches(raw).items()]
    return CommandLine(tuple(words), tuple(notes))


def _arguments(options: Mapping[str, Any], raw: Mapping[str, Any], audio: str, model: str) -> List[str]:
    batch = int(options.get("batch_size") or 1)
    language = options.get("language")
    words = ["--audio", audio, "--whisper-model", model, "--batch-size", str(batch if batch > 1 else 0)]
    if language not in (None, "auto"):
        words += ["--language", str(language)]
    if not raw.get("stemming"):
        words.append("--no-stem")
    if raw.get("suppress_numerals"):
        words.append("--suppress_numerals")
    return words


def _caches(raw: Mapping[str, Any]) -> Dict[str, str]:
    """Variables that say where its other models are. HF_HOME would not do: a worker has an HF_HUB_CACHE of its own, and
    what else is in HF_HOME is not for reading."""
    named = {
        "HF_HUB_CACHE": raw.get("hf_home") and f"{raw['hf_home']}/hub",
        "NEMO_CACHE_DIR": raw.get("nemo_cache"),
        "TORCH_HOME": raw.get("torch_home"),
    }
    return {variable: str(folder) for variable, folder in named.items() if folder}


def load(task: Task) -> Session:
    """The program, looked for; it loads its models itself, for each recording. Raises Unusable for raw options that it
    does not have, and where the repository, a package of its or one of its models is not there."""
    check_raw(SPEC.name, task.raw, RAW)
    model = Path(task.model_path or "").absolute()
    if not (model / "model.bin").is_file():  # the program would take the folder for a name on the network
        raise Unusable(f"there is no model.bin in {model}", "kuulo models list")
    repository = _repository(task.raw)
    for name, (file, word, source) in {**MODULES, **(STEMMING if task.raw.get("stemming") else {})}.items():
        if not _has(name, file, word):
            raise Unusable(
                f"whisper-diarization needs {name} of its repository, which is not installed for {sys.executable}",
                f"uv pip install --python {shlex.quote(sys.executable)} git+https://github.com/{source}.git",
            )
    _look_for_models(task.raw, task.options.get("language"))
    import torch

    device = torch_device(task.options.get("device"), torch)
    return Started([sys.executable, str(repository / SCRIPT)], model, device, task.options, task.raw)


def _has(module: str, file: str, word: str) -> bool:
    found = importlib.util.find_spec(module)
    path = Path(found.origin).parent / file if found and found.origin else None
    return bool(path and path.is_file() and word in path.read_text(encoding="utf-8", errors="replace"))


def _look_for_models(raw: Mapping[str, Any], language: Any) -> None:
    """Raises Unusable where a model is not in the caches: NeMo and demucs would ask the network for one, whatever they
    are told."""
    for key in ("hf_home", "nemo_cache", *(["torch_home"] if raw.get("stemming") else [])):
        if not raw.get(key):
            raise Unusable(f"whisper-diarization has more models, and nobody said where: --engine-option {key}=", FETCH)
    places = {variable: _whole(folder) for variable, folder in _caches(raw).items()}
    for name in (ALIGNER, *([PUNCTUATION] if language in (None, "auto", *PUNCTUATED) else [])):
        folder = places["HF_HUB_CACHE"] / f"models--{name.replace('/', '--')}"
        if not any(folder.glob("snapshots/*/config.json")):
            raise Unusable(f"the model {name} is not in {folder}", f"correct hf_home, or {FETCH}")
    for path in _nemo_files(places["NEMO_CACHE_DIR"]):
        if not path.is_file():
            raise Unusable(f"NeMo's model is not at {path}", f"correct nemo_cache, or {FETCH}")
    if raw.get("stemming"):
        path = places["TORCH_HOME"] / "hub" / "checkpoints" / SEPARATOR
        if not path.is_file():
            raise Unusable(f"demucs's model is not at {path}", f"correct torch_home, or {FETCH}")


def _nemo_files(cache: Path) -> Iterator[Path]:
    """Where the installed NeMo looks for its models, in folders named after a digest of what its code says of them
    (core/classes/common.py, _get_ngc_pretrained_model_info). The code is read and not imported, which takes long."""
    found = importlib.util.find_spec("nemo")
    for folder in found.submodule_search_locations or () if found else ():
        for name, file in NEMO.items():
            code = (Path(folder) / "collections" / "asr" / "models" / file).read_text(encoding="utf-8")
            for call in ast.walk(ast.parse(code)):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "PretrainedModelInfo":
                    said = {word.arg: getattr(word.value, "value", "") for word in call.keywords}
                    if said.get("pretrained_model_name") == name:
                        digest = hashlib.md5(f"{said['location']}{said['description']}".encode())  # noqa: S324
                        stored = said["location"].rpartition("/")[2]
                        yield cache / stored[: -len(".nemo")] / digest.hexdigest() / stored


def _repository(raw: Mapping[str, Any]) -> Path:
    named = raw.get("repository") or os.environ.get(VARIABLE)
    if not named:
        raise Unusable("whisper-diarization is a repository, and nobody said where its clone is", CLONE)
    folder = _whole(named)
    if not (folder / SCRIPT).is_file():
        raise Unusable(f"there is no {SCRIPT} in {folder}", CLONE)
    if not (folder / "diarization").is_dir():
        raise Unusable(f"the clone {folder} is older than July 2025, and fetches its settings", "git pull in it")
    return folder


def _whole(named: Any) -> Path:
    folder = Path(str(named))
    if not folder.is_absolute():  # a worker stands elsewhere than its user
        raise Unusable(f"{folder} is not a whole path, from / on", "name the folder so: pwd tells where you stand")
    return folder


class Started(Session):
    """`program` (its words, the first is the file) started for each recording, in a folder of its own."""

    def __init__(
        self, program: List[str], model: Path, device: str, options: Mapping[str, Any], raw: Mapping[str, Any]
    ) -> None:
        self.device = device
        self.compute_type = "int8" if device == "cpu" else "float16"
        self._program = program
        self._model = str(model)
        self._options = options
        self._raw = raw

    def transcribe(self, samples: Any, state: Any = None) -> Iterator[Said]:
        """See Session. Where the language was to be detected a Language comes for those alone that the program tells
        of: those that it cannot punctuate."""
        asked = self._options.get("language")
        with tempfile.TemporaryDirectory(prefix="whisper-diarization-") as name:
            folder = Path(name)
            programs.write_wav(samples, folder / "audio.wav")
            words = _arguments(self._options, self._raw, str(folder / "audio.wav"), self._model)
            # Python starts a worker with PYTHONSAFEPATH, with which the script would not find its other files; and it
            # starts demucs as `python`, which has to be this one.
            beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
            extra = {**_caches(self._raw), "PYTHONSAFEPATH": "", "PATH": beside}
            try:
                told = programs.run([*self._program, *words, "--device", self.device], folder, extra)
                written = programs.read(folder / "audio.srt", told)
            except Failed as error:
                if NO_SPEECH in str(error):
                    raise Failed(f"NeMo heard no speech where faster-whisper heard words: {NO_SPEECH}") from error
                if SILENT not in str(error):
                    raise
                told = written = ""
        if NOT_SEPARATED in told:
            before = told[: told.index(NOT_SEPARATED)]
            raise Failed(f"demucs did not separate the voices: {programs.last_lines(before)}")
        found = UNPUNCTUATED.search(told)
        if asked not in (None, "auto"):
            yield Language(str(asked))
        elif found:
            yield Language(found[1])
        yield from parse(written, len(samples)) if written else ()
        yield Progress(len(samples) * 1000 // SAMPLE_RATE)


def parse(written: str, samples: int) -> List[Segment]:
    """The sentences in the program's .srt, each with its speaker: S1 speaks first. Raises Failed where there is no
    cue."""
    speakers: Dict[str, str] = {}
    segments = []
    end_ms = milliseconds(samples / SAMPLE_RATE, samples)
    found = list(CUE.finditer(written.replace("\r\n", "\n")))
    if not found:
        raise Failed(f"the program's .srt has no cue: {written[:80]!r}")
    for cue in found:
        text = cue[10].strip()
        if not text:  # the first turn may be of somebody else than the first word
            continue
        start, end = _ms(cue.groups()[:4]), _ms(cue.groups()[4:8])
        speaker = speakers.setdefault(cue[9], f"S{len(speakers) + 1}")
        start = min(start, end_ms)
        segments.append(Segment(start, min(max(start, end), end_ms), " " + text, speaker=speaker))
    return sorted(segments, key=lambda segment: segment.start_ms)


def _ms(parts: Any) -> int:
    hours, minutes, seconds, ms = (int(part) for part in parts)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms
