import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import console
from harness.errors import StageFailed


@pytest.fixture(autouse=True)
def plain_console() -> None:
    console.configure()


def test_a_step_closes_with_one_line_and_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with console.step("compile", "packing the weights") as step:
        step.done("135M weights in 4 bits")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("+ compile  135M weights in 4 bits  ")
    assert shown.err.endswith(" s\n")


def test_a_failed_step_does_not_claim_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), console.step("build", "compiling"):
        raise RuntimeError
    assert "+" not in capsys.readouterr().err


def test_a_silent_step_says_that_it_is_alive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.0)
    import time

    with console.step("build", "linking"):
        time.sleep(1.3)
    assert "· build    linking" in capsys.readouterr().err


def test_an_error_is_what_failed_the_cause_and_a_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failure = StageFailed("cannot link", cause="no linker", remedy="harness doctor")
    failure.stage = "build"
    console.error(failure)
    assert capsys.readouterr().err == (
        "x build    cannot link\n  cause  no linker\n  try    harness doctor\n"
    )


def test_what_the_screen_hides_is_in_the_log_and_secrets_are_not(tmp_path: Path) -> None:
    console.configure(log=tmp_path / "log")
    console.detail("HF_TOKEN=abcdef used with hf_0123456789 and api_key: topsecret")
    console.configure()
    text = (tmp_path / "log").read_text()
    assert "used with" in text
    for secret in ("abcdef", "hf_0123456789", "topsecret"):
        assert secret not in text


@given(st.floats(min_value=0, max_value=1e15))
def test_sizes_are_short(amount: float) -> None:
    assert len(console.size(amount)) <= 14


def test_the_console_needs_no_terminal_library() -> None:
    import subprocess

    code = "import sys, harness.console; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
