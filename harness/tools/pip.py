"""Wheels fetched by pip, without their dependencies, for what they contain."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from harness import console, files, process
from harness.errors import HarnessError, MissingTool, StageFailed


def cache_folder() -> Path:
    """The user's cache folder of the harness."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("harness"))


def fetch_wheel(
    name: str, version: str, *, sha256: str, stage: str, platform: str | None = None
) -> Path:
    """The wheel `name==version` (for `platform`, else any), its bytes checked against `sha256`.

    It is kept in the user's cache, so that only the first call needs a network. `stage` names the
    work on the screen.

    Raises `MissingTool` if pip cannot get it and `StageFailed` if its hash is another.
    """
    folder = cache_folder() / "wheels" / sha256[:16]
    kept = sorted(folder.glob("*.whl"))
    if kept and files.sha256_file(kept[0]) == sha256:
        return kept[0]
    with console.step(stage, f"fetching {name} {version} from PyPI"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch.") as temporary:
                wheel = _download(name, version, platform, Path(temporary))
                actual = files.sha256_file(wheel)
                if actual != sha256:
                    raise StageFailed(
                        f"{name} {version} is not the file that was asked for",
                        cause=f"sha256 is {actual}, the pinned one is {sha256}",
                        remedy="check the pinned hash against PyPI before you change it",
                    )
                target = folder / wheel.name
                shutil.move(wheel, target)
        except OSError as problem:
            raise files.disk_error(folder, problem) from problem
    return target


def _download(name: str, version: str, platform: str | None, folder: Path) -> Path:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    if platform is not None:
        argv += ["--platform", platform]
    try:
        process.run([*argv, f"{name}=={version}"], what="pip download", timeout=1800)
    except HarnessError as failure:
        raise MissingTool(
            f"cannot fetch {name} {version}",
            cause=failure.cause,
            remedy="connect to the network (or set PIP_INDEX_URL) and run the same command again",
        ) from failure
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise MissingTool(f"cannot fetch {name} {version}", cause="pip brought no wheel")
    return wheels[0]
