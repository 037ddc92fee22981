"""The Kotlin modules' own suites as an app on virtual phones: the same tests as on the JVM."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import config, pipeline
from harness.device import lock
from harness.errors import MissingTool
from harness.tools import adb, qemu
from harness.types import Abi
from harness.virtual_phone import lifecycle

# The first test builds what the phones get, unless an earlier run did.
pytestmark = [pytest.mark.phone, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("abi", list(Abi), ids=str)
def test_the_suites_pass_on_a_phone(
    abi: Abi,
    tiny_gguf: Path,
    compiled: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv(adb.PORT_VARIABLE, str(probe.getsockname()[1]))
    (CHECKOUT / ".harness/build").mkdir(parents=True, exist_ok=True)
    (tmp_path / ".harness").mkdir()
    (tmp_path / ".harness/build").symlink_to(CHECKOUT / ".harness/build")
    package = compiled(tiny_gguf, "q0f32", abis=(abi,))
    try:
        if abi is Abi.ARM64:
            qemu.find()
        road = pipeline.AppRoad(None, abi, config.load(tmp_path, {}))
        outcomes = pipeline.engine_suites(road, package)
    except MissingTool as problem:
        pytest.skip(f"no virtual phone: {problem}")
    finally:
        for phone in lifecycle.status(tmp_path):
            phone.stop()
            lock.lock_path(phone.serial).unlink(missing_ok=True)
        subprocess.run(adb.find().argv("kill-server"), capture_output=True)
    failed = [one for one in outcomes if one.outcome == "failed"]
    assert not failed, "\n".join(f"{one.suite}.{one.test}: {one.reason}" for one in failed)
    assert {one.suite.split(".")[2] for one in outcomes} == {"engine", "runtime", "provider", "app"}
    assert len(outcomes) > 140
