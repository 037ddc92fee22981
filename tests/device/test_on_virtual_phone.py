"""The link, the lock and deploy with the real adb on a virtual phone that misbehaves."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.device import discover, lock, logcat, model_store, state
from harness.device.adb import AdbLink
from harness.device.link import DeviceFull, DeviceGone
from harness.errors import DeviceError, MissingTool
from harness.stages import deploy as stage
from harness.tools import adb as adb_tool
from harness.types import Abi, Libc, ModelPackage
from harness.virtual_phone import faults, lifecycle

pytestmark = pytest.mark.phone

MIB = 1 << 20


@dataclass
class Bench:
    """A phone, the adb server of these tests, and the link between them."""

    phone: lifecycle.Phone
    adb: adb_tool.Adb
    link: AdbLink


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv(adb_tool.PORT_VARIABLE, str(port))
    patch.setattr(lock, "cache_folder", lambda: tmp_path_factory.mktemp("cache"))
    try:
        phone = lifecycle.start(Abi.X86_64, tmp_path_factory.mktemp("workspace"))
    except MissingTool as problem:
        pytest.skip(f"no virtual phone: {problem}")
    client = adb_tool.find()
    discover.connect(client, phone.serial)
    yield Bench(phone, client, AdbLink(client, phone.serial))
    phone.stop()
    subprocess.run(client.argv("kill-server"), capture_output=True)
    patch.undo()


@pytest.fixture(autouse=True)
def _healthy(bench: Bench) -> Iterator[None]:
    yield
    bench.phone.inject(faults.Clear())
    bench.link.reconnect(20)
    bench.link.shell(["rm", "-rf", model_store.ROOT])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Four shards of 8 MiB."""
    folder = tmp_path_factory.mktemp("package")
    files = {}
    for number in range(4):
        data = os.urandom(8 * MIB)
        (folder / f"params_shard_{number}.bin").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        files[f"params_shard_{number}.bin"] = {"sha256": digest, "size": len(data)}
    document = {
        "schema": "harness.package/2",
        "context_window": 2048,
        "kv_cache": {"bytes_per_token": 1024},
        "files": files,
    }
    (folder / "package.json").write_text(json.dumps(document))
    return ModelPackage(folder, "k" * 64, "tiny", "q4f16_gguf", (Abi.X86_64,), 32 * MIB)


def push(bench: Bench, package: ModelPackage, *, verify: bool = False) -> int:
    files = stage.package_files(package, stage.read_package(package))
    stamp = model_store.stamp_path(package.key)
    return stage.push_model(bench.link, package, files, stamp, verify=verify)


def on_device(bench: Bench, script: str) -> str:
    return bench.link.shell(["sh", "-c", script]).stdout


def test_a_virtual_phone_is_what_it_says(bench: Bench) -> None:
    device = discover.identify(bench.link)
    assert device.virtual and device.libc is Libc.GLIBC and device.abi is Abi.X86_64
    assert device.memory_bytes == 4096 * MIB


def test_arguments_arrive_unchanged(bench: Bench) -> None:
    words = ["a b", "'", '"', "$HOME", "`id`", "\\", "*", "", "ü\n東"]
    assert bench.link.shell(["printf", "%s|", *words]).stdout == "|".join(words) + "|"


def test_a_commands_failure_has_its_words(bench: Bench) -> None:
    with pytest.raises(DeviceError) as raised:
        bench.link.shell(["ls", "/nope"])
    assert "No such file" in raised.value.cause
    assert bench.link.shell(["sh", "-c", "exit 7"], check=False).code == 7


def test_a_command_that_hangs_is_given_up(bench: Bench) -> None:
    with pytest.raises(DeviceError, match="does not answer"):
        bench.link.shell(["sleep", "30"], timeout=0.5)


def test_files_travel_there_and_back(bench: Bench, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB + 17)
    (tmp_path / "a").write_bytes(data)
    seen: list[int] = []
    bench.link.push(tmp_path / "a", "/data/local/tmp/a", progress=seen.append)
    bench.link.pull("/data/local/tmp/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data and seen[-1] == len(data)
    with pytest.raises(DeviceError) as raised:
        bench.link.pull("/data/local/tmp/nope", tmp_path / "c")
    assert "No such file" in raised.value.cause and not (tmp_path / "c").exists()


def test_what_is_no_apk_is_not_installed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "x.apk").write_bytes(b"no zip")
    with pytest.raises(DeviceError, match="does not install") as raised:
        bench.link.install(tmp_path / "x.apk")
    assert "INSTALL_" in raised.value.cause


def test_the_state_shows_a_hot_phone(bench: Bench) -> None:
    bench.phone.inject(faults.Thermal(3))
    now = state.read(bench.link)
    assert now.thermal_status == 3 and now.boot_id and now.clusters


def test_an_unauthorized_phone_has_a_remedy(bench: Bench) -> None:
    bench.phone.inject(faults.Unauthorized())
    for _ in range(50):
        subprocess.run(bench.adb.argv("connect", bench.phone.serial), capture_output=True)
        found = discover.attached(bench.adb)
        if found and found[0].state == "unauthorized":
            break
        time.sleep(0.1)
    with pytest.raises(DeviceError, match="unauthorized") as raised:
        discover.choose(found, bench.phone.serial)
    assert "accept the key" in raised.value.remedy
    with pytest.raises(DeviceGone) as gone:
        bench.link.shell(["true"])
    assert "accept the key" in gone.value.remedy
    bench.phone.inject(faults.Clear())
    subprocess.run(bench.adb.argv("disconnect", bench.phone.serial), capture_output=True)


