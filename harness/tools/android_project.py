"""The rendered Gradle project: where its parts lie, and what render wrote down for package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import files
from harness.errors import StageFailed
from harness.tools import poms

FILE = "harness-project.json"
SCHEMA = "harness.project/1"
APP = Path("app/src/main")
MANIFEST = APP / "AndroidManifest.xml"
RESOURCES = APP / "res"
LIBRARIES = APP / "jniLibs"


@dataclass(frozen=True)
class Facts:
    """The values that Gradle reads from app/build.gradle.kts and the version catalog."""

    application_id: str
    version_code: int
    version_name: str
    abi: str
    min_sdk: int
    target_sdk: int
    compile_sdk: int
    r8: str
    framework: str


def write_facts(project: Path, values: Mapping[str, str | int]) -> None:
    """Write down what the project was rendered with."""
    files.write_json(project / FILE, {"schema": SCHEMA, **values})


def libraries(project: Path) -> dict[str, Path]:
    """The prebuilt native libraries by their names in an APK, such as lib/x86_64/libfoo.so."""
    folder = project / LIBRARIES
    found = sorted(folder.rglob("*.so"))
    return {f"lib/{path.relative_to(folder).as_posix()}": path for path in found}


def read_facts(project: Path) -> Facts:
    """The facts of a rendered project.

    Raises `StageFailed` if the folder holds none or they are of another version.
    """
    catalog = poms.read_catalog(project)
    path = project / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}, not {SCHEMA!r}")
        return Facts(
            application_id=str(document["application_id"]),
            version_code=int(document["version_code"]),
            version_name=str(document["version_name"]),
            abi=str(document["abi"]),
            min_sdk=int(catalog.versions["minSdk"]),
            target_sdk=int(catalog.versions["targetSdk"]),
            compile_sdk=int(catalog.versions["compileSdk"]),
            r8=catalog.versions["r8"],
            framework=catalog.versions["androidAll"],
        )
    except (OSError, KeyError, TypeError, ValueError) as problem:
        cause = f"it lacks {problem}" if isinstance(problem, KeyError) else str(problem)
        raise StageFailed(
            f"cannot use the rendered project {project}",
            cause=f"{FILE}: {cause}",
            remedy="harness render   # renders it anew",
        ) from problem
