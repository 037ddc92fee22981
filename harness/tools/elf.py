"""What an ELF shared library says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import StageFailed


@dataclass(frozen=True)
class SharedLibrary:
    """The facts of a shared library that decide whether and how it can be loaded.

    `machine` is the ELF name (`EM_AARCH64`), `needed` the DT_NEEDED names in order, `exports` and
    `imports` names of dynamic symbols without their versions, `weak_imports` those that may stay
    undefined, `alignments` the alignment of each LOAD segment in bytes.
    """

    machine: str
    soname: str | None
    needed: tuple[str, ...]
    exports: frozenset[str]
    imports: frozenset[str]
    weak_imports: frozenset[str]
    alignments: tuple[int, ...]
    build_id: str | None
    stripped: bool


def read(path: Path) -> SharedLibrary:
    """Read the headers and dynamic symbols of the library at `path`.

    Raises `StageFailed` if it is not an ELF file or is damaged.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as file:
            return _facts(ELFFile(file))
    except (ELFError, OSError, ValueError, KeyError) as problem:
        raise StageFailed(
            f"cannot read the shared library {path}",
            cause=str(problem) or type(problem).__name__,
            remedy="remove the folder that holds it and run the same command again",
        ) from problem


def _facts(elf: Any) -> SharedLibrary:
    segments = list(elf.iter_segments())
    loads = tuple(int(part["p_align"]) for part in segments if part["p_type"] == "PT_LOAD")
    soname, needed = None, []
    exports, imports, weak = set(), set(), set()
    for part in segments:
        if part["p_type"] != "PT_DYNAMIC":
            continue
        for tag in part.iter_tags():
            if tag.entry.d_tag == "DT_NEEDED":
                needed.append(str(tag.needed))
            elif tag.entry.d_tag == "DT_SONAME":
                soname = str(tag.soname)
        for symbol in part.iter_symbols():
            binding = symbol["st_info"]["bind"]
            if not symbol.name or binding == "STB_LOCAL":
                continue
            if symbol["st_shndx"] != "SHN_UNDEF":
                exports.add(symbol.name)
            elif binding == "STB_WEAK":
                weak.add(symbol.name)
            else:
                imports.add(symbol.name)
    return SharedLibrary(
        machine=str(elf["e_machine"]),
        soname=soname,
        needed=tuple(needed),
        exports=frozenset(exports),
        imports=frozenset(imports),
        weak_imports=frozenset(weak),
        alignments=loads,
        build_id=_build_id(segments),
        stripped=elf.get_section_by_name(".symtab") is None,
    )


def _build_id(segments: list[Any]) -> str | None:
    for part in segments:
        if part["p_type"] == "PT_NOTE":
            for note in part.iter_notes():
                if note["n_type"] == "NT_GNU_BUILD_ID":
                    return str(note["n_desc"])
    return None
