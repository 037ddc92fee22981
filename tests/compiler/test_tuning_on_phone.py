"""`harness tune` on an x86_64 virtual phone, also one that goes away; the app that was tuned."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness import cli, config, recipes, tuned, tuning
from harness.compiler.packages.package import read_package
from harness.device import call, discover, lock, state
from harness.device.adb import AdbLink
from harness.device.app import App
from harness.errors import DeviceError, MissingTool
from harness.pipeline import Plan, Road
from harness.stages.tune import runners
from harness.tools import adb
from harness.tuned import Choice
from harness.types import Abi
from harness.virtual_phone import faults, lifecycle
from tests.compiler.test_tuning import Outcome, building_in_checkout, choice

# The first test builds what the phone gets, unless an earlier run did.
pytestmark = [pytest.mark.phone, pytest.mark.timeout(1800)]

VARIANT = "x86-64-v2"


@dataclass
class Bench:
    """A workspace with a phone of its own that builds where the checkout does, and a tiny model."""

    folder: Path
    phone: lifecycle.Phone
    model: Path
    link: AdbLink

    def words(self, verb: str, *more: object) -> list[str]:
        where = ("-s", self.phone.serial, "--workspace", self.folder)
        return [str(word) for word in (verb, self.model, *where, *more)]

    @property
    def plan(self) -> Plan:
        settings = config.load(self.folder, {"device.serial": self.phone.serial})
        return Plan.of(recipes.find(str(self.model), self.folder), settings)

    @property
    def path(self) -> Path:
        return tuned.path_in(recipes.home(self.plan.recipe, self.folder), "host")

    def left(self) -> list[Path]:
        """What of a choice lies in the workspace, whole or not."""
        return [path for path in (self.folder / "models").rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def bench(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = building_in_checkout(tmp_path_factory.mktemp("tuning"))
    patch = pytest.MonkeyPatch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        patch.setenv(adb.PORT_VARIABLE, str(probe.getsockname()[1]))
    try:
        phone = lifecycle.start(Abi.X86_64, folder)
    except MissingTool as problem:
        pytest.skip(f"no virtual phone: {problem}")
    client = adb.find()
    discover.connect(client, phone.serial)
    yield Bench(folder, phone, tiny_gguf, AdbLink(client, phone.serial))
    phone.stop()
    subprocess.run(client.argv("kill-server"), capture_output=True)
    lock.lock_path(phone.serial).unlink(missing_ok=True)
    patch.undo()


@pytest.fixture
def harness(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Outcome]]:
    """A verb for the bench's model and phone; it tries one tile beside the kernels' own."""
    monkeypatch.setattr(tuning, "TILES", (2,))

    def run(verb: str, *more: object) -> Outcome:
        capsys.readouterr()
        code = cli._run(bench.words(verb, *more))
        return Outcome(code, *capsys.readouterr())

    yield run
    bench.path.unlink(missing_ok=True)
    bench.phone.inject(faults.Clear())
    bench.link.reconnect(20)


def test_a_virtual_phone_is_tuned_with_a_warning(
    bench: Bench, harness: Callable[..., Outcome]
) -> None:
    done = harness("tune", "--cpu-variant", VARIANT, "--rounds", 5)
    assert done.code == 0, done.err
    assert "a virtual phone's times say nothing about phones" in done.err
    found = tuned.load(bench.path)
    assert found.virtual and found.device == "virtual phone"
    assert found.soc == "host" and found.default.decode_ms > 0 < found.default.prefill_ms
    title, *table = done.out.splitlines()
    assert title.endswith(f" · q4f16_gguf · host · {found.device}")
    rows = [words for line in table if (words := line.split())[1:2] == [VARIANT]]
    assert "1" in {row[0] for row in rows} and {row[2] for row in rows} == {"own", "2"}
    assert bench.left() == [bench.path]
    bench.phone.inject(faults.Thermal(3))
    again = harness("tune", "--cpu-variant", VARIANT, "--threads", 1, "--rounds", 5, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["virtual"] is True
    assert "was hot: let it cool" in again.err and "was hot" not in done.err
    for work in ("model library", "installing", "sent to"):
        assert work not in again.err


def test_the_default_is_what_the_engine_takes_by_itself(
    bench: Bench, harness: Callable[..., Outcome]
) -> None:
    settings = config.load(bench.folder)
    place = tuning._PhoneBench(bench.plan, settings).look()
    reply = App(bench.link, model=Road(bench.plan, settings).deploy.stamp).load()
    began = [record for record in reply.records if record["t"] == "begin"][-1]
    assert (began["threads"], began["backend"]) == (place.threads, f"cpu/{place.variants[0]}")


def test_a_phone_that_restarted_or_holds_its_clock_down_is_told(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = tuning._PhoneBench(bench.plan, config.load(bench.folder))
    now = state.read(bench.link)
    held = state.Cluster("0-3", "schedutil", 900_000, 900_000, 2_400_000)
    tuner._states = [now, replace(now, clusters=(held,))]
    tuner.warn()
    assert "holds the clock down on CPUs 0-3" in capsys.readouterr().err
    tuner._states = [now, replace(now, boot_id="another")]
    with pytest.raises(DeviceError, match="restarted while it was tuned"):
        tuner.warn()


def test_a_phone_whose_processor_has_no_name_is_not_tuned(bench: Bench) -> None:
    tuner = tuning._PhoneBench(bench.plan, config.load(bench.folder))
    tuner.road.device = replace(tuner.road.device, soc="")
    with pytest.raises(DeviceError, match="does not say what processor it has"):
        tuner.look()


def test_a_choice_is_what_the_app_runs_and_the_line_says_so(
    bench: Bench, harness: Callable[..., Outcome]
) -> None:
    kept = choice(bench.plan.recipe.name)
    tuned.save(bench.path, kept)
    done = harness("measure", "--max-tokens", 4, "--json")
    assert done.code == 0, done.err
    assert done.err.count(f"tuned for host: 1 thread, {VARIANT}, tiles of 2 tokens\n") == 1
    engine = json.loads(done.out)["engine"]
    assert (engine["threads"], engine["backend"]) == (1, f"cpu/{VARIANT}")
    compiled = harness("compile", "--json")
    assert "tiles of 2 tokens" in compiled.err, compiled.err
    package = read_package(Path(json.loads(compiled.out)["path"]))
    assert package.facts["stamp"]["options"]["tile"] == 2
    flagged = harness("measure", "--max-tokens", 4, "--threads", 2, "--json")
    assert json.loads(flagged.out)["engine"]["threads"] == 2
    tuned.save(bench.path, replace(kept, choice=Choice()))
    plain = harness("measure", "--max-tokens", 4, "--json")
    assert "tuned for" not in plain.err
    assert json.loads(plain.out)["engine"]["backend"] != f"cpu/{VARIANT}"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (faults.Offline(), "127.0.0.1"),
        (faults.CrashApp("dev.alc.harness", after_log_lines=1), "crashed"),
        (faults.Reboot(), "127.0.0.1"),
    ],
    ids=["offline", "crash", "reboot"],
)
def test_a_phone_that_fails_in_mid_tuning_is_one_error_and_nothing_is_written(
    bench: Bench,
    harness: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    fault: faults.Fault,
    told: str,
) -> None:
    monkeypatch.setattr(call, "RETURN_SECONDS", 1.5)
    samples: list[object] = []
    read = runners.read_sample

    def read_and_fail(*arguments: object) -> object:
        samples.append(read(*arguments))  # type: ignore[arg-type]
        if len(samples) == 3:
            bench.phone.inject(fault)
        return samples[-1]

    monkeypatch.setattr(runners, "read_sample", read_and_fail)
    done = harness("tune", "--cpu-variant", VARIANT, "--threads", 1, "--rounds", 5)
    assert done.code == 5 and done.out == ""
    assert done.err.count("\nx ") == 1 and told in done.err and "  try    " in done.err
    assert "Traceback" not in done.err
    assert bench.left() == []


def test_ctrl_c_in_mid_tuning_is_130_writes_nothing_and_lets_the_phone_go(
    bench: Bench, harness: Callable[..., Outcome]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *bench.words("tune", "--cpu-variant", VARIANT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    shown = ""
    while "round 1 of 7" not in shown:
        line = process.stderr.readline()
        assert line, shown
        shown += line
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and output == "", errors
    assert "Traceback" not in errors
    assert bench.left() == []
    began = time.monotonic()
    with lock.hold(bench.link):
        assert time.monotonic() - began < 30
