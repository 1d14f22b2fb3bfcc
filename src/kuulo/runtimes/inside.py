"""Starts a program inside a container image: carried into scratch, run by the image's Python.

    python inside.py --environment FILE [--host HOST] [--read|--write SOURCE TARGET]... [--cd FOLDER] [--follow]
        -- PROGRAM...
    python inside.py --gpu

The program gets the environment in FILE (a JSON object) and nothing else, so that no shell and no container program
reads its values. An engine's own libraries of CUDA come first for the loader.

HOST is where charliecloud shows the whole machine. Then a new root is made, which has the image's folders and of the
machine the SOURCEs alone, each at its TARGET; it can do what ch-run's --bind cannot: any name, and targets that the
image has not. It is a mount namespace in a user namespace, as an ordinary user may make them (user_namespaces(7),
pivot_root(2)).

With --follow we stay: signals are passed on, the exit code is the program's (128 and the number of a signal that ended
it; ch-run has 1 then), and it ends when ch-run has gone.

`--gpu` says, in a line of JSON, whether a GPU can be used from here. Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import signal
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

NEW_ROOT = "/opt/kuulo/root"
"""An empty folder that each image has."""

DRIVER = "/opt/kuulo/driver"
"""Where charliecloud's programs find the GPU's driver; Apptainer says where in LD_LIBRARY_PATH."""

# sched.h, sys/mount.h
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE = 1024, 2048, 4096, 16384, 1 << 18
MS_RELATIME = 1 << 21
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1  # linux/prctl.h

IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
"""Signals that must not reach ch-run, which serves the image's files to its program: it would end, with exit code 0."""

KEPT = (
    (os.ST_NOSUID, MS_NOSUID),
    (os.ST_NODEV, MS_NODEV),
    (os.ST_NOEXEC, MS_NOEXEC),
    (os.ST_NOATIME, MS_NOATIME),
    (os.ST_NODIRATIME, MS_NODIRATIME),
    (os.ST_RELATIME, MS_RELATIME),
)
"""Flags that a mount has (statvfs) and that an ordinary user may not take from it (mount)."""

Bind = Tuple[str, str, bool]
"""Where it is on the machine, where it is inside, and whether it may be written to."""


class Failed(OSError):
    """What a system call was for."""


def main(arguments: List[str]) -> int:
    """Become the program. Exit code 125 when the place for it cannot be made, 127 when there is no such program."""
    if arguments == ["--gpu"]:
        print(json.dumps(gpu()))
        return 0
    environment, host, folder, binds, command = parse(arguments)
    follow = "--follow" in arguments[: arguments.index("--")]
    try:
        if host:
            enter(host, binds)
        if folder:
            os.chdir(folder)
    except OSError as error:
        print(f"kuulo: the container cannot be set up: {error}", file=sys.stderr)
        return 125
    found = libraries(os.environ.get("LD_LIBRARY_PATH", ""))
    environ = {**environment, **({"LD_LIBRARY_PATH": found} if found else {})}
    if follow:
        child = os.fork()
        if child:
            return _passing_on(child)
        for number in IGNORED:
            signal.signal(number, signal.SIG_DFL)
        _call("prctl", PR_SET_PDEATHSIG, signal.SIGTERM.value, what="to be told of the end")
    try:
        os.execvpe(command[0], command, environ)
    except OSError as error:
        print(f"kuulo: {command[0]} cannot be started in the image: {error.strerror}", file=sys.stderr)
        return 127


