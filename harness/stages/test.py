"""test: run the suites of device-tests/ against the app on a device."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import console, process, resources
from harness.errors import DeviceError, TestsFailed
from harness.files import canonical_json, sha256_file, write_json
from harness.types import Installation

INSTALLATION_SCHEMA = "harness.installation/1"
# The plugin's lines of progress. (It is not imported here: it imports pytest.)
PROGRESS = "~ "


@dataclass(frozen=True)
class Outcome:
    """One test: "passed", "failed" or "skipped", and why where it did not pass."""

    test: str
    outcome: str
    seconds: float
    device: str
    reason: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TestReport:
    """Every test that ran, in order."""

    __test__ = False

    outcomes: tuple[Outcome, ...]

    def count(self, outcome: str) -> int:
        """How many tests ended so."""
        return sum(1 for one in self.outcomes if one.outcome == outcome)


def run_device_tests(
    installation: Installation,
    *,
    golden: Path | None,
    threads: int | None = None,
    cpu_variant: str | None = None,
    suites: Path | None = None,
    select: str = "",
    timeout: float = 3600.0,
) -> TestReport:
    """Run the suites (else those that ship with the harness) in a pytest of their own.

    `select` is an expression for pytest's -k. Raises `TestsFailed` with the failures, and
    `DeviceError` when the tests could not run.
    """
    folder = suites or resources.path("device-tests")
    with (
        tempfile.TemporaryDirectory(prefix="harness-test-") as temporary,
        console.step("test", f"testing on {installation.device}") as step,
    ):
        report = Path(temporary, "outcomes.jsonl")
        described = Path(temporary, "installation.json")
        write_json(described, _describe(installation, golden, threads, cpu_variant))
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "--tb=short",
            "--capture=sys",
        ]
        argv += ["-p", "harness.pytest_plugin", "-c", folder / "pytest.ini"]
        argv += ["--harness-installation", described, "--harness-report", report]
        argv += ["-k", select] if select else []

        def show(line: str) -> None:
            if line.startswith(PROGRESS):
                step.update(f"on {installation.device}: {line.removeprefix(PROGRESS)}")

        done = process.run(
            [*argv, folder],
            what="pytest",
            timeout=timeout,
            env={"PYTEST_ADDOPTS": ""},
            on_line=show,
            check=False,
        )
        outcomes = _read(report)
        result = TestReport(outcomes)
        step.done(_summary(result, installation))
    for one in outcomes:
        for note in one.notes:
            console.info(f"  note  {one.test.split('::')[-1]}: {note}")
    failures = [one for one in outcomes if one.outcome == "failed"]
    if failures:
        raise TestsFailed(
            f"{len(failures)} of {len(outcomes)} tests failed on {installation.device}",
            cause="\n         ".join(_causes(failures)),
            remedy=f"harness test {installation.package.name} -s {installation.device.serial} -v",
        )
    if done.code != 0 or not outcomes:
        raise DeviceError(
            f"the tests did not run on {installation.device}",
            cause=_last_line(done.stderr) or _last_line(done.stdout) or f"exit code {done.code}",
            remedy="run the same command again with -v",
        )
    return result


def suites_hash(golden: Path | None, suites: Path | None = None) -> str:
    """A hash of the suites and golden answers: what passed under another one has not passed."""
    folder = suites or resources.path("device-tests")
    read = [path for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".ini")]
    if golden is not None:
        read.append(golden)
    return hashlib.sha256(
        canonical_json([[path.name, sha256_file(path)] for path in read])
    ).hexdigest()


def _describe(
    installation: Installation, golden: Path | None, threads: int | None, cpu_variant: str | None
) -> dict[str, Any]:
    package = installation.package
    return {
        "schema": INSTALLATION_SCHEMA,
        "device": str(installation.device),
        "serial": installation.device.serial,
        "application_id": installation.application_id,
        "stamp": installation.stamp,
        "name": package.name,
        "quantization": package.quantization,
        "package": str(package.path),
        "golden": str(golden) if golden is not None else "",
        "threads": threads,
        "cpu_variant": cpu_variant,
    }


def _read(report: Path) -> tuple[Outcome, ...]:
    if not report.is_file():
        return ()
    documents = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return tuple(
        Outcome(
            test=document["test"],
            outcome=document["outcome"],
            seconds=document["seconds"],
            device=document["device"],
            reason=document["reason"],
            notes=tuple(document["notes"]),
        )
        for document in documents
    )


def _summary(result: TestReport, installation: Installation) -> str:
    parts = [
        f"{result.count(outcome)} {outcome}"
        for outcome in ("passed", "failed", "skipped")
        if result.count(outcome)
    ]
    return f"{', '.join(parts) or 'no test ran'} on {installation.device}"


def _causes(failures: Sequence[Outcome]) -> list[str]:
    """A line for each reason, with the first test that failed for it and how many others did."""
    tests: dict[str, list[str]] = {}
    for one in failures:
        tests.setdefault(_first_line(one.reason), []).append(one.test.rpartition("::")[2])
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in tests.items()
    ]


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _last_line(text: str) -> str:
    return _first_line("\n".join(reversed(text.splitlines())))
