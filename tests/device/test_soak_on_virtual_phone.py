"""The engine soaked on an arm64 phone, under emulation, with a tiny random model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config, files, pipeline, recipes
from harness.device import discover, lock
from harness.device.adb import AdbLink
from harness.device.app import App
from harness.errors import MissingTool
from harness.stages.deploy import deploy
from harness.tools import adb
from harness.types import Abi
from harness.virtual_phone import lifecycle

pytestmark = [pytest.mark.phone, pytest.mark.timeout(900)]

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = CHECKOUT / "tests" / "goldens" / "llama-a"
TEMPLATE = "{% for message in messages %}{{ message.role + ': ' + message.content }}{% endfor %}"
GENERATIONS = 50
# The model's context window for each of three conversations.
CONTEXT = 3 * 512
# In so few generations the emulator's own translations still grow; only a gross leak shows.
PSS_KB, JAVA_KB = 4096, 16


@pytest.fixture
def app(tmp_path: Path, adb_port: int) -> Iterator[App]:
    """The app on a phone of its own, with a golden's random weights and a chat template."""
    folder = tmp_path / "tiny"
    shutil.copytree(GOLDEN, folder)
    files.write_json(folder / "tokenizer_config.json", {"chat_template": TEMPLATE})
    settings = config.load(CHECKOUT, {"device.abi": Abi.ARM64})
    road = pipeline.Road(pipeline.Plan.of(recipes.find(str(folder), CHECKOUT), settings), settings)
    try:
        package, apk = road.compile, road.package
        phone = lifecycle.start(Abi.ARM64, tmp_path)
    except MissingTool as problem:
        pytest.skip(f"no virtual phone: {problem}")
    client = adb.find()
    discover.connect(client, phone.serial)
    link = AdbLink(client, phone.serial)
    installation = deploy(link, discover.identify(link), apk, package)
    yield App(link, model=installation.stamp, context=CONTEXT)
    phone.stop()
    lock.lock_path(phone.serial).unlink(missing_ok=True)


def test_a_soak_on_an_arm64_phone_has_no_faults(app: App) -> None:
    soak = app.soak(GENERATIONS, seed=5)
    assert soak.faults(pss_kb=PSS_KB, java_kb=JAVA_KB) == []
    assert soak.generations == GENERATIONS
    assert {"chat", "json", "stops", "slow_collector", "end_gone", "end_length"} <= set(soak.counts)
