"""The real app with the real model on a virtual phone that misbehaves while it answers."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import config, pipeline, recipes
from harness.device import call, discover, lock, model_store
from harness.device.adb import AdbLink
from harness.device.app import App, Step
from harness.device.call import Reply
from harness.device.failures import AppError
from harness.device.link import DeviceGone
from harness.errors import DeviceError, MissingTool
from harness.lmx import Record
from harness.stages.deploy import deploy
from harness.stages.measure import measure
from harness.stages.test import run_device_tests
from harness.store.runs import open_run
from harness.tools import adb as adb_tool
from harness.types import Abi, Installation
from harness.virtual_phone import faults, lifecycle

# The first test builds what the phone gets, unless an earlier run did.
pytestmark = [pytest.mark.phone, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m-instruct"
LONG = [Step("long", "Once upon a time", template=False, max_tokens=150)]


@dataclass
class Bench:
    """A phone with the app and the model on it."""

    phone: lifecycle.Phone
    adb: adb_tool.Adb
    link: AdbLink
    road: pipeline.Road
    installation: Installation

    def app(self, on_record: Callable[[Record], None] = lambda record: None) -> App:
        return App(self.link, model=self.installation.stamp, on_record=on_record)

    def kill_server(self) -> None:
        subprocess.run(self.adb.argv("kill-server"), capture_output=True)

    def deploy(self, *, verify: bool = False) -> Installation:
        device = discover.identify(self.link)
        return deploy(self.link, device, self.road.package, self.road.compile, verify=verify)

    def generate_until(self, happen: Callable[[], None]) -> Reply:
        """A long generation; `happen` is called once, when its first tokens have come."""
        happened: list[bool] = []

        def take(record: Record) -> None:
            if record["t"] == "tokens" and not happened:
                happened.append(True)
                happen()

        reply = self.app(take).generate(LONG)
        assert happened
        return reply


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv(adb_tool.PORT_VARIABLE, str(port))
    settings = config.load(CHECKOUT, {"device.abi": Abi.X86_64})
    road = pipeline.Road(pipeline.Plan.of(recipes.find(MODEL, CHECKOUT), settings), settings)
    try:
        package, apk = road.compile, road.package
        phone = lifecycle.start(Abi.X86_64, tmp_path_factory.mktemp("workspace"))
    except MissingTool as problem:
        pytest.skip(f"no virtual phone: {problem}")
    client = adb_tool.find()
    discover.connect(client, phone.serial)
    link = AdbLink(client, phone.serial)
    installation = deploy(link, discover.identify(link), apk, package)
    yield Bench(phone, client, link, road, installation)
    phone.stop()
    subprocess.run(client.argv("kill-server"), capture_output=True)
    lock.lock_path(phone.serial).unlink(missing_ok=True)
    patch.undo()


@pytest.fixture(autouse=True)
def _healthy(bench: Bench) -> Iterator[None]:
    yield
    bench.phone.inject(faults.Clear())
    bench.link.reconnect(20)


def spoken(reply: Reply) -> int:
    return sum(len(record["ids"]) for record in reply.records if record["t"] == "tokens")


def test_the_suites_pass(bench: Bench) -> None:
    golden = recipes.find(MODEL, CHECKOUT).folder / "golden.json"
    report = run_device_tests(bench.installation, golden=golden)
    assert report.count("passed") == len(report.outcomes) >= 14


def test_a_measurement_keeps_every_sample(bench: Bench, tmp_path: Path) -> None:
    run = measure(
        bench.link,
        bench.installation,
        prompts=["How many days are in a week?"],
        max_tokens=64,
        threads=2,
        workspace=tmp_path,
    )
    stored = open_run(run.path)
    assert stored.state == "finished" and stored.meta["virtual"] is True
    samples = stored.samples()
    assert [sample.kind for sample in samples][:2] == ["state", "step"]
    result = next(sample.record for sample in samples if sample.kind == "result")
    assert result["run"] == run.run_id
    assert result["steps"][0]["text"] == "A week is approximately 7 days."
    kinds = [sample.record["t"] for sample in samples if sample.kind == "lmx"]
    assert kinds[0] == "begin" and kinds[-1] == "end" and "prefill" in kinds


def test_a_run_that_breaks_off_keeps_what_had_come(bench: Bench, tmp_path: Path) -> None:
    bench.phone.inject(faults.CrashApp("dev.alc.harness", after_log_lines=6))
    with pytest.raises(DeviceError, match="crashed"):
        measure(
            bench.link,
            bench.installation,
            prompts=["Tell me a long story."],
            max_tokens=200,
            threads=2,
            workspace=tmp_path,
        )
    (folder,) = (tmp_path / ".harness/runs").iterdir()
    stored = open_run(folder)
    assert stored.state == "failed"
    assert any(sample.kind == "lmx_partial" for sample in stored.samples())


@pytest.mark.parametrize(("signal", "words"), [(9, "Process crashed."), (11, "SIGSEGV")])
def test_an_app_that_crashes_in_mid_generation_is_told(
    bench: Bench, signal: int, words: str
) -> None:
    bench.phone.inject(faults.CrashApp("dev.alc.harness", after_log_lines=5, signal=signal))
    with pytest.raises(DeviceError, match="crashed") as raised:
        bench.app().generate(LONG)
    assert words in raised.value.cause and raised.value.exit_code == 5
    assert "logcat" in raised.value.remedy
    bench.phone.inject(faults.Clear())
    assert spoken(bench.app().generate([Step("after", "Hello", max_tokens=4)])) == 4


@pytest.mark.parametrize("fault", [faults.LoseLog(every=3), faults.LoseLog(drop=2)])
def test_lost_log_lines_are_repaired_from_the_file(bench: Bench, fault: faults.LoseLog) -> None:
    bench.phone.inject(fault)
    reply = bench.app().generate(LONG)
    assert reply.repaired > 0
    assert spoken(reply) == len(reply.result["steps"][0]["token_ids"])


def test_a_run_outlives_a_broken_connection(bench: Bench) -> None:
    reply = bench.generate_until(lambda: bench.phone.inject(faults.Disconnect()))
    assert spoken(reply) == 150


def test_a_run_outlives_the_adb_server(bench: Bench) -> None:
    assert spoken(bench.generate_until(bench.kill_server)) == 150


def test_a_run_outlives_a_restarted_adbd(bench: Bench) -> None:
    reply = bench.generate_until(lambda: bench.phone.inject(faults.RestartAdbd()))
    assert spoken(reply) == 150


def test_a_phone_that_is_gone_in_mid_generation_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "RETURN_SECONDS", 1.5)
    with pytest.raises(DeviceGone) as raised:
        bench.generate_until(lambda: bench.phone.inject(faults.Offline()))
    assert raised.value.exit_code == 5 and raised.value.remedy


def test_a_phone_that_restarts_in_mid_generation_is_told(bench: Bench) -> None:
    with pytest.raises(DeviceError, match="restarted in mid-run") as raised:
        bench.generate_until(lambda: bench.phone.inject(faults.Reboot()))
    assert raised.value.remedy == "run the same command again"


def test_a_damaged_shard_is_found_by_the_app_and_sent_again(bench: Bench) -> None:
    shard = next(bench.road.compile.path.glob("params_shard_*.bin"))
    files = {file.relative: file for file in _files(bench)}
    blob = files[shard.name].remote
    script = 'printf damaged. | dd of="$1" bs=1 seek=4096 conv=notrunc 2>/dev/null'
    bench.link.shell(["sh", "-c", script, "sh", blob])
    with pytest.raises(AppError) as raised:
        bench.app().load(verify=True)
    assert raised.value.kind == "model-damaged" and "--verify" in raised.value.remedy
    assert bench.deploy(verify=True).pushed_bytes == files[shard.name].size
    bench.app().load(verify=True)


def test_a_cut_shard_is_noticed_without_being_asked(bench: Bench) -> None:
    file = next(file for file in _files(bench) if file.relative.startswith("params_shard_"))
    bench.link.shell(["sh", "-c", 'printf X > "$1"', "sh", file.remote])
    with pytest.raises(AppError) as raised:
        bench.app().load()
    assert raised.value.kind == "model-damaged"
    assert bench.deploy().pushed_bytes == file.size


def test_a_model_that_is_not_there_is_told(bench: Bench) -> None:
    with pytest.raises(AppError) as raised:
        App(bench.link, model=f"{model_store.MODELS}/nope.json").load()
    assert raised.value.kind == "model-not-found"


def test_an_app_that_is_not_installed_is_told(bench: Bench) -> None:
    subprocess.run(
        bench.adb.argv("-s", bench.phone.serial, "uninstall", "dev.alc.harness"),
        capture_output=True,
        check=True,
    )
    with pytest.raises(DeviceError, match="not installed"):
        bench.app().info()
    assert bench.deploy().pushed_bytes == 0
    assert bench.app().info().result["info"]["engine"] == "alc"


def _files(bench: Bench) -> list[model_store.File]:
    from harness.stages.deploy import package_files, read_package

    package = bench.road.compile
    return package_files(package, read_package(package))
