"""The package manager: installs signed APKs the way a phone does, and knows what is installed."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import HarnessError
from harness.tools import apk
from harness.tools.apk import BadApk
from harness.tools.apksig import Apksig, BadSignature
from harness.types import Abi
from harness.virtual_phone.dex import Translator
from harness.virtual_phone.filesystem import Storage
from harness.virtual_phone.properties import API_LEVEL

FIRST_APP_UID = 10100
FIRST_SESSION = 100_000_001
_LIBRARY = re.compile(r"lib/([^/]+)/([^/]+\.so)")
_LIBRARY_FOLDERS = {Abi.ARM64: "arm64", Abi.X86_64: "x86_64"}
DATABASE_SCHEMA = "harness.phone-packages/1"


class InstallFailed(Exception):
    """An installation that the phone refuses; `code` is Android's name of the reason."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code


@dataclass(frozen=True)
class InstalledActivity:
    """An activity of an installed package."""

    name: str
    launcher: bool


@dataclass(frozen=True)
class Package:
    """An installed package. Folders are paths on the phone."""

    name: str
    uid: int
    version_code: int
    version_name: str
    min_sdk: int
    target_sdk: int
    debuggable: bool
    application: str | None
    instrumentations: tuple[tuple[str, str], ...]
    activities: tuple[InstalledActivity, ...]
    certificates: tuple[str, ...]
    code_path: str
    native_library_dir: str
    installed_at: str
    updated_at: str

    @property
    def apk(self) -> str:
        """The APK on the phone."""
        return f"{self.code_path}/base.apk"

    @property
    def classes(self) -> str:
        """The translated classes on the phone."""
        return f"{self.code_path}/oat/base.jar"

    @property
    def data_dir(self) -> str:
        """The app's private folder on the phone."""
        return f"/data/data/{self.name}"

    @property
    def launcher(self) -> str | None:
        """The activity that the home screen starts."""
        return next((each.name for each in self.activities if each.launcher), None)


@dataclass(frozen=True)
class InstallOptions:
    """Flags of `pm install` that matter here."""

    replace: bool = True
    downgrade: bool = False


@dataclass
class InstallSession:
    """An installation in several calls: install-create, -write, -commit."""

    options: InstallOptions
    files: dict[str, Path] = field(default_factory=dict)


