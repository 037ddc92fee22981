"""A package's x86_64 library run on this machine, in a process of its own.

The library is the file that devices get; its runtime is TVM's own, under the name that the
library asks for.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from harness.compiler.library import RUNTIME_SONAME
from harness.compiler.packages import variants
from harness.compiler.packages.package import read_package
from harness.compiler.worker import run_job
from harness.errors import UsageError
from harness.types import Abi


def logits(
    package: Path,
    tokens: Sequence[int],
    *,
    chunks: Sequence[int] | None = None,
    threads: int = 2,
    cpu_variant: str | None = None,
) -> npt.NDArray[np.float32]:
    """The logits after each of `tokens`, [len(tokens), vocab].

    `chunks` says how many tokens go through each call (1 uses `decode`, more `batch_verify`);
    by default as many as the package takes. `cpu_variant` names the library's variant that runs,
    by default the best one that can.
    """
    with tempfile.TemporaryDirectory(prefix="harness-host-") as folder:
        settings = {
            "tokens": list(tokens),
            "chunks": None if chunks is None else list(chunks),
            "threads": threads,
            "cpu_variant": cpu_variant,
        }
        _run("host_logits", package, Path(folder), settings)
        return cast(npt.NDArray[np.float32], np.load(Path(folder) / "logits.npy"))


def generate(
    package: Path,
    tokens: Sequence[int],
    count: int,
    *,
    threads: int = 2,
    cpu_variant: str | None = None,
) -> Mapping[str, Any]:
    """At most `count` greedy tokens after the prompt `tokens`, by `prefill` and `decode`.

    The result has "token_ids" (an end token is the last, if one came), the "backend" that computed
    and the times "prefill_ns" and "decode_ns" (one for each decoded token after the first).
    """
    with tempfile.TemporaryDirectory(prefix="harness-host-") as folder:
        settings = {
            "tokens": list(tokens),
            "count": count,
            "threads": threads,
            "cpu_variant": cpu_variant,
        }
        return _run("host_generate", package, Path(folder), settings)


def times(
    package: Path, prompt: int, count: int, *, threads: int, cpu_variant: str | None = None
) -> Mapping[str, Any]:
    """How long a warm model takes for a prompt of `prompt` tokens and for `count` tokens after it.

    The result has "prefill_ns" and "decode_ns" (one for each token). No end token ends it.
    """
    with tempfile.TemporaryDirectory(prefix="harness-host-") as folder:
        settings = {
            "prompt": prompt,
            "count": count,
            "threads": threads,
            "cpu_variant": cpu_variant,
        }
        return _run("host_times", package, Path(folder), settings)


def memory_used(package: Path, *, threads: int = 2) -> int:
    """Bytes that the engine adds to its process with a conversation that fills the context."""
    with tempfile.TemporaryDirectory(prefix="harness-host-") as folder:
        settings = {"threads": threads, "cpu_variant": None}
        found = _run("host_memory", package, Path(folder), settings)
        return int(found["bytes"])


def check() -> None:
    """Raise `UsageError` if no package runs on this machine."""
    if platform.machine() != "x86_64":
        raise UsageError(
            f"a package does not run on this {platform.machine()} host",
            cause="it is run by its x86_64 library",
            remedy="harness test MODEL   # to run it on a phone",
        )


def cpu_features() -> frozenset[str]:
    """What this machine's processor can do, as /proc/cpuinfo names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def prepare(
    package: Path, folder: Path, threads: int, cpu_variant: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `session.Session` takes, and the environment of the process that makes one.

    Puts a link into `folder`, which is to stay while that process runs. Raises `UsageError` if the
    package does not run on this machine.
    """
    check()
    found = read_package(package)
    if Abi.X86_64 not in found.abis:
        raise UsageError(
            f"{package} has no library for this host",
            cause="it was compiled for other ABIs",
            remedy="harness compile MODEL --abi x86_64",
        )
    target = found.facts["stamp"]["targets"][Abi.X86_64]
    variant = variants.choose(found.facts["name"], target, cpu_features(), cpu_variant)
    (folder / RUNTIME_SONAME).symlink_to(_runtime())
    path = os.environ.get("LD_LIBRARY_PATH")
    # By itself TVM counts half of the cores, whatever it is told later.
    env = {
        "LD_LIBRARY_PATH": f"{folder}:{path}" if path else str(folder),
        "TVM_NUM_THREADS": str(threads),
    }
    settings = {
        "package": str(package),
        "threads": threads,
        "suffix": variant.suffix,
        "backend": f"{target['backend']}/{variant.name}",
    }
    return settings, env


def _run(task: str, package: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    prepared, env = prepare(package, folder, settings["threads"], settings["cpu_variant"])
    return run_job(task, {**settings, **prepared, "folder": str(folder)}, folder, env=env)


def _runtime() -> Path:
    """TVM's runtime library. The loader goes by its inode: its new name brings no second copy."""
    from importlib.metadata import files

    for file in files("apache-tvm") or []:
        if file.name == "libtvm_runtime.so":
            return Path(str(file.locate())).resolve()
    raise UsageError(
        "the installed TVM has no runtime library",
        remedy="pip install --force-reinstall apache-tvm",
    )
