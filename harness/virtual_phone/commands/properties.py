"""getprop and setprop."""

from __future__ import annotations

from harness.virtual_phone import properties
from harness.virtual_phone.calls import Call
from harness.virtual_phone.system import System


async def getprop(system: System, call: Call) -> int:
    """`getprop [NAME [DEFAULT]]`."""
    words = call.arguments
    if words:
        default = words[1] if len(words) > 1 else ""
        await call.out(system.properties.get(words[0], default) + "\n")
        return 0
    lines = (f"[{name}]: [{value}]\n" for name, value in sorted(system.properties.items()))
    await call.out("".join(lines))
    return 0


async def setprop(system: System, call: Call) -> int:
    """`setprop NAME VALUE`."""
    if len(call.arguments) != 2:
        return await call.fail("usage: setprop NAME VALUE")
    name, value = call.arguments
    refusal = properties.refusal(system.properties, name, value)
    if refusal:
        return await call.fail(refusal)
    system.properties[name] = value
    return 0
