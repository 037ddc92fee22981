"""`python -m harness.compiler JOB.json`: one job of the compiler in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness import files
from harness.compiler.worker import describe
from harness.errors import HarnessError


def main() -> int:
    """Run the job and print its messages; 0 if it succeeded."""
    from harness.compiler import jobs

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        result = jobs.task(job["task"])(job["settings"], _progress)
    except HarnessError as problem:
        _say("error", describe(problem))
        return int(problem.exit_code)
    except OSError as problem:
        named = Path(str(problem.filename or job["settings"].get("folder", "the output")))
        failure = files.disk_error(named, problem)
        _say("error", describe(failure))
        return int(failure.exit_code)
    _say("result", result)
    return 0


def _progress(done: float, total: float, unit: str) -> None:
    _say("progress", {"done": done, "total": total, "unit": unit})


def _say(key: str, value: Any) -> None:
    print(json.dumps({key: value}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
