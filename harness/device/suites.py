"""The Kotlin modules' own tests on a device: installed beside the app, run, and read test by test.

The suites' Instrumentation reports as AndroidX's runner does: a status with code 1 when a test
starts and one with its outcome when it ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.device import instrumentation
from harness.device.link import DeviceLink
from harness.errors import DeviceError

INSTRUMENTATION = "dev.alc.suites.SuitesInstrumentation"
FOLDER = "/data/local/tmp/harness/suites"
_STARTED = 1
_OUTCOMES = {0: "passed", -2: "failed", -3: "skipped", -4: "skipped"}
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """One test: "passed", "failed" or "skipped", and the stack trace or reason if there is one."""

    suite: str
    test: str
    outcome: str
    reason: str


def push_package(link: DeviceLink, package: Path) -> str:
    """Put a model package on the device as a folder, and return where it lies there."""
    remote = f"{FOLDER}/package"
    names = [path.relative_to(package) for path in sorted(package.rglob("*")) if path.is_file()]
    folders = sorted({f"{remote}/{name.parent.as_posix()}" for name in names})
    script = 'rm -rf "$1" && shift && mkdir -p "$@" && chmod -R a+rX "$1"'
    link.shell(["sh", "-c", script, "sh", remote, *folders])
    for name in names:
        link.push(package / name, f"{remote}/{name.as_posix()}")
    return remote


def clear(link: DeviceLink) -> None:
    """Remove the package that `push_package` put there."""
    link.shell(["rm", "-rf", FOLDER])


def run(
    link: DeviceLink,
    application_id: str,
    classes: Sequence[str],
    *,
    package: str,
    timeout: float,
    on_test: Callable[[str], None],
) -> tuple[Outcome, ...]:
    """Run the test classes on the model package at `package` (a folder on the device).

    `on_test` is told each test as it starts. Raises `DeviceError` if the run does not come to its
    end: a test that takes the process with it is named.
    """
    argv = ["am", "instrument", "-w", "-r", "-e", "class", ",".join(classes)]
    argv += ["-e", "alc.package", package, f"{application_id}/{INSTRUMENTATION}"]
    parser = instrumentation.Parser()
    outcomes: list[Outcome] = []
    running = ""
    limit = time.monotonic() + timeout
    with link.stream(argv) as stream:
        while True:
            try:
                for line in stream.lines(_POLL_SECONDS):
                    status = parser.feed(line)
                    if status is None:
                        continue
                    suite, test = (status.values.get(key, "") for key in ("class", "test"))
                    if status.code == _STARTED:
                        running = f"{suite}.{test}"
                        on_test(running)
                    elif status.code in _OUTCOMES:
                        reason = status.values.get("stack", "")
                        outcomes.append(Outcome(suite, test, _OUTCOMES[status.code], reason))
                        running = ""
                break
            except TimeoutError:
                if time.monotonic() > limit:
                    with contextlib.suppress(DeviceError):
                        link.shell(["am", "force-stop", application_id], timeout=10)
                    raise _broken(link, running, f"not done after {timeout:.0f} s") from None
    problem = parser.outcome().problem
    if problem:
        raise _broken(link, running, problem)
    return tuple(outcomes)


def _broken(link: DeviceLink, running: str, cause: str) -> DeviceError:
    return DeviceError(
        f"the suites on {link.serial} did not come to their end",
        cause=f"{cause} (in {running})" if running else cause,
        remedy=f"adb -s {link.serial} logcat -d   # what they said last",
    )
