"""GPUs: the driver, the devices, which of them are ours, and whether the engines' packages suit the driver."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from kuulo import machine, nvml
from kuulo.doctor.asking import ask
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking, amount, some
from kuulo.environments.installed import Environment
from kuulo.errors import KuuloError
from kuulo.runtimes import container

KFD = Path("/dev/kfd")
"""AMD's driver for computing."""

DRIVER = Path("/proc/driver/nvidia/version")


def check(looking: Looking) -> Iterator[Finding]:
    """NVIDIA's and AMD's drivers; engines made for CUDA."""
    environments = looking.site.environments().all()[0]
    try:
        with nvml.Nvml() as library:
            cuda = library.cuda()
            yield _driver(library, cuda)
            yield from _devices(library.gpus(), looking.environ)
            yield from _suits(environments, cuda)
            if looking.deep:
                yield from _inside(environments, looking.site.centre.container)
    except nvml.Missing as error:
        yield from _without(looking, environments, str(error))
    if KFD.exists():
        yield _rocm()


def _driver(library: nvml.Nvml, cuda: tuple[int, int] | None) -> Finding:
    newest = f", up to CUDA {cuda[0]}.{cuda[1]}" if cuda else ""
    return Finding("NVIDIA driver", OK, f"{library.driver() or 'version unknown'}{newest}", library.library)


def _devices(gpus: list[nvml.Gpu], environ: Mapping[str, str]) -> Iterator[Finding]:
    if not gpus:
        do = "ask for one: in Slurm --gres=gpu:1; in a container --nv"
        yield Finding("NVIDIA GPUs", WARNING, "the driver shows none", "NVML", do)
    for gpu in gpus:
        free = f"{amount(gpu.total - gpu.used)} of {amount(gpu.total)} free"
        yield Finding(f"GPU {gpu}", OK, f"{gpu.name}, {free}", gpu.uuid)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    ours = machine.gpus()
    if gpus and not ours:
        unset = "" if visible is None else "unset CUDA_VISIBLE_DEVICES; "
        do = f"{unset}in Slurm: --gres=gpu:1; in a container: --nv"
        why = f"CUDA_VISIBLE_DEVICES={visible!r}" if visible is not None else "/dev/nvidia*, Slurm's variables"
        yield Finding("visible to Kuulo", WARNING, "none of them: the CPU is used", why, do)
    elif gpus:
        yield Finding("visible to Kuulo", OK, f"{ours}", "CUDA_VISIBLE_DEVICES, /dev/nvidia*, Slurm's variables")


def _without(looking: Looking, environments: Mapping[str, Environment], why: str) -> Iterator[Finding]:
    """No driver answers: no problem, unless a device is there, or somebody wants one."""
    here = sorted(str(d) for d in machine.DEVICES.glob("nvidia[0-9]*"))
    if here or DRIVER.exists():
        do = "in a container: --nv; else install the driver's libraries, or restart after an update of the driver"
        yield Finding("NVIDIA driver", PROBLEM, f"a GPU is here, and {why}", some(here) or str(DRIVER), do)
    elif looking.environ.get("SLURM_JOB_GPUS") or looking.environ.get("SLURM_STEP_GPUS"):
        do = "ask the administrators: the node's driver, or its gres.conf"
        yield Finding("NVIDIA driver", PROBLEM, f"Slurm gave this job a GPU, and {why}", "SLURM_JOB_GPUS", do)
    else:
        yield Finding("NVIDIA driver", OK, "none on this machine: the CPU is used", why.rpartition(": ")[2])
    wants = sorted(name for name, e in environments.items() if e.variant == "cuda")
    if wants and not looking.for_site:
        yield Finding("engines for CUDA", OK, f"{some(wants)}: they use the CPU here")


def _suits(environments: Mapping[str, Environment], cuda: tuple[int, int] | None) -> Iterator[Finding]:
    """CUDA's libraries run with a driver of the same major version or a later one (CUDA Compatibility)."""
    for name, environment in environments.items():
        if environment.variant == "cpu":
            do = f"kuulo engines install {name} --variant cuda"
            yield Finding(name, WARNING, "installed for the CPU: it does not use the GPU", str(environment.folder), do)
        needs = made_for(environment.packages)
        if needs is None or cuda is None:
            continue
        found = f"made for CUDA {needs}, and the driver runs up to {cuda[0]}.{cuda[1]}"
        if needs > cuda[0]:
            do = "a newer driver; until then the engine may use the CPU, or fail"
            yield Finding(name, PROBLEM, found, str(environment.folder), do)
        else:
            yield Finding(name, OK, found, str(environment.folder))


def made_for(packages: Mapping[str, str]) -> int | None:
    """The major version of CUDA that an environment's packages are of: `nvidia-cublas-cu12`, or `nvidia-cublas` 13."""
    for name, version in packages.items():
        if match := re.fullmatch(r"nvidia-\w+-cu(\d+)", name):
            return int(match[1])
        if name == "nvidia-cublas" and version.split(".")[0].isdigit():
            return int(version.split(".")[0])
    return None


def _inside(environments: Mapping[str, Environment], starter: str | None) -> Iterator[Finding]:
    """Whether the driver works inside images."""
    for name, environment in environments.items():
        if environment.image_path is None:
            continue
        try:
            yield Finding(name, OK, f"in its image: {container.works_on_gpu(environment, starter)}")
        except KuuloError as error:
            do = error.do or "kuulo image test"
            yield Finding(name, PROBLEM, error.what, error.looked_at or str(environment.image_path), do)


def _rocm() -> Finding:
    """AMD's GPUs, for engines that somebody installed for ROCm; Kuulo's own environments are for CUDA."""
    if not os.access(KFD, os.R_OK | os.W_OK):
        do = "become a member of the groups render and video"
        return Finding("AMD driver", WARNING, "it is here, and you may not use it", str(KFD), do)
    answer = ask(["rocm-smi", "--showproductname", "--csv"])
    if not answer.ok:
        return Finding(
            "AMD driver", UNKNOWN, f"it is here; {answer.why}", str(KFD), "install ROCm's rocm-smi to see more"
        )
    cards = [line.split(",")[1] for line in answer.out.splitlines()[1:] if line.count(",") > 1]
    return Finding("AMD GPUs", OK, some(cards) or "it is here", answer.command)
