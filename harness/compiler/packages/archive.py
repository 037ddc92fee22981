"""A model package as one file: a plain POSIX tar, the same bytes for the same package.

Format: POSIX.1-1988 `ustar`, uncompressed (weights do not compress). `package.json` comes first,
then the files that it names, in order. An archive may come from anywhere: what is read of it is
held to the names and sizes in `package.json` before a byte is written, and to its hashes after.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from harness import files
from harness.compiler.packages.package import PACKAGE_JSON, Package, read_package
from harness.errors import HarnessError, StageFailed, UsageError

# The first day that every archive format can hold.
_TIME = 315_532_800
_MAX_MEMBERS = 4096
_MAX_PACKAGE_JSON = 4 << 20
_MAX_DEPTH = 8
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# Type bytes of headers that change what follows: pax, GNU long names, sparse and multi-volume.
_EXTENSIONS = frozenset(b"xgXLKSDMVN")
_TYPE_BYTE = 156
# What tarfile raises on hostile bytes, beside its own errors.
_MALFORMED = (tarfile.TarError, ArithmeticError, EOFError, LookupError, RecursionError, ValueError)


def write_tar(folder: Path, path: Path) -> None:
    """Pack a package's folder into the archive `path`, atomically.

    Raises what `read_package` raises if the folder is no sound package, and `StageFailed` if the
    disk is full.
    """
    package = read_package(folder)
    with (
        files.atomic_file(path) as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in (PACKAGE_JSON, *sorted(package.facts["files"])):
            member = tarfile.TarInfo(name)
            member.size = package.file(name).stat().st_size
            member.mtime = _TIME
            with package.file(name).open("rb") as content:
                archive.addfile(member, content)


def open_tar(path: Path, target: Path) -> Package:
    """Unpack an archive into the new folder `target` and read the package there.

    The folder takes its name when every file's hash is right; until then nothing but a hidden
    folder beside it is written. Raises `UsageError` if the archive is not there, `target` is, or
    the package is for another TVM; `StageFailed` if the archive is not sound or the disk is full.
    """
    if target.exists():
        raise UsageError(
            f"{target} is there already",
            cause="an archive is unpacked into a new folder",
            remedy=f"rm -r {target}   # or name another",
        )
    try:
        source = path.open("rb")
    except OSError as problem:
        raise UsageError(
            f"cannot read {path}",
            cause=problem.strerror or str(problem),
            remedy=f"ls -l {path.parent}",
        ) from problem
    with source:
        members = _inspect(path, source, target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(
                tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
            )
        except OSError as problem:
            raise files.disk_error(target, problem) from problem
        try:
            for name, member in members.items():
                _extract(path, source, member, work / name)
            facts = _read(path, work)
            work.chmod(0o755)
            work.replace(target)
        except OSError as problem:
            raise files.disk_error(target, problem) from problem
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Package(target, facts)


def _inspect(path: Path, source: BinaryIO, target: Path) -> Mapping[str, tarfile.TarInfo]:
    """The archive's files by name, after everything that can be checked before writing."""
    try:
        with tarfile.open(fileobj=_Headers(source), mode="r:") as archive:
            members = _members(archive, target)
        _check_paths(members)
        _hold_to(_read_description(source, members), members)
    except _Refused as problem:
        raise _unsound(path, str(problem)) from problem
    except _MALFORMED as problem:
        raise _unsound(path, f"it is no tar archive: {problem}"[:200]) from problem
    return members


class _Refused(Exception):
    """Why an archive is not unpacked."""


