"""The phone's system properties."""

from __future__ import annotations

import re

from harness.types import Abi

API_LEVEL = 35
RELEASE = "15"
SOC = {Abi.ARM64: "qemu-user", Abi.X86_64: "host"}
"""What computes on a phone of each ABI."""
_NAME = re.compile(r"[A-Za-z0-9_.:@-]+")
_VALUE_MAX = 91


def defaults(abi: Abi, name: str, serial: str, version: str) -> dict[str, str]:
    """The properties of a phone that has just booted."""
    device = "vphone_arm64" if abi is Abi.ARM64 else "vphone_x86_64"
    fingerprint = f"harness/{device}/{device}:{RELEASE}/HARNESS/{version}:user/release-keys"
    return {
        "dalvik.vm.heapsize": "512m",
        "debug.atrace.tags.enableflags": "0",
        "init.svc.adbd": "running",
        "logd.ready": "true",
        "net.bt.name": "Android",
        "persist.sys.locale": "en-US",
        "persist.sys.timezone": "UTC",
        "ro.board.platform": "virtual",
        "ro.boot.serialno": serial,
        "ro.build.characteristics": "default",
        "ro.build.display.id": f"HARNESS {version}",
        "ro.build.fingerprint": fingerprint,
        "ro.build.id": "HARNESS",
        "ro.build.tags": "release-keys",
        "ro.build.type": "user",
        "ro.build.version.codename": "REL",
        "ro.build.version.incremental": version,
        "ro.build.version.release": RELEASE,
        "ro.build.version.sdk": str(API_LEVEL),
        "ro.build.version.security_patch": "2024-10-05",
        "ro.debuggable": "0",
        "ro.hardware": "virtual",
        "ro.harness.name": name,
        "ro.harness.virtual": "1",
        "ro.product.brand": "harness",
        "ro.product.cpu.abi": str(abi),
        "ro.product.cpu.abilist": str(abi),
        "ro.product.cpu.abilist32": "",
        "ro.product.cpu.abilist64": str(abi),
        "ro.product.device": device,
        "ro.product.manufacturer": "harness",
        "ro.product.model": f"Virtual Phone {abi}",
        "ro.product.name": device,
        "ro.secure": "1",
        "ro.serialno": serial,
        "ro.soc.manufacturer": "harness",
        "ro.soc.model": SOC[abi],
        "sys.boot_completed": "1",
    }


def refusal(properties: dict[str, str], name: str, value: str) -> str:
    """Why `setprop` refuses a value, "" if it takes it."""
    if not _NAME.fullmatch(name):
        return f"Failed to set property '{name}' to '{value}'. Invalid property name."
    if name.startswith("ro.") and name in properties:
        return f"Failed to set property '{name}' to '{value}'. Read-only property was already set."
    if name.startswith(("ro.", "init.", "sys.")):
        return f"Failed to set property '{name}' to '{value}'.\nSee dmesg for error reason."
    if len(value.encode()) > _VALUE_MAX:
        return f"Failed to set property '{name}' to '{value}'. Value too long."
    return ""
