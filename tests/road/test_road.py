"""The whole road as a user walks it: the command line, the real adb, a phone, the answer."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MissingTool
from harness.tools import qemu

pytestmark = [pytest.mark.phone, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[2]
PROMPT, ANSWER = "How many days are in a week?", "A week is approximately 7 days."
TIMINGS = ("load_ms", "ttft_ms", "prefill_tok_s", "decode_tok_s", "decode_ms_p50", "decode_ms_p95")


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


def test_a_second_run_does_nothing_again_and_says_so(workspace: Any, x86: dict[str, Any]) -> None:
    done = workspace.harness("run", "--abi", "x86_64")
    assert done.returncode == 0, done.stderr
    assert ANSWER in done.stdout
    began = re.findall(r"^\+ (\w+)", done.stderr, re.MULTILINE)
    assert set(began) <= {"phone", "measure"}, done.stderr
    for stage in ("compile", "build", "render", "package", "deploy", "test"):
        assert re.search(rf"^= {stage} ", done.stderr, re.MULTILINE), done.stderr
    deployed = workspace.document("deploy", "--abi", "x86_64")
    assert deployed["pushed_bytes"] == 0


def test_a_prompt_of_the_users_own_is_answered(workspace: Any, x86: dict[str, Any]) -> None:
    words = ["--prompt", "Say hello.", "--prompt", "Say bye.", "--max-tokens", "5"]
    shown = workspace.document("measure", "--abi", "x86_64", *words)
    assert [prompt["prompt"] for prompt in shown["prompts"]] == ["Say hello.", "Say bye."]
    assert all(len(prompt["token_ids"]) <= 5 for prompt in shown["prompts"])


def test_an_old_run_can_be_reported_again(workspace: Any, x86: dict[str, Any]) -> None:
    again = workspace.document("report", x86["run"])
    assert again["prompts"] == x86["prompts"]


def test_a_package_gives_the_logits_of_transformers_in_the_app(
    workspace: Any, x86: dict[str, Any]
) -> None:
    golden = CHECKOUT / "tests/goldens/gemma3-window"
    target = str(workspace.folder / "gemma3")
    words = ["--abi", "x86_64", "--quant", "q0f32", "-o", target]
    compiled = workspace.harness("compile", str(golden), *words)
    assert compiled.returncode == 0, compiled.stderr
    shown = json.loads(workspace.harness("devices", "--json").stdout)
    words = ["--golden", str(golden / "golden.npz"), "-s", shown["devices"][0]["serial"]]
    verified = workspace.document("verify", target, *words)
    assert "virtual phone" in verified["where"]
    assert len(verified["ways"]) == 4 and verified["problems"] == []
    assert all(figures["max_abs"] < 2e-3 for figures in verified["ways"].values())
    assert verified["ways"]["greedy"]["greedy_match"] == 1.0


def test_two_runs_at_once_on_one_phone_both_end_well(workspace: Any, x86: dict[str, Any]) -> None:
    both = [workspace.start("measure", "--abi", "x86_64", "--json") for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert json.loads(output)["prompts"][0]["text"].strip() == ANSWER


def test_ctrl_c_while_measuring_is_130_and_the_next_run_works(
    workspace: Any, x86: dict[str, Any]
) -> None:
    long = ["--prompt", "Tell me a long story.", "--max-tokens", "2000"]
    process = workspace.start("measure", "--abi", "x86_64", *long)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    after = workspace.document("measure", "--abi", "x86_64")
    assert after["prompts"][0]["text"].strip() == ANSWER


def test_an_arm64_phone_gives_the_same_tokens(workspace: Any, x86: dict[str, Any]) -> None:
    try:
        qemu.find()
    except MissingTool as missing:
        pytest.skip(str(missing))
    arm = workspace.document("measure", "--abi", "arm64-v8a")
    assert arm["target"] == "arm64-v8a-glibc"
    assert arm["prompts"][0]["token_ids"] == x86["prompts"][0]["token_ids"]
    assert arm["prompts"][0]["text"].strip() == ANSWER
