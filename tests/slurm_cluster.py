"""A real Slurm of several nodes on this machine, for tests: Debian's packages, loopback, a folder of its own.

    def test_hello(user_cluster):
        folder = user_cluster.folder()
        user_cluster.run(["sbatch", "--wait", "--wrap", "hostname"], cwd=folder, check=True)

`user_cluster` runs as one ordinary user from munged to the jobs. `root_cluster` has its node daemons run by root,
memory limits by cgroups, and jobs of an ordinary user. `accounts_cluster` is a `user_cluster` with slurmdbd, so that
`sacct` answers. Nothing under /etc is touched. A test that asks for one is skipped where the packages are missing.

Where pytest is run by root, the ordinary users are two that Debian's packages make: `slurm`, and `games` for the jobs
of `root_cluster`. They get the capability CAP_DAC_READ_SEARCH, since the interpreter may lie under /root: they can
read everything, but write no more than any user. A file that must be unreadable to them is no test here.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
ACCOUNTS = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb")
COMMANDS = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
CGROUP = Path("/sys/fs/cgroup")
PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
START_S = 60
SIOCSIFADDR = 0x8916  # linux/sockios.h


class Cluster:
    """A running cluster. `nodes` are its nodes' names, of which the first has a fake GPU; `environ` is what its user's
    commands run in. Partitions: `cpu` (default, MaxTime one hour), `gpu` (the first node), `long` (no limit), and
    `urgent`, whose jobs take a node from those of the others: these are warned, and queued again ten seconds later."""

    def __init__(self, base: Path, *, cgroup: bool = False, accounts: bool = False, nodes: int = 3) -> None:
        self.base, self._cgroup, self._accounts = base, cgroup, accounts
        root = os.getuid() == 0
        self.user = pwd.getpwnam("games" if cgroup else "slurm").pw_name if root else pwd.getpwuid(os.getuid()).pw_name
        self._slurm_user = "slurm" if root else self.user
        prefix = f"k{os.getpid()}n" if cgroup else "n"  # cgroups are named after nodes
        self.nodes = tuple(f"{prefix}{n}" for n in range(1, nodes + 1))
        self._port = _free_ports(nodes + 4)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folders = itertools.count(1)
        for name in ("bin", "etc", "home", "log", "run", "spool", "state", "work"):
            (base / name).mkdir()
        self.conf = base / "etc" / "slurm.conf"
        self.environ = {
            "HOME": str(base / "home"),
            "LANG": "C.UTF-8",
            "LOGNAME": self.user,
            "PATH": PATH,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "SLURM_CONF": str(self.conf),
            "USER": self.user,
        }

    # For tests.

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the cluster's user; `env` is added to `environ`."""
        return subprocess.run(
            [*_as_user(self.user), *map(os.fspath, argv)],
            cwd=cwd or self.base / "home",
            env={**self.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            check=check,
        )

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Have this process's own calls of Slurm's commands go to this cluster, as its user."""
        for name in [n for n in os.environ if n.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_"))]:
            patch.delenv(name)
        for name, value in self.environ.items():
            patch.setenv(name, value)
        patch.setenv("PATH", f"{self.base / 'bin'}{os.pathsep}{PATH}")

    def folder(self, name: str | None = None) -> Path:
        """A new empty folder of the cluster's user; with a name, one of that name in a new folder."""
        folder = self.base / "work" / str(next(self._folders))
        folder = folder / name if name else folder
        folder.mkdir(parents=True)
        for each in (folder, folder.parent):
            _give(each, self.user)
        return folder

    def kill_slurmd(self, node: str) -> None:
        """The node's daemon dies (-9); its jobs run on. Slurm gives the node up some ten seconds later."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def fail_node(self, node: str) -> None:
        """The node's daemon and all that runs there die (-9), as when its power fails."""
        self.kill_slurmd(node)
        jobs = _processes_with(f"SLURMD_NODENAME={node}", f"SLURM_CONF={self.conf}")
        # Their keepers (slurmstepd) first, or these would tell Slurm how the jobs ended.
        keepers = {_parent(pid) for pid in jobs} - set(jobs)
        for pid in [*(keepers & set(_processes_with(f"SLURM_CONF={self.conf}"))), *jobs]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_slurmd(self, node: str) -> None:
        """Start a node's daemon and wait until the node can be used."""
        (self.base / "spool" / node).mkdir(exist_ok=True)
        self._own(self.base / "spool" / node)
        self._start(node, ["slurmd", "-D", "-N", node], "root" if self._cgroup else self._slurm_user)
        self._until(lambda: node in self._usable(), f"the node {node}")

    def wait_until_empty(self, timeout: float = 60) -> None:
        """Wait until no job waits or runs."""
        self._until(lambda: not self.run(["squeue", "-h"]).stdout.strip(), "an empty queue", timeout)

    # Start and stop.

    def start(self) -> None:
        """Start every daemon and wait until every node can be used. Raises RuntimeError with the logs' ends."""
        _give(self.base / "home", self.user)
        for name in ("run", "log", "state", "spool", "etc"):
            self._own(self.base / name)
        self._write_configuration()
        self._start("munged", self._munged(), self._slurm_user)
        self._until((self.base / "run" / "munge.sock").exists, "munged")
        if self._accounts:
            self._start_accounts()
        self._start("slurmctld", ["slurmctld", "-D"], self._slurm_user)
        for node in self.nodes:
            (self.base / "spool" / node).mkdir()
            self._own(self.base / "spool" / node)
            self._start(node, ["slurmd", "-D", "-N", node], "root" if self._cgroup else self._slurm_user)
        self._until(lambda: self._usable() == set(self.nodes), "every node")

    def stop(self) -> None:
        """End everything that belongs to this cluster, also what its jobs left behind, and remove its folder."""
        if "slurmctld" in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*_as_user(self._slurm_user), "scancel", f"--user={self.user}"],
                    env=self.environ,
                    cwd=self.base,
                    capture_output=True,
                    timeout=10,
                    check=False,
                )
                self.run(["squeue", "-h"], timeout=10)
        for name in sorted(self._processes, key=lambda n: (n == "munged", n == "mariadbd", n == "slurmdbd", n)):
            self._processes[name].terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for _ in range(50):
            left = _processes_with(f"SLURM_CONF={self.conf}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.1)
        if self._cgroup:
            _remove_cgroups(self.nodes)
        shutil.rmtree(self.base, ignore_errors=True)

    def log(self, name: str) -> str:
        """The end of a daemon's log: "slurmctld", "munged", or a node's name."""
        path = self.base / "log" / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def own(self, path: Path) -> None:
        """Give a file or folder to the cluster's user."""
        _give(path, self.user)

    def _own(self, path: Path) -> None:
        _give(path, self._slurm_user)

    def _start(self, name: str, command: list[str], user: str) -> None:
        with (self.base / "log" / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                [*_as_user(user, daemon=True), *command],
                env=self.environ,
                cwd=self.base / "log",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _until(self, true: object, what: str, timeout: float = START_S) -> None:
        deadline = time.monotonic() + timeout
        while not true():  # type: ignore[operator]
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-700:]}" for f in self._logs())
                raise RuntimeError(f"waited in vain for {what}; ended: {dead}\n{logs}")
            time.sleep(0.1)

    def _logs(self) -> list[Path]:
        return sorted(p for p in (self.base / "log").iterdir() if p.is_file() and p.stat().st_size)

    def _usable(self) -> set[str]:
        told = self.run(["sinfo", "-h", "-N", "-t", "idle,mix,alloc", "-o", "%N"])
        return set(told.stdout.split())

    def _munged(self) -> list[str]:
        key, run, log = self.base / "etc" / "munge.key", self.base / "run", self.base / "log"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._own(key)
        return [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={run / 'munge.sock'}",
            f"--pid-file={run / 'munged.pid'}",
            f"--log-file={log / 'munged.log'}",
            f"--seed-file={run / 'munge.seed'}",
            "--num-threads=2",
        ]

    def _write_configuration(self) -> None:
        gpu = self.base / "etc" / "gpu0"
        gpu.symlink_to("/dev/null")  # Slurm counts devices alone
        (self.base / "etc" / "gres.conf").write_text(f"NodeName={self.nodes[0]} Name=gpu Type=fake File={gpu}\n")
        self.conf.write_text(self._slurm_conf())
        if self._cgroup:
            (self.base / "etc" / "cgroup.conf").write_text(CGROUP_V2 if _is_v2() else CGROUP_V1)
        if os.getuid() == 0:
            for command in COMMANDS:
                path = self.base / "bin" / command
                real = shutil.which(command, path=PATH)
                if real:
                    path.write_text(AS_USER.format(as_user=" ".join(_as_user(self.user)), real=real))
                    path.chmod(0o755)

    def _slurm_conf(self) -> str:
        host, all_nodes = socket.gethostname().partition(".")[0], ",".join(self.nodes)
        text = SLURM_CONF.format(base=self.base, host=host, port=self._port, user=self._slurm_user)
        text += WITH_CGROUP if self._cgroup else WITHOUT_CGROUP.format(user=self._slurm_user)
        if self._accounts:
            text += WITH_ACCOUNTS.format(base=self.base, port=self._port + 1)
        else:
            text += "AccountingStorageType=accounting_storage/none\n"
        for n, name in enumerate(self.nodes):
            gres = "Gres=gpu:fake:1" if n == 0 else ""
            text += f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname={host} Port={self._port + 4 + n} {NODE} {gres}\n"
        return text + PARTITIONS.format(nodes=all_nodes, first=self.nodes[0])

    def _start_accounts(self) -> None:
        data, run, log = self.base / "db", self.base / "run", self.base / "log"
        data.mkdir()
        self._own(data)
        as_user = _as_user(self._slurm_user)
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        install.append("--auth-root-authentication-method=normal")
        subprocess.run([*as_user, *install], env=self.environ, cwd=log, check=True, capture_output=True, timeout=120)
        small = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"]
        where = [f"--datadir={data}", f"--socket={run / 'db.sock'}", f"--pid-file={run / 'db.pid'}"]
        listen = ["--bind-address=127.0.0.1", f"--port={self._port + 2}", "--skip-log-bin", "--skip-name-resolve"]
        self._start("mariadbd", ["mariadbd", "--no-defaults", *where, *listen, *small], self._slurm_user)
        client = [*as_user, "mariadb", "--no-defaults", "-uroot", f"--socket={run / 'db.sock'}", "-e"]
        answers = lambda sql: subprocess.run([*client, sql], env=self.environ, capture_output=True).returncode == 0  # noqa: E731
        self._until(lambda: answers("select 1"), "the database")
        grant = "grant all on *.* to 'slurm'@'127.0.0.1' identified by 'slurm'"
        assert answers(f"create database slurm; {grant}")
        conf = self.base / "etc" / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(
            SLURMDBD_CONF.format(base=self.base, port=self._port + 1, storage=self._port + 2, user=self._slurm_user)
        )
        self._own(conf)
        self._start("slurmdbd", ["slurmdbd", "-D"], self._slurm_user)
        manage = [*as_user, "sacctmgr", "-i"]
        quiet = {"env": self.environ, "capture_output": True, "timeout": 30}
        said = lambda *words: subprocess.run([*manage, *words], **quiet).returncode == 0  # type: ignore[call-overload]  # noqa: E731
        self._until(lambda: said("show", "cluster"), "slurmdbd")
        assert said("add", "cluster", "tests")
        assert said("add", "account", "research")
        assert said("add", "user", self.user, "account=research")


