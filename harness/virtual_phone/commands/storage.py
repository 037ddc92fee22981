"""df and stat, because the phone's storage has its own size, not that of the host's disk."""

from __future__ import annotations

import asyncio
import subprocess

from harness.virtual_phone.calls import Call
from harness.virtual_phone.rootfs import BUSYBOX
from harness.virtual_phone.sandbox import SHELL
from harness.virtual_phone.system import SHELL_ENVIRONMENT, System

BLOCK = 4096


async def df(system: System, call: Call) -> int:
    """`df [-h|-k] [PATH...]`: /data, whatever is asked for."""
    human = any(word.startswith("-") and "h" in word for word in call.arguments)
    total, free = system.storage.capacity, system.storage.free()
    used = system.storage.used()

    def size(amount: int) -> str:
        return f"{amount / (1 << 30):.1f}G" if human else str(amount >> 10)

    percent = min(100, -(-100 * used // total)) if total else 100
    heading = "Filesystem      Size  Used Avail Use% Mounted on\n"
    if not human:
        heading = "Filesystem     1K-blocks    Used Available Use% Mounted on\n"
    await call.out(
        f"{heading}{'/dev/block/data':<15} {size(total):>8} {size(used):>7} "
        f"{size(free):>9} {percent:>3}% /data\n"
    )
    return 0


async def stat(system: System, call: Call) -> int:
    """`stat -f` tells of the phone's storage; everything else is busybox's."""
    words = call.arguments
    if not any(
        word.startswith("-") and not word.startswith("--") and "f" in word for word in words
    ):
        return await _busybox(system, call)
    shape = ""
    if "-c" in words[:-1]:
        shape = words[words.index("-c") + 1]
    free = system.storage.free() // BLOCK
    values = {
        "a": free,
        "b": system.storage.capacity // BLOCK,
        "f": free,
        "S": BLOCK,
        "s": BLOCK,
    }
    if not shape:
        shape = "Block Size: %s    Fundamental block size: %S\n"
        shape += "Blocks: Total: %b\tFree: %f\tAvailable: %a"
    for letter, value in values.items():
        shape = shape.replace(f"%{letter}", str(value))
    await call.out(shape + "\n")
    return 0


async def _busybox(system: System, call: Call) -> int:
    argv = system.sandbox.command(SHELL, [BUSYBOX, "stat", *call.arguments], folder=call.folder)
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=SHELL_ENVIRONMENT,
    )
    stdout, stderr = await child.communicate()
    await call.out(stdout)
    await call.error(stderr)
    return child.returncode or 0
