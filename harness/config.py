"""Settings from flags, the environment, `harness.toml` and defaults, in this order."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

FILE = "harness.toml"


@dataclass(frozen=True)
class Setting:
    """A setting: its key in `harness.toml`, its environment variables (first wins), its default."""

    key: str
    kind: type[str] | type[int]
    help: str
    environment: tuple[str, ...] = ()
    default: str | int | None = None


SETTINGS = (
    Setting("device.serial", str, "the device to use", ("ANDROID_SERIAL",)),
    Setting("device.abi", str, "the ABI of a virtual phone that is started", default="arm64-v8a"),
    Setting("run.model", str, "the model to run", default="smollm2-135m-instruct"),
    Setting("run.quantization", str, "replaces the recipe's quantization"),
    Setting("run.max_tokens", int, "replaces the recipe's number of generated tokens"),
    Setting("run.threads", int, "threads of a forward pass, else as many as big cores, 4 at most"),
    Setting("run.cpu_variant", str, "the library's variant that runs, else the best that can"),
    Setting("phone.memory_mib", int, "memory of a virtual phone", default=4096),
    Setting("phone.storage_mib", int, "storage of a virtual phone", default=4096),
    Setting("tools.android_home", str, "the Android SDK", ("ANDROID_HOME", "ANDROID_SDK_ROOT")),
    Setting(
        "tools.android_ndk",
        str,
        "the Android NDK",
        ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK"),
    ),
    Setting("tools.java_home", str, "the JDK", ("JAVA_HOME",)),
)
_BY_KEY = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Value:
    """A setting's value and where it came from."""

    value: str | int | None
    origin: str


@dataclass(frozen=True)
class Config:
    """The settings in force in a workspace."""

    workspace: Path
    values: Mapping[str, Value]

    def text(self, key: str) -> str | None:
        """A text setting, or None where nothing sets it."""
        value = self.values[key].value
        return None if value is None else str(value)

    def number(self, key: str) -> int | None:
        """A number setting, or None where nothing sets it."""
        value = self.values[key].value
        return None if value is None else int(value)


def hand_to_tools(config: Config) -> None:
    """Name the tools that `harness.toml` names in the environment, where tools are looked up."""
    for setting in SETTINGS:
        value = config.values[setting.key]
        if setting.key.startswith("tools.") and value.origin == FILE:
            os.environ[setting.environment[0]] = str(value.value)


def load(workspace: Path, flags: Mapping[str, str | int | None] | None = None) -> Config:
    """Settle every setting. `flags` maps keys to what the command line says (None: nothing).

    Raises `UsageError` for a broken `harness.toml`, an unknown key or a wrong type.
    """
    file = _read_file(workspace / FILE)
    values: dict[str, Value] = {}
    for setting in SETTINGS:
        values[setting.key] = _settle(setting, flags or {}, file)
    return Config(workspace, values)


def _settle(
    setting: Setting, flags: Mapping[str, str | int | None], file: Mapping[str, str | int]
) -> Value:
    flag = flags.get(setting.key)
    if flag is not None:
        return Value(flag, "flag")
    for name in setting.environment:
        if os.environ.get(name):
            return Value(os.environ[name], f"environment {name}")
    if setting.key in file:
        return Value(file[setting.key], FILE)
    return Value(setting.default, "default")


def _read_file(path: Path) -> dict[str, str | int]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as problem:
        raise UsageError(f"cannot read {path}", cause=problem.strerror or "") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is not TOML", cause=str(problem)) from problem
    found: dict[str, str | int] = {}
    problems: list[str] = []
    for table, content in document.items():
        if not isinstance(content, dict):
            problems.append(f"{table} stands outside a table")
            continue
        for name, value in content.items():
            key = f"{table}.{name}"
            mistake = _check(key, value)
            if mistake:
                problems.append(mistake)
            else:
                found[key] = value
    if problems:
        raise UsageError(
            f"{path} has mistakes",
            cause="\n         ".join(problems),
            remedy="harness config show   # lists every setting",
        )
    return found


def _check(key: str, value: object) -> str | None:
    setting = _BY_KEY.get(key)
    if setting is None:
        near = difflib.get_close_matches(key, _BY_KEY, n=1)
        return f"{key} is not known" + (f"; did you mean {near[0]!r}?" if near else "")
    if not isinstance(value, setting.kind) or isinstance(value, bool):
        return f"{key} must be a {'string' if setting.kind is str else 'whole number'}"
    return None
