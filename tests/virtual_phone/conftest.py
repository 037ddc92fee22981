"""A small app for the virtual phone, built from source, and phones to run it on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import process, resources
from harness.errors import HarnessError, MissingTool
from harness.tools import aapt2, apk_writer, apksig, d8, jdk, maven, zig
from harness.tools.aapt2 import LinkValues
from harness.types import Abi
from harness.virtual_phone import lifecycle
from harness.virtual_phone.lifecycle import Phone

APP = Path(__file__).parent / "app"
MIN_SDK = 26


@dataclass(frozen=True)
class AppKit:
    """The parts of the probe's APK, from which variants are put together."""

    folder: Path
    keystore: Path

    def build(
        self,
        name: str,
        *,
        version_code: int = 1,
        abis: tuple[Abi, ...] = (Abi.ARM64, Abi.X86_64),
        keystore: Path | None = None,
    ) -> Path:
        """A signed APK."""
        template = resources.path("android-template")
        framework = maven.resolve(template, ["android-all"])[0]
        values = LinkValues(framework, MIN_SDK, 35, 35, version_code, f"1.{version_code}")
        base = self.folder / f"{name}.base.apk"
        tool = aapt2.find()
        empty = self.folder / "empty.flata"
        if not empty.exists():
            (self.folder / "res").mkdir()
            tool.compile(self.folder / "res", empty)
        tool.link(APP / "AndroidManifest.xml", empty, base, values=values)
        entries = list(apk_writer.entries_of(base))
        dex = self.folder / "dex/classes.dex"
        entries.append(apk_writer.Entry("classes.dex", dex.read_bytes(), stored=False))
        for abi in abis:
            library = self.folder / abi / "libprobe.so"
            path = f"lib/{abi}/libprobe.so"
            entries.append(apk_writer.Entry(path, library.read_bytes(), stored=True))
        unsigned = self.folder / f"{name}.unsigned.apk"
        apk_writer.write(unsigned, entries)
        signed = self.folder / f"{name}.apk"
        key = keystore or self.keystore
        apksig.find(template).sign(unsigned, signed, keystore=key, min_sdk=MIN_SDK)
        return signed


@pytest.fixture(scope="session")
def app_kit(tmp_path_factory: pytest.TempPathFactory) -> AppKit:
    """The probe app, compiled."""
    folder = tmp_path_factory.mktemp("probe")
    template = resources.path("android-template")
    try:
        java = jdk.find()
        framework = maven.resolve(template, ["android-all"])[0]
        dexer = d8.find(template)
        compiler = zig.find()
        aapt2.find()
    except MissingTool as missing:
        pytest.skip(f"{missing.what}: {missing.remedy}")
    classes = folder / "classes"
    sources = sorted(APP.glob("*.java"))
    words: list[str | Path] = [java.javac, "--release", "11", "-nowarn", "-Xlint:-options"]
    words += ["-cp", framework, "-d", classes, *sources]
    process.run(words, timeout=300)
    shutil.make_archive(str(folder / "app"), "zip", classes)
    (folder / "app.zip").rename(folder / "app.jar")
    (folder / "dex").mkdir()
    dexer.dex([folder / "app.jar"], folder / "dex", library=framework, min_sdk=MIN_SDK)
    for abi in Abi:
        (folder / abi).mkdir()
        library = folder / abi / "libprobe.so"
        flags = ["-shared", "-fPIC", "-O1", "-nostdlib", APP / "probe.c", "-o", library]
        process.run([*compiler.compiler("c", abi), *flags], timeout=300)
    return AppKit(folder, new_keystore(folder / "first.keystore"))


def new_keystore(path: Path) -> Path:
    """A keystore with a new key, as `apksig.sign` takes it."""
    keytool = jdk.find().home / "bin/keytool"
    words: list[str | Path] = [keytool, "-genkeypair", "-keystore", path, "-storetype", "PKCS12"]
    words += ["-alias", apksig.ALIAS, "-storepass", apksig.PASSWORD, "-keypass", apksig.PASSWORD]
    words += ["-keyalg", "RSA", "-keysize", "2048", "-validity", "1000", "-dname", "CN=Probe"]
    process.run(words, timeout=60)
    return path