def _passing_on(child: int) -> int:
    """The program's exit code, when it has ended."""

    def tell(number: int, frame: Any) -> None:
        os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGQUIT):  # a terminal's reach the program anyway
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, tell)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGTERM.value, what="to be told of the end")
    _, status = os.waitpid(child, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def parse(words: List[str]) -> Tuple[Dict[str, str], str, str, List[Bind], List[str]]:
    """Environment, HOST, folder, binds and command of a command line that Kuulo wrote."""
    environment: Dict[str, str] = {}
    host = folder = ""
    binds: List[Bind] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            break
        if word == "--environment":
            # Before anything is mounted: with HOST it is below that.
            with open(next(rest), encoding="ascii") as file:
                environment = json.load(file)
        elif word == "--host":
            host = next(rest)
        elif word == "--cd":
            folder = next(rest)
        elif word in ("--read", "--write"):
            source, target = next(rest), next(rest)
            binds.append((source, target, word == "--write"))
        elif word != "--follow":
            raise SystemExit(f"kuulo: {word!r} is not understood")
    return environment, host, folder, binds, list(rest)


def libraries(given: str) -> str:
    """LD_LIBRARY_PATH: NVIDIA's packages beside this Python, which CTranslate2 opens by name, and what the container
    program set (the driver's)."""
    own = os.path.join(os.path.dirname(os.path.dirname(sys.executable)), "lib", "python*", "site-packages")
    found = sorted(glob.glob(os.path.join(own, "nvidia", "*", "lib")))
    return os.pathsep.join([*found, *filter(None, [given]), *([DRIVER] if os.path.isdir(DRIVER) else [])])


# ---------------------------------------------------------------------- a root of its own


def enter(host: str, binds: List[Bind]) -> None:
    """Make the new root and step into it. Raises OSError."""
    user, group = os.getuid(), os.getgid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS, what="a namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _mount(None, "/", MS_REC | MS_PRIVATE)
    _mount("tmpfs", NEW_ROOT, 0, kind="tmpfs")
    outer = [b for b in binds if not any(_below(b[1], o[1]) for o in binds if o is not b)]
    _mirror("/", [target for _, target, _ in outer])
    for source, target, writable in sorted(binds, key=lambda bind: bind[1].count("/")):
        _bind(host + source, NEW_ROOT + target, writable)
    old = NEW_ROOT + "/.old"
    os.mkdir(old)
    _call("pivot_root", NEW_ROOT, old, what="the new root")
    os.chdir("/")
    _call("umount2", "/.old", MNT_DETACH, what="the old root")
    os.rmdir("/.old")


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _mirror(folder: str, targets: List[str]) -> None:
    """The image's `folder` in the new root, where no target is in it as it is; else a new folder with the same in it,
    and room for the targets."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        copy = NEW_ROOT + path
        if path == NEW_ROOT or path in targets or path.startswith("/opt/kuulo/host"):
            continue
        if os.path.islink(path):
            os.symlink(os.readlink(path), copy)
        elif any(_below(target, path) for target in targets) and os.path.isdir(path):
            os.mkdir(copy)
            _mirror(path, [target for target in targets if _below(target, path)])
        else:
            _place(copy, os.path.isdir(path))
            _mount(path, copy, MS_BIND | MS_REC)


def _bind(source: str, target: str, writable: bool) -> None:
    _place(target, os.path.isdir(source))
    _mount(source, target, MS_BIND | MS_REC)
    if not writable:
        has = os.statvfs(target).f_flag
        kept = sum(flag for had, flag in KEPT if has & had)
        _mount(None, target, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def _place(path: str, is_folder: bool) -> None:
    """Something to mount on."""
    if is_folder:
        os.makedirs(path, exist_ok=True)
    elif not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "a").close()


def _mount(source: Optional[str], target: str, flags: int, kind: Optional[str] = None) -> None:
    _call("mount", source, target, kind, flags, None, what=target)


def _call(name: str, *arguments: Any, what: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [
        os.fsencode(a) if isinstance(a, str) else ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments
    ]
    if name == "pivot_root":  # glibc has none
        numbers = {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "riscv64": 41}
        given = [ctypes.c_long(numbers[os.uname().machine]), *given]
        name = "syscall"
    if getattr(libc, name)(*given) != 0:
        number = ctypes.get_errno()
        raise Failed(number, f"{name}: {os.strerror(number)}", what)


# ---------------------------------------------------------------------- a GPU


def gpu() -> Dict[str, Any]:
    """`works`, and `said`: what the driver says of its GPUs."""
    for library, ask in (("libcuda.so.1", _cuda), ("libamdhip64.so", _hip)):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        works, said = ask(driver)
        return {"works": works, "said": f"{library}: {said}"}
    return {"works": False, "said": "neither libcuda.so.1 (NVIDIA) nor libamdhip64.so (AMD) can be loaded"}


def _cuda(driver: Any) -> Tuple[bool, str]:
    """CUDA Driver API: cuInit, cuDeviceGetCount."""
    code = driver.cuInit(0)
    if code != 0:
        return False, f"cuInit gives error {code}"
    return _counted(driver.cuDeviceGetCount)


def _hip(driver: Any) -> Tuple[bool, str]:
    """HIP Runtime API: hipGetDeviceCount."""
    return _counted(driver.hipGetDeviceCount)


def _counted(ask: Callable[[Any], int]) -> Tuple[bool, str]:
    count = ctypes.c_int(0)
    code = ask(ctypes.byref(count))
    if code != 0:
        return False, f"it gives error {code}"
    return count.value > 0, f"{count.value} GPU{'' if count.value == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
