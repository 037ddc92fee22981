"""dumpsys."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from harness.virtual_phone.app_process import AppProcess
from harness.virtual_phone.calls import Call
from harness.virtual_phone.system import System

_Service = Callable[[System, Call, list[str]], Awaitable[int]]


async def dumpsys(system: System, call: Call) -> int:
    """`dumpsys SERVICE [ARGUMENT...]`."""
    words = call.arguments
    if words[:1] == ["-l"]:
        await call.out("Currently running services:\n" + "".join(f"  {n}\n" for n in _SERVICES))
        return 0
    service = _SERVICES.get(words[0]) if words else None
    if service is None:
        return await call.fail(f"Can't find service: {words[0] if words else ''}", 0)
    return await service(system, call, words[1:])


async def _battery(system: System, call: Call, words: list[str]) -> int:
    condition = system.condition
    match words:
        case []:
            await call.out(condition.dump_battery())
        case ["set", name, value]:
            if not condition.set_battery(name, value):
                return await call.fail(f"Unknown set option: {name}")
        case ["unplug"]:
            condition.unplug()
        case ["reset"]:
            condition.reset_battery()
        case _:
            return await call.fail(f"Unknown command: {' '.join(words)}")
    return 0


async def _power(system: System, call: Call, words: list[str]) -> int:
    await call.out(system.condition.dump_power())
    return 0


async def _thermal(system: System, call: Call, words: list[str]) -> int:
    await call.out(system.condition.dump_thermal())
    return 0


async def _display(system: System, call: Call, words: list[str]) -> int:
    await call.out("  mViewports=[DisplayViewport{type=INTERNAL, displayId=0, orientation=0}]\n")
    return 0


async def _window(system: System, call: Call, words: list[str]) -> int:
    running = system.activities.running()
    focus = running[-1].package.name if running else "com.android.launcher3"
    await call.out(f"  mCurrentFocus=Window{{0 u0 {focus}}}\n")
    return 0


async def _package(system: System, call: Call, words: list[str]) -> int:
    package = system.packages.find(words[-1]) if words else None
    if package is None:
        await call.out(f"Unable to find package: {words[-1]}\n" if words else "")
        return 0
    flags = "HAS_CODE ALLOW_CLEAR_USER_DATA" + (" DEBUGGABLE" if package.debuggable else "")
    signatures = ", ".join(certificate[:8] for certificate in package.certificates)
    await call.out(
        "Packages:\n"
        f"  Package [{package.name}] (0):\n"
        f"    userId={package.uid}\n"
        f"    appId={package.uid}\n"
        f"    codePath={package.code_path}\n"
        f"    legacyNativeLibraryDir={package.code_path}/lib\n"
        f"    primaryCpuAbi={system.abi}\n"
        f"    versionCode={package.version_code} minSdk={package.min_sdk} "
        f"targetSdk={package.target_sdk}\n"
        f"    versionName={package.version_name}\n"
        f"    flags=[ {flags} ]\n"
        f"    pkgFlags=[ {flags} ]\n"
        f"    dataDir={package.data_dir}\n"
        f"    timeStamp={package.updated_at}\n"
        f"    firstInstallTime={package.installed_at}\n"
        f"    lastUpdateTime={package.updated_at}\n"
        f"    signatures=PackageSignatures{{0 version:3, signatures:[{signatures}], "
        "past signatures:[]}\n"
    )
    return 0


async def _meminfo(system: System, call: Call, words: list[str]) -> int:
    names = [word for word in words if not word.startswith("-")]
    running = system.activities.running()
    if not names:
        await call.out(_heading(system) + "Total PSS by process:\n")
        for process in running:
            pss = process.memory_kib().get("Pss", 0)
            await call.out(f"{pss:>11,}K: {process.package.name} (pid {process.pid})\n")
        return 0
    found = [each for each in running if names[0] in (each.package.name, str(each.pid))]
    if not found:
        await call.out(f"No process found for: {names[0]}\n")
        return 0
    await call.out(_heading(system) + _memory_table(found[0]))
    return 0


def _heading(system: System) -> str:
    uptime = int(system.uptime() * 1000)
    return f"Applications Memory Usage (in Kilobytes):\nUptime: {uptime} Realtime: {uptime}\n\n"


def _memory_table(process: AppProcess) -> str:
    memory = process.memory_kib()
    pss, rss, swap = (memory.get(name, 0) for name in ("Pss", "Rss", "SwapPss"))
    dirty = memory.get("Private_Dirty", 0)
    clean = memory.get("Private_Clean", 0)
    return (
        f"** MEMINFO in pid {process.pid} [{process.package.name}] **\n"
        "                   Pss  Private  Private     Swap      Rss\n"
        "                 Total    Dirty    Clean    Dirty    Total\n"
        "                ------   ------   ------   ------   ------\n"
        f"        TOTAL {pss:>8} {dirty:>8} {clean:>8} {swap:>8} {rss:>8}\n\n"
        " App Summary\n"
        f"           TOTAL PSS: {pss:>8}            TOTAL RSS: {rss:>8}"
        f"       TOTAL SWAP PSS: {swap:>8}\n"
    )


async def _cpuinfo(system: System, call: Call, words: list[str]) -> int:
    one, five, fifteen = os.getloadavg()
    await call.out(f"Load: {one:.2f} / {five:.2f} / {fifteen:.2f}\n")
    return 0


_SERVICES: dict[str, _Service] = {
    "battery": _battery,
    "cpuinfo": _cpuinfo,
    "display": _display,
    "meminfo": _meminfo,
    "package": _package,
    "power": _power,
    "thermalservice": _thermal,
    "window": _window,
}
