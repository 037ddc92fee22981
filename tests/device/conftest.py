"""A strict stand-in for a phone with the app on it: what it does not expect fails the test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import lmx
from harness.device.link import DeviceGone, Progress, ShellResult

APPLICATION = "dev.alc.harness"
TIME = 1795234631


class FakeStream:
    """A command whose lines the test's script puts into a queue; None ends it."""

    def __init__(self) -> None:
        self.queue: queue.Queue[str | Exception | None] = queue.Queue()
        self.exit_code: int | None = None

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        while True:
            try:
                item = self.queue.get(timeout=timeout)
            except queue.Empty:
                raise TimeoutError from None
            if item is None:
                self.exit_code = 0
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        self.queue.put(None)


class FakePhone:
    """Implements `DeviceLink`; `script` plays the app once the instrumentation starts."""

    serial = "fake"

    def __init__(self, script: Callable[[FakePhone, dict[str, Any]], None]) -> None:
        self.script = script
        self.files: dict[str, bytes] = {}
        self.logcat: FakeStream | None = None
        self.am = FakeStream()
        self.boot_id = "boot-1"
        self.state = "busy"
        self.reconnected = 0
        self.stopped = False
        self.run = ""
        self.records: list[dict[str, Any]] = []
        self.lose: Callable[[str], bool] = lambda line: False

    # What the script calls.

    @property
    def folder(self) -> str:
        return f"/sdcard/Android/media/{APPLICATION}/harness/{self.run}"

    def log(self, tag: str, message: str) -> None:
        stream = self._wait_logcat()
        stream.queue.put(f"         {TIME}.000001  1000  1001 I {tag:<8}: {message}")

    def _wait_logcat(self) -> FakeStream:
        for _ in range(500):
            if self.logcat is not None:
                return self.logcat
            time.sleep(0.01)
        raise AssertionError("nobody reads the log")

    def record(self, record: dict[str, Any]) -> None:
        number = len(self.records)
        self.records.append(record)
        for line in lmx.encode(self.run, number, record):
            if not self.lose(line):
                self.log("LMX", line)

    def end(self) -> None:
        body = "".join(lmx.compact(record) + "\n" for record in self.records)
        end = {
            "t": "end",
            "records": len(self.records),
            "sha256": hashlib.sha256(body.encode()).hexdigest(),
        }
        self.files[f"{self.folder}/metrics.jsonl"] = (body + lmx.compact(end) + "\n").encode()
        self.record(end)

    def result(self, **fields: Any) -> None:
        document = {"schema": "harness.result/1", "protocol": 1, "run": self.run, "ok": True}
        self.files[f"{self.folder}/result.json"] = json.dumps({**document, **fields}).encode()
        self.state = "done"

    def instrument(self, *lines: str) -> None:
        for line in lines:
            self.am.queue.put(line)

    def finish(self, ok: bool = True) -> None:
        self.instrument(
            f"INSTRUMENTATION_RESULT: ok={str(ok).lower()}",
            f"INSTRUMENTATION_RESULT: result={self.folder}/result.json",
            "INSTRUMENTATION_CODE: -1",
        )
        self.am.queue.put(None)

    # DeviceLink.

    def shell(
        self, argv: Sequence[str], *, timeout: float = 60.0, check: bool = True
    ) -> ShellResult:
        text = " ".join(argv)
        if "date +%s" in text:
            return ShellResult(0, f"{TIME}\n{self.boot_id}\n", "")
        if "result.json" in text:
            return ShellResult(0, f"{self.boot_id}\n{self.state}\n", "")
        if argv[:2] == ["am", "force-stop"]:
            self.stopped = True
            return ShellResult(0, "", "")
        if argv[:2] == ["rm", "-rf"]:
            for name in list(self.files):
                if any(name.startswith(path) for path in argv[2:]):
                    del self.files[name]
            return ShellResult(0, "", "")
        raise AssertionError(f"unexpected command {text!r}")

    @contextlib.contextmanager
    def stream(self, argv: Sequence[str]) -> Iterator[FakeStream]:
        if argv[0] == "logcat":
            self.logcat = FakeStream()
            yield self.logcat
            return
        assert list(argv[:4]) == ["am", "instrument", "-w", "-r"]
        options = dict(zip(argv[5::3], argv[6::3], strict=False))
        assert options["protocol"] == "1"
        assert argv[-1] == f"{APPLICATION}/dev.alc.app.HarnessInstrumentation"
        self.run, self.records, self.am = options["run"], [], FakeStream()
        request = json.loads(self.files[options["request"]])
        player = threading.Thread(target=self.script, args=(self, request), daemon=True)
        player.start()
        yield self.am
        player.join(30)

    def push_bytes(self, data: bytes, remote: str) -> None:
        self.files[remote] = data

    def pull_bytes(self, remote: str) -> bytes:
        if remote not in self.files:
            raise AssertionError(f"no file {remote}")
        return self.files[remote]

    def pull(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        local.write_bytes(self.pull_bytes(remote))

    def reconnect(self, timeout: float) -> None:
        self.reconnected += 1

    def gone(self) -> DeviceGone:
        return DeviceGone("fake is gone", cause="the connection ended", remedy="plug it in")

    # Not part of a call to the app.

    def push(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        raise AssertionError("push")

    def install(self, apk: Path) -> None:
        raise AssertionError("install")

    def forward(self, remote: str) -> contextlib.AbstractContextManager[int]:
        raise AssertionError("forward")

    def properties(self) -> dict[str, str]:
        raise AssertionError("properties")


@pytest.fixture
def phone() -> FakePhone:
    """A phone whose app answers one generation of four tokens."""
    return FakePhone(answer)


def answer(phone: FakePhone, request: dict[str, Any]) -> None:
    """What an app does that works."""
    phone.record({"t": "begin", "proto": 1, "run": phone.run, "pid": 1000})
    phone.instrument("INSTRUMENTATION_STATUS: harness=generating", "INSTRUMENTATION_STATUS_CODE: 2")
    phone.record({"t": "tokens", "step": "p1", "first": 0, "ids": [5, 6], "ns": [10, 20]})
    phone.record({"t": "tokens", "step": "p1", "first": 2, "ids": [7, 8], "ns": [30, 40]})
    phone.record({"t": "finish", "step": "p1", "end_ns": 41, "reason": "length", "tokens": 4})
    phone.end()
    phone.result(verb=request["verb"], steps=[{"id": "p1", "token_ids": [5, 6, 7, 8]}])
    phone.finish()
