"""pytest fixtures for suites that run against the app on a device.

Start pytest with `-p harness.pytest_plugin --harness-installation FILE`; `harness test` writes
that file and does so. Fixtures: `device`, `app`, `model`, `golden`. With `--harness-report FILE`
each test's outcome is written as a line of JSON that names the device.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import golden as golden_answers
from harness.device import discover, lock
from harness.device.adb import AdbLink
from harness.device.app import App
from harness.lmx import Record
from harness.tools import adb as adb_tool
from harness.types import Device

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INSTALLATION_SCHEMA = "harness.installation/1"
OUTCOME_SCHEMA = "harness.test-outcome/1"
# What lines of progress on stderr begin with.
PROGRESS = "~ "
_INSTALLATION = pytest.StashKey[Mapping[str, Any]]()
_DEVICE = pytest.StashKey[Device]()


@dataclass(frozen=True)
class Model:
    """The model under test: its name, and the package that was deployed."""

    name: str
    quantization: str
    package: Path

    def facts(self) -> Mapping[str, Any]:
        """What the package says of itself: its `package.json`."""
        facts: dict[str, Any] = json.loads((self.package / "package.json").read_text("utf-8"))
        return facts

    def tokenizer(self) -> Tokenizer:
        """The reference implementation's tokenizer, from the package's tokenizer.json."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.package / "tokenizer.json"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's options."""
    group = parser.getgroup("harness", "tests on a device")
    group.addoption(
        "--harness-installation", metavar="FILE", help="what `harness deploy` put on the device"
    )
    group.addoption("--harness-serial", metavar="SERIAL", help="run on this device instead")
    group.addoption("--harness-report", metavar="FILE", help="write a JSON line for each test")


def pytest_configure(config: pytest.Config) -> None:
    """Read the installation before any test is collected."""
    path = config.getoption("--harness-installation")
    if not path:
        return
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise pytest.UsageError(f"--harness-installation: {problem}") from problem
    if document.get("schema") != INSTALLATION_SCHEMA:
        raise pytest.UsageError(f"--harness-installation: {path} is not {INSTALLATION_SCHEMA}")
    config.stash[_INSTALLATION] = document


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the device and the model above the results."""
    document = config.stash.get(_INSTALLATION, None)
    if document is None:
        return []
    return [
        f"device: {document['device']}",
        f"model: {document['name']} {document['quantization']}",
    ]


class _Progress:
    """Tells whoever started pytest what goes on, past pytest's capture of sys.stderr."""

    def __init__(self) -> None:
        self._test = ""

    def begin(self, test: str) -> None:
        self._test = test
        self.say("")

    def say(self, text: str) -> None:
        line = f"{self._test}: {text}" if text else self._test
        print(f"{PROGRESS}{line}", file=sys.__stderr__, flush=True)

    def take(self, record: Record) -> None:
        if record["t"] == "tokens":
            self.say(f"{record['step']}, {record['first'] + len(record['ids'])} tokens")


_progress = _Progress()


def pytest_runtest_logstart(nodeid: str, location: tuple[str, int | None, str]) -> None:
    """Say which test begins."""
    _progress.begin(nodeid.rpartition("::")[2])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Append the test's outcome to the report file."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    path = item.config.getoption("--harness-report")
    # A test that fails or is skipped in its set-up has no call phase.
    if not path or not (report.when == "call" or (report.when == "setup" and not report.passed)):
        return
    document = item.config.stash.get(_INSTALLATION, {})
    line = {
        "schema": OUTCOME_SCHEMA,
        "test": item.nodeid,
        "outcome": report.outcome,
        "seconds": round(report.duration, 3),
        "device": document.get("device", ""),
        "serial": item.config.getoption("--harness-serial") or document.get("serial", ""),
        "reason": _reason(report),
        "notes": [text for name, text in report.user_properties if name == "note"],
    }
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _reason(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)


@pytest.fixture(scope="session")
def installation(pytestconfig: pytest.Config) -> Mapping[str, Any]:
    """What was deployed, as `harness test` wrote it."""
    document = pytestconfig.stash.get(_INSTALLATION, None)
    if document is None:
        pytest.skip("no device: --harness-installation was not given")
    return document


@pytest.fixture(scope="session")
def link(pytestconfig: pytest.Config, installation: Mapping[str, Any]) -> Iterator[AdbLink]:
    """The connection to the device, which is nobody else's while the tests run."""
    serial = pytestconfig.getoption("--harness-serial") or installation["serial"]
    connection = AdbLink(adb_tool.find(), serial)
    with lock.hold(connection):
        yield connection


@pytest.fixture(scope="session")
def device(link: AdbLink) -> Device:
    """The device that the tests run on."""
    return discover.identify(link)


@pytest.fixture(scope="session")
def app(link: AdbLink, installation: Mapping[str, Any]) -> App:
    """The installed app, with the deployed model."""
    return App(
        link,
        model=installation["stamp"],
        name=installation["name"],
        application_id=installation["application_id"],
        threads=installation["threads"],
        cpu_variant=installation["cpu_variant"],
        on_record=_progress.take,
        on_status=_progress.say,
    )


@pytest.fixture(scope="session")
def model(installation: Mapping[str, Any]) -> Model:
    """The deployed model."""
    return Model(installation["name"], installation["quantization"], Path(installation["package"]))


@pytest.fixture(scope="session")
def golden(installation: Mapping[str, Any]) -> tuple[golden_answers.Answer, ...]:
    """The model's golden answers; skips where there are none for this form of its weights."""
    form = installation["quantization"]
    if not golden_answers.holds_for(form):
        pytest.skip(f"{form} rounds the weights anew; the golden answers are the checkpoint's")
    path = installation["golden"]
    if not path or not Path(path).exists():
        pytest.skip(f"{installation['name']} has no golden.json")
    return golden_answers.load(Path(path))
