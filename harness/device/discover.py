"""Which devices there are, which one is meant, and what it is."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from harness.device import server
from harness.device.link import DeviceLink
from harness.errors import DeviceError, MissingTool, UsageError
from harness.tools.adb import Adb
from harness.types import Abi, Device, Libc

SERIAL_VARIABLE = "ANDROID_SERIAL"
READY = "device"

_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*?)\]$", re.MULTILINE | re.DOTALL)
_SOC_CHARACTERS = 64
_MEMORY = re.compile(r"^MemTotal:\s+(\d+) kB", re.MULTILINE)
_REMEDIES = {
    "unauthorized": "accept the key on the phone's screen, then run the same command again",
    "authorizing": "wait a moment and accept the key on the phone's screen",
    "offline": "adb reconnect offline   # or unplug the phone and plug it in again",
    "connecting": "wait a moment, then run the same command again",
    "no permissions": "sudo apt install android-sdk-platform-tools-common   # udev rules",
    "recovery": "adb reboot   # the phone is in recovery",
    "sideload": "adb reboot   # the phone is in sideload mode",
    "bootloader": "fastboot reboot   # the phone is in its bootloader",
}


@dataclass(frozen=True)
class Attached:
    """A line of `adb devices -l`: what adb knows of a device, whether it answers or not."""

    serial: str
    state: str
    model: str

    @property
    def ready(self) -> bool:
        """Whether the device takes commands."""
        return self.state == READY

    @property
    def remedy(self) -> str:
        """What to do about a device that is not ready; empty for one that is."""
        return "" if self.ready else remedy(self.state)


def remedy(reason: str) -> str:
    """What to do about a device's state, or about adb's complaint that names it."""
    for state, advice in _REMEDIES.items():
        if state in reason:
            return advice
    return "harness devices   # plug it in or start it, then run the same command again"


def attached(adb: Adb) -> list[Attached]:
    """Every device that the adb server knows, ready or not; starts the server.

    Raises `MissingTool` when the server does not start or hangs up.
    """
    adb.start_server()
    try:
        return read_devices(server.query(adb.server_port, "host:devices-l"))
    except (server.Broken, server.Refused, TimeoutError) as problem:
        raise MissingTool(
            "the adb server does not list devices",
            cause=str(problem),
            remedy="adb kill-server   # then run the same command again",
        ) from problem


def connect(adb: Adb, serial: str, *, timeout: float = 5.0) -> None:
    """Make the adb server connect to a device over TCP; `serial` is its host:port.

    A server that has lost a connection calls the device offline and tries again every ten
    seconds; told to forget it, it connects at once.

    Raises `DeviceError` with adb's words when the device is not ready after `timeout` seconds.
    """
    limit = time.monotonic() + timeout
    adb.start_server()
    while True:
        state, said = _connect_once(adb, serial)
        if state == READY:
            return
        if time.monotonic() >= limit:
            raise DeviceError(
                f"adb does not connect to {serial}",
                cause=f"it is {state}" if state else said,
                remedy=remedy(state) if state else f"adb connect {serial}",
            )
        time.sleep(0.05)


def _connect_once(adb: Adb, serial: str) -> tuple[str, str]:
    """The device's state after one attempt (empty where adb does not list it), and adb's words."""
    port, said = adb.server_port, ""
    try:
        state = _state(port, serial)
        if state == "offline":
            server.query(port, f"host:disconnect:{serial}")
        if state in ("", "offline"):
            said = server.query(port, f"host:connect:{serial}").strip()
        return _state(port, serial), said
    except (server.Broken, server.Refused, TimeoutError) as problem:
        return "", str(problem)


def _state(port: int, serial: str) -> str:
    devices = read_devices(server.query(port, "host:devices-l"))
    return next((device.state for device in devices if device.serial == serial), "")


def read_devices(text: str) -> list[Attached]:
    """The lines of `adb devices -l`, such as `37021 device product:husky model:Pixel_8`."""
    found = []
    for line in text.splitlines():
        serial, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not serial or not rest:
            continue
        # A state may be more than one word ("no permissions (...)"); fields are name:value.
        state = re.split(r"\s+(?=(?:usb|product|model|device|transport_id):)", rest)[0]
        state = "no permissions" if state.startswith("no permissions") else state.split()[0]
        model = re.search(r"\bmodel:(\S+)", rest)
        found.append(Attached(serial, state, model.group(1).replace("_", " ") if model else ""))
    return found


def choose(devices: list[Attached], serial: str | None = None) -> Attached:
    """The device that is meant: by `serial`, else by ANDROID_SERIAL, else the only one.

    Raises `DeviceError` when it is not there or not ready, `UsageError` when several could be
    meant.
    """
    wanted = serial or os.environ.get(SERIAL_VARIABLE, "").strip()
    if wanted:
        return _ready(_named(devices, wanted))
    ready = [device for device in devices if device.ready]
    if len(ready) == 1:
        return ready[0]
    if ready:
        raise UsageError(
            f"{len(ready)} devices are attached",
            cause="any could be meant: " + _list(ready),
            remedy=f"add -s {ready[0].serial}   # or set {SERIAL_VARIABLE}",
        )
    if devices:
        return _ready(devices[0])
    raise DeviceError(
        "no device is attached",
        cause="adb lists none",
        remedy="harness phone start   # a virtual phone; or plug a phone in with USB debugging on",
    )


def _named(devices: list[Attached], serial: str) -> Attached:
    for device in devices:
        if device.serial == serial:
            return device
    raise DeviceError(
        f"no device {serial} is attached",
        cause="adb lists " + (_list(devices) if devices else "none"),
        remedy=f"add -s {devices[0].serial}" if devices else "harness phone start",
    )


def _ready(device: Attached) -> Attached:
    if device.ready:
        return device
    raise DeviceError(
        f"{device.serial} is {device.state}",
        cause="adb sees the device but may not use it",
        remedy=device.remedy,
    )


def _list(devices: list[Attached]) -> str:
    return ", ".join(f"{device.serial} ({device.model or device.state})" for device in devices)


def identify(link: DeviceLink) -> Device:
    """What a device is, in one round trip.

    Raises `DeviceError` when it is still booting or has no ABI that the harness builds for.
    """
    script = "getprop; echo; cat /proc/meminfo"
    return read_device(link.serial, link.shell(["sh", "-c", script]).stdout)


def read_properties(text: str) -> dict[str, str]:
    """What `getprop` prints, one `[name]: [value]` a property; values may span lines."""
    return dict(_PROPERTY.findall(text.replace("\r\n", "\n")))


def read_device(serial: str, text: str) -> Device:
    """A device from what `getprop` and /proc/meminfo print."""
    properties = read_properties(text)
    if properties.get("sys.boot_completed") != "1":
        raise DeviceError(
            f"{serial} is still starting",
            cause="its property sys.boot_completed is not 1",
            remedy="wait until its screen shows the launcher, then run the same command again",
        )
    abis = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")
    known = [name for name in abis.split(",") if name in set(Abi)]
    memory = _MEMORY.search(text)
    level = properties.get("ro.build.version.sdk", "")
    if not known or memory is None or not level.isdecimal():
        raise DeviceError(
            f"{serial} is no device that the harness can use",
            cause=f"its ABIs are {abis or 'unknown'}, its API level {level or 'unknown'}",
            remedy=f"use a device of {' or '.join(Abi)} with Android 8 or newer",
        )
    virtual = properties.get("ro.harness.virtual") == "1"
    return Device(
        serial=serial,
        model=properties.get("ro.product.model", "").replace("_", " ") or serial,
        abi=Abi(known[0]),
        libc=Libc.GLIBC if virtual else Libc.BIONIC,
        api_level=int(level),
        memory_bytes=int(memory.group(1)) * 1024,
        fingerprint=properties.get("ro.build.fingerprint", ""),
        virtual=virtual,
        soc=soc(properties),
    )


def soc(properties: Mapping[str, str]) -> str:
    """A name for the device's processor, such as "sm8650" or "tensor-g3"; empty if it has none.

    It is of lower-case letters, digits, dots, dashes and underlines, and begins with none of the
    last three: whatever a device says of itself, its name is that of a plain file.
    """
    for key in ("ro.soc.model", "ro.board.platform", "ro.hardware"):
        name = re.sub(r"[^a-z0-9._-]+", "-", properties.get(key, "").lower()).strip("._-")
        # Android's own word for what a manufacturer left out.
        if name and name != "unknown":
            return name[:_SOC_CHARACTERS].rstrip("._-")
    return ""