@dataclass(frozen=True)
class AdbClient:
    """An adb with a server and a home of its own."""

    program: Path
    port: int
    home: Path

    def run(
        self, *words: str | Path, serial: str | None = None, timeout: float = 60, input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `adb WORDS`."""
        argv = [str(self.program), "-P", str(self.port)]
        argv += ["-s", serial] if serial else []
        return subprocess.run(
            [*argv, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=timeout,
            input=input,
            env=self.environment,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What the client's processes get."""
        return {**os.environ, "HOME": str(self.home), "ANDROID_ADB_SERVER_PORT": str(self.port)}


@dataclass(frozen=True)
class ConnectedPhone:
    """A phone with an adb client that is connected to it."""

    phone: Phone
    adb: AdbClient

    def run(
        self, *words: str | Path, timeout: float = 60, input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `adb -s PHONE WORDS`."""
        return self.adb.run(*words, serial=self.phone.serial, timeout=timeout, input=input)

    def shell(self, command: str) -> str:
        """What a shell command prints on standard output, without the last newline."""
        return self.run("shell", command).stdout.rstrip("\n")

    def connect(self) -> None:
        """Connect anew and wait until the phone answers, which one that boots does not at once."""
        self.adb.run("disconnect", self.phone.serial)
        deadline = time.monotonic() + 60
        while self.run("get-state").stdout != "device\n" and time.monotonic() < deadline:
            self.adb.run("connect", self.phone.serial)
            time.sleep(0.1)
        self.run("wait-for-device", timeout=20)


def _adb_programs() -> dict[str, Path]:
    import adbutils

    found = {"adbutils": Path(adbutils.__file__).parent / "binaries/adb"}
    installed = shutil.which("adb")
    if installed:
        found["installed"] = Path(installed)
    return {name: path for name, path in found.items() if path.is_file()}


@pytest.fixture(scope="session")
def start_adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], AdbClient]]:
    """Starts the server of an adb by name: "installed" or "adbutils"."""
    clients: dict[str, AdbClient] = {}

    def start(name: str) -> AdbClient:
        if name not in clients:
            programs = _adb_programs()
            if name not in programs:
                pytest.skip(f"there is no {name} adb (sudo apt install adb)")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            client = AdbClient(programs[name], port, tmp_path_factory.mktemp("adb-home"))
            client.run("start-server")
            clients[name] = client
        return clients[name]

    yield start
    for client in clients.values():
        client.run("kill-server")


def start_phone(abi: Abi, workspace: Path, **options: int) -> Phone:
    """A phone, or the reason why there cannot be one as a skip."""
    try:
        return lifecycle.start(abi, workspace, **options)
    except MissingTool as missing:
        pytest.skip(f"{missing.what}: {missing.remedy}")


@pytest.fixture(scope="session")
def x86_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """One x86_64 phone for all tests of a session."""
    workspace = tmp_path_factory.mktemp("workspace")
    phone = start_phone(Abi.X86_64, workspace)
    yield phone
    phone.stop()


@pytest.fixture(scope="session")
def arm64_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """One arm64-v8a phone for all tests of a session."""
    workspace = tmp_path_factory.mktemp("workspace-arm64")
    phone = start_phone(Abi.ARM64, workspace)
    yield phone
    phone.stop()


@pytest.fixture(scope="session", params=["installed", "adbutils"])
def connected(
    request: pytest.FixtureRequest, x86_phone: Phone, start_adb: Callable[[str], AdbClient]
) -> ConnectedPhone:
    """The x86_64 phone under each adb that is here."""
    phone = ConnectedPhone(x86_phone, start_adb(request.param))
    phone.connect()
    return phone


@pytest.fixture(scope="session")
def phone(x86_phone: Phone, start_adb: Callable[[str], AdbClient]) -> ConnectedPhone:
    """The x86_64 phone under the adb that adbutils brings."""
    connected = ConnectedPhone(x86_phone, start_adb("adbutils"))
    connected.connect()
    return connected


@pytest.fixture(scope="session")
def probe_apk(app_kit: AppKit) -> Path:
    """The probe app for both ABIs."""
    try:
        return app_kit.build("probe")
    except HarnessError as failure:
        raise AssertionError(f"{failure.what}: {failure.cause}") from failure


@pytest.fixture(scope="session")
def probe(phone: ConnectedPhone, probe_apk: Path) -> ConnectedPhone:
    """The x86_64 phone with the probe app installed."""
    done = phone.run("install", probe_apk, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return phone
