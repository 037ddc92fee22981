"""The whole road as a user walks it: the command line, the real adb, a phone, the answer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MissingTool
from harness.tools import adb, qemu
from harness.virtual_phone import lifecycle

pytestmark = [pytest.mark.phone, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[1]
PROMPT, ANSWER = "How many days are in a week?", "A week is approximately 7 days."
TIMINGS = ("load_ms", "ttft_ms", "prefill_tok_s", "decode_tok_s", "decode_ms_p50", "decode_ms_p95")


@dataclass
class Workspace:
    """A workspace with phones and runs of its own that builds where the checkout does."""

    folder: Path
    environment: dict[str, str]

    def harness(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*words), **self._options(), timeout=1700)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*words),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "harness", *words]

    def _options(self) -> dict[str, Any]:
        environment = self.environment
        return {"cwd": self.folder, "env": environment, "text": True, "capture_output": True}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    import socket

    folder = tmp_path_factory.mktemp("road")
    (CHECKOUT / ".harness/build").mkdir(parents=True, exist_ok=True)
    (folder / ".harness").mkdir()
    (folder / ".harness/build").symlink_to(CHECKOUT / ".harness/build")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, adb.PORT_VARIABLE: str(port), "PYTHONPATH": str(CHECKOUT)}
    environment.pop("ANDROID_SERIAL", None)
    yield Workspace(folder, environment)
    for phone in lifecycle.status(folder):
        phone.stop()
    subprocess.run([adb.find().path, "-P", str(port), "kill-server"], capture_output=True)


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


@pytest.fixture(scope="module")
def x86(workspace: Workspace) -> dict[str, Any]:
    return document(workspace.harness("run", "--abi", "x86_64", "--json"))


def test_the_road_ends_with_the_answer_and_every_timing(x86: dict[str, Any]) -> None:
    (prompt,) = x86["prompts"]
    assert prompt["prompt"] == PROMPT
    assert prompt["text"].strip() == ANSWER
    assert len(prompt["token_ids"]) == 8
    assert prompt["prompt_tokens"] == 38
    assert all(prompt[name] > 0 for name in TIMINGS)


def test_every_number_says_that_it_is_a_virtual_phones(x86: dict[str, Any]) -> None:
    assert x86["virtual"] is True
    assert all(prompt["virtual"] is True for prompt in x86["prompts"])
    page = Path(x86["files"]["html"]).read_text()
    assert "virtual phone" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_apps_memory_is_under_600_mb(x86: dict[str, Any]) -> None:
    assert 0 < x86["pss_peak_kb"] < 600_000


def test_a_second_run_does_nothing_again_and_says_so(
    workspace: Workspace, x86: dict[str, Any]
) -> None:
    done = workspace.harness("run", "--abi", "x86_64")
    assert done.returncode == 0, done.stderr
    assert ANSWER in done.stdout
    began = re.findall(r"^\+ (\w+)", done.stderr, re.MULTILINE)
    assert set(began) <= {"phone", "measure"}, done.stderr
    for stage in ("compile", "build", "render", "package", "deploy", "test"):
        assert re.search(rf"^= {stage} ", done.stderr, re.MULTILINE), done.stderr
    deployed = document(workspace.harness("deploy", "--abi", "x86_64", "--json"))
    assert deployed["pushed_bytes"] == 0


def test_a_prompt_of_the_users_own_is_answered(workspace: Workspace, x86: dict[str, Any]) -> None:
    words = ["--prompt", "Say hello.", "--prompt", "Say bye.", "--max-tokens", "5"]
    shown = document(workspace.harness("measure", "--abi", "x86_64", "--json", *words))
    assert [prompt["prompt"] for prompt in shown["prompts"]] == ["Say hello.", "Say bye."]
    assert all(len(prompt["token_ids"]) <= 5 for prompt in shown["prompts"])


def test_an_old_run_can_be_reported_again(workspace: Workspace, x86: dict[str, Any]) -> None:
    again = document(workspace.harness("report", x86["run"], "--json"))
    assert again["prompts"] == x86["prompts"]


def test_a_package_gives_the_logits_of_transformers_in_the_app(
    workspace: Workspace, x86: dict[str, Any]
) -> None:
    golden = CHECKOUT / "tests/goldens/gemma3-window"
    target = str(workspace.folder / "gemma3")
    words = ["--abi", "x86_64", "--quant", "q0f32", "-o", target]
    compiled = workspace.harness("compile", str(golden), *words)
    assert compiled.returncode == 0, compiled.stderr
    shown = json.loads(workspace.harness("devices", "--json").stdout)
    words = ["--golden", str(golden / "golden.npz"), "-s", shown["devices"][0]["serial"]]
    verified = document(workspace.harness("verify", target, *words, "--json"))
    assert "virtual phone" in verified["where"]
    assert len(verified["ways"]) == 4 and verified["problems"] == []
    assert all(figures["max_abs"] < 2e-3 for figures in verified["ways"].values())
    assert verified["ways"]["greedy"]["greedy_match"] == 1.0


def test_two_runs_at_once_on_one_phone_both_end_well(
    workspace: Workspace, x86: dict[str, Any]
) -> None:
    both = [workspace.start("measure", "--abi", "x86_64", "--json") for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert json.loads(output)["prompts"][0]["text"].strip() == ANSWER


def test_ctrl_c_while_measuring_is_130_and_the_next_run_works(
    workspace: Workspace, x86: dict[str, Any]
) -> None:
    long = ["--prompt", "Tell me a long story.", "--max-tokens", "2000"]
    process = workspace.start("measure", "--abi", "x86_64", *long)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    after = document(workspace.harness("measure", "--abi", "x86_64", "--json"))
    assert after["prompts"][0]["text"].strip() == ANSWER


def test_an_arm64_phone_gives_the_same_tokens(workspace: Workspace, x86: dict[str, Any]) -> None:
    try:
        qemu.find()
    except MissingTool as missing:
        pytest.skip(str(missing))
    arm = document(workspace.harness("measure", "--abi", "arm64-v8a", "--json"))
    assert arm["target"] == "arm64-v8a-glibc"
    assert arm["prompts"][0]["token_ids"] == x86["prompts"][0]["token_ids"]
    assert arm["prompts"][0]["text"].strip() == ANSWER
