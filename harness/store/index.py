"""An SQLite index over run folders: quick to ask, and nothing is lost if it is deleted."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import console
from harness.errors import StageFailed

# Raised whenever the table changes; an index of another version is built anew.
VERSION = 1
BUSY_SECONDS = 30.0
_TABLES = (
    """
    CREATE TABLE runs (
        folder TEXT PRIMARY KEY,     -- name below the runs folder, sorts by time
        stamp INTEGER NOT NULL,      -- of run.json when it was read, nanoseconds
        id TEXT NOT NULL,
        state TEXT NOT NULL,         -- running, finished or failed
        model TEXT NOT NULL,
        quantization TEXT NOT NULL,
        device TEXT NOT NULL,
        target TEXT NOT NULL,
        virtual INTEGER NOT NULL
    ) STRICT
    """,
)
_COLUMNS = "folder, id, state, model, quantization, device, target, virtual"


@dataclass(frozen=True)
class Row:
    """What the index knows of a run."""

    folder: str
    id: str
    state: str
    model: str
    quantization: str
    device: str
    target: str
    virtual: int


def rows(path: Path, stamps: Mapping[str, int], read: Callable[[str], Row | None]) -> list[Row]:
    """Every run, oldest first, after bringing the index at `path` up to date.

    `stamps` are the run folders that exist, with what changes whenever a run's facts do; `read`
    gives the facts of one, or None if it is not (yet) a run. Only new and changed folders are
    read. A missing, damaged or older index is built anew.

    Raises `StageFailed` if the index can be neither read nor built.
    """
    try:
        return _rows(path, stamps, read)
    except sqlite3.OperationalError as problem:
        raise _unusable(path, problem) from problem
    except sqlite3.DatabaseError as problem:
        console.detail(f"the index {path} is damaged ({problem}); building it anew")
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    try:
        return _rows(path, stamps, read)
    except sqlite3.Error as problem:
        raise _unusable(path, problem) from problem


def _rows(path: Path, stamps: Mapping[str, int], read: Callable[[str], Row | None]) -> list[Row]:
    with _open(path) as database:
        database.execute("BEGIN IMMEDIATE")
        known = dict(database.execute("SELECT folder, stamp FROM runs"))
        for folder in known.keys() - stamps.keys():
            database.execute("DELETE FROM runs WHERE folder = ?", (folder,))
        for folder, stamp in stamps.items():
            if known.get(folder) != stamp and (row := read(folder)) is not None:
                values = (folder, stamp, row.id, row.state, row.model, row.quantization)
                database.execute(
                    "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*values, row.device, row.target, row.virtual),
                )
        database.execute("COMMIT")
        found = database.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY folder")
        names = _COLUMNS.split(", ")
        return [Row(**dict(zip(names, values, strict=True))) for values in found]


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(
        sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    ) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        if database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            database.execute("DROP TABLE IF EXISTS runs")
            for statement in _TABLES:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
        yield database


def _unusable(path: Path, problem: Exception) -> StageFailed:
    return StageFailed(
        f"cannot use the index of runs {path}",
        cause=str(problem),
        remedy=f"rm {path}*   # it is built anew from the run folders",
    )
