"""What must hold for an APK, whichever way it was made."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StageFailed
from harness.tools import android_project, apk, apk_writer, dex
from harness.tools.android_project import Facts
from harness.types import Project

_LOCAL_HEADER_BYTES = 30


@dataclass(frozen=True)
class Expected:
    """What an APK of a project must be."""

    application_id: str
    version_code: int
    version_name: str
    min_sdk: int
    target_sdk: int
    libraries: frozenset[str]

    @classmethod
    def of(cls, project: Project, facts: Facts) -> Expected:
        """What the APK of `project` must be."""
        return cls(
            facts.application_id,
            facts.version_code,
            facts.version_name,
            facts.min_sdk,
            facts.target_sdk,
            frozenset(android_project.libraries(project.path)),
        )


def check(path: Path, expected: Expected) -> None:
    """Look at an APK as a phone's installer would.

    Raises `StageFailed` with everything that is not as expected: id, version, SDK levels, the
    libraries and their alignment, and the classes that the manifest names.
    """
    manifest = apk.read_manifest(path)
    wrong = [
        f"{name} is {actual!r}, not {wanted!r}"
        for name, actual, wanted in (
            ("its package", manifest.package, expected.application_id),
            ("its version code", manifest.version_code, expected.version_code),
            ("its version name", manifest.version_name, expected.version_name),
            ("minSdk", manifest.min_sdk, expected.min_sdk),
            ("targetSdk", manifest.target_sdk, expected.target_sdk),
            ("extractNativeLibs", manifest.extract_native_libs, False),
        )
        if actual != wanted
    ]
    with zipfile.ZipFile(path) as archive:
        wrong += _wrong_libraries(path, archive, expected.libraries)
        wrong += _missing_classes(archive, manifest)
    if wrong:
        raise StageFailed(
            f"the APK {path.name} is not what it should be",
            cause="; ".join(wrong),
            remedy="harness package -v",
        )


def _wrong_libraries(
    path: Path, archive: zipfile.ZipFile, expected: frozenset[str]
) -> Iterator[str]:
    found = {entry.filename for entry in archive.infolist() if entry.filename.endswith(".so")}
    if found != expected:
        yield f"its libraries are {sorted(found)}, not {sorted(expected)}"
    with path.open("rb") as file:
        for entry in archive.infolist():
            if not entry.filename.endswith(".so"):
                continue
            file.seek(entry.header_offset)
            name, extra = struct.unpack_from("<HH", file.read(_LOCAL_HEADER_BYTES), 26)
            begin = entry.header_offset + _LOCAL_HEADER_BYTES + name + extra
            if entry.compress_type != zipfile.ZIP_STORED:
                yield f"{entry.filename} is compressed, so that no linker can map it"
            elif begin % apk_writer.LIBRARY_ALIGNMENT:
                yield f"{entry.filename} begins at {begin}, which is not at a 16 KB page"


def _missing_classes(archive: zipfile.ZipFile, manifest: apk.Manifest) -> Iterator[str]:
    defined: set[str] = set()
    for name in archive.namelist():
        if name.startswith("classes") and name.endswith(".dex"):
            defined |= dex.classes_in(archive.read(name), name)
    named = {each.name for each in manifest.activities}
    named |= {each.name for each in manifest.instrumentations}
    if manifest.application is not None:
        named.add(manifest.application)
    for name in sorted(named - defined):
        yield f"the manifest names {name}, which no dex file defines"
