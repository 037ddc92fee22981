"""`harness chat` as people use it: at a terminal, and in a pipe."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.phone, pytest.mark.timeout(1800)]

WORDS = ("chat", "smollm2-135m-instruct", "--abi", "x86_64")
QUESTION, ANSWER = "How many days are in a week?", "A week is approximately 7 days."
LONG = "Tell me a very long story about a river."


def test_lines_of_a_pipe_are_turns_of_one_conversation(workspace: Any, x86: dict[str, Any]) -> None:
    lines = [
        QUESTION,
        "/stats",
        "And in a year?",
        "/stats",
        "/reset",
        QUESTION,
        "/stats",
        "/nothing",
    ]
    process = workspace.start(*WORDS, stdin=subprocess.PIPE)
    output, errors = process.communicate("".join(f"{line}\n" for line in lines), timeout=300)
    assert process.returncode == 0, errors
    assert output.startswith(f"{ANSWER}\nlast ")
    assert output.count(ANSWER) == 2
    stats = re.findall(r"^last +prompt (\d+) tokens \((\d+) cached\)", output, re.MULTILINE)
    (first, none), (second, cached), (anew, nothing) = [(int(a), int(b)) for a, b in stats]
    assert first == anew == 38 and none == nothing == 0
    assert 38 <= cached < second
    assert output.count("virtual phone") == 3
    assert "there is no /nothing" in errors and "Traceback" not in errors


def test_what_is_said_first_and_how_long_answers_are_can_be_chosen(
    workspace: Any, x86: dict[str, Any]
) -> None:
    process = workspace.start(
        *WORDS, "--system", "You speak of fish.", "--max-tokens", "3", stdin=subprocess.PIPE
    )
    output, errors = process.communicate(f"{QUESTION}\n/stats\n", timeout=300)
    assert process.returncode == 0, errors
    assert "answer 3 " in output and "cut: the answer has all its tokens" in errors


def test_a_stop_in_a_pipe_ends_the_answer_and_the_chat_goes_on(
    workspace: Any, x86: dict[str, Any]
) -> None:
    with chatting(workspace) as process:
        process.stdin.write(f"{LONG}\n")
        process.stdin.flush()
        wait_for_text(process)
        output, errors = process.communicate(f"/stop\n/reset\n{QUESTION}\n/quit\n", timeout=120)
    assert process.returncode == 0, errors
    assert "stopped" in errors
    assert output.endswith(f"{ANSWER}\n")


def test_ctrl_c_in_a_pipe_stops_the_answer_and_twice_leaves(
    workspace: Any, x86: dict[str, Any]
) -> None:
    with chatting(workspace) as process:
        # How far an answer comes before it is stopped is chance; the next must not depend on it.
        process.stdin.write(f"{LONG}\n/reset\n{QUESTION}\n")
        process.stdin.flush()
        wait_for_text(process)
        process.send_signal(signal.SIGINT)
        read_until(process.stdout.fileno(), f"{ANSWER}\n")
        errors = read_until(process.stderr.fileno(), "stopped")
        process.stdin.write(f"{LONG}\n")
        process.stdin.flush()
        wait_for_text(process)
        process.send_signal(signal.SIGINT)
        # Two that wait at once are one to Linux.
        errors += read_until(process.stderr.fileno(), "stopped")
        process.send_signal(signal.SIGINT)
        # Its input stays open: the end of it would be another way to leave.
        assert process.wait(120) == 130
        errors += process.stderr.read()
    assert "Traceback" not in errors


def test_an_answer_that_fails_in_a_pipe_is_one_clear_error(
    workspace: Any, x86: dict[str, Any]
) -> None:
    process = workspace.start(*WORDS, "--context", "64", stdin=subprocess.PIPE)
    output, errors = process.communicate(f"{'word ' * 100}\n{QUESTION}\n", timeout=300)
    assert process.returncode == 5, errors
    assert "context holds 64" in errors and output == ""
    assert "Traceback" not in errors


def test_a_terminal_asks_answers_and_can_be_interrupted(
    workspace: Any, x86: dict[str, Any]
) -> None:
    master, slave = pty.openpty()
    # A terminal of its own, as a login has, so that what is typed becomes signals.
    process = workspace.start(
        *WORDS, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: controlling(slave),
    )  # fmt: skip
    os.close(slave)
    try:
        read_until(master, "> ")
        os.write(master, f"{QUESTION}\n".encode())
        assert ANSWER in read_until(master, "\n> ")
        os.write(master, f"{LONG}\n".encode())
        read_until(master, "\n")
        read_words(master)
        os.write(master, b"\x03")
        assert "stopped" in read_until(master, "> ")
        os.write(master, b"/help\n")
        assert "/quit" in read_until(master, "\n> ")
        os.write(master, b"\x03")
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(master)


def controlling(terminal: int) -> None:
    """Make `terminal` the one that signals of this session come from."""
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def chatting(workspace: Any) -> Iterator[subprocess.Popen[str]]:
    process = workspace.start(*WORDS, "--max-tokens", "2000", stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_text(process: Any) -> None:
    """Until the model has begun to answer; what it said is read."""
    read_some(process.stdout.fileno())


def read_some(descriptor: int) -> str:
    ready, _, _ = select.select([descriptor], [], [], 120)
    assert ready, "nothing came"
    return os.read(descriptor, 1 << 16).decode("utf-8", "replace")


def read_words(descriptor: int) -> None:
    """Until something came that is no control of the terminal."""
    found = ""
    while not re.search("[a-z]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found)):
        found += read_some(descriptor)


def read_until(descriptor: int, text: str) -> str:
    """Everything up to where `text` has come."""
    found, end = "", time.monotonic() + 180
    while text not in found:
        assert time.monotonic() < end, found
        found += read_some(descriptor)
    return found
