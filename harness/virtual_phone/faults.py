"""What the phone can be told to suffer, so that a test can watch how its host copes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `Clear` ends what lasts."""


@dataclass(frozen=True)
class Clear(Fault):
    """Back to health: hosts accepted, disk as configured, nothing lost, cool."""


@dataclass(frozen=True)
class Unauthorized(Fault):
    """Hosts must show a key; none is accepted, or with `tofu` the first one offered."""

    tofu: bool = False


@dataclass(frozen=True)
class Offline(Fault):
    """Connections are cut, and new ones get no answer."""


@dataclass(frozen=True)
class Disconnect(Fault):
    """The connection is cut: now, or when a push has brought `push_bytes` more bytes."""

    push_bytes: int = 0


@dataclass(frozen=True)
class FullDisk(Fault):
    """/data has `free_bytes` left."""

    free_bytes: int = 0


@dataclass(frozen=True)
class CrashApp(Fault):
    """The app dies by `signal` (9: killed, 11: segmentation fault), now or after log lines."""

    package: str
    after_log_lines: int = 0
    signal: int = 9


@dataclass(frozen=True)
class LoseLog(Fault):
    """Entries of apps never reach the log: the next `drop`, and each `every`-th one."""

    drop: int = 0
    every: int = 0


@dataclass(frozen=True)
class RestartAdbd(Fault):
    """adbd is restarted: connections are cut, shells end, apps live on."""


@dataclass(frozen=True)
class Reboot(Fault):
    """The phone restarts: everything ends, /data stays."""


@dataclass(frozen=True)
class Thermal(Fault):
    """The thermal status (0 none, 1 light ... 6 shutdown)."""

    status: int


_KINDS: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        Clear,
        Unauthorized,
        Offline,
        Disconnect,
        FullDisk,
        CrashApp,
        LoseLog,
        RestartAdbd,
        Reboot,
        Thermal,
    )
}


def to_document(fault: Fault) -> dict[str, Any]:
    """The fault as JSON holds it."""
    return {"fault": type(fault).__name__, **asdict(fault)}


def from_document(document: dict[str, Any]) -> Fault:
    """The fault of a document; raises ValueError."""
    values = dict(document)
    kind = _KINDS.get(str(values.pop("fault", "")))
    if kind is None:
        raise ValueError("unknown fault")
    try:
        return kind(**values)
    except TypeError as problem:
        raise ValueError(str(problem)) from problem
