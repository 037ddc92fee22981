"""What the phone's /proc and /sys say where the host's would be wrong on it.

The arm64 phone's processor is the one that qemu emulates, so its feature list is decoded from the
auxiliary vector of a program that runs on it, not written down here.
"""

from __future__ import annotations

from pathlib import Path

# Linux arch/arm64/kernel/cpuinfo.c: the names of the bits of AT_HWCAP and AT_HWCAP2, in order.
_HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
_HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm "
    "svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 "
    "smef16f32 smeb16f32 smef32f32 smefa64 wfxt ebf16 sveebf16"
)

# qemu's "max" processor: implementer 0 (reserved for software), architecture 8.
_ARM_PROCESSOR = """\
processor\t: {number}
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x00
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0x051
CPU revision\t: 0

"""

HARDWARE_KHZ = 2_000_000
THERMAL_ZONES = (("cpu-0-0", 41200), ("gpu", 39800), ("battery", 28700), ("skin", 33100))
# What Android itself takes of the memory before any app starts.
SYSTEM_MIB = 640


def arm64_cpuinfo(processors: int, hwcap: int, hwcap2: int) -> str:
    """The text of /proc/cpuinfo on arm64."""
    names = [name for bit, name in enumerate(_HWCAP.split()) if hwcap >> bit & 1]
    names += [name for bit, name in enumerate(_HWCAP2.split()) if hwcap2 >> bit & 1]
    features = " ".join(names)
    return "".join(
        _ARM_PROCESSOR.format(number=number, features=features) for number in range(processors)
    )


def meminfo(total_mib: int, apps_kib: int) -> str:
    """The text of /proc/meminfo for a phone of this size whose apps take `apps_kib`."""
    total = total_mib * 1024
    used = min(SYSTEM_MIB * 1024, total // 2)
    available = max(0, total - used - apps_kib)
    free = available // 2
    rows = {
        "MemTotal": total,
        "MemFree": free,
        "MemAvailable": available,
        "Buffers": 0,
        "Cached": available - free,
        "SwapCached": 0,
        "Active": apps_kib,
        "Inactive": 0,
        "SwapTotal": 0,
        "SwapFree": 0,
    }
    return "".join(f"{name + ':':<16}{value:8d} kB\n" for name, value in rows.items())


def write_sys(folder: Path, processors: int) -> None:
    """Fill /sys with what tools read there: one cluster of CPUs without a cap, cool sensors."""
    last = processors - 1
    cpus = "0" if last == 0 else f"0-{last}"
    cpu = "devices/system/cpu"
    _put(folder, f"{cpu}/online", cpus)
    _put(folder, f"{cpu}/possible", cpus)
    _put(folder, f"{cpu}/present", cpus)
    policy = f"{cpu}/cpufreq/policy0"
    related = " ".join(str(number) for number in range(processors))
    for name, value in (
        ("related_cpus", related),
        ("affected_cpus", related),
        ("scaling_governor", "performance"),
        ("scaling_cur_freq", str(HARDWARE_KHZ)),
        ("scaling_min_freq", str(HARDWARE_KHZ)),
        ("scaling_max_freq", str(HARDWARE_KHZ)),
        ("cpuinfo_min_freq", str(HARDWARE_KHZ)),
        ("cpuinfo_max_freq", str(HARDWARE_KHZ)),
    ):
        _put(folder, f"{policy}/{name}", value)
    for number in range(processors):
        _put(folder, f"{cpu}/cpu{number}/online", "1")
        _put(folder, f"{cpu}/cpu{number}/cpu_capacity", "1024")
        _put(folder, f"{cpu}/cpu{number}/topology/core_id", str(number))
        _put(folder, f"{cpu}/cpu{number}/topology/physical_package_id", "0")
        _put(folder, f"{cpu}/cpu{number}/cpufreq/cpuinfo_max_freq", str(HARDWARE_KHZ))
    for number, (name, millidegrees) in enumerate(THERMAL_ZONES):
        zone = f"class/thermal/thermal_zone{number}"
        _put(folder, f"{zone}/type", name)
        _put(folder, f"{zone}/temp", str(millidegrees))


def _put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="ascii")
