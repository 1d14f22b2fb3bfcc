"""Times and sizes, as people and Slurm write them. Pure."""

from __future__ import annotations

import re

from kuulo.errors import UsageError


def minutes(text: str) -> int:
    """Minutes in `90`, `1:30:00`, `2-12:00:00`, as Slurm reads times; rounded up, at least 1. Raises UsageError."""
    found = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,5})(?::(\d{1,2}))?(?::(\d{1,2}))?", text.strip())
    if not found:
        raise UsageError(f"{text!r} is not a time", do="write minutes (90), HH:MM:SS or D-HH:MM:SS")
    days, *rest = found.groups()
    numbers = [int(n) for n in rest if n is not None]
    if days is not None:  # D-HH, D-HH:MM, D-HH:MM:SS
        hours, mins, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, mins, seconds = numbers
    else:  # MM, MM:SS
        hours, mins, seconds = 0, numbers[0], [*numbers, 0][1]
    return max(1, int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0))


def megabytes(text: str) -> int:
    """Megabytes in `8G`, `6000M`, `6000`, as Slurm reads sizes. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,9})([kmgt]?)b?", text.strip().lower())
    if not found or not int(found[1]):
        raise UsageError(f"{text!r} is not a size", do="write 8G or 6000M")
    factor = {"k": 1 / 1024, "": 1, "m": 1, "g": 1024, "t": 1024 * 1024}[found[2]]
    return max(1, round(int(found[1]) * factor))


def duration(seconds: float) -> str:
    """For people: 45 s, 12.5 min, 3.2 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """A time limit: 1:30:00, 2-12:00:00."""
    days, rest = divmod(round(seconds), 86_400)
    return (f"{days}-" if days else "") + f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"


def counted(number: int, what: str) -> str:
    """1 task, 2 tasks."""
    return f"{number} {what}{'' if number == 1 else 's'}"