def test_the_log_is_followed_through_a_dead_adb_server(bench: Bench) -> None:
    entries: list[str] = []
    start = int(bench.link.shell(["date", "+%s"]).stdout) * 1_000_000
    reader = logcat.LogReader(
        bench.link, lambda entry: entries.append(entry.message), filters=["T:V"], start_us=start
    )
    with reader:
        bench.link.shell(["log", "-t", "T", "before"])
        subprocess.run(bench.adb.argv("kill-server"), capture_output=True)
        with pytest.raises(DeviceGone):
            bench.link.shell(["true"])
        bench.link.reconnect(20)
        bench.link.shell(["log", "-t", "T", "after"])
        for _ in range(300):
            if "after" in entries:
                break
            time.sleep(0.1)
    assert entries[0] == "before" and entries[-1] == "after"


def test_a_deploy_goes_over_once(bench: Bench, package: ModelPackage) -> None:
    assert push(bench, package) > 32 * MIB
    assert push(bench, package) == 0
    modes = on_device(bench, f"stat -c %a {model_store.BLOBS}/* {model_store.MODELS}/*")
    assert set(modes.split()) == {"644"}


def test_deploy_resumes_after_a_disconnect(bench: Bench, package: ModelPackage) -> None:
    bench.phone.inject(faults.Disconnect(push_bytes=20 * MIB))
    with pytest.raises(DeviceGone):
        push(bench, package)
    bench.link.reconnect(20)
    assert on_device(bench, f"ls {model_store.MODELS}") == ""
    sent = push(bench, package)
    assert 8 * MIB < sent < 17 * MIB
    assert ".part" not in on_device(bench, f"ls -a {model_store.BLOBS}")


def test_deploy_resumes_after_the_adb_server_died(bench: Bench, package: ModelPackage) -> None:
    killer = threading.Timer(
        0.0, lambda: subprocess.run(bench.adb.argv("kill-server"), capture_output=True)
    )
    files = stage.package_files(package, stage.read_package(package))
    model_store.survey(bench.link, model_store.stamp_path(package.key))

    def progress(done: int, total: int) -> None:
        if done > 10 * MIB and not killer.is_alive() and killer.ident is None:
            killer.start()

    with pytest.raises(DeviceGone):
        model_store.push(bench.link, files, free_bytes=1 << 40, progress=progress)
    killer.join()
    bench.link.reconnect(20)
    assert push(bench, package) < 32 * MIB


def test_a_full_phone_is_refused_with_numbers(bench: Bench, package: ModelPackage) -> None:
    bench.phone.inject(faults.FullDisk(free_bytes=20 * MIB))
    with pytest.raises(DeviceFull) as raised:
        push(bench, package)
    assert "20.0 MiB free" in raised.value.cause
    assert on_device(bench, f"ls -A {model_store.BLOBS}") == ""


def test_a_phone_that_fills_up_in_mid_push_keeps_no_part(
    bench: Bench, package: ModelPackage
) -> None:
    bench.phone.inject(faults.FullDisk(free_bytes=20 * MIB))
    files = stage.package_files(package, stage.read_package(package))
    model_store.survey(bench.link, model_store.stamp_path(package.key))
    with pytest.raises(DeviceFull) as raised:
        model_store.push(bench.link, files, free_bytes=1 << 40, progress=lambda done, total: None)
    assert "MiB free" in raised.value.cause and raised.value.exit_code == 5
    left = on_device(bench, f"ls -A {model_store.BLOBS}").split()
    assert len(left) == 2 and all(len(name) == 64 for name in left)
    bench.phone.inject(faults.Clear())
    assert 0 < push(bench, package) < 17 * MIB


def test_a_damaged_file_is_found_and_sent_again(bench: Bench, package: ModelPackage) -> None:
    push(bench, package)
    entry = stage.read_package(package)["files"]["params_shard_2.bin"]
    blob = f"{model_store.BLOBS}/{entry['sha256']}"
    on_device(bench, f"printf damaged. | dd of={blob} bs=1 seek=4096 conv=notrunc 2>/dev/null")
    assert push(bench, package) == 0
    assert push(bench, package, verify=True) == 8 * MIB
    assert push(bench, package, verify=True) == 0


def test_two_users_of_one_phone_take_turns(bench: Bench) -> None:
    order: list[str] = []

    def second() -> None:
        with lock.hold(bench.link):
            order.append("second")

    with lock.hold(bench.link):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.8)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_a_forwarded_port_is_released(bench: Bench) -> None:
    with bench.link.forward("localabstract:nobody") as port:
        listed = subprocess.run(
            bench.adb.argv("forward", "--list"), capture_output=True, text=True
        ).stdout
        assert f"tcp:{port} localabstract:nobody" in listed
    listed = subprocess.run(
        bench.adb.argv("forward", "--list"), capture_output=True, text=True
    ).stdout
    assert f"tcp:{port}" not in listed


def test_a_restarted_adbd_is_waited_for(bench: Bench) -> None:
    bench.phone.inject(faults.RestartAdbd())
    bench.link.reconnect(20)
    assert bench.link.properties()["ro.harness.virtual"] == "1"