class PackageManager:
    """What is installed under one root folder. Methods are safe to call from any thread."""

    def __init__(
        self,
        root: Path,
        abi: Abi,
        storage: Storage,
        signatures: Callable[[], Apksig],
        translator: Callable[[], Translator],
    ) -> None:
        self._root = root
        self._abi = abi
        self._storage = storage
        self._signatures = signatures
        self._translator = translator
        self._lock = threading.RLock()
        self._packages = self._load()
        for left in (root / "data/app").glob("*.tmp"):
            left.unlink()  # of an installation that a power cut ended
        self.sessions: dict[int, InstallSession] = {}
        self._next_session = FIRST_SESSION

    def all(self) -> list[Package]:
        """Every installed package, by name."""
        with self._lock:
            return [self._packages[name] for name in sorted(self._packages)]

    def find(self, name: str) -> Package | None:
        """The package `name`, None if it is not installed."""
        return self._packages.get(name)

    def host(self, path: str) -> Path:
        """Where a path of the phone's /data lies on the host."""
        return self._root / path.lstrip("/")

    def open_session(self, options: InstallOptions) -> int:
        """Begin a session; returns its number."""
        number = self._next_session
        self._next_session += 1
        self.sessions[number] = InstallSession(options)
        return number

    def staging_file(self) -> Path:
        """A new path for an APK on its way in."""
        folder = self._root / "data/app"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"vmdl{time.monotonic_ns()}.tmp"

    def install(
        self, archive: Path, options: InstallOptions, stop: Callable[[str], None]
    ) -> Package:
        """Check and install an APK, which is moved away. `stop` ends a running app by its name.

        Raises `InstallFailed` with Android's reason; nothing of the APK is left then.
        """
        try:
            with self._lock:
                return self._install(archive, options, stop)
        except OSError as problem:
            raise InstallFailed("INSTALL_FAILED_INTERNAL_ERROR", str(problem)) from problem
        finally:
            archive.unlink(missing_ok=True)

    def uninstall(self, name: str, *, keep_data: bool = False) -> bool:
        """Remove a package with its data; False if it is not installed."""
        with self._lock:
            package = self._packages.pop(name, None)
            if package is None:
                return False
            self._save()
            shutil.rmtree(self.host(package.code_path).parent, ignore_errors=True)
            if not keep_data:
                self._remove_data(package)
            return True

    def clear(self, name: str) -> bool:
        """Remove a package's data; False if it is not installed."""
        package = self.find(name)
        if package is None:
            return False
        self._remove_data(package)
        self._make_data(package)
        return True

    def _install(
        self, archive: Path, options: InstallOptions, stop: Callable[[str], None]
    ) -> Package:
        try:
            manifest = apk.read_manifest(archive)
        except BadApk as problem:
            raise InstallFailed("INSTALL_PARSE_FAILED_NOT_APK", problem.cause) from problem
        certificates = self._verify(archive)
        old = self._packages.get(manifest.package)
        self._check_update(manifest, certificates, old, options)
        libraries = self._libraries(archive)
        code_path = _code_path(manifest.package)
        folder = self.host(code_path)
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        package = Package(
            name=manifest.package,
            uid=old.uid if old else self._next_uid(),
            version_code=manifest.version_code,
            version_name=manifest.version_name,
            min_sdk=manifest.min_sdk,
            target_sdk=manifest.target_sdk,
            debuggable=manifest.debuggable,
            application=manifest.application,
            instrumentations=tuple(
                (each.name, each.target_package) for each in manifest.instrumentations
            ),
            activities=tuple(
                InstalledActivity(each.name, each.launcher) for each in manifest.activities
            ),
            certificates=certificates,
            code_path=code_path,
            native_library_dir=f"{code_path}/lib/{_LIBRARY_FOLDERS[self._abi]}",
            installed_at=old.installed_at if old else now,
            updated_at=now,
        )
        try:
            self._place(archive, package, libraries)
        except BaseException:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise
        stop(package.name)
        self._make_data(package)
        self._packages[package.name] = package
        self._save()
        if old is not None:
            shutil.rmtree(self.host(old.code_path).parent, ignore_errors=True)
        return package

    def _verify(self, archive: Path) -> tuple[str, ...]:
        try:
            return self._signatures().verify(archive).certificates
        except BadSignature as problem:
            raise InstallFailed("INSTALL_PARSE_FAILED_NO_CERTIFICATES", problem.cause) from problem
        except HarnessError as problem:
            raise InstallFailed("INSTALL_FAILED_INTERNAL_ERROR", str(problem)) from problem

    def _check_update(
        self,
        manifest: apk.Manifest,
        certificates: tuple[str, ...],
        old: Package | None,
        options: InstallOptions,
    ) -> None:
        if manifest.min_sdk > API_LEVEL:
            raise InstallFailed(
                "INSTALL_FAILED_OLDER_SDK",
                f"Requires newer sdk version #{manifest.min_sdk} (current version is #{API_LEVEL})",
            )
        if old is None:
            return
        if not options.replace:
            raise InstallFailed(
                "INSTALL_FAILED_ALREADY_EXISTS",
                f"Attempt to re-install {old.name} without first uninstalling.",
            )
        if set(old.certificates) != set(certificates):
            raise InstallFailed(
                "INSTALL_FAILED_UPDATE_INCOMPATIBLE",
                f"Existing package {old.name} signatures do not match newer version; ignoring!",
            )
        if manifest.version_code < old.version_code and not options.downgrade:
            raise InstallFailed(
                "INSTALL_FAILED_VERSION_DOWNGRADE",
                f"Downgrade detected: Update version code {manifest.version_code} is older than "
                f"current {old.version_code}",
            )

    def _libraries(self, archive: Path) -> list[str]:
        """The names of the APK's entries for this phone's ABI."""
        with zipfile.ZipFile(archive) as entries:
            found = [match for match in map(_LIBRARY.fullmatch, entries.namelist()) if match]
        ours = [match.group(0) for match in found if match.group(1) == self._abi]
        if found and not ours:
            raise InstallFailed(
                "INSTALL_FAILED_NO_MATCHING_ABIS", "Failed to extract native libraries, res=-113"
            )
        return ours

    def _place(self, archive: Path, package: Package, libraries: list[str]) -> None:
        try:
            translated = self._translator().translate(archive)
        except HarnessError as problem:
            raise InstallFailed("INSTALL_FAILED_DEXOPT", problem.cause or str(problem)) from problem
        with zipfile.ZipFile(archive) as entries:
            sizes = sum(entries.getinfo(name).file_size for name in libraries)
            needed = sizes + translated.stat().st_size
            if self._storage.free() < needed:
                raise InstallFailed(
                    "INSTALL_FAILED_INSUFFICIENT_STORAGE", "Failed to allocate space"
                )
            folder = self.host(package.native_library_dir)
            folder.mkdir(parents=True)
            for name in libraries:
                target = folder / name.rpartition("/")[2]
                with entries.open(name) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
                target.chmod(0o755)
        classes = self.host(package.classes)
        classes.parent.mkdir(parents=True)
        shutil.copyfile(translated, classes)
        target = self.host(package.apk)
        archive.replace(target)
        target.chmod(0o644)
        self._storage.wrote(needed)

    def _make_data(self, package: Package) -> None:
        for name in ("files", "cache", "code_cache"):
            (self.host(package.data_dir) / name).mkdir(parents=True, exist_ok=True)

    def _remove_data(self, package: Package) -> None:
        shared = self._root / "data/media/0/Android"
        for folder in (
            self.host(package.data_dir),
            shared / "data" / package.name,
            shared / "media" / package.name,
        ):
            shutil.rmtree(folder, ignore_errors=True)

    def _next_uid(self) -> int:
        return max((each.uid for each in self._packages.values()), default=FIRST_APP_UID - 1) + 1

    @property
    def _database(self) -> Path:
        return self._root / "data/system/packages.json"

    def _load(self) -> dict[str, Package]:
        try:
            document = json.loads(self._database.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if document.get("schema") != DATABASE_SCHEMA:
            return {}
        return {each["name"]: _package(each) for each in document["packages"]}

    def _save(self) -> None:
        packages = [dataclasses.asdict(package) for package in self.all()]
        files.write_json(self._database, {"schema": DATABASE_SCHEMA, "packages": packages})


def _package(document: dict[str, Any]) -> Package:
    values = dict(document)
    values["instrumentations"] = tuple(tuple(pair) for pair in values["instrumentations"])
    values["activities"] = tuple(InstalledActivity(**each) for each in values["activities"])
    values["certificates"] = tuple(values["certificates"])
    return Package(**values)


def _code_path(name: str) -> str:
    def token() -> str:
        return base64.urlsafe_b64encode(os.urandom(16)).decode()

    return f"/data/app/~~{token()}/{name}-{token()}"
