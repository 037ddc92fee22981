"""A workspace with phones of its own, for tests that use the command line as people do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.tools import adb
from harness.virtual_phone import lifecycle

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Workspace:
    """A workspace with phones and runs of its own that builds where the checkout does."""

    folder: Path
    environment: dict[str, str]

    def harness(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*words), **self._options(), timeout=1700)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            self.argv(*words), cwd=self.folder, env=self.environment, text=True, **pipes
        )

    def document(self, *words: str) -> dict[str, Any]:
        """What the command prints with `--json`; it must end well."""
        done = self.harness(*words, "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        parsed: dict[str, Any] = json.loads(done.stdout)
        return parsed

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "harness", *words]

    def _options(self) -> dict[str, Any]:
        environment = self.environment
        return {"cwd": self.folder, "env": environment, "text": True, "capture_output": True}


@pytest.fixture(scope="package")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
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


@pytest.fixture(scope="package")
def x86(workspace: Workspace) -> dict[str, Any]:
    """A run on an x86_64 phone, which has the default model afterwards."""
    return workspace.document("run", "--abi", "x86_64")
