"""pm: the package manager's command line, also reached as `cmd package` and through abb."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.virtual_phone.calls import Call
from harness.virtual_phone.logd import Priority
from harness.virtual_phone.packages import InstallFailed, InstallOptions, InstallSession
from harness.virtual_phone.system import System

_WITH_VALUE = {"-i", "--user", "--install-location", "--install-reason", "--abi", "--pkg", "-p"}


@dataclass
class _Words:
    """An install command's words."""

    size: int | None = None
    replace: bool = True
    downgrade: bool = False
    rest: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, words: list[str]) -> _Words:
        """Read flags and what they are followed by; raises ValueError."""
        found = cls()
        pending = list(words)
        while pending:
            word = pending.pop(0)
            if word == "-S":
                found.size = int(pending.pop(0)) if pending else None
                if found.size is None or found.size < 0:
                    raise ValueError("-S needs a size")
            elif word in _WITH_VALUE:
                pending[:1] = []
            elif word == "-R":
                found.replace = False
            elif word == "-d":
                found.downgrade = True
            elif not word.startswith("-") or word == "-":
                found.rest.append(word)
        return found

    @property
    def options(self) -> InstallOptions:
        """What of it the package manager wants to know."""
        return InstallOptions(self.replace, self.downgrade)


async def pm(system: System, call: Call) -> int:
    """`pm VERB ...`."""
    words = call.arguments
    verb = words[0] if words else ""
    handler = _VERBS.get(verb)
    if handler is None:
        return await call.fail(f"Unknown command: {verb}", 255)
    return await handler(system, call, words[1:])


async def _list(system: System, call: Call, words: list[str]) -> int:
    kind = words[0] if words else ""
    names = [word for word in words[1:] if not word.startswith("-")]
    for package in system.packages.all():
        if kind in ("packages", "package"):
            if names and names[0] not in package.name:
                continue
            path = f"{package.apk}=" if "-f" in words else ""
            version = (
                f" versionCode:{package.version_code}" if "--show-versioncode" in words else ""
            )
            uid = f" uid:{package.uid}" if "-U" in words else ""
            await call.out(f"package:{path}{package.name}{version}{uid}\n")
        elif kind == "instrumentation":
            for name, target in package.instrumentations:
                await call.out(f"instrumentation:{package.name}/{name} (target={target})\n")
        else:
            return await call.fail(f"Error: unknown list type '{kind}'", 255)
    return 0


async def _path(system: System, call: Call, words: list[str]) -> int:
    package = system.packages.find(words[-1]) if words else None
    if package is None:
        return 1
    await call.out(f"package:{package.apk}\n")
    return 0


async def _dump(system: System, call: Call, words: list[str]) -> int:
    return await system.run(call.with_argv(["dumpsys", "package", *words]))


async def _install(system: System, call: Call, words: list[str]) -> int:
    try:
        parsed = _Words.parse(words)
    except ValueError as problem:
        return await call.fail(f"Error: {problem}", 255)
    target = system.packages.staging_file()
    if parsed.size is not None:
        failure = await _receive(system, call, parsed.size, target)
    elif parsed.rest:
        failure = await _copy(system, parsed.rest[0], target)
    else:
        failure = "Error: no package specified"
    if failure:
        target.unlink(missing_ok=True)
        return await call.fail(failure)
    return await _finish(system, call, target, parsed.options)


async def _create(system: System, call: Call, words: list[str]) -> int:
    try:
        parsed = _Words.parse(words)
    except ValueError as problem:
        return await call.fail(f"Error: {problem}", 255)
    number = system.packages.open_session(parsed.options)
    await call.out(f"Success: created install session [{number}]\n")
    return 0


async def _write(system: System, call: Call, words: list[str]) -> int:
    try:
        parsed = _Words.parse(words)
        session = system.packages.sessions[int(parsed.rest[0])]
        name = parsed.rest[1]
    except (ValueError, IndexError, KeyError):
        return await call.fail(
            "Error: java.lang.SecurityException: Caller has no access to session"
        )
    target = system.packages.staging_file()
    source = parsed.rest[2] if len(parsed.rest) > 2 else "-"
    if source == "-":
        problem = await _receive(system, call, parsed.size or 0, target)
    else:
        problem = await _copy(system, source, target)
    if problem:
        target.unlink(missing_ok=True)
        return await call.fail(problem)
    session.files[name] = target
    await call.out(f"Success: streamed {target.stat().st_size} bytes\n")
    return 0


