"""settings."""

from __future__ import annotations

from harness.virtual_phone.calls import Call
from harness.virtual_phone.system import System

_TABLES = ("global", "secure", "system")


async def settings(system: System, call: Call) -> int:
    """`settings get|put|delete|list TABLE [NAME [VALUE]]`."""
    words = [word for word in call.arguments if word != "--user"]
    verb, table, name, value = (*words, *[""] * 4)[:4]
    if table not in _TABLES:
        return await call.fail(f"Invalid namespace '{table}'", 255)
    values = system.condition.settings[table]
    match verb, len(words):
        case "get", 3:
            await call.out(values.get(name, "null") + "\n")
        case "put", 4:
            values[name] = value
        case "delete", 3:
            await call.out(f"Deleted {int(values.pop(name, None) is not None)} rows\n")
        case "list", 2:
            await call.out("".join(f"{key}={values[key]}\n" for key in sorted(values)))
        case _:
            return await call.fail(f"Invalid command: {' '.join(words)}", 255)
    return 0
