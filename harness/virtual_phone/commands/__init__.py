"""Android's commands. Each is `async def name(system, call) -> exit code`."""

from __future__ import annotations

from collections.abc import Mapping

from harness.virtual_phone.commands import (
    activity,
    dumpsys,
    logs,
    package,
    processes,
    properties,
    services,
    settings,
    storage,
)
from harness.virtual_phone.system import Command

ALL: Mapping[str, Command] = {
    "am": activity.am,
    "cmd": services.cmd,
    "df": storage.df,
    "dumpsys": dumpsys.dumpsys,
    "getenforce": services.getenforce,
    "getprop": properties.getprop,
    "input": services.input_,
    "log": logs.log,
    "logcat": logs.logcat,
    "monkey": activity.monkey,
    "pidof": processes.pidof,
    "pm": package.pm,
    "ps": processes.ps,
    "reboot": services.reboot,
    "run-as": processes.run_as,
    "setprop": properties.setprop,
    "settings": settings.settings,
    "stat": storage.stat,
    "svc": services.svc,
    "uname": services.uname,
    "wm": services.wm,
}
"""Every command that the phone's system answers, by name."""
