"""Where libraries put files beside what they are asked to write: one table, for three uses.

    runtimes/here.py   gives every worker a private folder for each variable, so that a run leaves nothing behind
    leftovers.py       finds what other tools left in a home (`kuulo cache list`)
    docs/caches.md     shows it

Read in each library's own code or documents: huggingface_hub `constants.py`, transformers `utils/hub.py`, torch
`hub.py` and `_inductor/runtime/cache_dir_utils.py`, triton `knobs.py`, flashinfer `jit/env.py`, vLLM `envs.py`, numba
`core/caching.py`, nltk `data.py`, NeMo `utils/data_utils.py` and `lightning/base.py`, pyannote.audio 3.4
`core/model.py`, whisper `__init__.py`, tiktoken `load.py`, ollama `envconfig/config.go`, pywhispercpp `constants.py`,
modelscope `hub/constants.py`; of CUDA, matplotlib, gradio, W&B, Ray, librosa, MIOpen, pip, uv and Apptainer their
documents.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FETCHED = "fetched"
MADE = "made"
KEPT = "kept"

KINDS = {
    FETCHED: "fetched from the network when it is needed again",
    MADE: "made again by itself when it is needed",
    KEPT: "tokens, keys, settings, history: nothing brings them back",
}

TRUSTED = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
"""Folders of the user, of whatever tool: each may be a link to elsewhere, as a home is on many clusters."""


@dataclass(frozen=True)
class Cache:
    """One folder of one library.

    `variable` decides where it is ("": none does, by itself); `default` says where it is without: `~` is the home,
    `{X}` the folder of the variable X ("": nowhere, the library then has no such cache). `private`: its folder in a
    worker's scratch ("": a worker does not get the variable). `name`: what `kuulo cache` calls it ("": it is not
    listed, as its parts are, or it is not one library's). `kind`: of KINDS. `parts`: patterns of what in the folder is
    the library's, where people share it with other things; without them all of it is. `distinct`: nothing else has such
    names. `older`: names that the variable had."""

    variable: str
    library: str
    default: str
    holds: str
    private: str = ""
    name: str = ""
    kind: str = FETCHED
    parts: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    distinct: bool = False


HUB = ("models--*", "datasets--*", "spaces--*", "kernels--*", ".locks", "version.txt", "CACHEDIR.TAG")
"""What huggingface_hub makes in its cache."""

DIGEST = "[0-9a-f]"
"""A place of a digest."""

UV = (
    "archive-v[0-9]*", "binaries-v[0-9]*", "builds-v[0-9]*", "built-wheels-v[0-9]*", "environments-v[0-9]*",
    "flat-index-v[0-9]*", "git-v[0-9]*", "interpreter-v[0-9]*", "python-v[0-9]*", "sdists-v[0-9]*", "simple-v[0-9]*",
    "wheels-v[0-9]*", ".lock", ".gitignore", "CACHEDIR.TAG",
)  # fmt: skip
"""What uv makes in its cache: buckets with a version."""

IMAGES = ("blob", "library", "net", "oci-tmp", "oras", "shub")
"""What Apptainer makes in its cache (`internal/pkg/cache/cache.go`)."""

CACHES: tuple[Cache, ...] = (
    Cache("HOME", "all", "~", "the home", "home"),
    Cache("TMPDIR", "all", "/tmp", "temporary files", "tmp", older=("TMP", "TEMP", "TEMPDIR")),  # noqa: S108
    Cache("XDG_CACHE_HOME", "many", "~/.cache", "caches", "cache"),
    Cache("XDG_CONFIG_HOME", "many", "~/.config", "settings", "config"),
    Cache("XDG_DATA_HOME", "many", "~/.local/share", "data", "data"),
    Cache("XDG_STATE_HOME", "many", "~/.local/state", "logs and state", "state"),
    Cache("APPTAINER_CACHEDIR", "Apptainer", "~/.apptainer", "the folder that has cache", "apptainer"),
    Cache("", "Apptainer", "{APPTAINER_CACHEDIR}/cache", "layers of images that were pulled or built",
          name="apptainer", parts=IMAGES),
    Cache("", "Apptainer", "~/.apptainer/keys", "keys that images are signed with", name="apptainer-keys", kind=KEPT),
    Cache("", "Apptainer", "~/.apptainer/docker-config.json", "passwords of registries", name="apptainer-logins",
          kind=KEPT),
    Cache("", "Apptainer", "~/.apptainer/remote.yaml", "tokens of remotes", name="apptainer-remotes", kind=KEPT),
    Cache("APPTAINER_TMPDIR", "Apptainer", "", "images while they are built", "apptainer-tmp"),
    Cache("SINGULARITY_CACHEDIR", "Singularity", "~/.singularity", "the folder that has cache", "singularity"),
    Cache("", "Singularity", "{SINGULARITY_CACHEDIR}/cache", "layers of images that were pulled or built",
          name="singularity", parts=IMAGES),
    Cache("SINGULARITY_TMPDIR", "Singularity", "", "images while they are built", "singularity-tmp"),
    Cache("CUDA_CACHE_PATH", "CUDA", "~/.nv/ComputeCache", "kernels that the driver compiled", "cuda", "cuda", MADE,
          parts=("index", DIGEST)),
    Cache("FLASHINFER_WORKSPACE_BASE", "FlashInfer", "~", "the folder that has .cache/flashinfer", "flashinfer"),
    Cache("", "FlashInfer", "{FLASHINFER_WORKSPACE_BASE}/.cache/flashinfer", "kernels that were compiled",
          name="flashinfer", kind=MADE),
    Cache("FLASHINFER_CUBIN_DIR", "FlashInfer", "", "kernels that were fetched", "flashinfer-cubin",
          "flashinfer-cubins"),
    Cache("GRADIO_EXAMPLES_CACHE", "Gradio", "", "results of examples", "gradio-examples"),
    Cache("GRADIO_TEMP_DIR", "Gradio", "{TMPDIR}/gradio", "files that were uploaded to its pages, and results",
          "gradio", "gradio", MADE),
    Cache("HF_HOME", "Hugging Face", "{XDG_CACHE_HOME}/huggingface", "the folder of those below", "huggingface"),
    Cache("HF_ASSETS_CACHE", "Hugging Face", "{HF_HOME}/assets", "files of libraries on the hub",
          "huggingface/assets", "huggingface-assets", older=("HUGGINGFACE_ASSETS_CACHE",)),
    Cache("HF_DATASETS_CACHE", "Hugging Face datasets", "{HF_HOME}/datasets", "data sets, made ready",
          "huggingface/datasets", "huggingface-datasets"),
    Cache("HF_HUB_CACHE", "Hugging Face", "{HF_HOME}/hub", "models, also of faster-whisper, WhisperX and pyannote 4",
          "huggingface/hub", "huggingface-hub", parts=HUB, older=("HUGGINGFACE_HUB_CACHE",), distinct=True),
    Cache("HF_MODULES_CACHE", "Hugging Face", "{HF_HOME}/modules", "code that came with models",
          "huggingface/modules", "huggingface-modules"),
    Cache("HF_TOKEN_PATH", "Hugging Face", "{HF_HOME}/token", "the token of the account", "huggingface/token",
          "huggingface-token", KEPT),
    Cache("", "Hugging Face", "{HF_HOME}/stored_tokens", "tokens by name", name="huggingface-tokens", kind=KEPT),
    Cache("HF_XET_CACHE", "Hugging Face", "{HF_HOME}/xet", "pieces of files, so as not to fetch them twice",
          "huggingface/xet", "huggingface-xet"),
    Cache("TRANSFORMERS_CACHE", "transformers before 5", "{HF_HOME}/transformers", "models (before 4.22, by digests)",
          name="huggingface-transformers", older=("PYTORCH_TRANSFORMERS_CACHE", "PYTORCH_PRETRAINED_BERT_CACHE"),
          parts=(*HUB, DIGEST * 64 + "*"), distinct=True),
    Cache("JOBLIB_TEMP_FOLDER", "joblib", "", "arrays that processes share", "joblib"),
    Cache("LIBROSA_CACHE_DIR", "librosa", "", "results (it caches only where the variable is set)"),
    Cache("LIBROSA_DATA_DIR", "librosa", "{XDG_CACHE_HOME}/librosa", "example recordings", "librosa", "librosa"),
    Cache("LLAMA_CACHE", "llama.cpp", "{XDG_CACHE_HOME}/llama.cpp", "language models (GGUF)", "llama.cpp", "llama.cpp",
          parts=("*.gguf", "*.gguf.*", "manifest=*.json"), distinct=True),
    Cache("LLM_USER_PATH", "llm", "{XDG_CONFIG_HOME}/io.datasette.llm", "keys, and a log of every question and answer",
          "llm", "llm", KEPT),
    Cache("MIOPEN_CUSTOM_CACHE_DIR", "MIOpen (ROCm)", "~/.cache/miopen", "kernels that were compiled", "miopen/cache",
          "miopen", MADE),
    Cache("MIOPEN_USER_DB_PATH", "MIOpen (ROCm)", "~/.config/miopen", "which kernels were the fastest", "miopen/db",
          "miopen-tuning", MADE),
    Cache("MODELSCOPE_CACHE", "ModelScope, FunASR", "~/.cache/modelscope", "models and data sets", "modelscope/cache",
          "modelscope", parts=("hub", "models", "datasets", "ast_indexer", "._____temp", ".lock")),
    Cache("MODELSCOPE_CREDENTIALS_PATH", "ModelScope, FunASR", "~/.modelscope/credentials", "the token of the account",
          "modelscope/credentials", "modelscope-credentials", KEPT),
    Cache("MPLCONFIGDIR", "matplotlib", "{XDG_CACHE_HOME}/matplotlib", "a list of fonts; settings where it is set",
          "matplotlib", "matplotlib", MADE, parts=("fontlist-*", "tex.cache"), distinct=True),
    Cache("NEMO_CACHE_DIR", "NeMo", "~/.cache/torch/NeMo", "models", "nemo/cache", "nemo-cache"),
    Cache("NEMO_HOME", "NeMo", "~/.cache/nemo", "the folder of models and data sets", "nemo/home"),
    Cache("NEMO_DATASETS_CACHE", "NeMo", "{NEMO_HOME}/datasets", "data sets", "nemo/home/datasets", "nemo-datasets"),
    Cache("NEMO_MODELS_CACHE", "NeMo", "{NEMO_HOME}/models", "models", "nemo/home/models", "nemo-models"),
    Cache("NLTK_DATA", "nltk", "~/nltk_data", "word lists, tokenizers (as WhisperX fetches)", "nltk", "nltk",
          parts=("chunkers", "corpora", "grammars", "help", "misc", "models", "sentiment", "stemmers", "taggers",
                 "tokenizers")),
    Cache("NUMBA_CACHE_DIR", "numba", "{XDG_CACHE_HOME}/numba", "functions that were compiled", "numba", "numba", MADE),
    Cache("OLLAMA_MODELS", "ollama", "~/.ollama/models", "language models", "ollama", "ollama",
          parts=("blobs", "manifests")),
    Cache("", "ollama", "~/.ollama/id_ed25519", "the key of the account", name="ollama-key", kind=KEPT),
    Cache("", "ollama", "~/.ollama/history", "what was asked", name="ollama-history", kind=KEPT),
    Cache("PIP_CACHE_DIR", "pip", "{XDG_CACHE_HOME}/pip", "packages that were fetched or built", "pip", "pip",
          parts=("http", "http-v2", "wheels", "selfcheck", "selfcheck.json")),
    Cache("PYANNOTE_CACHE", "pyannote.audio 3", "~/.cache/torch/pyannote", "models", "pyannote.audio", "pyannote.audio",
          parts=HUB, distinct=True),
    Cache("", "pywhispercpp", "{XDG_DATA_HOME}/pywhispercpp/models", "whisper.cpp's models", name="whisper.cpp"),
    Cache("RAY_TMPDIR", "Ray", "{TMPDIR}", "the folder that has ray", "ray"),
    Cache("", "Ray", "{RAY_TMPDIR}/ray", "logs and sockets of its sessions", name="ray", kind=MADE),
    Cache("SENTENCE_TRANSFORMERS_HOME", "sentence-transformers before 3", "{TORCH_HOME}/sentence_transformers",
          "models", "sentence-transformers", "sentence-transformers",
          parts=(*HUB, "sentence-transformers_*"), distinct=True),
    Cache("TIKTOKEN_CACHE_DIR", "tiktoken", "{TMPDIR}/data-gym-cache", "vocabularies", "tiktoken", "tiktoken",
          older=("DATA_GYM_CACHE_DIR",), parts=(DIGEST * 40, DIGEST * 40 + ".*"), distinct=True),
    Cache("TORCHINDUCTOR_CACHE_DIR", "PyTorch", "{TMPDIR}/torchinductor_{user}", "code that torch.compile made",
          "inductor", "torch-inductor", MADE),
    Cache("TORCH_EXTENSIONS_DIR", "PyTorch", "~/.cache/torch_extensions", "extensions that were compiled",
          "torch-extensions", "torch-extensions", MADE),
    Cache("TORCH_HOME", "PyTorch", "{XDG_CACHE_HOME}/torch", "the folder of hub", "torch"),
    Cache("TORCH_HUB", "PyTorch", "", "the older name of TORCH_HOME/hub"),
    Cache("TORCH_MODEL_ZOO", "PyTorch", "", "the older name of TORCH_HOME/hub/checkpoints"),
    Cache("", "PyTorch, torchaudio", "{TORCH_HOME}/hub", "models and code (also those with which WhisperX aligns)",
          name="torch-hub", parts=("checkpoints", "trusted_list", "*_*_*")),
    Cache("PYTORCH_KERNEL_CACHE_PATH", "PyTorch", "{XDG_CACHE_HOME}/torch/kernels", "kernels that were compiled",
          "torch-kernels", "torch-kernels", MADE),
    Cache("TRITON_HOME", "Triton", "~", "the folder that has .triton", "triton"),
    Cache("TRITON_CACHE_DIR", "Triton", "{TRITON_HOME}/.triton/cache", "kernels that were compiled",
          "triton/.triton/cache", "triton", MADE),
    Cache("TRITON_DUMP_DIR", "Triton", "{TRITON_HOME}/.triton/dump", "kernels that were looked into",
          "triton/.triton/dump", "triton-dump", MADE),
    Cache("TRITON_OVERRIDE_DIR", "Triton", "{TRITON_HOME}/.triton/override", "kernels that replace others",
          "triton/.triton/override", "triton-override", KEPT),
    Cache("UV_CACHE_DIR", "uv", "{XDG_CACHE_HOME}/uv", "packages that were fetched or built", "uv", "uv",
          parts=UV, distinct=True),
    Cache("VLLM_CACHE_ROOT", "vLLM", "{XDG_CACHE_HOME}/vllm", "code that torch.compile made, and what was measured",
          "vllm/cache", "vllm", MADE),
    Cache("VLLM_ASSETS_CACHE", "vLLM", "{VLLM_CACHE_ROOT}/assets", "examples", "vllm/cache/assets", "vllm-assets"),
    Cache("VLLM_CONFIG_ROOT", "vLLM", "{XDG_CONFIG_HOME}/vllm", "settings", "vllm/config", "vllm-settings", KEPT),
    Cache("VLLM_RPC_BASE_PATH", "vLLM", "", "sockets", "vllm/rpc"),
    Cache("VLLM_XLA_CACHE_PATH", "vLLM", "{VLLM_CACHE_ROOT}/xla_cache", "code that XLA compiled",
          "vllm/cache/xla_cache", "vllm-xla", MADE),
    Cache("WANDB_CACHE_DIR", "Weights & Biases", "{XDG_CACHE_HOME}/wandb", "artifacts that were fetched",
          "wandb/cache", "wandb", parts=("artifacts", "logs")),
    Cache("WANDB_CONFIG_DIR", "Weights & Biases", "{XDG_CONFIG_HOME}/wandb", "settings", "wandb/config",
          "wandb-settings", KEPT),
    Cache("WANDB_DATA_DIR", "Weights & Biases", "{XDG_DATA_HOME}/wandb", "artifacts on their way up", "wandb/data",
          "wandb-data", KEPT),
    Cache("WANDB_DIR", "Weights & Biases", "", "records of runs (wandb, where a program stands)", "wandb"),
    Cache("", "OpenAI's Whisper", "{XDG_CACHE_HOME}/whisper", "models (.pt)", name="whisper"),
)  # fmt: skip
"""By library; each variable stands once."""

BY_VARIABLE = {cache.variable: cache for cache in CACHES if cache.variable}

OFFLINE = {
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "LLAMA_ARG_OFFLINE": "1",
    "OLLAMA_NOHISTORY": "1",
    "OLLAMA_NO_CLOUD": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime's wheels report to their maker unless told not to (Privacy.md)
    "OTEL_SDK_DISABLED": "true",  # OpenTelemetry, with which pyannote.audio 4 reports
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_MODE": "disabled",
}
"""What keeps libraries from the network, and from reporting to their makers."""

SECRETS = (
    "GITHUB_TOKEN",  # torch.hub sends it
    "HF_TOKEN",
    "HUGGINGFACE_HUB_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MODELSCOPE_API_TOKEN",
    "PYANNOTE_AUTH_TOKEN",
    "WANDB_API_KEY",
)
"""Tokens that a worker has no use for."""

PRIVATE = {cache.variable: cache.private for cache in CACHES if cache.private}
"""Variable -> its folder in a worker's scratch."""

