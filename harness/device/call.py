"""One request to the app and what comes back of it: its result file and its timing records.

The request goes to a file on the device, `am instrument` starts the app's Instrumentation with
that file's path, the app writes a result file and sends its timing records over logcat. Records
that logcat lost are taken from the file in which the app keeps them as well.
"""

from __future__ import annotations

import collections
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import console, lmx
from harness.device import failures, instrumentation, logcat
from harness.device.link import DeviceGone, DeviceLink
from harness.errors import DeviceError
from harness.files import sha256_file

PROTOCOL = 1
RESULT_SCHEMA = "harness.result/1"
REQUEST_FOLDER = "/data/local/tmp/harness/requests"
INSTRUMENTATION = "dev.alc.app.HarnessInstrumentation"

# How long logcat may lag behind the end of the instrumentation.
LAG_SECONDS = 3.0
# How long a device that vanished may take to come back.
RETURN_SECONDS = 20.0
POLL_SECONDS = 0.5
# Where crashes are reported: Java's, native ones, and the linker's and allocator's last words.
_FILTERS = ("LMX:V", "AndroidRuntime:E", "DEBUG:V", "libc:F")


@dataclass(frozen=True)
class Reply:
    """What the app answered: its result document and every timing record, none missing."""

    run: str
    result: Mapping[str, Any]
    records: tuple[lmx.Record, ...]
    repaired: int


def clear(link: DeviceLink, application_id: str) -> None:
    """Remove what calls whose host was killed have left; for who holds the device's lock."""
    link.shell(["rm", "-rf", REQUEST_FOLDER, _results(application_id)])


def _results(application_id: str) -> str:
    """The folder of runs: the app's media folder, which the shell may read on every Android."""
    return f"/sdcard/Android/media/{application_id}/harness"


