"""What a device's processor can do, and how many cores of which size it has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.device.link import DeviceLink
from harness.errors import DeviceError

_SCRIPT = """
cat /proc/cpuinfo
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  [ -d "$cpu" ] || continue
  line="@core"
  for f in online cpu_capacity cpufreq/cpuinfo_max_freq; do
    line="$line ${f##*/}=$(cat "$cpu/$f" 2>/dev/null)"
  done
  echo "$line"
done
"""
_FEATURES = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)
_CORE = re.compile(
    r"^@core online=(\d?) cpu_capacity=(\d{0,9}) cpuinfo_max_freq=(\d{0,12})$", re.MULTILINE
)


@dataclass(frozen=True)
class Processor:
    """A processor's features, as /proc/cpuinfo names them, and its cores."""

    features: frozenset[str]
    cores: int
    """Those that are switched on."""
    big: int
    """Those that the engine does not count as small, by the rule of the runtime's `Cores`."""


def read(link: DeviceLink) -> Processor:
    """Ask a device for its processor.

    Raises `DeviceError` when it does not tell.
    """
    return parse(link.serial, link.shell(["sh", "-c", _SCRIPT]).stdout)


def parse(serial: str, text: str) -> Processor:
    """The processor from what the script prints."""
    # Cores of one device may differ; code that any of them lacks must not run.
    features = [frozenset(line.split()) for line in _FEATURES.findall(text)]
    cores = [
        (capacity, frequency)
        for online, capacity, frequency in _CORE.findall(text)
        if online != "0"
    ]
    if not features or not cores:
        raise DeviceError(
            f"{serial} does not describe its processor",
            cause=f"it tells the features of {len(features)} cores and the sizes of {len(cores)}",
            remedy=f"adb -s {serial} shell cat /proc/cpuinfo",
        )
    big = _near([core[0] for core in cores], 0.5) or _near([core[1] for core in cores], 0.85)
    return Processor(frozenset.intersection(*features), len(cores), big or len(cores))


def _near(values: list[str], share: float) -> int | None:
    """How many have this share of the best; None unless all say."""
    if not all(values) or not any(map(int, values)):
        return None
    sizes = [int(value) for value in values]
    return sum(size >= share * max(sizes) for size in sizes)