FILES = frozenset({"HF_TOKEN_PATH", "MODELSCOPE_CREDENTIALS_PATH"})
"""Variables that name a file, or what a library takes for one: nothing is made there beforehand."""

TEMPORARY = ("TMPDIR", *BY_VARIABLE["TMPDIR"].older)

REMOVED = frozenset(
    {name for cache in CACHES for name in (cache.variable, *cache.older) if name and name not in PRIVATE} | {*SECRETS}
)
"""Variables that a worker does not get."""


def make(scratch: Path) -> None:
    """Makes the private folders: some libraries take one that is not there for an error. Raises OSError."""
    for variable, folder in PRIVATE.items():
        if variable not in FILES:
            (scratch / folder).mkdir(parents=True, exist_ok=True)


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what leads a library elsewhere than to its private folder."""
    return {name: value for name, value in environ.items() if name not in REMOVED}


@dataclass(frozen=True)
class Place:
    """Where a cache is for a user: `below` in `base`. The base is a folder that the user chose, by a variable or as a
    home, and may be a link; what is below it should not be. `named`: the library's own variable says so."""

    base: Path
    below: str = ""
    named: bool = False

    @property
    def path(self) -> Path:
        return self.base / self.below if self.below else self.base


def places(cache: Cache, environ: Mapping[str, str]) -> list[Place]:
    """Where it is with these variables; none where it has no place. More than one where the variable holds a list, as
    NLTK_DATA does."""
    for name in (cache.variable, *cache.older):
        if name and environ.get(name):
            parts = environ[name].split(os.pathsep) if name == "NLTK_DATA" else [environ[name]]
            return [Place(_expanded(part, environ), named=cache.variable not in TRUSTED) for part in parts if part]
    if not cache.default:
        return []
    default = cache.default.replace("{user}", _user(environ))
    if default.startswith("~"):
        return [Place(_home(environ), default[2:])]
    if not default.startswith("{"):
        return [Place(Path(default))]
    variable, _, rest = default[1:].partition("}")
    rest = rest.lstrip("/")
    found = places(BY_VARIABLE[variable], environ)
    if variable in TRUSTED:
        return [Place(place.path, rest) for place in found]
    return [Place(place.base, "/".join(filter(None, [place.below, rest])), place.named) for place in found]


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _expanded(text: str, environ: Mapping[str, str]) -> Path:
    if text == "~" or text.startswith("~/"):
        return _home(environ) / text[2:]
    return Path(text).absolute()


def _user(environ: Mapping[str, str]) -> str:
    """As getpass.getuser, with which PyTorch makes the name; these variables first."""
    named = next((environ[name] for name in ("LOGNAME", "USER", "LNAME", "USERNAME") if environ.get(name)), None)
    try:
        return named or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())
