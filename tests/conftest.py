"""Fixtures for every test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, and that is no finding. In continuous integration the examples are the
# same each time, so that what fails there fails again where it is looked into.
settings.register_profile(
    "harness",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("harness")

# A run in the background of a script ignores Ctrl-C, and so would every child that a test stops so.
signal.signal(signal.SIGINT, signal.default_int_handler)

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def kotlin_jars() -> str:
    """The class path of the Kotlin modules, compiled once for each state of their sources."""
    from harness import resources
    from harness.errors import MissingTool
    from harness.stages.package.direct import compile_kotlin

    try:
        jars = compile_kotlin(resources.path("android-template"), CHECKOUT)
    except MissingTool as missing:
        pytest.skip(str(missing))
    return ":".join(str(path) for path in (*jars.own, *jars.libraries))


@pytest.fixture
def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def adb_port(free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of an adb server of this test's own, so that no other one is touched."""
    from harness.tools import adb

    monkeypatch.setenv(adb.PORT_VARIABLE, str(free_port))
    yield free_port
    client = adb.find()
    subprocess.run(client.argv("kill-server"), capture_output=True)
