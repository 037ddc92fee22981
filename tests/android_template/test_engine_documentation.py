"""docs/engine.md shows code that compiles and runs, and every kind of error."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TEMPLATE = CHECKOUT / "android-template"
DOCUMENT = CHECKOUT / "docs/engine.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
KOTLIN = TEMPLATE / "provider/src/test/kotlin/dev/alc/provider/EngineDocumentationTest.kt"


def blocks(language: str) -> list[str]:
    """The document's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)\n```$", TEXT, re.MULTILINE | re.DOTALL)


def compiled() -> Iterator[str]:
    """What the Kotlin tests compile and run between their marks."""
    marked = r"^ *// docs/engine\.md: begin\n(.*?)\n *// docs/engine\.md: end$"
    source = KOTLIN.read_text(encoding="utf-8")
    for code in re.findall(marked, source, re.MULTILINE | re.DOTALL):
        yield textwrap.dedent(code)


def test_its_kotlin_is_what_the_tests_compile_and_run() -> None:
    assert blocks("kotlin") == list(compiled())


def test_its_gradle_is_the_templates_own() -> None:
    files = [TEMPLATE / "settings.gradle.kts.j2", TEMPLATE / "app/build.gradle.kts.j2"]
    lines = {line.strip() for path in files for line in path.read_text("utf-8").splitlines()}
    shown = blocks("kts")
    assert shown and set(shown) <= lines


def test_its_table_has_every_kind_of_error() -> None:
    source = TEMPLATE / "engine/src/main/kotlin/dev/alc/engine/EngineException.kt"
    kinds = re.findall(r'EngineException\("([a-z-]+)", message', source.read_text("utf-8"))
    assert len(kinds) > 10
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", TEXT, re.MULTILINE)) == sorted(kinds)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)|^\[\w+\]: (.+)$", TEXT, re.MULTILINE)
    assert len(links) > 10
    targets = [direct or named for direct, named in links]
    assert [each for each in targets if not (DOCUMENT.parent / each).exists()] == []
