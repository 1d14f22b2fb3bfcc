"""Everything that Kuulo can fail with, and the exit code that each becomes.

    KuuloError                 expected: shown without a traceback
    ├── UsageError        (2)  the request is not understood, or asks for what cannot be
    │   └── OptionRefused      an engine cannot honour an option that was given
    ├── CannotRun         (3)  nothing could be run
    │   ├── EngineMissing      an engine is not installed, or does not start
    │   └── ModelMissing       no store has the model, or its files are not what they should be
    └── InputFailed       (1)  one recording cannot be transcribed; the others go on

A message has up to three facts: what failed, what was looked at, what to do now.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_CANNOT_RUN = 3
EXIT_INTERRUPTED = 130


class KuuloError(Exception):
    """An expected failure. `str()` gives the three facts, one to a line."""

    exit_code = EXIT_SOME_FAILED

    def __init__(self, what: str, *, looked_at: str | None = None, do: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.looked_at = looked_at
        self.do = do

    def __str__(self) -> str:
        lines = [self.what]
        if self.looked_at:
            lines.append(f"  looked at: {self.looked_at}")
        if self.do:
            lines.append(f"  what to do: {self.do}")
        return "\n".join(lines)


class UsageError(KuuloError):
    """The request is not understood, or asks for what cannot be."""

    exit_code = EXIT_USAGE


class OptionRefused(UsageError):
    """An engine cannot honour an option that was given."""


class CannotRun(KuuloError):
    """Nothing could be run."""

    exit_code = EXIT_CANNOT_RUN


class EngineMissing(CannotRun):
    """An engine is not installed, or does not start."""


class ModelMissing(CannotRun):
    """No store has the model, or its files are not what they should be."""


class InputFailed(KuuloError):
    """One recording cannot be transcribed; the others go on."""

    exit_code = EXIT_SOME_FAILED
