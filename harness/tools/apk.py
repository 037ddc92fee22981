"""What the manifest of an APK says, read from hostile files as safely as from our own."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StageFailed
from harness.tools import axml

MANIFEST = "AndroidManifest.xml"
MAX_ENTRIES = 65_535

# Resource ids of android:* attributes (android.R.attr).
_NAME = 0x01010003
_DEBUGGABLE = 0x0101000F
_EXPORTED = 0x01010010
_TARGET_PACKAGE = 0x01010021
_MIN_SDK = 0x0101020C
_VERSION_CODE = 0x0101021B
_VERSION_NAME = 0x0101021C
_TARGET_SDK = 0x01010270
_REQUIRED = 0x0101028E
_EXTRACT_LIBRARIES = 0x010104EA

_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
_CLASS = re.compile(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)+", re.ASCII)
_MAIN = "android.intent.action.MAIN"
_LAUNCHER = "android.intent.category.LAUNCHER"


class BadApk(StageFailed):
    """A file that is not an APK, or one whose manifest no phone would take."""


@dataclass(frozen=True)
class Instrumentation:
    """A class that `am instrument` starts, and the package that it runs in."""

    name: str
    target_package: str


@dataclass(frozen=True)
class Activity:
    """A screen; `launcher` says that the home screen shows it."""

    name: str
    exported: bool
    launcher: bool


@dataclass(frozen=True)
class NativeLibrary:
    """A system library that the app asks to be linked with, such as libOpenCL.so."""

    name: str
    required: bool


@dataclass(frozen=True)
class Manifest:
    """The parts of an AndroidManifest.xml that installing and starting an app need.

    Class names are complete: a name that begins with a dot has its package before it.
    """

    package: str
    version_code: int
    version_name: str
    min_sdk: int
    target_sdk: int
    debuggable: bool
    extract_native_libs: bool
    application: str | None
    instrumentations: tuple[Instrumentation, ...]
    activities: tuple[Activity, ...]
    permissions: tuple[str, ...]
    native_libraries: tuple[NativeLibrary, ...]


def read_manifest(path: Path) -> Manifest:
    """The manifest inside an APK.

    Raises `BadApk` if the file is no zip archive, has no (or two) manifests, or the manifest is
    broken or says nothing where it must.
    """
    try:
        return parse_manifest(_manifest_bytes(path))
    except (axml.AxmlError, zipfile.BadZipFile, zlib.error) as problem:
        raise _bad(path, str(problem)) from problem
    except (EOFError, NotImplementedError, RuntimeError, ValueError) as problem:
        # zipfile's answers to cut, encrypted and oddly compressed entries.
        raise _bad(path, str(problem) or "its archive is broken") from problem
    except OSError as problem:
        raise _bad(path, problem.strerror or str(problem)) from problem


def parse_manifest(data: bytes) -> Manifest:
    """The values of a binary AndroidManifest.xml.

    Raises `axml.AxmlError` if it is broken or lacks what it must say.
    """
    root = axml.read(data)
    if root.tag != "manifest":
        raise axml.AxmlError(f"its root element is <{root.tag}>")
    package = root.plain.get("package")
    if not isinstance(package, str) or not _PACKAGE.fullmatch(package):
        raise axml.AxmlError("it names no valid package")
    application = _only(root, "application") or axml.Element("application")
    sdk = _only(root, "uses-sdk") or axml.Element("uses-sdk")
    min_sdk = _integer(sdk, _MIN_SDK, "minSdkVersion", 1)
    return Manifest(
        package=package,
        version_code=_integer(root, _VERSION_CODE, "versionCode", 0),
        version_name=_optional_text(root, _VERSION_NAME, "versionName") or "",
        min_sdk=min_sdk,
        target_sdk=_integer(sdk, _TARGET_SDK, "targetSdkVersion", min_sdk),
        debuggable=_boolean(application, _DEBUGGABLE, "debuggable", False),
        extract_native_libs=_boolean(application, _EXTRACT_LIBRARIES, "extractNativeLibs", True),
        application=_application(application, package),
        instrumentations=tuple(
            Instrumentation(_class(each, package), _text(each, _TARGET_PACKAGE, "targetPackage"))
            for each in root.each("instrumentation")
        ),
        activities=tuple(_activity(each, package) for each in application.each("activity")),
        permissions=tuple(_text(each, _NAME, "name") for each in root.each("uses-permission")),
        native_libraries=tuple(
            NativeLibrary(_text(each, _NAME, "name"), _boolean(each, _REQUIRED, "required", True))
            for each in application.each("uses-native-library")
        ),
    )


def _manifest_bytes(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise zipfile.BadZipFile(f"it has more than {MAX_ENTRIES} entries")
        found = [entry for entry in entries if entry.filename == MANIFEST]
        if len(found) != 1:
            count = "no" if not found else "more than one"
            raise zipfile.BadZipFile(f"it has {count} {MANIFEST}")
        if found[0].file_size > axml.MAX_BYTES:
            raise zipfile.BadZipFile(f"its {MANIFEST} has {found[0].file_size} bytes")
        return archive.read(found[0])


def _activity(element: axml.Element, package: str) -> Activity:
    filters = list(element.each("intent-filter"))
    launcher = any(
        any(child.framework.get(_NAME) == _MAIN for child in each.each("action"))
        and any(child.framework.get(_NAME) == _LAUNCHER for child in each.each("category"))
        for each in filters
    )
    exported = _boolean(element, _EXPORTED, "exported", bool(filters))
    return Activity(_class(element, package), exported, launcher)


def _application(element: axml.Element, package: str) -> str | None:
    name = _optional_text(element, _NAME, "name")
    return None if name is None else _qualified(element, name, package)


def _only(element: axml.Element, tag: str) -> axml.Element | None:
    found = list(element.each(tag))
    if len(found) > 1:
        raise axml.AxmlError(f"it has two <{tag}>")
    return found[0] if found else None


def _class(element: axml.Element, package: str) -> str:
    return _qualified(element, _text(element, _NAME, "name"), package)


def _qualified(element: axml.Element, name: str, package: str) -> str:
    """The complete name of a class; Android puts the package before what has no package."""
    if "." not in name:
        name = f"{package}.{name}"
    elif name.startswith("."):
        name = package + name
    if not _CLASS.fullmatch(name):
        raise axml.AxmlError(f"<{element.tag}> names no valid class")
    return name


def _optional_text(element: axml.Element, resource: int, label: str) -> str | None:
    value = element.framework.get(resource)
    if value is None or isinstance(value, str):
        return value
    raise _wrong(element, label, "a text")


def _text(element: axml.Element, resource: int, label: str) -> str:
    value = _optional_text(element, resource, label)
    if value is None:
        raise axml.AxmlError(f"<{element.tag}> has no {label}")
    return value


def _integer(element: axml.Element, resource: int, label: str, default: int) -> int:
    value = element.framework.get(resource, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(element, label, "a number")
    return value


def _boolean(element: axml.Element, resource: int, label: str, default: bool) -> bool:
    value = element.framework.get(resource, default)
    if not isinstance(value, bool):
        raise _wrong(element, label, "true or false")
    return value


def _wrong(element: axml.Element, label: str, wanted: str) -> axml.AxmlError:
    return axml.AxmlError(f"{label} of <{element.tag}> is not {wanted}")


def _bad(path: Path, cause: str) -> BadApk:
    return BadApk(
        f"{path.name} is not a usable APK",
        cause=cause,
        remedy="harness package   # makes it anew",
    )
