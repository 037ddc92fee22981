"""Apps on the phone: instrumentation, screens, crashes, and what they may touch."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.phone
RUNNER = "dev.probe/.Probe"


def instrument(phone, verb: str, **arguments: str | int) -> str:
    extra = " ".join(f"-e {name} {value}" for name, value in arguments.items())
    command = f"am instrument -w -r -e verb {verb} {extra} {RUNNER}"
    return phone.run("shell", command, timeout=90).stdout


def results(text: str) -> dict[str, str]:
    return dict(re.findall(r"^INSTRUMENTATION_RESULT: (\w+)=(.*)$", text, re.MULTILINE))


def test_an_instrumentation_reports_its_result(probe) -> None:
    text = instrument(probe, "info", argument="given")
    found = results(text)
    assert text.endswith("INSTRUMENTATION_CODE: -1\n")
    assert found["abi"] == "x86_64" and found["sdk"] == "35"
    assert found["argument"] == "given"
    assert found["uid"] == "10100"
    assert found["files"] == "/data/data/dev.probe/files"
    assert found["media"] == "/storage/emulated/0/Android/media/dev.probe"
    assert int(found["pss"]) > 1000


def test_native_libraries_are_found_in_the_app_s_own_folder(probe) -> None:
    assert results(instrument(probe, "native"))["answer"] == "42"


def test_progress_is_printed_as_it_comes_with_its_newlines(probe) -> None:
    text = instrument(probe, "status")
    assert text.startswith(
        "INSTRUMENTATION_STATUS: probe=first\nsecond line\nINSTRUMENTATION_STATUS_CODE: 2\n"
    )


def test_an_exception_ends_the_app_and_is_told(probe) -> None:
    probe.run("logcat", "-c")
    text = instrument(probe, "throw")
    assert "shortMsg=java.lang.IllegalStateException\n" in text
    assert "longMsg=java.lang.IllegalStateException: on purpose\n" in text
    assert text.endswith("INSTRUMENTATION_CODE: 0\n")
    crash = probe.run("logcat", "-d", "-b", "crash").stdout
    assert "FATAL EXCEPTION" in crash and "Process: dev.probe, PID: " in crash


def test_a_native_crash_is_told(probe) -> None:
    text = instrument(probe, "segfault")
    assert "longMsg=Native crash: Segmentation fault\n" in text
    assert "INSTRUMENTATION_CODE: 0" in text


def test_a_killed_app_is_a_crashed_process(probe) -> None:
    running = start_in_background(probe, "am", "instrument", "-w", "-r", "-e", "verb", "sleep")
    wait_for(lambda: probe.shell("pidof dev.probe"))
    probe.shell("am force-stop dev.probe")
    stdout, _ = running.communicate(timeout=60)
    assert "INSTRUMENTATION_RESULT: shortMsg=Process crashed.\n" in stdout
    assert stdout.endswith("INSTRUMENTATION_CODE: 0\n")
    assert probe.shell("pidof dev.probe") == ""


def test_a_new_instrumentation_ends_the_old_process(probe) -> None:
    running = start_in_background(probe, "am", "instrument", "-w", "-r", "-e", "verb", "sleep")
    wait_for(lambda: probe.shell("pidof dev.probe"))
    first = probe.shell("pidof dev.probe")
    assert results(instrument(probe, "info"))["pid"] != first
    stdout, _ = running.communicate(timeout=60)
    assert "Process crashed" in stdout


def test_an_app_outlives_the_connection_that_started_it(probe) -> None:
    running = start_in_background(probe, "am", "instrument", "-w", "-r", "-e", "verb", "sleep")
    wait_for(lambda: probe.shell("pidof dev.probe"))
    running.kill()
    running.wait()
    time.sleep(0.3)
    assert probe.shell("pidof dev.probe")
    probe.shell("am force-stop dev.probe")


def test_an_unknown_instrumentation_is_told_as_android_does(probe) -> None:
    done = probe.run("shell", "am instrument -w -r dev.probe/.Nothing")
    assert "Error=Unable to find instrumentation info for: ComponentInfo{" in done.stdout
    assert "INSTRUMENTATION_FAILED: dev.probe/.Nothing" in done.stderr


def test_a_screen_is_shown_on_the_main_thread(probe) -> None:
    probe.run("logcat", "-c")
    done = probe.run("shell", "am start -W -n dev.probe/.ProbeActivity")
    assert "Status: ok" in done.stdout

    def shown() -> str:
        return probe.run("logcat", "-d", "-v", "raw", "-s", "Probe").stdout

    wait_for(lambda: "activity resumed" in shown())
    assert "activity created on main" in shown()
    assert probe.shell("pidof dev.probe")
    probe.shell("am force-stop dev.probe")


def test_an_activity_that_does_not_exist_is_an_error(probe) -> None:
    done = probe.run("shell", "am start -n dev.probe/.Nothing")
    assert "does not exist" in done.stderr


def test_an_app_reads_what_the_shell_left_but_does_not_write_there(probe) -> None:
    probe.shell("echo left > /data/local/tmp/left; chmod 644 /data/local/tmp/left")
    read = instrument(probe, "read", path="/data/local/tmp/left")
    assert results(read)["text"] == "left"
    assert "Read-only" in results(instrument(probe, "touch", path="/data/local/tmp/x"))["touched"]
    for path in ("/data/data/dev.probe/files/x", "/sdcard/Android/media/dev.probe/x"):
        instrument(probe, "info")  # makes the media folder
        assert results(instrument(probe, "touch", path=path))["touched"] == "yes"


def test_no_line_of_an_app_s_log_is_lost(probe) -> None:
    probe.run("logcat", "-c")
    probe.run("logcat", "-G", "1M")
    assert results(instrument(probe, "log", count=2000))["written"] == "2000"

    def lines() -> list[str]:
        text = probe.run("logcat", "-d", "-v", "raw", "-s", "ProbeLog").stdout
        return [line for line in text.splitlines() if line.startswith("line")]

    wait_for(lambda: len(lines()) == 2000)
    assert lines() == [f"line {number}" for number in range(2000)]


def test_memory_of_an_app_is_told(probe) -> None:
    probe.shell("am start -n dev.probe/.ProbeActivity")
    wait_for(lambda: "TOTAL PSS:" in probe.shell("dumpsys meminfo dev.probe"))
    text = probe.shell("dumpsys meminfo dev.probe")
    assert int(text.split("TOTAL PSS:")[1].split()[0]) > 1000
    probe.shell("am force-stop dev.probe")
    assert "No process found" in probe.shell("dumpsys meminfo dev.probe")


def test_the_arm64_phone_runs_the_same_apk_on_an_arm64_processor(
    arm64_phone, start_adb: Callable[..., object], probe_apk: Path
) -> None:
    adb = start_adb("adbutils")
    adb.run("connect", arm64_phone.serial)
    serial = arm64_phone.serial
    done = adb.run("install", "-r", probe_apk, serial=serial, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for verb, name, value in (("info", "arch", "aarch64"), ("native", "answer", "42")):
        command = f"am instrument -w -r -e verb {verb} {RUNNER}"
        found = results(adb.run("shell", command, serial=serial, timeout=90).stdout)
        assert found[name] == value
    assert adb.run("shell", "uname -m", serial=serial).stdout == "aarch64\n"
    assert "asimddp" in adb.run("shell", "cat /proc/cpuinfo", serial=serial).stdout


def start_in_background(phone, *words: str) -> subprocess.Popen[str]:
    argv = [phone.adb.program, "-P", str(phone.adb.port), "-s", phone.phone.serial, "shell"]
    return subprocess.Popen(
        [*map(str, argv), *words, RUNNER],
        stdout=subprocess.PIPE,
        text=True,
        env=phone.adb.environment,
    )


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen in time")


def test_the_shell_and_apps_leave_each_other_s_folders_alone(probe) -> None:
    for path in ("/data/x", "/data/app/x", "/data/local/x"):
        assert "Read-only" in probe.run("shell", f"touch {path}").stderr
        assert "Read-only" in results(instrument(probe, "touch", path=path))["touched"]
    assert probe.run("shell", "ls /data/system").returncode != 0
    probe.run(
        "shell", "cp /system/bin/busybox /data/local/tmp/busybox && /data/local/tmp/busybox true"
    )
    assert probe.run("shell", "/data/local/tmp/busybox true").returncode == 0
    assert probe.run("shell", "run-as dev.probe /data/local/tmp/busybox true").returncode != 0
    probe.shell("rm /data/local/tmp/busybox")


def test_run_as_hands_its_standard_streams_on(probe) -> None:
    done = probe.run("shell", "run-as dev.probe sh -c 'cat > files/typed; exit 7'", input="typed\n")
    assert done.returncode == 7
    assert probe.shell("run-as dev.probe cat files/typed") == "typed"
