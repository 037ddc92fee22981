"""What condition a device is in: heat, frequency caps, battery, power, memory; in one round trip.

Every value is None where the device does not tell. Sources: `dumpsys thermalservice` (Android 10
and newer), `dumpsys battery`, `dumpsys power`, `settings`, /proc and cpufreq in sysfs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from harness.device.link import DeviceLink
from harness.errors import DeviceError

SCHEMA = "harness.device-state/1"

_MARK = "@@@ "
_SCRIPT = """
s() { echo "@@@ $1"; }
s boot_id; cat /proc/sys/kernel/random/boot_id
s uptime; cat /proc/uptime
s thermal; dumpsys thermalservice
s battery; dumpsys battery
s power; dumpsys power | grep -E 'mWakefulness='
s airplane; settings get global airplane_mode_on
s saver; settings get global low_power
s memory; cat /proc/meminfo
s cpufreq
for p in /sys/devices/system/cpu/cpufreq/policy*; do
  for f in related_cpus scaling_governor scaling_cur_freq scaling_max_freq cpuinfo_max_freq; do
    echo "${p##*/policy}/$f=$(cat "$p/$f" 2>/dev/null)"
  done
done
s end
"""
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=([-\d.E]+), mType=(-?\d+), mName=([^,}]+), mStatus=(\d+)\}"
)


@dataclass(frozen=True)
class Temperature:
    """A sensor of the thermal service; `type` and `status` as Android numbers them."""

    name: str
    type: int
    celsius: float
    status: int


@dataclass(frozen=True)
class Cluster:
    """A group of CPUs with one clock; frequencies in kHz."""

    cpus: str
    governor: str
    current_khz: int | None
    limit_khz: int | None
    hardware_khz: int | None

    @property
    def capped(self) -> bool:
        """Whether something holds the clock below what the hardware can do."""
        return (
            self.limit_khz is not None
            and self.hardware_khz is not None
            and self.limit_khz < self.hardware_khz
        )


@dataclass(frozen=True)
class DeviceState:
    """A device's condition at one moment."""

    boot_id: str
    uptime_s: float | None
    thermal_status: int | None
    thermal_overridden: bool
    temperatures: tuple[Temperature, ...]
    clusters: tuple[Cluster, ...]
    battery_percent: int | None
    battery_celsius: float | None
    charging: bool | None
    battery_overridden: bool
    awake: bool | None
    airplane_mode: bool | None
    battery_saver: bool | None
    memory_total_kb: int | None
    memory_available_kb: int | None

    @property
    def capped(self) -> tuple[str, ...]:
        """The CPUs whose clock is held down."""
        return tuple(cluster.cpus for cluster in self.clusters if cluster.capped)

    def document(self) -> dict[str, object]:
        """The state as JSON holds it."""
        return {"schema": SCHEMA, **asdict(self), "capped": list(self.capped)}


def read(link: DeviceLink) -> DeviceState:
    """Ask a device for its state.

    Raises `DeviceError` when the answer is not whole.
    """
    return parse(link.shell(["sh", "-c", _SCRIPT]).stdout)


def parse(text: str) -> DeviceState:
    """The state from what the script prints."""
    sections = _sections(text)
    if "end" not in sections:
        raise DeviceError(
            "the device's state is not whole",
            cause="its answer broke off in section " + (list(sections) or ["(none)"])[-1],
            remedy="run the same command again",
        )
    thermal = sections["thermal"]
    battery = dict(re.findall(r"^  ([\w ]+): (.*)$", sections["battery"], re.MULTILINE))
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB", sections["memory"], re.MULTILINE))
    uptime = re.match(r"(\d+\.\d+)", sections["uptime"])
    status = re.search(r"^Thermal Status: (\d+)", thermal, re.MULTILINE)
    tenths = _integer(battery.get("temperature"))
    wakefulness = re.search(r"mWakefulness=(\w+)", sections["power"])
    return DeviceState(
        boot_id=sections["boot_id"].strip(),
        uptime_s=float(uptime.group(1)) if uptime else None,
        thermal_status=int(status.group(1)) if status else None,
        thermal_overridden="IsStatusOverride: true" in thermal,
        temperatures=_temperatures(thermal),
        clusters=_clusters(sections["cpufreq"]),
        battery_percent=_integer(battery.get("level")),
        battery_celsius=tenths / 10 if tenths is not None else None,
        charging=_charging(battery),
        battery_overridden="UPDATES STOPPED" in sections["battery"],
        awake=wakefulness.group(1) == "Awake" if wakefulness else None,
        airplane_mode=_flag(sections["airplane"]),
        battery_saver=_flag(sections["saver"]),
        memory_total_kb=_integer(memory.get("MemTotal")),
        memory_available_kb=_integer(memory.get("MemAvailable")),
    )


def _sections(text: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith(_MARK):
            current = found.setdefault(line.removeprefix(_MARK).strip(), [])
        else:
            current.append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


def _temperatures(thermal: str) -> tuple[Temperature, ...]:
    # The service prints cached values first; those read from the hardware now come after.
    now = thermal.split("Current temperatures from HAL:")[-1].split("Current cooling")[0]
    return tuple(
        Temperature(name, int(kind), float(value), int(status))
        for value, kind, name, status in _TEMPERATURE.findall(now)
    )


def _clusters(text: str) -> tuple[Cluster, ...]:
    policies: dict[int, dict[str, str]] = {}
    for number, name, value in re.findall(r"^(\d+)/(\w+)=(.*)$", text, re.MULTILINE):
        policies.setdefault(int(number), {})[name] = value.strip()
    return tuple(_cluster(values) for _, values in sorted(policies.items()))


def _cluster(values: Mapping[str, str]) -> Cluster:
    return Cluster(
        cpus=values.get("related_cpus", ""),
        governor=values.get("scaling_governor", ""),
        current_khz=_integer(values.get("scaling_cur_freq")),
        limit_khz=_integer(values.get("scaling_max_freq")),
        hardware_khz=_integer(values.get("cpuinfo_max_freq")),
    )


def _charging(battery: Mapping[str, str]) -> bool | None:
    # BatteryManager: 2 charging, 3 discharging, 4 not charging, 5 full.
    status = _integer(battery.get("status"))
    return None if status is None else status == 2


def _flag(text: str) -> bool | None:
    return {"0": False, "1": True}.get(text.strip())


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text.strip()) else None
