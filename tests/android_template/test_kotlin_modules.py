"""What holds for the Kotlin modules as a whole. Their own tests run in tests/compiler, where a
compiled package is at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import resources
from harness.tools import poms

TEMPLATE = resources.path("android-template")
SOURCES = sorted(TEMPLATE.glob("*/src/**/*.kt"))
MAIN = [path for path in SOURCES if "/src/main/" in str(path)]


def test_there_are_sources_for_every_module() -> None:
    assert poms.modules_of(TEMPLATE) == poms.MODULES


@pytest.mark.parametrize("module", ["engine", "runtime", "provider"])
def test_only_the_app_knows_android(module: str) -> None:
    found = [
        f"{path.name}: {line}"
        for path in MAIN
        if path.relative_to(TEMPLATE).parts[0] == module
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"import (android|androidx|dalvik|com\.android)\.", line)
    ]
    assert found == []


@pytest.mark.parametrize("module", poms.MODULES)
def test_a_module_imports_only_those_below_it(module: str) -> None:
    allowed = poms.MODULES[: poms.MODULES.index(module) + 1]
    for path in MAIN:
        if path.relative_to(TEMPLATE).parts[0] == module:
            names = re.findall(r"^import dev\.alc\.(\w+)", path.read_text("utf-8"), re.MULTILINE)
            assert set(names) <= set(allowed), path.name


@pytest.mark.parametrize("module", poms.MODULES)
def test_gradle_takes_the_same_libraries_as_maven(module: str) -> None:
    catalog = poms.read_catalog(TEMPLATE)
    files = [TEMPLATE / module / name for name in ("build.gradle.kts", "build.gradle.kts.j2")]
    text = next(path for path in files if path.is_file()).read_text(encoding="utf-8")
    bundles = set(re.findall(r"(?:api|implementation)\(libs\.bundles\.(\w+)\)", text))
    single = set(re.findall(r"(?:api|implementation)\(libs\.([\w.]+)\)", text))
    taken = {library for bundle in bundles - {"test"} for library in catalog.bundles[bundle]} | {
        name.replace(".", "-") for name in single if not name.startswith("bundles.")
    }
    assert taken == set(catalog.bundles[module])
    assert "testImplementation(libs.bundles.test)" in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_source_keeps_the_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert "\t" not in text and not any(line != line.rstrip() for line in lines)
    assert not re.search(r"^import .*\*$", text, re.MULTILINE)
    imports = [line for line in lines if line.startswith("import ")]
    # ktlint's order: plain names first, then java, javax, kotlin.
    late = [line for line in imports if re.match(r"import (java|javax|kotlin)\.", line)]
    assert imports == sorted(set(imports) - set(late)) + sorted(late)
    assert len(lines) <= 600
