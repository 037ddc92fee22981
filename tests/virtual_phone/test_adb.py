"""The phone under real adb clients: Debian's and the one that adbutils brings."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.phone


def test_a_shell_command_prints_and_returns_its_exit_code(connected) -> None:
    done = connected.run("shell", "echo out; echo err >&2; exit 42")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 42)


def test_a_command_killed_by_a_signal_returns_137(connected) -> None:
    assert connected.run("shell", "-n", "kill -9 $$").returncode == 137


def test_an_unknown_command_returns_127(connected) -> None:
    assert connected.run("shell", "nosuchcommand").returncode == 127


def test_standard_input_reaches_the_command_and_ends(connected) -> None:
    done = connected.run("shell", "cat; echo done", input="abc\n")
    assert done.stdout == "abc\ndone\n"


def test_the_legacy_shell_has_one_stream_and_no_exit_code(connected) -> None:
    done = connected.run("shell", "-x", "echo legacy; exit 3")
    assert (done.stdout, done.returncode) == ("legacy\n", 0)


def test_a_terminal_is_a_terminal_of_the_size_that_was_asked_for(connected) -> None:
    done = connected.run("shell", "-tt", "test -t 0 && test -t 1 && echo terminal")
    assert "terminal" in done.stdout


def test_exec_out_does_not_touch_bytes(connected) -> None:
    argv = [connected.adb.program, "-P", str(connected.adb.port), "-s", connected.phone.serial]
    done = subprocess.run(
        [*argv, "exec-out", r"printf 'a\r\nb'"],
        capture_output=True,
        env=connected.adb.environment,
        check=True,
    )
    assert done.stdout == b"a\r\nb"


def test_exec_in_delivers_everything_before_the_end(connected, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    argv = [connected.adb.program, "-P", str(connected.adb.port), "-s", connected.phone.serial]
    target = "/data/local/tmp/exec-in"
    subprocess.run(
        [*argv, "exec-in", f"cat > {target}; mv {target} {target}.done"],
        input=data,
        env=connected.adb.environment,
        check=True,
    )
    expected = hashlib.md5(data).hexdigest()
    for _ in range(100):
        if connected.shell(f"md5sum {target}.done 2>/dev/null").startswith(expected):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the bytes did not arrive")
    connected.shell(f"rm {target}.done")


def test_the_shell_is_an_unprivileged_user_in_a_phone_s_folders(connected) -> None:
    assert connected.shell("id -u; pwd; ls -d /data/local/tmp /sdcard") == (
        "2000\n/\n/data/local/tmp\n/sdcard"
    )
    assert "Permission denied" in connected.run("shell", "ls /data/data").stderr
    assert "Read-only" in connected.run("shell", "touch /system/x").stderr


def test_properties_can_be_asked_for_inside_and_outside_a_shell(connected) -> None:
    assert connected.shell("getprop ro.build.version.sdk") == "35"
    assert connected.shell("getprop ro.build.version.sdk | cat") == "35"
    assert "[ro.harness.virtual]: [1]" in connected.shell("getprop")


def test_a_tree_is_pushed_and_pulled_with_names_times_and_modes(connected, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "sp ace").mkdir()
    for number in range(30):
        (tree / f"a/b/f{number}").write_bytes(os.urandom(number * 3333))
    (tree / "sp ace/ü.txt").write_text("ünï")
    (tree / "a/b/f2").chmod(0o755)
    os.utime(tree / "a/b/f1", (1577934245, 1577934245))
    (tree / "a/b/link").symlink_to("f1")
    connected.shell("rm -rf /data/local/tmp/tree")
    pushed = connected.run("push", tree, "/data/local/tmp/tree")
    assert pushed.returncode == 0, pushed.stderr
    assert connected.shell("stat -c %Y /data/local/tmp/tree/a/b/f1") == "1577934245"
    assert connected.shell("readlink /data/local/tmp/tree/a/b/link") == "f1"
    back = tmp_path / "back"
    pulled = connected.run("pull", "-a", "/data/local/tmp/tree", back)
    assert pulled.returncode == 0, pulled.stderr
    for file in tree.rglob("*"):
        if file.is_file():
            assert (back / file.relative_to(tree)).read_bytes() == file.read_bytes()


def test_a_second_push_with_sync_sends_nothing(connected, tmp_path: Path) -> None:
    folder = tmp_path / "synced"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 1000)
    connected.shell("rm -rf /data/local/tmp/synced")
    connected.run("push", folder, "/data/local/tmp/")
    again = connected.run("push", "--sync", folder, "/data/local/tmp/")
    assert "0 files pushed, 1 skipped" in again.stdout + again.stderr


def test_a_push_to_where_nobody_may_write_fails(connected, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    done = connected.run("push", file, "/system/bin/x")
    assert done.returncode != 0
    assert connected.run("pull", "/nowhere", tmp_path).returncode != 0


def test_a_file_that_belongs_to_an_app_is_not_pulled(connected, tmp_path: Path) -> None:
    assert connected.run("pull", "/data/data/x/secret", tmp_path).returncode != 0


def test_a_large_file_arrives_whole(phone, tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_bytes(os.urandom(64 << 20))
    assert phone.run("push", file, "/data/local/tmp/big").returncode == 0
    told = phone.shell("sha256sum /data/local/tmp/big; rm /data/local/tmp/big").split()[0]
    assert told == hashlib.sha256(file.read_bytes()).hexdigest()


def test_logcat_dumps_filters_and_clears(connected) -> None:
    connected.run("logcat", "-c")
    connected.shell("log -t MYTAG -p w hello log")
    connected.shell("log -t OTHER something else")
    done = connected.run("logcat", "-d", "-s", "MYTAG", "-v", "brief")
    assert done.stdout == "--------- beginning of main\nW/MYTAG   (    2): hello log\n"


def test_logcat_follows_until_it_has_enough(connected) -> None:
    connected.run("logcat", "-c")
    argv = [connected.adb.program, "-P", str(connected.adb.port), "-s", connected.phone.serial]
    reader = subprocess.Popen(
        [*argv, "logcat", "-v", "raw", "-m", "3", "-s", "LIVE"],
        stdout=subprocess.PIPE,
        text=True,
        env=connected.adb.environment,
    )
    time.sleep(0.3)
    for number in range(3):
        connected.shell(f"log -t LIVE n{number}")
    stdout, _ = reader.communicate(timeout=20)
    assert stdout == "--------- beginning of main\nn0\nn1\nn2\n"


def test_forward_reaches_a_port_and_an_abstract_socket_of_the_phone(connected) -> None:
    argv = [connected.adb.program, "-P", str(connected.adb.port), "-s", connected.phone.serial]
    server = subprocess.Popen(
        [*argv, "shell", "nc -l -p 18181 -e /system/bin/cat"], env=connected.adb.environment
    )
    try:
        local = connected.run("forward", "tcp:0", "tcp:18181").stdout.strip()
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", int(local)), timeout=5) as link:
                link.sendall(b"hi")
                answer = link.recv(100)
            if answer:
                break
            time.sleep(0.1)
        assert answer == b"hi"
    finally:
        connected.run("forward", "--remove-all")
        server.kill()
        server.wait()


def test_reverse_reaches_a_port_of_the_host(connected) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reversed_to = connected.run("reverse", "tcp:0", f"tcp:{port}").stdout.strip()
        argv = [connected.adb.program, "-P", str(connected.adb.port)]
        argv += ["-s", connected.phone.serial]
        client = subprocess.Popen(
            [*argv, "shell", f"echo hello | nc 127.0.0.1 {reversed_to}"],
            env=connected.adb.environment,
            stdout=subprocess.DEVNULL,
        )
        server.settimeout(30)
        link, _address = server.accept()
        with link:
            assert link.recv(100) == b"hello\n"
        client.wait(timeout=30)
    assert f"tcp:{reversed_to}" in connected.run("reverse", "--list").stdout
    connected.run("reverse", "--remove-all")
    assert connected.run("reverse", "--list").stdout.strip() == ""


def test_the_phone_has_a_network_of_its_own(connected) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = connected.run("shell", f"nc 127.0.0.1 {port} </dev/null")
    assert done.returncode != 0


def test_what_the_phone_is_not_root_for_is_refused(connected) -> None:
    assert "cannot run as root" in connected.run("root").stdout


def test_a_model_store_survey_works(connected) -> None:
    script = "stat -f -c 'free %a %S' /data; find /data/local/tmp -maxdepth 0 -exec stat -c %n {} +"
    first, second = connected.shell(script).splitlines()
    assert int(first.split()[1]) * int(first.split()[2]) > 0
    assert second == "/data/local/tmp"
