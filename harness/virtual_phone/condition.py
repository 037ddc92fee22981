"""The phone's battery, heat and settings, as its services tell them.

They are what was set, by default a cool phone on USB power: a virtual phone has no hardware to
measure, and says so nowhere more than where numbers could be mistaken for measured ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BATTERY_NAMES = {
    "ac": "AC powered",
    "usb": "USB powered",
    "wireless": "Wireless powered",
    "dock": "Dock powered",
    "status": "status",
    "level": "level",
    "temp": "temperature",
}
_SENSORS = (("CPU0", 0, 41.2), ("GPU0", 1, 39.8), ("battery", 2, 28.7), ("skin", 3, 33.1))
_SKIN = 3
# Skin temperatures at which each status begins, as a phone's vendor configures them.
_SKIN_THRESHOLDS = (0.0, 39.0, 43.0, 45.0, 46.5, 52.0, 55.0)


def _battery() -> dict[str, str]:
    return {
        "AC powered": "false",
        "USB powered": "true",
        "Wireless powered": "false",
        "Dock powered": "false",
        "Max charging current": "500000",
        "Max charging voltage": "5000000",
        "Charge counter": "3000000",
        "status": "2",
        "health": "2",
        "present": "true",
        "level": "87",
        "scale": "100",
        "voltage": "4321",
        "temperature": "287",
        "technology": "Li-ion",
    }


def _settings() -> dict[str, dict[str, str]]:
    return {
        "global": {
            "airplane_mode_on": "0",
            "device_provisioned": "1",
            "low_power": "0",
            "stay_on_while_plugged_in": "0",
        },
        "system": {"screen_brightness": "102", "screen_off_timeout": "60000"},
        "secure": {"android_id": "0123456789abcdef"},
    }


@dataclass
class Condition:
    """What dumpsys battery, power and thermalservice and settings answer."""

    battery: dict[str, str] = field(default_factory=_battery)
    battery_overridden: bool = False
    settings: dict[str, dict[str, str]] = field(default_factory=_settings)
    thermal_status: int = 0
    thermal_override: int | None = None
    awake: bool = True

    def set_battery(self, name: str, value: str) -> bool:
        """`dumpsys battery set`; False for a name that the service does not know."""
        key = BATTERY_NAMES.get(name)
        if key is None:
            return False
        self.battery_overridden = True
        powered = key.endswith("powered")
        self.battery[key] = ("true" if value == "1" else "false") if powered else value
        return True

    def unplug(self) -> None:
        """`dumpsys battery unplug`."""
        self.battery_overridden = True
        for name in ("ac", "usb", "wireless", "dock"):
            self.battery[BATTERY_NAMES[name]] = "false"

    def reset_battery(self) -> None:
        """`dumpsys battery reset`."""
        self.battery = _battery()
        self.battery_overridden = False

    def dump_battery(self) -> str:
        """What `dumpsys battery` prints."""
        stopped = ""
        if self.battery_overridden:
            stopped = "  (UPDATES STOPPED -- use 'reset' to restart)\n"
        lines = "".join(f"  {name}: {value}\n" for name, value in self.battery.items())
        return "Current Battery Service state:\n" + stopped + lines

    def dump_power(self) -> str:
        """The lines of `dumpsys power` that tools read."""
        state = "Awake" if self.awake else "Asleep"
        plugged = any(value == "true" for name, value in self.battery.items() if "powered" in name)
        return (
            "POWER MANAGER (dumpsys power)\n\n"
            "Power Manager State:\n"
            f"  mIsPowered={str(plugged).lower()}\n"
            f"  mWakefulness={state}\n"
            f"  mStayOnWhilePluggedInSetting={self.setting('global', 'stay_on_while_plugged_in')}\n"
            f"  mHoldingDisplaySuspendBlocker={str(self.awake).lower()}\n"
        )

    def dump_thermal(self) -> str:
        """What `dumpsys thermalservice` prints."""
        status = self.thermal_status if self.thermal_override is None else self.thermal_override
        sensors = "".join(
            f"\tTemperature{{mValue={self._degrees(kind, value)}, mType={kind}, mName={name}, "
            f"mStatus={status if kind == _SKIN else 0}}}\n"
            for name, kind, value in _SENSORS
        )
        thresholds = ", ".join(["NaN", *(str(value) for value in _SKIN_THRESHOLDS[1:])])
        return (
            f"IsStatusOverride: {str(self.thermal_override is not None).lower()}\n"
            "ThermalEventListeners:\n\tcallbacks: 1\n\tkilled: false\n\tbroadcasts count: -1\n"
            "ThermalStatusListeners:\n\tcallbacks: 1\n\tkilled: false\n\tbroadcasts count: -1\n"
            f"Thermal Status: {status}\n"
            f"Cached temperatures:\n{sensors}"
            "HAL Ready: true\n"
            "HAL connection:\n\tThermalHAL AIDL 1  connected: yes\n"
            f"Current temperatures from HAL:\n{sensors}"
            "Current cooling devices from HAL:\n"
            "\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}\n"
            "Temperature static thresholds from HAL:\n"
            f"\tTemperatureThreshold{{mType={_SKIN}, mName=skin, "
            f"mHotThrottlingThresholds=[{thresholds}], "
            "mColdThrottlingThresholds=[NaN, NaN, NaN, NaN, NaN, NaN, NaN]}\n"
        )

    def setting(self, table: str, name: str) -> str:
        """A setting's value, "null" where there is none."""
        return self.settings.get(table, {}).get(name, "null")

    def _degrees(self, kind: int, value: float) -> float:
        if kind != _SKIN or self.thermal_status == 0:
            return value
        return _SKIN_THRESHOLDS[min(self.thermal_status, 6)] + 0.5
