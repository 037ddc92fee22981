"""Kernels run for real: x86-64 in this process, arm64 under qemu-user through a small C driver.

Each runs on a processor that has what its instruction set needs and, under qemu, nothing better.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compiler.host import cpu_features
from harness.compiler.kernels.isa import Isa
from harness.types import Abi

# More threads than TVM would take on a small machine, so that parallel regions really are parallel.
os.environ.setdefault("TVM_NUM_THREADS", "4")

QEMU = "qemu-aarch64-static"
PROCESSORS = {
    Isa.ARMV8: "cortex-a53",
    Isa.ARMV8_2_DOTPROD: "cortex-a76",
    Isa.ARMV8_2_I8MM: "max",
}


class View:
    """An int32 array that the runtime would pass as a view into a larger allocation."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, np.int32)


class Kernels:
    """Compiled kernels of one instruction set; arrays among the arguments are written in place."""

    view = View

    def __init__(self, isa: Isa, functions: dict[str, Any], folder: Path) -> None:
        import tvm

        self.isa = isa
        self.names = list(functions)
        named = {
            n: f.with_attr("global_symbol", n).without_attr("target") for n, f in functions.items()
        }
        target = isa.target()
        if isa.abi is Abi.X86_64:
            target["mtriple"] = "x86_64-linux-gnu"
        self.library = tvm.compile(tvm.IRModule(named), target=tvm.target.Target(target))
        self.driver = None
        if isa.abi is Abi.ARM64:
            self.library.mod.write_to_file(str(folder / "kernels.o"), "o")
            (folder / "kernels.h").write_text("".join(f"KERNEL({n})\n" for n in self.names))
            self.driver = self._link(folder)

    @property
    def assembly(self) -> str:
        return str(self.library.mod.inspect_source("asm"))

    def _link(self, folder: Path) -> Any:
        from tvm_ffi import libinfo

        driver = folder / "driver"
        includes = [f"-I{p}" for p in (*libinfo.include_paths(), folder)]
        subprocess.run(
            [
                *(sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl"),
                *("-static", "-O1", *includes, str(Path(__file__).with_name("driver.c"))),
                *(str(folder / "kernels.o"), "-lm", "-o", str(driver)),
            ],
            check=True,
        )
        argv = [QEMU, "-cpu", PROCESSORS[self.isa], str(driver)]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, name: str, *arguments: Any) -> None:
        if self.driver is None:
            self._here(name, arguments)
        else:
            self._there(name, arguments)

    def _here(self, name: str, arguments: tuple[Any, ...]) -> None:
        import tvm

        passed, tensors = [], []
        for value in arguments:
            if isinstance(value, View):
                whole = np.concatenate([np.full(16, -7, np.int32), value.values])
                value = tvm.runtime.tensor(whole)._create_view(value.values.shape, "int32", 64)
            elif isinstance(value, np.ndarray):
                tensors.append((value, tvm.runtime.tensor(value)))
                value = tensors[-1][1]
            passed.append(value)
        self.library[name](*passed)
        for array, tensor in tensors:
            array[...] = tensor.numpy()

    def _there(self, name: str, arguments: tuple[Any, ...]) -> None:
        codes = {"i": 0, "u": 1, "f": 2}
        message = [struct.pack("<2q", self.names.index(name), len(arguments))]
        arrays = []
        for value in arguments:
            if isinstance(value, float):
                message.append(struct.pack("<qd", 3, value))
                continue
            if isinstance(value, int):
                message.append(struct.pack("<2q", 1, value))
                continue
            array = value.values if isinstance(value, View) else value
            offset = 64 if isinstance(value, View) else 0
            arrays.append(array)
            head = (7, codes[array.dtype.kind], 8 * array.itemsize, array.ndim, *array.shape)
            message.append(struct.pack(f"<{len(head) + 2}q", *head, offset, array.nbytes))
            message.append(array.tobytes())
        assert self.driver is not None
        self.driver.stdin.write(b"".join(message))
        self.driver.stdin.flush()
        code = self.driver.stdout.read(8)
        assert code == bytes(8), f"{name} failed"
        for array in arrays:
            raw = self.driver.stdout.read(array.nbytes)
            array[...] = np.frombuffer(raw, array.dtype).reshape(array.shape)

    def use_threads(self, count: int) -> None:
        """Share parallel regions among `count` threads (under qemu: among as many tasks)."""
        if self.driver is None:
            import tvm

            tvm.get_global_func("runtime.config_threadpool")(1, count)
        else:
            assert self.driver.stdin is not None
            self.driver.stdin.write(struct.pack("<q", -count))

    def close(self) -> None:
        if self.driver is not None:
            self.driver.stdin.close()
            self.driver.stdout.close()
            self.driver.wait(timeout=30)


@pytest.fixture(scope="module", params=list(Isa), ids=lambda isa: isa.name.lower())
def isa(request: pytest.FixtureRequest) -> Iterator[Isa]:
    """An instruction set that this machine can run; kernels are written for it."""
    import tvm

    isa: Isa = request.param
    if isa.abi is Abi.ARM64:
        if shutil.which(QEMU) is None:
            pytest.skip(f"{QEMU} is not installed")
    elif missing := set(isa.cpu_features) - cpu_features():
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    with tvm.target.Target(isa.target()):
        yield isa


@pytest.fixture(scope="module")
def build(
    isa: Isa, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[dict[str, Any]], Kernels]]:
    """Compile PrimFuncs for the module's instruction set."""
    made = []

    def compile_(functions: dict[str, Any]) -> Kernels:
        made.append(Kernels(isa, functions, tmp_path_factory.mktemp("kernels")))
        return made[-1]

    yield compile_
    for kernels in made:
        kernels.close()
