"""A compiled model as a shared library that Android and the virtual phone both load.

It is linked with 16 KB pages and one NEEDED entry, the runtime; C and math functions come
through the runtime's own dependencies. Equal inputs give equal bytes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import process
from harness.errors import StageFailed
from harness.types import Abi

RUNTIME_SONAME = "libalc_runtime.so"
SONAME = "libmodel.so"
PAGE_BYTES = 16384
_EMULATIONS = {Abi.ARM64: "aarch64linux", Abi.X86_64: "elf_x86_64"}
_MACHINES = {Abi.ARM64: "EM_AARCH64", Abi.X86_64: "EM_X86_64"}

# What a model may leave for the runtime and the C library to define.
_FROM_RUNTIME = re.compile(r"TVMFFI\w+|TVMBackend\w+")
_FROM_C = {
    "memcpy",
    "memmove",
    "memset",
    "cosf",
    "exp2f",
    "expf",
    "fmaf",
    "fmaxf",
    "fminf",
    "log2f",
    "logf",
    "nearbyintf",
    "powf",
    "rintf",
    "roundf",
    "sinf",
    "sqrtf",
    "tanhf",
}


def export(executable: Any, abi: Abi, path: Path, objects: Sequence[Path] = ()) -> None:
    """Write a `tvm.relax` executable as the library `path`, with the code of `objects` behind its
    own, and check what came out.

    Raises `StageFailed` if the linker fails or the library is not as a device needs it.
    """
    with tempfile.TemporaryDirectory(prefix="harness-link-") as folder:

        def link(output: str, own: list[str], **_: Any) -> None:
            _link(Path(output), [*map(Path, own), *objects], abi, Path(folder))

        executable.export_library(str(path), fcompile=link, workspace_dir=folder)
    path.chmod(0o644)
    check(path, abi)


def _link(output: Path, objects: list[Path], abi: Abi, folder: Path) -> None:
    linker = [sys.executable, "-m", "ziglang", "ld.lld", "-m", _EMULATIONS[abi]]
    linker += ["-shared", "-nostdlib", "--build-id=none", "--strip-all"]
    # An empty library of the runtime's name gives the NEEDED entry; symbols are checked below.
    nothing, stub = folder / "nothing", folder / RUNTIME_SONAME
    nothing.touch()
    process.run(
        [*linker, f"-soname={RUNTIME_SONAME}", "-o", stub, "--format=binary", nothing],
        what="ld.lld",
    )
    linker += [f"-soname={SONAME}", "-z", f"max-page-size={PAGE_BYTES}", "-z", "now"]
    linker += ["-z", "relro", "--gc-sections", "--hash-style=gnu", "-o", str(output)]
    process.run([*linker, *objects, stub], what="ld.lld")


def check(path: Path, abi: Abi) -> None:
    """Hold a linked library against what a device asks of it.

    Raises `StageFailed` naming the first thing that is wrong.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            machine = _MACHINES[abi]
            dynamic, symbols = (
                elf.get_section_by_name(".dynamic"),
                elf.get_section_by_name(".dynsym"),
            )
            assert isinstance(dynamic, DynamicSection) and isinstance(symbols, SymbolTableSection)
            needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
            soname = [tag.soname for tag in dynamic.iter_tags("DT_SONAME")]
            undefined = {
                symbol.name
                for symbol in symbols.iter_symbols()
                if symbol.name and symbol["st_shndx"] == "SHN_UNDEF"
            }
            strangers = sorted(
                name
                for name in undefined
                if name not in _FROM_C and not _FROM_RUNTIME.fullmatch(name)
            )
            alignments = {
                segment["p_align"]
                for segment in elf.iter_segments()
                if segment["p_type"] == "PT_LOAD"
            }
            wrong = {
                f"it is for {elf['e_machine']}": elf["e_machine"] != machine,
                f"its NEEDED entries are {needed}": needed != [RUNTIME_SONAME],
                f"its SONAME is {soname}": soname != [SONAME],
                f"its segments are aligned to {sorted(alignments)}": alignments != {PAGE_BYTES},
                f"nothing defines {', '.join(strangers)}": bool(strangers),
            }
    except (ELFError, AssertionError, KeyError) as problem:
        raise _not_loadable(path, f"it is not a whole ELF file ({problem})") from problem
    for cause, holds in wrong.items():
        if holds:
            raise _not_loadable(path, cause)


def _not_loadable(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"{path.name} is not a library that a device can load",
        cause=cause,
        remedy="pip install --force-reinstall apache-tvm ziglang   # at the pinned versions",
    )
