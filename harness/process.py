"""The one door for outside programs: argument lists, never shell strings; everything is logged."""

from __future__ import annotations

import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness import console
from harness.errors import HarnessError, MissingTool, StageFailed

GRACE_SECONDS = 5.0
TAIL_LINES = 12
# A wait without an end would miss Ctrl-C where the kernel hands the signal to another thread.
LISTEN_SECONDS = 0.25


@dataclass(frozen=True)
class Completed:
    """An outside program that has ended."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float


def run(
    argv: Sequence[str | Path],
    *,
    what: str = "",
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it printed.

    `env` holds changes to the environment, `on_line` is called with each line of stdout and stderr
    as it comes. The program gets a process group of its own, which is ended with it: on a
    time-out, on Ctrl-C, and when `on_line` raises.

    Raises `MissingTool` if the program cannot be started, `StageFailed` if it runs past `timeout`
    seconds or (with `check`) exits with another code than 0; the cause is the end of its output.
    """
    words = [str(word) for word in argv]
    label = what or Path(words[0]).name
    console.detail("$ " + _changes(env) + shlex.join(words) + (f"   (in {cwd})" if cwd else ""))
    began = time.monotonic()
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as problem:
        raise MissingTool(
            f"cannot start {words[0]}",
            cause=problem.strerror or str(problem),
            remedy="harness doctor",
        ) from problem
    try:
        stdout, stderr = _collect(child, input, on_line, began, timeout)
    except BaseException:
        _end(child)
        raise
    seconds = time.monotonic() - began
    console.detail(f"  exit {child.returncode} after {seconds:.2f} s")
    done = Completed(tuple(words), child.returncode, stdout, stderr, seconds)
    if check and child.returncode != 0:
        raise StageFailed(
            f"{label} failed with exit code {child.returncode}",
            cause=_tail(stderr) or _tail(stdout) or "it printed nothing",
            remedy="run the same command with -v to see its whole output",
        )
    return done


def _collect(
    child: subprocess.Popen[bytes],
    input: bytes | None,
    on_line: Callable[[str], None] | None,
    began: float,
    timeout: float | None,
) -> tuple[str, str]:
    """Read both streams in threads and hand over lines in the caller's thread."""
    lines: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()

    def read(number: int, stream: IO[bytes]) -> None:
        for raw in stream:
            lines.put((number, raw.decode("utf-8", "replace")))
        lines.put(None)

    def write() -> None:
        assert child.stdin is not None and input is not None
        try:
            child.stdin.write(input)
            child.stdin.close()
        except BrokenPipeError:
            pass  # the program did not want all of its input; its exit code tells

    assert child.stdout is not None and child.stderr is not None
    workers = [
        threading.Thread(target=read, args=(0, child.stdout), daemon=True),
        threading.Thread(target=read, args=(1, child.stderr), daemon=True),
    ]
    if input is not None:
        workers.append(threading.Thread(target=write, daemon=True))
    for worker in workers:
        worker.start()
    parts: tuple[list[str], list[str]] = ([], [])
    open_streams = 2
    while open_streams:
        try:
            item = lines.get(timeout=LISTEN_SECONDS)
        except queue.Empty:
            if timeout is not None and time.monotonic() > began + timeout:
                raise _timed_out(child, timeout) from None
            continue
        if item is None:
            open_streams -= 1
            continue
        number, text = item
        parts[number].append(text)
        console.detail(f"  {text.rstrip()}")
        if on_line is not None:
            on_line(text.rstrip("\r\n"))
    try:
        child.wait(None if timeout is None else max(0.1, began + timeout - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _timed_out(child, timeout) from None
    return "".join(parts[0]), "".join(parts[1])


def _timed_out(child: subprocess.Popen[bytes], timeout: float | None) -> HarnessError:
    argv = child.args if isinstance(child.args, list) else [str(child.args)]
    return StageFailed(
        f"{Path(str(argv[0])).name} did not end",
        cause=f"it was still running after {timeout:.0f} s",
        remedy="run the same command with -v to see where it hangs",
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE_SECONDS)
            break
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def _tail(text: str) -> str:
    return "\n         ".join(text.strip().splitlines()[-TAIL_LINES:])


def _changes(env: Mapping[str, str] | None) -> str:
    return "".join(f"{name}={shlex.quote(value)} " for name, value in (env or {}).items())
