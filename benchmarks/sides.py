"""Processes that a benchmark asks in turns, so that both sides see the same machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


class Side:
    """A process that answers each line of JSON with one; it begins with its version."""

    def __init__(self, argv: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
        self._name = str(argv[1])
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.version = self._answer()["version"]

    def ask(self, **request: object) -> dict[str, Any]:
        """The answer to a request. Raises `ClickException` if the process has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self._name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def llama_cpp(python: Path, gguf: Path, threads: int, context: int) -> Side:
    """llama.cpp with a GGUF file, in a Python that has llama-cpp-python."""
    script = Path(__file__).with_name("llama_cpp_peer.py")
    return Side([python, script, gguf, str(threads), str(context)])
