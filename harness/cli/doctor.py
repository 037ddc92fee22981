"""`harness doctor`: what is found, what is missing, and what to do about it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from harness.cli import options
from harness.errors import HarnessError, MissingTool


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis; what is `needed` stands in the way of the virtual phone's road."""

    name: str
    found: str | None
    needed: bool
    purpose: str
    remedy: str = ""


@click.command("doctor")
@options.work
def command(as_json: bool, **flags: Any) -> None:
    """Say what is found, what is missing and what to do."""
    options.settle(flags)
    checks = [_check(*probe) for probe in _PROBES]
    missing = [check for check in checks if check.found is None and check.needed]
    if as_json:
        options.print_json(
            "harness.doctor/1", ready=not missing, checks=[asdict(check) for check in checks]
        )
    else:
        for check in checks:
            _show(check)
    if missing:
        raise MissingTool(
            f"{len(missing)} of what the virtual phone needs is missing",
            cause=", ".join(check.name for check in missing),
            remedy=missing[0].remedy,
        )


def _show(check: Check) -> None:
    if check.found is not None:
        click.echo(f"+ {check.name:<16} {check.found}")
        return
    mark = "x" if check.needed else "-"
    click.echo(f"{mark} {check.name:<16} not found: {check.purpose}")
    click.echo(f"  {'':<16} try  {check.remedy}")


def _check(name: str, needed: bool, purpose: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, probe(), needed, purpose)
    except HarnessError as problem:
        return Check(name, None, needed, purpose, problem.remedy or problem.cause)


def _python() -> str:
    return f"{platform.python_version()} on {platform.machine()}"


def _jdk() -> str:
    from harness.tools import jdk

    found = jdk.find()
    return f"{found.version} in {found.home}"


def _maven() -> str:
    from harness.tools import maven

    return str(maven.find().program)


def _adb() -> str:
    from harness.tools import adb

    found = adb.find()
    return f"{found.version} in {found.path}"


def _qemu() -> str:
    from harness.tools import qemu

    return str(qemu.find().path)


def _sysroot() -> str:
    from harness.tools import qemu

    return str(qemu.find().sysroot)


def _busybox() -> str:
    return _program("busybox", "sudo apt install busybox-static")


def _sandbox() -> str:
    from harness.virtual_phone import sandbox

    return sandbox.check()


def _ndk() -> str:
    from harness.tools import ndk

    found = ndk.find()
    return f"{found.version} in {found.path}"


def _program(name: str, remedy: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingTool(f"{name} is not on PATH", remedy=remedy)
    return path


def _workspace_disk() -> str:
    free = shutil.disk_usage(Path()).free
    if free < 4 << 30:
        _fail(f"only {free / 2**30:.1f} GiB are free", "free 4 GiB on this disk")
    return f"{free / 2**30:.0f} GiB free"


def _fail(what: str, remedy: str) -> NoReturn:
    raise HarnessError(what, remedy=remedy)


_PROBES: tuple[tuple[str, bool, str, Callable[[], str]], ...] = (
    ("Python", True, "runs the harness", _python),
    ("disk", True, "holds the build folders and the virtual phone", _workspace_disk),
    ("JDK", True, "runs Maven, D8 and apksig", _jdk),
    ("Maven", True, "compiles the Kotlin engine", _maven),
    ("adb", True, "talks to devices", _adb),
    ("busybox", True, "is the virtual phone's shell", _busybox),
    ("user namespaces", True, "are the virtual phone's sandbox", _sandbox),
    ("qemu-user", False, "runs the arm64 virtual phone (x86_64 works without)", _qemu),
    ("arm64 libraries", False, "are the arm64 virtual phone's C library", _sysroot),
    ("Android NDK", False, "builds the runtime for real phones", _ndk),
)
