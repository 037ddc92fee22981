"""build: `libalc_runtime.so` for one target, from the sources that pip installed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from harness import console, files, resources
from harness.errors import MissingTool, StageFailed
from harness.store import artifacts
from harness.tools import cmake, elf, jdk, ndk, zig
from harness.types import Abi, Libc, RuntimeBundle, Target

STAGE = "build"
LIBRARY = "libalc_runtime.so"
SYMBOLS = f"{LIBRARY}.debug"
MIN_API = 26
PAGE_BYTES = 16384
EXPORT_PREFIXES = ("TVMFFI", "TVMBackend")
JNI_ENTRY = "JNI_OnLoad"
_MACHINES = {Abi.ARM64: "EM_AARCH64", Abi.X86_64: "EM_X86_64"}
# Models name the runtime only, so the C library and the one for mathematics come through it.
_NEEDED = {Libc.BIONIC: ("libc.so", "libm.so"), Libc.GLIBC: ("libc.so.6", "libm.so.6")}
_SOURCES = (".cc", ".h", ".txt", ".map")
# What the build reads of each Python package, by the name it is installed under.
_PACKAGES = {
    "apache-tvm": ("tvm", ("tvm/src/runtime/", "tvm/include/")),
    "apache-tvm-ffi": ("tvm_ffi", ("tvm_ffi/src/", "tvm_ffi/include/")),
}


def build(target: Target, workspace: Path) -> RuntimeBundle:
    """Build the native runtime for `target`, or return the one that is built already.

    The target decides the compiler: Zig for glibc (the virtual phone), the NDK for bionic (a
    real phone). An interrupted build goes on where it stopped.

    Raises `MissingTool` if the compiler, CMake, a JDK (for jni.h) or TVM is missing, and
    `StageFailed` if the sources do not compile or the result is not what a phone can load.
    """
    source = resources.path("android-template") / "runtime/src/main/cpp"
    toolchain = _toolchain(target)
    builder = cmake.find()
    inputs = {
        "target": str(target),
        "sources": _hash_folder(source),
        "packages": {name: _package_hash(name) for name in _PACKAGES},
        "compiler": toolchain.name,
        "cmake": builder.version,
    }

    def work(folder: Path) -> Mapping[str, object]:
        key = artifacts.key_of(inputs)
        scratch = artifacts.folder(workspace, f"{STAGE}-objects", key)
        settings = {**toolchain.settings(), **_sources(), "BUILD_ID": key[:40]}
        with console.step(STAGE, f"native runtime for {target} with {toolchain.name}") as step:
            step.update(f"{step.text} · preparing the compiler")
            cmake.configure(builder, source, scratch, settings)
            cmake.build(builder, scratch, step, jobs=_jobs())
            _check(scratch / LIBRARY, target)
            for name in (LIBRARY, SYMBOLS):
                shutil.copyfile(scratch / name, folder / name)
            shutil.rmtree(scratch)
            size = (folder / LIBRARY).stat().st_size
            step.done(f"{LIBRARY} for {target}, {console.size(size)}")
        return {"bytes": size, "build_id": key[:40]}

    made = artifacts.produce(workspace, STAGE, inputs, work)
    if not made.fresh:
        console.unchanged(STAGE, f"{LIBRARY} for {target} is built")
    return RuntimeBundle(made.path, made.key, target, made.path / LIBRARY, made.path / SYMBOLS)


class _Zig:
    """CMake's settings for Linux with glibc."""

    def __init__(self, abi: Abi) -> None:
        self.abi = abi
        self.zig = zig.find()
        self.name = f"zig {self.zig.version} {zig.triple(abi)}"

    def settings(self) -> dict[str, str | Sequence[str]]:
        headers = jdk.find().home / "include"
        return {
            "CMAKE_SYSTEM_NAME": "Linux",
            "CMAKE_SYSTEM_PROCESSOR": self.abi.arch,
            "CMAKE_C_COMPILER": self.zig.compiler("c", self.abi),
            "CMAKE_CXX_COMPILER": self.zig.compiler("c++", self.abi),
            "JNI_INCLUDE_DIRS": [str(headers), str(headers / "linux")],
        }


class _Ndk:
    """CMake's settings for Android."""

    def __init__(self, abi: Abi) -> None:
        self.abi = abi
        self.ndk = ndk.find()
        self.name = f"NDK {self.ndk.version}"

    def settings(self) -> dict[str, str | Sequence[str]]:
        return {
            "CMAKE_TOOLCHAIN_FILE": str(self.ndk.toolchain),
            "ANDROID_ABI": str(self.abi),
            "ANDROID_PLATFORM": f"android-{MIN_API}",
            "ANDROID_STL": "c++_static",
        }


def _toolchain(target: Target) -> _Zig | _Ndk:
    return _Ndk(target.abi) if target.libc is Libc.BIONIC else _Zig(target.abi)


def _sources() -> dict[str, str | Sequence[str]]:
    folders = {}
    for name, (module, _) in _PACKAGES.items():
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise _no_package(name)
        folders[f"{module.upper()}_DIR"] = str(Path(spec.origin).parent)
    return {**folders, "TVM_VERSION": metadata.version("apache-tvm")}


def _package_hash(name: str) -> str:
    """The version of a package and a hash of what it says of its sources.

    pip lists each file's hash in RECORD, which is much quicker than reading the files.
    """
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError as problem:
        raise _no_package(name) from problem
    record = (package.read_text("RECORD") or "").splitlines()
    lines = sorted(line for line in record if line.startswith(_PACKAGES[name][1]))
    return f"{package.version} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _no_package(name: str) -> MissingTool:
    return MissingTool(
        f"no {name} found",
        cause=f"the Python package {name}, which brings the runtime's sources, is not installed",
        remedy=f"pip install {name}",
    )


def _hash_folder(folder: Path) -> str:
    """One hash for the names and bytes of what the compiler reads; tests are no part of that."""
    hashes = {
        str(path.relative_to(folder)): files.sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in _SOURCES and "test" not in path.relative_to(folder).parts
    }
    return hashlib.sha256(files.canonical_json(hashes)).hexdigest()


def _jobs() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(library: Path, target: Target) -> None:
    """Refuse a library that a phone could not load, or that shows more than it should."""
    facts = elf.read(library)
    hidden = [
        name
        for name in sorted(facts.exports)
        if name != JNI_ENTRY and not name.startswith(EXPORT_PREFIXES)
    ]
    missing = [name for name in _NEEDED[target.libc] if name not in facts.needed]
    checks = {
        f"it is for {facts.machine}": facts.machine == _MACHINES[target.abi],
        f"its SONAME is {facts.soname}": facts.soname == LIBRARY,
        f"it does not name {', '.join(missing)}": not missing,
        f"it exports {', '.join(hidden[:5])}": not hidden,
        f"it does not export {JNI_ENTRY}": JNI_ENTRY in facts.exports,
        f"its pages are {min(facts.alignments)} bytes": min(facts.alignments) >= PAGE_BYTES,
        "it still holds debug symbols": facts.stripped,
    }
    wrong = [what for what, good in checks.items() if not good]
    if wrong:
        raise StageFailed(
            f"{LIBRARY} for {target} is not as it should be",
            cause="; ".join(wrong),
            remedy="run the same command again with -v and read the linker's command",
        )