# cred_expire: a job that is queued again starts only when its old credential has expired, two minutes as a rule.
SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={base}/run/munge.sock,cred_expire=5
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=2
WaitTime=0
MaxArraySize=4001
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
DefMemPerCPU=200
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
"""
WITHOUT_CGROUP = """\
SlurmdUser={user}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
"""
WITH_CGROUP = """\
SlurmdUser=root
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
JobAcctGatherFrequency=task=1
"""
CGROUP_V1 = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
AllowedSwapSpace=0
"""
CGROUP_V2 = """\
CgroupPlugin=cgroup/v2
IgnoreSystemd=yes
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
AllowedSwapSpace=0
"""
WITH_ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={base}/run/munge.sock
AccountingStorageTRES=gres/gpu
MinJobAge=5
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
LogFile={base}/log/slurmdbd.log
PidFile={base}/run/slurmdbd.pid
"""
NODE = "CPUs=2 RealMemory=4000 State=UNKNOWN"
PARTITIONS = """\
PartitionName=DEFAULT DefaultTime=10 State=UP PriorityTier=10 GraceTime=10
PartitionName=cpu Nodes={nodes} Default=YES MaxTime=1:00:00
PartitionName=gpu Nodes={first} MaxTime=1:00:00
PartitionName=long Nodes={nodes} MaxTime=UNLIMITED
PartitionName=urgent Nodes={nodes} MaxTime=1:00:00 PriorityTier=20 PreemptMode=OFF
"""


# Jobs inherit the PATH that has these, and are the user already.
AS_USER = """\
#!/bin/sh
[ "$(id -u)" = 0 ] || exec {real} "$@"
exec {as_user} {real} "$@"
"""


@pytest.fixture(scope="session")
def user_cluster() -> Iterator[Cluster]:
    """A cluster that runs as one ordinary user."""
    yield from _running()


@pytest.fixture(scope="session")
def root_cluster() -> Iterator[Cluster]:
    """A cluster whose nodes kill what takes more memory than was asked for."""
    if os.getuid() != 0:
        pytest.skip("a cluster with cgroups needs root")
    limits = CGROUP / ("cgroup.controllers" if _is_v2() else "memory/memory.limit_in_bytes")
    if not limits.exists() or not os.access(limits.parent, os.W_OK):
        pytest.skip(f"no memory limits can be set here: {limits}")
    yield from _running(cgroup=True)


@pytest.fixture(scope="session")
def accounts_cluster() -> Iterator[Cluster]:
    """A cluster with accounts: `sacct` answers, and Slurm itself forgets an ended job after a minute."""
    _need(*ACCOUNTS)
    yield from _running(accounts=True, nodes=1)


def _running(**options: bool | int) -> Iterator[Cluster]:
    _need(*DAEMONS)
    _have_an_address()
    base = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    base.chmod(0o755)
    cluster = Cluster(base, **options)  # type: ignore[arg-type]
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _need(*programs: str) -> None:
    missing = [p for p in programs if shutil.which(p, path=PATH) is None]
    if missing:
        pytest.skip(f"needs Slurm's programs, of which these are not installed: {', '.join(missing)}")


def _have_an_address() -> None:
    """Slurm resolves names with AI_ADDRCONFIG, which finds nothing where 127.0.0.1 is the only address, as without a
    network: give the loopback a second one (`ip address add 127.0.0.2 dev lo`)."""
    try:
        socket.getaddrinfo("127.0.0.1", 1, family=socket.AF_INET, flags=socket.AI_ADDRCONFIG)
        return
    except socket.gaierror:
        pass
    address = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton("127.0.0.2"))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16s16s", b"lo:1", address))
    except PermissionError:
        pytest.skip("Slurm finds no address here: 127.0.0.1 is the only one, and another cannot be added")


def _as_user(name: str, *, daemon: bool = False) -> list[str]:
    """What comes before a command that runs as that user, who can read all that we can. A daemon ends with us."""
    words = ["setpriv", *(["--pdeathsig=KILL"] if daemon else [])]
    if os.getuid() != 0:
        return words if daemon else []
    if name == "root":
        # Jobs are other users' and keep what their daemon has as ambient.
        return [
            *words,
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
            "--securebits=+no_setuid_fixup",
        ]
    user = pwd.getpwnam(name)
    who = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return [*words, *who, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def _give(path: Path, user: str) -> None:
    if os.getuid() == 0:
        facts = pwd.getpwnam(user)
        os.chown(path, facts.pw_uid, facts.pw_gid)


def _free_ports(number: int) -> int:
    """The first of so many free ports in a row. Clusters that start at the same time look from other places on."""
    for first in range(20_000 + os.getpid() % 400 * 25, 32_000, 25):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + number):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports between 20000 and 32000")


def _processes_with(*variables: str) -> list[int]:
    """The processes that have all these variables ("NAME=value")."""
    wanted = {os.fsencode(v) for v in variables}
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted <= set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_v2() -> bool:
    return (CGROUP / "cgroup.controllers").exists()


def _remove_cgroups(nodes: Sequence[str]) -> None:
    for node in nodes:
        for top in CGROUP.glob(f"*/slurm_{node}"):
            for folder in sorted(top.rglob("*"), reverse=True):
                if folder.is_dir():
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            with contextlib.suppress(OSError):
                top.rmdir()


if __name__ == "__main__":  # `python tests/slurm_cluster.py COMMAND...` runs a command on a cluster of its own
    for it in _running():
        print(it.run(sys.argv[1:] or ["sinfo"]).stdout)
