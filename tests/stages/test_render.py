"""The rendered project is an ordinary Gradle project with the runtime inside."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness import __version__, resources
from harness.errors import StageFailed
from harness.stages.render import render, version_code
from harness.tools import android_project
from harness.types import Abi, Libc, RuntimeBundle, Target

ANDROID = "{http://schemas.android.com/apk/res/android}"


def bundle(
    folder: Path, *, content: bytes = b"a library", libc: Libc = Libc.GLIBC
) -> RuntimeBundle:
    library = folder / "libalc_runtime.so"
    library.write_bytes(content)
    return RuntimeBundle(folder, "key", Target(Abi.ARM64, libc), library, library)


def test_every_template_is_rendered_and_the_rest_is_copied(tmp_path: Path) -> None:
    project = render(bundle(tmp_path), tmp_path).path
    assert not list(project.rglob("*.j2"))
    for name in ("settings.gradle.kts", "app/build.gradle.kts", "README.md"):
        text = (project / name).read_text()
        assert "dev.alc.harness" in text
        assert "{{" not in text and "{%" not in text
    template = resources.path("android-template")
    for name in ("gradle/libs.versions.toml", "build.gradle.kts", "engine/build.gradle.kts"):
        assert (project / name).read_bytes() == (template / name).read_bytes()
    for path in template.rglob("*.kt"):
        assert (project / path.relative_to(template)).read_bytes() == path.read_bytes()


def test_the_runtime_is_prebuilt_and_gradle_compiles_no_native_code(tmp_path: Path) -> None:
    project = render(bundle(tmp_path), tmp_path).path
    library = project / "app/src/main/jniLibs/arm64-v8a/libalc_runtime.so"
    assert library.read_bytes() == b"a library"
    assert not list(project.rglob("CMakeLists.txt"))
    for script in project.rglob("*.gradle.kts"):
        assert "externalNativeBuild" not in script.read_text()


def test_gradle_and_the_direct_way_read_the_same_values(tmp_path: Path) -> None:
    project = render(bundle(tmp_path), tmp_path).path
    facts = android_project.read_facts(project)
    script = (project / "app/build.gradle.kts").read_text()
    assert f'applicationId = "{facts.application_id}"' in script
    assert f"versionCode = {facts.version_code}\n" in script
    assert f'versionName = "{facts.version_name}"' in script
    assert f'abiFilters += "{facts.abi}"' in script
    for name in ("minSdk", "targetSdk", "compileSdk"):
        assert f"{name} = libs.versions.{name}.get().toInt()" in script
    assert (facts.version_name, facts.min_sdk, facts.target_sdk) == (__version__, 26, 35)


def test_the_manifest_names_no_package_and_asks_for_no_permission() -> None:
    template = resources.path("android-template")
    root = ET.parse(template / android_project.MANIFEST).getroot()
    assert "package" not in root.attrib
    assert root.find("uses-sdk") is None
    assert root.find("uses-permission") is None
    (library,) = root.findall("application/uses-native-library")
    assert library.attrib == {f"{ANDROID}name": "libOpenCL.so", f"{ANDROID}required": "false"}
    (door,) = root.findall("instrumentation")
    assert door.get(f"{ANDROID}name") == "dev.alc.app.HarnessInstrumentation"
    assert door.get(f"{ANDROID}targetPackage") == "${applicationId}"


def test_rendering_again_does_nothing_and_another_runtime_renders_anew(tmp_path: Path) -> None:
    first = render(bundle(tmp_path), tmp_path)
    before = (first.path / "README.md").stat().st_mtime_ns
    assert render(bundle(tmp_path), tmp_path) == first
    assert (first.path / "README.md").stat().st_mtime_ns == before
    assert render(bundle(tmp_path, content=b"another"), tmp_path).key != first.key
    assert render(bundle(tmp_path, libc=Libc.BIONIC), tmp_path).key != first.key


def test_only_a_project_for_the_virtual_phone_says_that_phones_cannot_load_it(
    tmp_path: Path,
) -> None:
    texts = {
        libc: (render(bundle(tmp_path, libc=libc), tmp_path).path / "README.md").read_text()
        for libc in Libc
    }
    assert "does not load on a real one" in texts[Libc.GLIBC]
    assert "does not load" not in texts[Libc.BIONIC]


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template that a test may change."""
    copy = tmp_path / "template"
    shutil.copytree(resources.path("android-template"), copy)
    monkeypatch.setattr(resources, "path", lambda name: copy)
    return copy


def test_a_name_that_the_template_does_not_know_is_an_error_and_leaves_nothing(
    tmp_path: Path, template: Path
) -> None:
    (template / "settings.gradle.kts.j2").write_text('rootProject.name = "{{ applicaton_id }}"')
    with pytest.raises(StageFailed) as caught:
        render(bundle(tmp_path), tmp_path)
    assert "settings.gradle.kts.j2" in caught.value.what
    assert "applicaton_id" in caught.value.cause
    assert not list((tmp_path / ".harness/build/render").glob("*/"))


def test_what_builds_left_in_the_template_is_not_carried_on(tmp_path: Path, template: Path) -> None:
    for name in ("app/build/x.apk", ".gradle/cache", "local.properties", ".idea/x.xml"):
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        (template / name).write_text("left")
    project = render(bundle(tmp_path), tmp_path).path
    assert not [
        path for path in project.rglob("*") if path.is_file() and path.read_bytes() == b"left"
    ]


@pytest.mark.parametrize(
    ("older", "newer"), [("0.1.0", "0.1.1"), ("0.1.9", "0.2.0"), ("0.99.99", "1.0.0")]
)
def test_newer_versions_have_higher_codes(older: str, newer: str) -> None:
    assert 0 < version_code(older) < version_code(newer)