class Call:
    """One run of the app's Instrumentation."""

    def __init__(
        self,
        link: DeviceLink,
        application_id: str,
        run: str,
        *,
        timeout: float,
        silence: float,
        on_record: Callable[[lmx.Record], None],
        on_status: Callable[[str], None],
    ) -> None:
        self._link = link
        self._application_id = application_id
        self._run = run
        self._limit = time.monotonic() + timeout
        self._timeout = timeout
        self._silence = silence
        self._on_record = on_record
        self._on_status = on_status
        self._collector = lmx.Collector(run)
        self._whole = threading.Event()
        self._crash: collections.deque[str] = collections.deque(maxlen=40)
        self._heard = time.monotonic()
        self._pid = 0
        self._boot_id = ""

    @property
    def _folder(self) -> str:
        return f"{_results(self._application_id)}/{self._run}"

    def make(self, request: Mapping[str, Any], *, logits: Path | None = None) -> Reply:
        """Send the request, follow the run to its end, and collect what it left.

        `logits` is where the run's logits go, if it has any.
        """
        path = f"{REQUEST_FOLDER}/{self._run}.json"
        begin = self._prepare()
        self._link.push_bytes(json.dumps(request, ensure_ascii=False).encode(), path)
        try:
            with logcat.LogReader(self._link, self._take, filters=_FILTERS, start_us=begin):
                self._instrument(path)
                result = self._result()
                self._whole.wait(LAG_SECONDS)
            records = self._records(result)
            if logits is not None:
                self._pull_logits(result, logits)
        except BaseException:
            # Whatever went wrong here, nobody waits for the app any more.
            with contextlib.suppress(DeviceError):
                self._link.shell(["am", "force-stop", self._application_id], timeout=10)
            raise
        finally:
            with contextlib.suppress(DeviceError):
                self._link.shell(["rm", "-rf", path, self._folder], timeout=20)
        return Reply(self._run, result, records, self._collector.repaired)

    def _prepare(self) -> int:
        """Make the request folder; the device's time in microseconds."""
        script = (
            'mkdir -p "$1" && chmod 755 "$1" && date +%s && cat /proc/sys/kernel/random/boot_id'
        )
        lines = self._link.shell(["sh", "-c", script, "sh", REQUEST_FOLDER]).stdout.split()
        if len(lines) != 2 or not lines[0].isdecimal():
            raise failures.no_clock(self._link.serial, " ".join(lines))
        self._boot_id = lines[1]
        return int(lines[0]) * 1_000_000

    def _take(self, entry: logcat.Entry) -> None:
        if entry.tag != "LMX":
            console.detail(f"{entry.priority}/{entry.tag}: {entry.message}")
            self._crash.append(entry.message)
            return
        record = self._collector.feed(entry.message)
        if record is None:
            return
        self._heard = time.monotonic()
        if record["t"] == "begin":
            self._pid = int(record.get("pid", 0))
        self._on_record(record)
        if self._collector.ended and not self._collector.gap():
            self._whole.set()

    def _instrument(self, path: str) -> None:
        argv = ["am", "instrument", "-w", "-r", "-e", "protocol", str(PROTOCOL)]
        argv += ["-e", "run", self._run, "-e", "request", path]
        argv += [f"{self._application_id}/{INSTRUMENTATION}"]
        parser = instrumentation.Parser()
        try:
            with self._link.stream(argv) as stream:
                while not self._read_lines(stream.lines(POLL_SECONDS), parser):
                    self._check_time()
        except DeviceGone as problem:
            console.warn(f"{self._link.serial} is gone in mid-run; waiting for it")
            self._wait_for_result(problem)
            return
        outcome = parser.outcome()
        # Where there is a result file, it says more than the instrumentation does.
        said = outcome.results.get("ok") in ("true", "false") and "result" in outcome.results
        if outcome.problem or not said:
            time.sleep(POLL_SECONDS)  # the log's crash report follows the crash
            raise failures.instrumentation_failed(self._link.serial, outcome, list(self._crash))

    def _read_lines(self, lines: Iterator[str], parser: instrumentation.Parser) -> bool:
        """Feed what is there; whether the command has ended."""
        try:
            for line in lines:
                self._heard = time.monotonic()
                status = parser.feed(line)
                if status is not None and "harness" in status.values:
                    self._on_status(status.values["harness"])
        except TimeoutError:
            return False
        return True

    def _check_time(self) -> None:
        now = time.monotonic()
        if now < self._limit and now - self._heard < self._silence:
            return
        with contextlib.suppress(DeviceError):
            self._link.shell(["am", "force-stop", self._application_id], timeout=10)
        cause = (
            f"it was not done after {self._timeout:.0f} s"
            if now >= self._limit
            else f"it gave no sign of life for {self._silence:.0f} s"
        )
        raise failures.stopped(self._link.serial, cause)

    def _wait_for_result(self, gone: DeviceGone) -> None:
        """After the connection broke: the app may still be at work, or be done."""
        self._link.reconnect(RETURN_SECONDS)
        script = (
            "cat /proc/sys/kernel/random/boot_id; "
            'if [ -e "$1/result.json" ]; then echo done; '
            'elif [ -d "/proc/$2" ] || pidof "$3" > /dev/null; then echo busy; '
            "else echo dead; fi"
        )
        while True:
            argv = ["sh", "-c", script, "sh", self._folder, str(self._pid or "none")]
            boot_id, state = self._link.shell([*argv, self._application_id]).stdout.split()
            if boot_id != self._boot_id or state == "dead":
                restarted = boot_id != self._boot_id
                raise failures.broke_off(self._link.serial, gone, restarted=restarted) from gone
            if state == "done":
                return
            self._check_time()
            time.sleep(POLL_SECONDS)

    def _result(self) -> Mapping[str, Any]:
        data = self._link.pull_bytes(f"{self._folder}/result.json")
        try:
            result = json.loads(data)
        except ValueError as problem:
            raise failures.not_understood(self._link.serial, "it is not JSON") from problem
        if not isinstance(result, dict) or result.get("schema") != RESULT_SCHEMA:
            raise failures.not_understood(self._link.serial, f"it is not {RESULT_SCHEMA}")
        if result.get("run") != self._run or result.get("protocol") != PROTOCOL:
            raise failures.not_understood(
                self._link.serial,
                f"it is of run {result.get('run')}, protocol {result.get('protocol')}",
            )
        if result.get("ok") is not True:
            raise failures.app_error(self._link.serial, result.get("error") or {})
        return result

    def _pull_logits(self, result: Mapping[str, Any], local: Path) -> None:
        self._link.pull(f"{self._folder}/logits.f32", local)
        described = (result.get("logits") or {}).get("sha256")
        actual = sha256_file(local)
        if actual != described:
            raise failures.not_understood(
                self._link.serial, f"logits.f32 has sha256 {actual}, it says {described}"
            )

    def _records(self, result: Mapping[str, Any]) -> tuple[lmx.Record, ...]:
        """Every record of the run. Raises `TimingsIncomplete` when one is lost for good."""
        gap = self._collector.gap()
        if gap:
            console.warn(f"logcat lost timing records ({gap}); taking them from the device's file")
            self._repair(gap)
        records = self._collector.records()
        try:
            lmx.check(self._run, records)
        except lmx.LmxError as problem:
            raise failures.incomplete(self._link.serial, str(problem)) from problem
        counted = (result.get("metrics") or {}).get("sha256")
        if counted is not None and counted != records[-1].get("sha256"):
            raise failures.incomplete(
                self._link.serial, "the result file and the end record name different records"
            )
        return tuple(records)

    def _repair(self, gap: str) -> None:
        try:
            added = self._collector.repair(self._link.pull_bytes(f"{self._folder}/metrics.jsonl"))
        except DeviceGone:
            raise
        except (DeviceError, lmx.LmxError) as problem:
            cause = problem.cause if isinstance(problem, DeviceError) else str(problem)
            raise failures.incomplete(self._link.serial, f"{gap}; {cause}") from problem
        console.info(f"{added} timing records repaired")
