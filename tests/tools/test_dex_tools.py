"""D8 and apksig, and the reader of what D8 writes, on classes that javac makes here."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import process, resources
from harness.errors import MissingTool, StageFailed
from harness.tools import apk_writer, apksig, d8, dex, jdk, maven

pytestmark = pytest.mark.skipif(
    shutil.which("mvn") is None or shutil.which("javac") is None, reason="needs a JDK and Maven"
)
TEMPLATE = resources.path("android-template")
MIN_SDK = 26


def compile_java(folder: Path, name: str, text: str, *classpath: Path) -> Path:
    """A jar with the classes of one source file."""
    source = folder / f"{name}.java"
    source.write_text(text)
    classes = folder / name
    argv: list[str | Path] = [jdk.find().javac, "--release", "11", "-d", classes, source]
    if classpath:
        argv += ["-cp", ":".join(map(str, classpath))]
    process.run(argv)
    jar = folder / f"{name}.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for path in sorted(classes.rglob("*.class")):
            archive.write(path, str(path.relative_to(classes)))
    return jar


@pytest.fixture(scope="module")
def jars(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A library and an app that uses it, with a lambda over an interface of the library."""
    folder = tmp_path_factory.mktemp("jars")
    library = compile_java(
        folder,
        "Library",
        "package lib; public class Library { public interface F { int f(); default int g() "
        "{ return f(); } } public static int twice(F f) { return f.g() * 2; } }",
    )
    app = compile_java(
        folder,
        "App",
        "package app; public class App { static int n = 3; "
        "public static int run() { return lib.Library.twice(() -> n); } class Inner {} }",
        library,
    )
    return library, app


@pytest.fixture(scope="module")
def framework() -> Path:
    return maven.resolve(TEMPLATE, ["android-all"])[0]


def test_an_app_and_its_libraries_become_dex_apart_from_each_other(
    tmp_path: Path, jars: tuple[Path, Path], framework: Path
) -> None:
    library, app = jars
    translator = d8.find(TEMPLATE)
    own = [
        translator.dex([app], folder, library=framework, classpath=[library], min_sdk=MIN_SDK)
        for folder in _folders(tmp_path, 2)
    ]
    found = dex.classes(own[0][0])
    assert {"app.App", "app.App$Inner"} <= found
    assert not any(name.startswith("lib.") for name in found)
    assert own[0][0].read_bytes() == own[1][0].read_bytes()


def _folders(base: Path, count: int) -> list[Path]:
    folders = [base / str(number) for number in range(count)]
    for folder in folders:
        folder.mkdir()
    return folders


def test_what_d8_does_not_accept_is_said(tmp_path: Path, framework: Path) -> None:
    bad = tmp_path / "bad.jar"
    bad.write_bytes(b"not a jar")
    with pytest.raises(StageFailed) as caught:
        d8.find(TEMPLATE).dex([bad], tmp_path, library=framework, min_sdk=MIN_SDK)
    assert "bad.jar" in caught.value.cause


@given(st.binary(max_size=400).map(lambda tail: b"dex\n039\0" + tail) | st.binary(max_size=200))
def test_any_bytes_that_are_no_dex_are_one_error(data: bytes) -> None:
    with pytest.raises(StageFailed, match="not a dex file"):
        dex.classes_in(data)


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a manifest, a library, and nothing that runs."""
    folder = tmp_path_factory.mktemp("unsigned")
    manifest = Path(__file__).parent.parent / "transcripts" / "AndroidManifest.axml"
    path = folder / "unsigned.apk"
    entries = [
        apk_writer.Entry("AndroidManifest.xml", manifest.read_bytes(), False),
        apk_writer.Entry("lib/x86_64/liba.so", b"\x7fELF" * 999, True),
    ]
    apk_writer.write(path, entries)
    return path


@pytest.fixture(scope="module")
def signed(unsigned: Path, keystore: Path) -> Path:
    path = unsigned.with_name("signed.apk")
    apksig.find(TEMPLATE).sign(unsigned, path, keystore=keystore, min_sdk=MIN_SDK)
    return path


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A debug key of this test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        made = apksig.debug_keystore()
        assert apksig.debug_keystore() == made
    return made


def test_a_signed_apk_verifies_by_schemes_2_and_3(signed: Path) -> None:
    signature = apksig.find(TEMPLATE).verify(signed)
    assert signature.schemes == (2, 3)
    (certificate,) = signature.certificates
    assert len(bytes.fromhex(certificate)) == 32


def test_signing_keeps_entries_and_alignment_and_gives_the_same_bytes_again(
    unsigned: Path, signed: Path, keystore: Path
) -> None:
    again = signed.with_name("again.apk")
    apksig.find(TEMPLATE).sign(unsigned, again, keystore=keystore, min_sdk=MIN_SDK)
    assert again.read_bytes() == signed.read_bytes()
    assert list(apk_writer.entries_of(signed)) == list(apk_writer.entries_of(unsigned))
    position = signed.read_bytes().index(b"\x7fELF")
    assert position % 16384 == 0


@pytest.mark.parametrize("damage", ["library", "unsigned", "cut", "empty"])
def test_a_broken_signature_is_refused(
    tmp_path: Path, signed: Path, unsigned: Path, damage: str
) -> None:
    content = bytearray(signed.read_bytes())
    if damage == "library":
        content[content.index(b"\x7fELF")] ^= 1
    elif damage == "unsigned":
        content = bytearray(unsigned.read_bytes())
    else:
        del content[0 if damage == "empty" else len(content) // 2 :]
    broken = tmp_path / "broken.apk"
    broken.write_bytes(content)
    with pytest.raises(apksig.BadSignature) as caught:
        apksig.find(TEMPLATE).verify(broken)
    assert caught.value.cause


def test_a_missing_apk_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"nothing\.apk"):
        apksig.find(TEMPLATE).verify(tmp_path / "nothing.apk")


def test_without_a_jdk_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingTool) as caught:
        apksig.find(TEMPLATE)
    assert "apt install" in caught.value.remedy