class _Headers(io.RawIOBase):
    """The archive as tarfile reads it to list its members: one plain header at a time.

    Nothing longer is read into memory, and headers whose content tarfile would have to interpret
    are refused: no package needs them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= tarfile.BLOCKSIZE:
            raise _Refused("it has an extended header")
        block = self._file.read(size)
        if len(block) == tarfile.BLOCKSIZE and block[_TYPE_BYTE] in _EXTENSIONS:
            raise _Refused("it has an extended header (pack it with tar --format=ustar)")
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not 0 <= offset < 1 << 62:
            raise _Refused("its headers contradict each other")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _members(archive: tarfile.TarFile, target: Path) -> dict[str, tarfile.TarInfo]:
    """The regular files by their names, every one checked; folders need no entry."""
    members: dict[str, tarfile.TarInfo] = {}
    count, offset = 0, -1
    while (member := archive.next()) is not None:
        count += 1
        if count > _MAX_MEMBERS:
            raise _Refused(f"it has more than {_MAX_MEMBERS} entries")
        if member.offset <= offset or member.size < 0:
            raise _Refused("its headers contradict each other")
        offset = member.offset
        name = member.name.removeprefix("./")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise _Refused(f"{name!r:.100} is a link, a device or another special file")
        parts = name.split("/")
        if len(parts) > _MAX_DEPTH or not all(_SEGMENT.fullmatch(part) for part in parts):
            raise _Refused(f"it names {name!r:.100}, which no package has")
        if name in members:
            raise _Refused(f"it holds {name} twice")
        tarfile.data_filter(member, str(target))
        members[name] = member
    return members


def _check_paths(members: Mapping[str, tarfile.TarInfo]) -> None:
    """No two names may be one on a file system that ignores case, and no file a folder too."""
    seen: dict[str, str] = {}
    folders: set[str] = set()
    for name in members:
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            if seen.setdefault(prefix.lower(), prefix) != prefix:
                raise _Refused(f"{prefix} and {seen[prefix.lower()]} differ in case only")
            if depth < len(parts):
                folders.add(prefix)
    for name in sorted(folders & members.keys()):
        raise _Refused(f"{name} is a file and a folder")


def _read_description(
    source: BinaryIO, members: Mapping[str, tarfile.TarInfo]
) -> Mapping[str, Any]:
    """The archive's list of files, from its `package.json`."""
    member = members.get(PACKAGE_JSON)
    if member is None:
        raise _Refused(f"it has no {PACKAGE_JSON}")
    if member.size > _MAX_PACKAGE_JSON:
        raise _Refused(f"its {PACKAGE_JSON} has {member.size} bytes")
    source.seek(member.offset_data)
    try:
        document = json.loads(source.read(member.size))
    except (ValueError, RecursionError) as problem:
        raise _Refused(f"its {PACKAGE_JSON} cannot be read: {problem}") from problem
    listed = document.get("files") if isinstance(document, dict) else None
    if not isinstance(listed, dict):
        raise _Refused(f"its {PACKAGE_JSON} lists no files")
    return listed


def _hold_to(described: Mapping[str, Any], members: Mapping[str, tarfile.TarInfo]) -> None:
    """Exactly the files that `package.json` names, each of the size that it says."""
    for name in described:
        if name not in members:
            raise _Refused(f"{PACKAGE_JSON} names {name!r:.100}, which it does not hold")
    for name, member in members.items():
        if name == PACKAGE_JSON:
            continue
        entry = described.get(name)
        if not isinstance(entry, dict):
            raise _Refused(f"it holds {name}, which {PACKAGE_JSON} does not name")
        size = entry.get("size")
        if isinstance(size, bool) or size != member.size:
            raise _Refused(f"{name} has {member.size} bytes, {PACKAGE_JSON} says {size!r:.100}")


def _extract(path: Path, source: BinaryIO, member: tarfile.TarInfo, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    source.seek(member.offset_data)
    left = member.size
    with file.open("xb") as out:
        while left:
            block = source.read(min(left, files.CHUNK))
            if not block:
                raise _unsound(path, f"it ends within {member.name}")
            out.write(block)
            left -= len(block)


def _read(path: Path, folder: Path) -> Mapping[str, Any]:
    try:
        return read_package(folder, verify=True).facts
    except HarnessError as problem:
        # The folder is about to go: the archive is what the user knows.
        texts = (problem.what, problem.cause, problem.remedy)
        what, cause, remedy = (text.replace(str(folder), str(path)) for text in texts)
        raise type(problem)(what, cause=cause, remedy=remedy) from problem


def _unsound(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"{path.name} is no sound package",
        cause=cause,
        remedy=f"ls -l {path}   # get the archive again from its source",
    )
