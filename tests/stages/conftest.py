"""The app, rendered and packaged once for the tests of every stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.stages.package import package
from harness.stages.render import render
from harness.types import Abi, Libc, Project, RuntimeBundle, SignedApk, Target


@pytest.fixture(scope="session")
def workspace() -> Path:
    """The clone's own workspace.

    Kotlin and dex are the same for every target, so that what the demo or another test made is
    used again.
    """
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def projects(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Libc, Project]:
    """The project with a library for the virtual phone, and with one for a phone."""
    folder = tmp_path_factory.mktemp("runtime")
    made = {}
    for libc in Libc:
        library = folder / libc / "libalc_runtime.so"
        library.parent.mkdir()
        # What is inside does not matter here; the sizes differ, as those of two compilers do.
        library.write_bytes(b"\x7fELF" + libc.encode() * (3000 if libc is Libc.GLIBC else 9000))
        bundle = RuntimeBundle(folder, libc, Target(Abi.ARM64, libc), library, library)
        made[libc] = render(bundle, workspace)
    return made


@pytest.fixture(scope="session")
def apks(workspace: Path, projects: dict[Libc, Project]) -> dict[Libc, SignedApk]:
    return {libc: package(project, workspace) for libc, project in projects.items()}
