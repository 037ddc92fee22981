import os
from pathlib import Path

import pytest

from harness import config
from harness.errors import UsageError


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    key = "device.serial"
    assert config.load(tmp_path).values[key] == config.Value(None, "default")
    (tmp_path / "harness.toml").write_text('[device]\nserial = "from-file"\n')
    assert config.load(tmp_path).values[key] == config.Value("from-file", "harness.toml")
    monkeypatch.setenv("ANDROID_SERIAL", "from-environment")
    assert config.load(tmp_path).values[key].origin == "environment ANDROID_SERIAL"
    assert config.load(tmp_path, {key: "flag"}).values[key] == config.Value("flag", "flag")


def test_the_first_named_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_NDK_HOME", "/first")
    monkeypatch.setenv("ANDROID_NDK_ROOT", "/second")
    assert config.load(tmp_path).text("tools.android_ndk") == "/first"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[device]\nserail = 'x'\n", "did you mean 'device.serial'?"),
        ("[run]\nthreads = 'two'\n", "run.threads must be a whole number"),
        ("[run]\nthreads = true\n", "run.threads must be a whole number"),
        ("loose = 1\n", "outside a table"),
        ("[run\n", "harness.toml is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "harness.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path)
    assert cause in f"{caught.value.what} {caught.value.cause}"


def test_tools_that_the_file_names_are_found_by_their_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAVA_HOME", "/from/environment")
    (tmp_path / "harness.toml").write_text(
        '[tools]\nandroid_ndk = "/from/file"\njava_home = "/from/file"\n'
    )
    config.hand_to_tools(config.load(tmp_path))
    assert os.environ["ANDROID_NDK_HOME"] == "/from/file"
    assert os.environ["JAVA_HOME"] == "/from/environment"
    monkeypatch.delenv("ANDROID_NDK_HOME")
