"""What a process may use: literal cgroups and variables, and a real step of Slurm."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from kuulo import machine

GIB = 2**30
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither Slurm nor cgroups nor GPUs, but what a test makes; more cores than this machine may have."""
    for name in [n for n in os.environ if n.startswith(("SLURM_", "CUDA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemTotal: {99 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {64 * 2**20} kB\n")


def lay(top: Path, files: dict[str, Any]) -> None:
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_without_limits_it_is_the_whole_machine() -> None:
    assert machine.this() == machine.Machine(64, 64 * GIB, 0)


def test_cgroups_of_version_2(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "own": "0::/system.slice/job_5/step_0",
            "cgroup/system.slice/job_5/cpu.max": "450000 100000",
            "cgroup/system.slice/job_5/memory.max": 8 * GIB,
            "cgroup/system.slice/job_5/memory.current": 5 * GIB,
            "cgroup/system.slice/job_5/memory.stat": f"anon {GIB}\ninactive_file {3 * GIB}\nactive_file {GIB}",
            "cgroup/system.slice/job_5/step_0/cpu.max": "max 100000",
            "cgroup/system.slice/job_5/step_0/memory.max": "max",
            "cgroup/system.slice/job_5/step_0/memory.current": GIB,
        },
    )
    assert machine.this() == machine.Machine(4, 7 * GIB, 0)


def test_cgroups_of_version_1(tmp_path: Path) -> None:
    top = "cgroup/memory/slurm/uid_5/job_1"
    lay(
        tmp_path,
        {
            "own": "9:name=systemd:/\n4:memory:/slurm/uid_5/job_1/step_batch\n2:cpu,cpuacct:/slurm/uid_5\n0::/",
            f"{top}/memory.limit_in_bytes": 6 * GIB,
            f"{top}/memory.usage_in_bytes": 3 * GIB,
            f"{top}/memory.stat": f"cache {GIB}\ninactive_file 0\ntotal_inactive_file {GIB}\ntotal_active_file 0",
            f"{top}/step_batch/memory.limit_in_bytes": 9223372036854771712,
            f"{top}/step_batch/memory.usage_in_bytes": GIB,
            "cgroup/cpu,cpuacct/cpu.cfs_quota_us": -1,
            "cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
            "cgroup/cpu,cpuacct/slurm/uid_5/cpu.cfs_quota_us": 300000,
            "cgroup/cpu,cpuacct/slurm/uid_5/cpu.cfs_period_us": 100000,
        },
    )
    assert machine.this() == machine.Machine(3, 4 * GIB, 0)


def test_a_container_sees_only_the_top_of_its_cgroup(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "own": "4:memory:/docker/0123",
            "cgroup/memory/memory.limit_in_bytes": 2 * GIB,
            "cgroup/memory/memory.usage_in_bytes": GIB,
        },
    )
    assert machine.memory_bytes() == GIB


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({"SLURM_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "12"}, 6),
        ({"SLURM_CPUS_ON_NODE": "12"}, 12),
        ({"SLURM_CPUS_ON_NODE": "12", "SLURM_NTASKS_PER_NODE": "5"}, 2),
        ({"SLURM_CPUS_ON_NODE": "12", "SLURM_NTASKS_PER_NODE": "5", "SLURM_STEP_TASKS_PER_NODE": "1"}, 12),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_STEP_TASKS_PER_NODE": "2,4", "SLURM_NODEID": "1"}, 1),
        ({"SLURM_JOB_CPUS_PER_NODE": "8(x2),3", "SLURM_NODEID": "2"}, 3),
        ({"SLURM_JOB_CPUS_PER_NODE": "8(x2),3", "SLURM_NODEID": "1"}, 8),
        ({"SLURM_CPUS_ON_NODE": "2", "SLURM_STEP_TASKS_PER_NODE": "4"}, 1),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_CPUS_ON_NODE": "what"}, 64),
    ],
)
def test_cores_that_slurm_gives(variables: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.cores() == cores


@pytest.mark.parametrize(
    ("variables", "gib"),
    [
        ({"SLURM_MEM_PER_NODE": "8192"}, 8),
        ({"SLURM_MEM_PER_NODE": "8192", "SLURM_STEP_TASKS_PER_NODE": "4"}, 2),
        ({"SLURM_MEM_PER_NODE": "0"}, 64),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "6"}, 6),
        ({"SLURM_MEM_PER_GPU": "16384", "SLURM_GPUS_ON_NODE": "2"}, 32),
        ({"SLURM_MEM_PER_NODE": "999999999"}, 64),
    ],
)
def test_memory_that_slurm_gives(variables: dict[str, str], gib: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.memory_bytes() == gib * GIB


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "GPU-9ae8f2,MIG-1/2/3"}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles", "SLURM_JOB_GPUS": "1"}, 0),
        ({"SLURM_JOB_GPUS": "2,3"}, 2),
        ({"SLURM_JOB_GPUS": "2,3", "SLURM_STEP_GPUS": "3"}, 1),
        ({"SLURM_JOB_GPUS": "0,1,2,3,4,5"}, 4),
    ],
)
def test_gpus(variables: dict[str, str], gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / device).touch()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.gpus() == gpus


TELL = "import dataclasses, json; from kuulo import machine; print(json.dumps(dataclasses.asdict(machine.this())))"


def test_steps_of_a_real_job(user_cluster: Any) -> None:
    """Cores and GPUs of a step by itself, and of the steps of a batch script, which are told of their memory too."""
    done = user_cluster.run(["srun", "-c2", "-p", "gpu", "--gres=gpu:1", sys.executable, "-c", TELL])
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)
    assert (alone["cores"], alone["gpus"]) == (min(2, CORES), 1)
    folder = user_cluster.folder()
    script = f"#!/bin/bash\nsrun {shlex.join([sys.executable, '-c', TELL])}\n"
    (folder / "job.sh").write_text(script)
    ask = ["--ntasks-per-node=2", "--nodes=1", "--mem=1000"]
    user_cluster.run(["sbatch", "--wait", *ask, "--output=log", "job.sh"], cwd=folder, check=True)
    told = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    assert told == [{"cores": 1, "memory_bytes": 500 * 2**20, "gpus": 0}] * 2


def test_a_real_cgroup(root_cluster: Any) -> None:
    done = root_cluster.run(["srun", "-n1", "--mem=500", "env", "-u", "SLURM_MEM_PER_NODE", sys.executable, "-c", TELL])
    left = json.loads(done.stdout)["memory_bytes"]
    assert 400 * 2**20 < left < 500 * 2**20, done.stderr
