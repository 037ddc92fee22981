"""Every error a user can meet: what failed, why, and a command to try."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `harness`."""

    OK = 0
    BUG = 1
    USAGE = 2
    MISSING_TOOL = 3
    STAGE = 4
    DEVICE = 5
    TESTS = 6
    REGRESSION = 7
    TIMINGS = 8
    INTERRUPTED = 130


class HarnessError(Exception):
    """A failure that the user can understand and act on.

    `what` says what failed, `cause` why, `remedy` is a command or a step to try. None of them
    holds a traceback; chain the original exception with `raise ... from`.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, what: str, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.remedy = remedy
        self.stage = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.cause})" if self.cause else self.what


class UsageError(HarnessError):
    """A wrong flag, recipe or setting."""

    exit_code = ExitCode.USAGE


class MissingTool(HarnessError):
    """An outside program or file that the stage needs is not there."""

    exit_code = ExitCode.MISSING_TOOL


class StageFailed(HarnessError):
    """A build stage (compile, build, render, package) could not do its work."""

    exit_code = ExitCode.STAGE


class DeviceError(HarnessError):
    """The device refused, vanished, or lied."""

    exit_code = ExitCode.DEVICE


class TestsFailed(HarnessError):
    """Tests ran on the device and some failed."""

    __test__ = False
    exit_code = ExitCode.TESTS


class Regression(HarnessError):
    """A comparison found a result worse than allowed."""

    exit_code = ExitCode.REGRESSION


class TimingsIncomplete(HarnessError):
    """Timing records were lost and could not be repaired from the device's file."""

    exit_code = ExitCode.TIMINGS


class Interrupted(HarnessError):
    """The user stopped the run; running again resumes it."""

    exit_code = ExitCode.INTERRUPTED