async def _commit(system: System, call: Call, words: list[str]) -> int:
    session = _take_session(system, words)
    if session is None:
        return await call.fail(
            "Error: java.lang.SecurityException: Caller has no access to session"
        )
    files = list(session.files.values())
    if len(files) != 1:
        for file in files:
            file.unlink(missing_ok=True)
        reason = "split APKs are not supported" if files else "No packages staged"
        return await call.fail(f"Failure [INSTALL_FAILED_INVALID_APK: {reason}]")
    return await _finish(system, call, files[0], session.options)


async def _abandon(system: System, call: Call, words: list[str]) -> int:
    session = _take_session(system, words)
    for file in session.files.values() if session else ():
        file.unlink(missing_ok=True)
    await call.out("Success\n")
    return 0


def _take_session(system: System, words: list[str]) -> InstallSession | None:
    number = int(words[0]) if words and words[0].isdecimal() else 0
    return system.packages.sessions.pop(number, None)


async def _uninstall(system: System, call: Call, words: list[str]) -> int:
    names = [word for word in words if not word.startswith("-")]
    if not names or system.packages.find(names[0]) is None:
        await call.out("Failure [DELETE_FAILED_INTERNAL_ERROR]\n")
        return 1
    await system.activities.force_stop(names[0])
    system.packages.uninstall(names[0], keep_data="-k" in words)
    await call.out("Success\n")
    return 0


async def _clear(system: System, call: Call, words: list[str]) -> int:
    name = words[-1] if words else ""
    await system.activities.force_stop(name)
    cleared = system.packages.clear(name)
    await call.out("Success\n" if cleared else "Failed\n")
    return 0 if cleared else 1


async def _nothing(system: System, call: Call, words: list[str]) -> int:
    """Permissions are not modelled: what may be granted is granted."""
    return 0


async def _receive(system: System, call: Call, size: int, target: Path) -> str:
    """Stream an APK into `target`; returns what is wrong."""
    if system.storage.free() < size:
        return "Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE]"
    received = 0
    try:
        with target.open("wb") as file:
            async for block in call.read_blocks(size):
                file.write(block)
                received += len(block)
    except OSError as problem:
        return f"Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE: {problem.strerror}]"
    if received != size:
        return f"Failure [INSTALL_FAILED_INVALID_APK: expected {size} bytes, {received} came]"
    system.storage.wrote(received)
    return ""


async def _copy(system: System, path: str, target: Path) -> str:
    try:
        source = system.files.readable(path)
        await _in_thread(system, lambda: shutil.copyfile(source, target))
    except OSError:
        return (
            f"Error: Unable to open file: {path}\n"
            "Consider using a file under /data/local/tmp/\n"
            f"Error: Can't open file: {path}"
        )
    return ""


async def _finish(system: System, call: Call, file: Path, options: InstallOptions) -> int:
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        stopping = asyncio.run_coroutine_threadsafe(system.activities.force_stop(name), loop)
        with contextlib.suppress(TimeoutError):
            stopping.result(10)

    try:
        package = await loop.run_in_executor(
            system.executor, system.packages.install, file, options, stop
        )
    except InstallFailed as failure:
        system.logd.system(Priority.WARN, "PackageManager", f"Installation failed: {failure}")
        return await call.fail(f"Failure [{failure}]")
    system.logd.system(Priority.INFO, "PackageManager", f"Installed {package.name}")
    await call.out("Success\n")
    return 0


async def _in_thread(system: System, action: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(system.executor, action)


_VERBS = {
    "clear": _clear,
    "dump": _dump,
    "grant": _nothing,
    "install": _install,
    "install-abandon": _abandon,
    "install-commit": _commit,
    "install-create": _create,
    "install-write": _write,
    "list": _list,
    "path": _path,
    "revoke": _nothing,
    "uninstall": _uninstall,
}
