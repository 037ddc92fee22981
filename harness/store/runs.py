"""Run folders: what was measured, sample by sample, as JSON lines. Everything else is derived.

.harness/runs/<UTC time>-<id>/
    run.json        schema "harness.run/1": state, meta (given at the start), summary, and,
                    once finished, the count and SHA-256 of the samples
    samples.jsonl   schema "harness.samples/1": one {"kind": ..., "record": {...}} a line
    host.log        what the host printed and what the screen hid
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import files
from harness.errors import StageFailed, UsageError
from harness.store import index
from harness.types import Run

SCHEMA = "harness.run/1"
SAMPLES_SCHEMA = "harness.samples/1"
FACTS = "run.json"
SAMPLES = "samples.jsonl"
LOG = "host.log"
INDEX = "index.sqlite"

RUNNING = "running"
FINISHED = "finished"
FAILED = "failed"


@dataclass(frozen=True)
class Sample:
    """One line of a run: what kind of record it is, and the record."""

    kind: str
    record: Mapping[str, Any]


@dataclass(frozen=True)
class StoredRun:
    """A run folder that can be read; a run that broke off has the samples until then."""

    path: Path
    id: str
    state: str
    started_utc: str
    meta: Mapping[str, Any]
    summary: Mapping[str, Any]

    def samples(self) -> list[Sample]:
        """Every sample in the order in which it was taken.

        Raises `StageFailed` if a finished run's samples are not those that were written.
        """
        return _read_samples(self.path, self.state)

    def value(self) -> Run:
        """The run as stages hand it on."""
        return Run(self.path, self.id, self.meta)


class RunWriter:
    """A run that is being recorded.

    As a context manager it marks the run failed if the block raises before `finish`. Each sample
    is in the file when `append` returns, so that what a crash interrupts keeps its data.
    """

    def __init__(self, path: Path, identifier: str, meta: Mapping[str, Any]) -> None:
        self.path = path
        self.id = identifier
        self._meta = dict(meta)
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._count = 0
        self._digest = hashlib.sha256()
        self._done = False
        self._write_facts(RUNNING, {})
        self._file = (path / SAMPLES).open("xb")

    @property
    def log(self) -> Path:
        """Where the host's log of this run belongs."""
        return self.path / LOG

    def append(self, kind: str, record: Mapping[str, Any]) -> None:
        """Record one sample.

        Raises `StageFailed` when the disk is full.
        """
        line = json.dumps({"kind": kind, "record": record}, separators=(",", ":")).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as problem:
            raise files.disk_error(self.path / SAMPLES, problem) from problem
        self._digest.update(line)
        self._count += 1

    def finish(self, summary: Mapping[str, Any]) -> Run:
        """Close the run; nothing can be added to it any more."""
        self._close(FINISHED, summary)
        return Run(self.path, self.id, self._meta)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._done:
            # A full disk may be what broke the run off; its samples stay readable without this.
            with contextlib.suppress(StageFailed):
                self._close(FAILED, {"error": str(problem) or type(problem).__name__})

    def _close(self, state: str, summary: Mapping[str, Any]) -> None:
        self._done = True
        try:
            with self._file:
                os.fsync(self._file.fileno())
        except OSError as problem:
            raise files.disk_error(self.path / SAMPLES, problem) from problem
        self._write_facts(state, summary)

    def _write_facts(self, state: str, summary: Mapping[str, Any]) -> None:
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "id": self.id,
            "state": state,
            "started_utc": self._started,
            "meta": self._meta,
            "summary": dict(summary),
            "samples": {"schema": SAMPLES_SCHEMA, "file": SAMPLES},
        }
        if state == FINISHED:
            document["samples"] |= {"count": self._count, "sha256": self._digest.hexdigest()}
        files.write_json(self.path / FACTS, document)


def create_run(workspace: Path, meta: Mapping[str, Any]) -> RunWriter:
    """Begin a run below `workspace`.

    `meta` says what is measured: the index shows its model, quantization, device, target and
    virtual. Raises `StageFailed` when the folder cannot be made.
    """
    identifier = secrets.token_hex(4)
    path = runs_folder(workspace) / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{identifier}"
    try:
        path.mkdir(parents=True)
    except OSError as problem:
        raise files.disk_error(path, problem) from problem
    return RunWriter(path, identifier, meta)


