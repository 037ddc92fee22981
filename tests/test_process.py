import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import process
from harness.errors import MissingTool, StageFailed


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def runs(process_id: str) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_both_streams_and_the_exit_code_come_back() -> None:
    done = process.run(
        python("import sys; print('a'); print('b', file=sys.stderr); sys.exit(3)"), check=False
    )
    assert (done.stdout, done.stderr, done.code) == ("a\n", "b\n", 3)


def test_lines_arrive_while_the_program_runs() -> None:
    seen: list[float] = []
    code = "import time\nfor i in range(2): print(i, flush=True); time.sleep(0.3)"
    process.run(python(code), on_line=lambda _: seen.append(time.monotonic()))
    assert seen[1] - seen[0] > 0.15


def test_a_failure_carries_the_end_of_what_was_printed() -> None:
    with pytest.raises(StageFailed) as caught:
        process.run(python("print('first'); raise SystemExit('the reason')"), what="the tool")
    assert caught.value.what == "the tool failed with exit code 1"
    assert "the reason" in caught.value.cause


def test_a_program_that_is_not_there_is_a_missing_tool() -> None:
    with pytest.raises(MissingTool):
        process.run(["/nonexistent/program"])


def test_arguments_reach_the_program_unchanged_by_any_shell() -> None:
    words = ["$HOME", "a b", "`id`", "'", '"', "*", "\n", "é"]
    done = process.run([*python("import sys, json; print(json.dumps(sys.argv[1:]))"), *words])
    import json

    assert json.loads(done.stdout) == words


def test_input_larger_than_a_pipe_does_not_block() -> None:
    data = os.urandom(1 << 20)
    code = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    import hashlib

    assert process.run(python(code), input=data).stdout.strip() == hashlib.sha256(data).hexdigest()


def test_a_timeout_ends_the_program_and_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(mark)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    with pytest.raises(StageFailed, match="did not end"):
        process.run(python(code), timeout=4)
    child = mark.read_text()
    deadline = time.monotonic() + 30
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(child)


def test_ctrl_c_ends_the_program() -> None:
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        process.run(python("import time; time.sleep(30)"))
    assert time.monotonic() - began < 10
