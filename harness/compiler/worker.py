"""Compiler jobs in a child process: TVM's crashes and its memory are the child's, not ours.

A job is a JSON document with the name of a task and its settings. The child prints lines of JSON,
each an object with one key: "progress", at the end "result", or "error".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import errors, files, process
from harness.console import Step
from harness.errors import HarnessError, StageFailed

_REMEDY = "run the same command with -v to see all that the compiler printed"


def run_job(
    task: str,
    settings: Mapping[str, object],
    folder: Path,
    step: Step | None = None,
    env: Mapping[str, str] | None = None,
) -> Mapping[str, Any]:
    """Run a task in a child process and return its result; `folder` keeps the job's document.

    Raises what the task raised, and `StageFailed` if the child died.
    """
    job = folder / f"{task}.job.json"
    files.write_json(job, {"task": task, "settings": dict(settings)})
    messages: list[Mapping[str, Any]] = []

    def listen(line: str) -> None:
        message = _message(line)
        if message is None:
            return
        if "progress" not in message:
            messages.append(message)
        elif step is not None:
            progress = message["progress"]
            step.progress(progress["done"], progress["total"], progress["unit"])

    argv = [sys.executable, "-m", "harness.compiler", str(job)]
    done = process.run(argv, what="the compiler", env=env, on_line=listen, check=False)
    job.unlink(missing_ok=True)
    for message in messages:
        if "error" in message:
            raise _raised(message["error"])
        if "result" in message and done.code == 0:
            result: Mapping[str, Any] = message["result"]
            return result
    tail = "\n         ".join(done.stderr.strip().splitlines()[-8:])
    died = f"signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
    raise StageFailed(f"the compiler ended with {died}", cause=tail, remedy=_REMEDY)


def describe(error: HarnessError) -> dict[str, str]:
    """An error as a child says it."""
    return {
        "kind": type(error).__name__,
        "what": error.what,
        "cause": error.cause,
        "remedy": error.remedy,
    }


def _message(line: str) -> Mapping[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _raised(error: Mapping[str, str]) -> HarnessError:
    kind = getattr(errors, error["kind"], StageFailed)
    if not (isinstance(kind, type) and issubclass(kind, HarnessError)):
        kind = StageFailed
    return kind(error["what"], cause=error["cause"], remedy=error["remedy"])
