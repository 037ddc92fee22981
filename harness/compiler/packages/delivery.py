"""A compiled package given to the user: unpacked in a folder of theirs, or as an archive."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from harness import console, files
from harness.compiler.packages.package import PACKAGE_JSON, SCHEMA, read_package
from harness.errors import HarnessError, UsageError

STAGE = "compile"


def check_target(folder: Path) -> None:
    """Raise `UsageError` if a package must not take the place of what is at `folder`."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        cause = "it is no folder"
    elif not folder.exists() or not any(folder.iterdir()) or _is_package(folder):
        return
    else:
        cause = "it holds something that is no package"
    raise UsageError(
        f"{folder} is not overwritten",
        cause=cause,
        remedy=f"-o {folder}-package   # or another folder that is new or empty",
    )


def unpack(package: Path, folder: Path) -> None:
    """Copy a package to `folder`, in place of an older one: whole or not at all.

    Raises `UsageError` as `check_target` does, and `StageFailed` if the disk is full.
    """
    check_target(folder)
    if _holds(folder, package):
        console.unchanged(STAGE, f"{folder} holds this package")
        return
    target = folder.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            fresh, old = work / "new", work / "old"
            # Copies: whoever edits them must not edit the build folder too.
            shutil.copytree(package, fresh)
            if target.exists():
                target.replace(old)
            fresh.replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as problem:
        raise files.disk_error(folder, problem) from problem


def pack(package: Path, folder: Path, workspace: Path) -> Path:
    """Write a package's archive into `folder` under its name and enter it in the versions table.

    Raises `StageFailed` if the disk is full or the table is damaged.
    """
    from harness.compiler.packages import archive, names, versions

    facts = read_package(package).facts
    path = folder / names.archive_name(facts["model_code"], facts["quantization"])
    with console.step(STAGE, f"packing {path.name}") as step:
        archive.write_tar(package, path)
        version = versions.record_version(
            workspace, model=facts["name"], quantization=facts["quantization"], archive=path
        )
        step.done(f"{path.name}, version {version.version}, {console.size(version.size)}")
    return path


def _is_package(folder: Path) -> bool:
    try:
        document = json.loads((folder / PACKAGE_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("schema") == SCHEMA


def _holds(folder: Path, package: Path) -> bool:
    """Whether `folder` has this very package: the same description, and files of its sizes."""
    try:
        if (folder / PACKAGE_JSON).read_bytes() != (package / PACKAGE_JSON).read_bytes():
            return False
        read_package(folder)
    except (OSError, HarnessError):
        return False
    return True
