"""deploy: put the APK and a model package on a device, sending only what it lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from harness import console
from harness.device import call, model_store
from harness.device.link import DeviceLink
from harness.device.model_store import File
from harness.errors import DeviceError, StageFailed
from harness.files import sha256_file
from harness.types import Device, Installation, ModelPackage, SignedApk

# What the app takes beside weights and KV cache: the runtime, activations, Java's heap.
APP_BYTES = 256 << 20
# Android, its services and what is on the screen need the rest of the memory.
USABLE_MEMORY = 0.75


def deploy(
    link: DeviceLink,
    device: Device,
    apk: SignedApk,
    package: ModelPackage,
    *,
    context: int | None = None,
    verify: bool = False,
) -> Installation:
    """Install the APK and the model on a device.

    Where the stamp of this package is on the device already, only sizes are compared, unless
    `verify` asks for hashes; a damaged file is sent again. `context` is the number of tokens
    that the KV cache must hold (else the package's own).

    Raises `DeviceError` when the model does not fit the device's memory or storage, and when the
    device refuses or vanishes; files that were sent whole by then stay. Raises `StageFailed` when
    the package itself is damaged.
    """
    document = read_package(package)
    check_memory(device, package, document, context)
    files = package_files(package, document)
    call.clear(link, apk.application_id)
    install_apk(link, apk)
    stamp = model_store.stamp_path(package.key)
    pushed = push_model(link, package, files, stamp, verify=verify)
    return Installation(device, apk.application_id, apk.sha256, package, stamp, pushed)


def read_package(package: ModelPackage) -> Mapping[str, Any]:
    """The package's package.json."""
    try:
        document = json.loads((package.path / "package.json").read_bytes())
    except (OSError, ValueError) as problem:
        raise _damaged_package(package, f"package.json: {problem}") from problem
    if not isinstance(document, dict) or document.get("schema") != "harness.package/2":
        raise _damaged_package(package, "package.json is not of schema harness.package/2")
    return document


def check_memory(
    device: Device, package: ModelPackage, document: Mapping[str, Any], context: int | None
) -> None:
    """Raise `DeviceError` when weights and KV cache do not fit the device's memory."""
    tokens = context or int(document["context_window"])
    cache_bytes = tokens * int(document["kv_cache"]["bytes_per_token"])
    needed = package.weights_bytes + cache_bytes + APP_BYTES
    usable = int(device.memory_bytes * USABLE_MEMORY)
    if needed > usable:
        raise DeviceError(
            f"{package.name} does not fit the memory of {device}",
            cause=(
                f"it needs {console.size(needed)} (weights {console.size(package.weights_bytes)}, "
                f"KV cache of {tokens} tokens {console.size(cache_bytes)}, app "
                f"{console.size(APP_BYTES)}); of the device's "
                f"{console.size(device.memory_bytes)} an app can use {console.size(usable)}"
            ),
            remedy="use a smaller model, fewer bits (--quant), or another device (-s)",
        )


def package_files(package: ModelPackage, document: Mapping[str, Any]) -> list[File]:
    """Every file of a package, package.json too, largest first.

    Raises `StageFailed` when one is missing or has another size than package.json says.
    """
    files = []
    for relative, entry in document["files"].items():
        local = package.path / relative
        if not local.is_file() or local.stat().st_size != entry["size"]:
            raise _damaged_package(package, f"{relative} is missing or has another size")
        files.append(File(relative, local, entry["sha256"], entry["size"]))
    manifest = package.path / "package.json"
    size = manifest.stat().st_size
    files.append(File("package.json", manifest, sha256_file(manifest), size))
    return sorted(files, key=lambda file: (-file.size, file.relative))


def install_apk(link: DeviceLink, apk: SignedApk) -> bool:
    """Install the APK unless that very file is installed; whether it did."""
    if installed_sha256(link, apk.application_id) == apk.sha256:
        console.unchanged("deploy", f"{apk.application_id} is installed")
        return False
    with console.step("deploy", f"installing {apk.application_id} on {link.serial}"):
        link.install(apk.path)
        actual = installed_sha256(link, apk.application_id)
    if actual != apk.sha256:
        raise DeviceError(
            f"{link.serial} has another APK than the one that was installed",
            cause=f"its base.apk has sha256 {actual or '(none)'}, ours has {apk.sha256}",
            remedy=f"adb -s {link.serial} uninstall {apk.application_id}",
        )
    return True


def installed_sha256(link: DeviceLink, application_id: str) -> str:
    """The SHA-256 of the installed base.apk; empty where the app is not installed."""
    listed = link.shell(["pm", "path", application_id], check=False).stdout
    paths = re.findall(r"^package:(\S.*/base\.apk)\s*$", listed, re.MULTILINE)
    if not paths:
        return ""
    done = link.shell(["sha256sum", paths[0]], timeout=model_store.HASH_SECONDS, check=False)
    return done.stdout.split(" ")[0]


def push_model(
    link: DeviceLink, package: ModelPackage, files: list[File], stamp: str, *, verify: bool
) -> int:
    """Bring the device's copy of the package up to date; the number of bytes sent."""
    wanted = model_store.stamp_document(package.key, files)
    found = model_store.survey(link, stamp)
    missing = [file for file in files if found.blobs.get(file.sha256) != file.size]
    stamped = found.stamp == json.dumps(wanted, indent=1)
    if verify or not stamped:
        missing += _check_hashes(link, [file for file in files if file not in missing])
    if stamped and not missing:
        console.unchanged("deploy", f"{package.name} is on {link.serial}")
        return 0
    pushed = 0
    if missing:
        with console.step("deploy", f"sending {package.name} to {link.serial}") as step:

            def show(done: int, total: int) -> None:
                step.progress(done, total, "B")

            pushed = model_store.push(link, missing, free_bytes=found.free_bytes, progress=show)
            step.done(f"{console.size(pushed)} sent to {link.serial}; the hashes agree")
    model_store.write_stamp(link, stamp, wanted)
    return pushed


def _check_hashes(link: DeviceLink, files: list[File]) -> list[File]:
    if not files:
        return []
    total = console.size(sum(file.size for file in files))
    with console.step("deploy", f"{link.serial} checks {total} that it has"):
        bad = model_store.damaged(link, files)
    for file in bad:
        console.warn(f"{file.relative} is damaged on {link.serial}; sending it again")
    return bad


def _damaged_package(package: ModelPackage, cause: str) -> StageFailed:
    return StageFailed(
        f"the package of {package.name} is damaged",
        cause=cause,
        remedy=f"rm -r {package.path}   # then run the same command again: it compiles anew",
    )
