"""The values that stages take and return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

MOST_THREADS = 64
"""What a forward pass may have: the engine takes no more."""


class Abi(StrEnum):
    """An Android application binary interface."""

    ARM64 = "arm64-v8a"
    X86_64 = "x86_64"

    @property
    def arch(self) -> str:
        """The architecture's name in target triples."""
        return "aarch64" if self is Abi.ARM64 else "x86_64"


class Libc(StrEnum):
    """The C library of a device: bionic on a phone, glibc on the virtual phone."""

    BIONIC = "bionic"
    GLIBC = "glibc"


@dataclass(frozen=True)
class Target:
    """What native code is built for. The device decides it, never the tools that are found."""

    abi: Abi
    libc: Libc

    def __str__(self) -> str:
        return f"{self.abi}-{self.libc}"


@dataclass(frozen=True)
class Device:
    """What is known of a device that answers."""

    serial: str
    model: str
    abi: Abi
    libc: Libc
    api_level: int
    memory_bytes: int
    fingerprint: str
    virtual: bool
    soc: str = ""
    """Its processor's name, fit for a file's name; empty where it does not say."""

    @property
    def target(self) -> Target:
        return Target(self.abi, self.libc)

    def __str__(self) -> str:
        kind = "virtual phone" if self.virtual else self.model
        return f"{kind} ({self.serial})"


@dataclass(frozen=True)
class ModelPackage:
    """A compiled model: weights, tokenizer and one library for each ABI in one folder."""

    path: Path
    key: str
    name: str
    quantization: str
    abis: tuple[Abi, ...]
    weights_bytes: int


@dataclass(frozen=True)
class RuntimeBundle:
    """`libalc_runtime.so` for one target, stripped, with its debug symbols beside it."""

    path: Path
    key: str
    target: Target
    library: Path
    symbols: Path


@dataclass(frozen=True)
class Project:
    """A rendered Gradle project."""

    path: Path
    key: str
    application_id: str
    target: Target


@dataclass(frozen=True)
class SignedApk:
    """An aligned and signed APK."""

    path: Path
    key: str
    application_id: str
    sha256: str
    target: Target


@dataclass(frozen=True)
class Installation:
    """An APK and a model package in place on a device."""

    device: Device
    application_id: str
    apk_sha256: str
    package: ModelPackage
    stamp: str
    pushed_bytes: int


@dataclass(frozen=True)
class Run:
    """A finished measurement: its folder of raw samples and the facts that identify it."""

    path: Path
    run_id: str
    meta: Mapping[str, object]
