"""cmd, svc, input, wm and other small doors to services."""

from __future__ import annotations

import os

from harness.types import Abi
from harness.virtual_phone.calls import Call
from harness.virtual_phone.logd import Priority
from harness.virtual_phone.system import System

_ALIASES = {"package": "pm", "activity": "am", "settings": "settings", "window": "wm"}
_STAY_ON = {"true": "15", "false": "0", "ac": "1", "usb": "2", "wireless": "4", "dock": "8"}


async def cmd(system: System, call: Call) -> int:
    """`cmd SERVICE ...`, also what `abb` and `abb_exec` carry."""
    words = call.arguments
    if not words:
        return await call.fail(
            "cmd: No service specified; use -l to list all running services.", 20
        )
    if words[0] == "-l":
        names = sorted([*_ALIASES, "connectivity", "power", "thermalservice"])
        await call.out("Currently running services:\n" + "".join(f"  {name}\n" for name in names))
        return 0
    if words[0] in _ALIASES:
        return await system.run(call.with_argv([_ALIASES[words[0]], *words[1:]]))
    condition = system.condition
    match words:
        case ["thermalservice", "override-status", status] if status.isdecimal():
            condition.thermal_override = int(status)
        case ["thermalservice", "reset"]:
            condition.thermal_override = None
        case ["power", "set-fixed-performance-mode-enabled", _]:
            pass  # taken, as by phones whose clocks do not change anyway
        case ["connectivity", "airplane-mode"]:
            on = condition.setting("global", "airplane_mode_on") == "1"
            await call.out("enabled\n" if on else "disabled\n")
        case ["connectivity", "airplane-mode", flag] if flag in ("enable", "disable"):
            condition.settings["global"]["airplane_mode_on"] = "1" if flag == "enable" else "0"
        case [("thermalservice" | "power" | "connectivity"), *rest]:
            return await call.fail(f"Unknown command: {' '.join(rest)}", 255)
        case _:
            return await call.fail(f"cmd: Can't find service: {words[0]}", 20)
    return 0


async def svc(system: System, call: Call) -> int:
    """`svc power stayon VALUE`, `svc power reboot`; radios there are none."""
    match call.arguments:
        case ["power", "stayon", value] if value in _STAY_ON:
            stay_on = _STAY_ON[value]
            system.condition.settings["global"]["stay_on_while_plugged_in"] = stay_on
        case ["power", "reboot", *_]:
            system.reboot()
        case [("wifi" | "data" | "bluetooth" | "nfc"), ("enable" | "disable")]:
            pass
        case words:
            return await call.fail(f"svc: unknown command: {' '.join(words)}")
    return 0


async def input_(system: System, call: Call) -> int:
    """`input keyevent ...`: only the keys that wake and sleep do something."""
    words = call.arguments
    if words[:1] == ["keyevent"]:
        for key in words[1:]:
            name = key.removeprefix("KEYCODE_").upper()
            if name in ("WAKEUP", "224"):
                system.condition.awake = True
            elif name in ("SLEEP", "223"):
                system.condition.awake = False
            elif name in ("POWER", "26"):
                system.condition.awake = not system.condition.awake
    system.logd.system(Priority.DEBUG, "InputDispatcher", "input " + " ".join(words))
    return 0


async def wm(system: System, call: Call) -> int:
    """`wm size|density`."""
    match call.arguments:
        case ["size"]:
            await call.out("Physical size: 1080x2400\n")
        case ["density"]:
            await call.out("Physical density: 420\n")
        case words:
            return await call.fail(f"Unknown command: {' '.join(words)}", 255)
    return 0


async def getenforce(system: System, call: Call) -> int:
    """The phone has no SELinux; what it keeps apart is told by the sandbox."""
    await call.out("Disabled\n")
    return 0


async def reboot(system: System, call: Call) -> int:
    """`reboot`."""
    system.reboot()
    return 0


async def uname(system: System, call: Call) -> int:
    """`uname`: the host's kernel under the phone's processor."""
    kernel = os.uname()
    machine = "aarch64" if system.abi is Abi.ARM64 else kernel.machine
    fields = {
        "s": kernel.sysname,
        "n": "localhost",
        "r": kernel.release,
        "v": kernel.version,
        "m": machine,
    }
    letters = "".join(word.lstrip("-") for word in call.arguments) or "s"
    if "a" in letters:
        letters = "snrvm"
    unknown = set(letters) - set(fields)
    if unknown:
        return await call.fail(f"uname: Unknown option '{min(unknown)}'")
    await call.out(" ".join(value for key, value in fields.items() if key in letters) + "\n")
    return 0
