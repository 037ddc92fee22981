"""Run the Kotlin modules' own tests on a device: the suites that the JVM runs, on a model package.

    .venv/bin/python scripts/engine_suites.py PACKAGE [-s SERIAL] [--abi x86_64]

PACKAGE is the folder of a compiled model (`harness compile ... -o FOLDER`); a small one will do.
Without a serial they run on a virtual phone. Ends with 6 if a test fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness import config, console, pipeline
from harness.errors import HarnessError, TestsFailed
from harness.types import Abi


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("package", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-s", "--serial", help="The device (default: a virtual phone).")
@click.option("--abi", type=click.Choice([abi.value for abi in Abi]), default=Abi.ARM64.value)
def main(package: Path, serial: str | None, abi: str) -> None:
    """Run the engine's own suites on a device."""
    try:
        road = pipeline.AppRoad(serial, Abi(abi), config.load(Path.cwd(), {}))
        outcomes = pipeline.engine_suites(road, package)
        failed = [one for one in outcomes if one.outcome == "failed"]
        if failed:
            raise TestsFailed(
                f"{len(failed)} of {len(outcomes)} tests failed on {road.device}",
                cause="\n".join(f"{one.suite}.{one.test}: {one.reason}" for one in failed),
                remedy=f"adb -s {road.link.serial} logcat -d",
            )
    except HarnessError as failure:
        console.error(failure)
        sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()
