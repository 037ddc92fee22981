"""Abstract sockets of apps: reached over adb and by apps, and each told who came."""

from __future__ import annotations

import socket
import subprocess

import pytest

pytestmark = pytest.mark.phone
RUNNER = "dev.probe/.Probe"


def listening(adb, name: str, *, serial: str) -> str:
    """What a probe that listens on `name` answers to a line that comes over adb."""
    port = int(adb.run("forward", "tcp:0", f"localabstract:{name}", serial=serial).stdout)
    command = f"am instrument -w -r -e verb listen -e name {name} {RUNNER}"
    argv = [adb.program, "-P", str(adb.port), "-s", serial, "shell", command]
    app = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=adb.environment)
    try:
        assert app.stdout is not None
        for line in app.stdout:
            if line.startswith("INSTRUMENTATION_STATUS_CODE: 1"):
                break
        with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
            link.sendall("grüße\n".encode())
            answer = link.makefile(encoding="utf-8").read()
        assert "INSTRUMENTATION_CODE: -1" in app.stdout.read()
        return answer
    finally:
        app.kill()
        app.wait()
        adb.run("forward", "--remove", f"tcp:{port}", serial=serial)


def test_adb_reaches_an_app_as_the_shell(probe) -> None:
    assert listening(probe.adb, "harness-test", serial=probe.phone.serial) == "2000 grüße\n"
    again = listening(probe.adb, "harness-test", serial=probe.phone.serial)
    assert again == "2000 grüße\n", "the name is free again when its app has ended"


def test_an_app_is_told_the_user_of_another(probe) -> None:
    command = f"am instrument -w -r -e verb connect -e name nobody {RUNNER}"
    text = probe.run("shell", command, timeout=90).stdout
    assert "INSTRUMENTATION_RESULT: own=10100 hello\n" in text
    assert "INSTRUMENTATION_RESULT: other=Connection refused\n" in text


def test_an_arm64_app_is_reached_too(arm64_phone, start_adb, probe_apk) -> None:
    adb = start_adb("adbutils")
    adb.run("connect", arm64_phone.serial)
    done = adb.run("install", "-r", probe_apk, serial=arm64_phone.serial, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert listening(adb, "harness-test", serial=arm64_phone.serial) == "2000 grüße\n"