def open_run(path: Path) -> StoredRun:
    """The run in a folder.

    Raises `UsageError` if it holds none, or one of another version of the harness.
    """
    try:
        document = json.loads((path / FACTS).read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}, this harness reads {SCHEMA!r}")
        return StoredRun(
            path,
            str(document["id"]),
            str(document["state"]),
            str(document["started_utc"]),
            dict(document["meta"]),
            dict(document["summary"]),
        )
    except OSError as problem:
        raise _no_run(path, problem.strerror or str(problem)) from problem
    except (KeyError, TypeError, ValueError) as problem:
        cause = f"{FACTS} lacks {problem}" if isinstance(problem, KeyError) else str(problem)
        raise _no_run(path, cause) from problem


def list_runs(workspace: Path) -> list[index.Row]:
    """Every run of a workspace, oldest first."""
    folder = runs_folder(workspace)
    stamps = {
        path.parent.name: path.stat().st_mtime_ns for path in sorted(folder.glob(f"*/{FACTS}"))
    }
    if not stamps:
        return []
    return index.rows(folder / INDEX, stamps, lambda name: _row(folder / name))


def latest_run(workspace: Path) -> StoredRun:
    """The newest finished run of a workspace.

    Raises `UsageError` if there is none.
    """
    for row in reversed(list_runs(workspace)):
        if row.state == FINISHED:
            return open_run(runs_folder(workspace) / row.folder)
    raise UsageError(
        "there is no finished run",
        cause=f"none in {runs_folder(workspace)}",
        remedy="harness run",
    )


def find_run(workspace: Path, name: str) -> StoredRun:
    """The run with this id (or the beginning of its id or folder name), or in this folder.

    Raises `UsageError` if there is none or more than one.
    """
    if (Path(name) / FACTS).is_file():
        return open_run(Path(name))
    known = list_runs(workspace)
    found = [row for row in known if row.id.startswith(name) or row.folder.startswith(name)]
    if len(found) == 1:
        return open_run(runs_folder(workspace) / found[0].folder)
    candidates = ", ".join(row.id for row in (found or known)[-5:])
    raise UsageError(
        f"there is no run {name}" if not found else f"{name} fits {len(found)} runs",
        cause=f"known: {candidates}" if candidates else f"none in {runs_folder(workspace)}",
        remedy="harness report   # takes the newest run" if known else "harness run",
    )


def runs_folder(workspace: Path) -> Path:
    """Where the runs of a workspace lie."""
    return workspace / ".harness" / "runs"


def _row(path: Path) -> index.Row | None:
    try:
        run = open_run(path)
    except UsageError:
        return None
    text = {
        name: str(run.meta.get(name, "")) for name in ("model", "quantization", "device", "target")
    }
    virtual = bool(run.meta.get("virtual", False))
    return index.Row(path.name, run.id, run.state, **text, virtual=int(virtual))


def _read_samples(path: Path, state: str) -> list[Sample]:
    try:
        data = (path / SAMPLES).read_bytes()
    except OSError as problem:
        raise _damaged(path, problem.strerror or str(problem)) from problem
    if state == FINISHED:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))["samples"]
        if hashlib.sha256(data).hexdigest() != facts.get("sha256"):
            raise _damaged(path, "they do not have the SHA-256 that they were written with")
    else:
        # What broke off in the middle of a line ends with the line before it.
        data = data[: data.rfind(b"\n") + 1]
    return list(_parse(path, data))


def _parse(path: Path, data: bytes) -> Iterator[Sample]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            document = json.loads(line)
            yield Sample(str(document["kind"]), dict(document["record"]))
        except (ValueError, KeyError, TypeError) as problem:
            raise _damaged(path, f"line {number} is not a sample") from problem


def _no_run(path: Path, cause: str) -> UsageError:
    return UsageError(f"{path} holds no run", cause=cause, remedy="harness report")


def _damaged(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"the samples of {path.name} are damaged",
        cause=cause,
        remedy="harness measure   # a run whose raw data changed cannot be reported",
    )
