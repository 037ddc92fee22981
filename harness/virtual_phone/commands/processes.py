"""ps, pidof and run-as, which know apps by their names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from harness.virtual_phone.calls import Call
from harness.virtual_phone.sandbox import app_identity
from harness.virtual_phone.system import SHELL_ENVIRONMENT, System


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    user: str
    rss_kib: int
    state: str
    name: str


async def ps(system: System, call: Call) -> int:
    """`ps [-A]`: toybox's columns."""
    lines = ["USER           PID  PPID     VSZ    RSS WCHAN            ADDR S NAME"]
    for each in _processes(system):
        lines.append(
            f"{each.user:<12} {each.pid:>5} {each.parent:>5} {0:>7} {each.rss_kib:>6} "
            f"{'0':<16} {'0':>4} {each.state} {each.name}"
        )
    await call.out("\n".join(lines) + "\n")
    return 0


async def pidof(system: System, call: Call) -> int:
    """`pidof NAME...`."""
    names = [word for word in call.arguments if not word.startswith("-")]
    found = [str(each.pid) for each in _processes(system) if each.name in names]
    if not found:
        return 1
    await call.out(" ".join(reversed(found)) + "\n")
    return 0


async def run_as(system: System, call: Call) -> int:
    """`run-as PACKAGE COMMAND...`, for debuggable packages only."""
    words = call.arguments
    if not words:
        return await call.fail("run-as: usage: run-as <package-name> [--user <uid>] <command>...")
    package = system.packages.find(words[0])
    if package is None:
        return await call.fail(f"run-as: unknown package: {words[0]}")
    if not package.debuggable:
        return await call.fail(f"run-as: package not debuggable: {package.name}")
    command = words[1:] or ["sh"]
    argv = ["/system/bin/sh", "-c", 'exec "$0" "$@"', *command]
    line = system.sandbox.command(
        app_identity(package.uid, package.data_dir), argv, folder=package.data_dir
    )
    environment = {**SHELL_ENVIRONMENT, "HOME": package.data_dir}
    descriptors = call.streams.descriptors
    if descriptors is None:
        return await call.fail("run-as: needs a shell")
    stdin, stdout, stderr = descriptors
    child = await asyncio.create_subprocess_exec(
        *line,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        start_new_session=True,
    )
    ending = asyncio.ensure_future(child.wait())
    gone = asyncio.ensure_future(call.gone.wait())
    await asyncio.wait({ending, gone}, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not ending.done():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    code = await ending
    return 128 - code if code < 0 else code


def _processes(system: System) -> Iterator[_Process]:
    apps = {each.pid: each for each in system.activities.running() if each.pid}
    folder = system.sandbox.view / "proc"
    for pid in sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()):
        try:
            status = (folder / str(pid) / "status").read_text(encoding="utf-8")
            line = (folder / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue  # ended while we looked
        facts = dict(row.split(":\t", 1) for row in status.splitlines() if ":\t" in row)
        words = [os.fsdecode(word) for word in line.split(b"\0") if word]
        name = words[0].rpartition("/")[2] if words else f"[{facts.get('Name', '?').strip()}]"
        user = "root" if pid == 1 else "shell"
        if pid in apps:
            name = apps[pid].package.name
            user = f"u0_a{apps[pid].package.uid - 10000}"
        yield _Process(
            pid,
            int(facts.get("PPid", "0")),
            user,
            int(facts.get("VmRSS", "0 kB").split()[0]),
            facts.get("State", "S")[:1],
            "init" if pid == 1 else name,
        )
