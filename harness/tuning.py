"""tune: libraries made ready where a model is tuned, and what is chosen kept beside its recipe."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import console, recipes, stats, tuned
from harness.compiler.options import TILES, CompileOptions
from harness.config import Config
from harness.errors import DeviceError, HarnessError, UsageError
from harness.pipeline import Plan, Road
from harness.tuned import Choice, Tuned
from harness.types import MOST_THREADS, Abi

if TYPE_CHECKING:
    from harness.device.state import DeviceState
    from harness.stages.tune import Outcome
    from harness.stages.tune.runners import Runner

# A server has more cores than a model of a phone's size can use.
_MOST_COUNTED = 8
# As the runtime's TVMModelLoader has it.
_MOST_BY_ITSELF = 4
# A quiet phone's times of one candidate are within a few percent.
_NOISE = 0.1


@dataclass(frozen=True)
class Place:
    """Where a model is tuned: what runs there by itself, and what can."""

    name: str
    soc: str
    virtual: bool
    threads: int
    """Those that the engine takes by itself."""
    cores: int
    big: int
    variants: tuple[str, ...]
    """Those that the processor can run, the best first."""


@dataclass(frozen=True)
class Tuning:
    """What was measured, what was kept of it, and where."""

    outcome: Outcome
    kept: Tuned
    path: Path

    @property
    def title(self) -> str:
        """What was tuned, in a line."""
        kept = self.kept
        return f"{kept.model} · {kept.quantization} · {kept.soc} · {console.clean(kept.device)}"

    def text(self) -> str:
        """The table of times and the decision."""
        from harness.stages.tune import table

        return table.text(self.outcome, self.title)

    def document(self) -> Mapping[str, Any]:
        """The same for scripts."""
        from harness.stages.tune import table

        facts = asdict(self.kept)
        for name in ("chosen", "default"):
            del facts[name]
        return {**facts, "path": str(self.path), **table.document(self.outcome)}


def tune(plan: Plan, config: Config, rounds: int) -> Tuning:
    """Find what runs a model fastest, and keep it beside its recipe.

    It runs on this machine, or on the device that is asked for; threads or a variant that the plan
    names are not varied, and not kept. Raises what the stages up to deploy and running raise, and
    `UsageError` where there is nothing to choose; the file is written in the end, whole or not.
    """
    from harness.stages import tune as stage

    if plan.options.plain:
        raise UsageError(
            f"there is nothing to tune in {plan.recipe.name}",
            cause="plain kernels, those of OpenCL too, have no tiles and are not meant to be fast",
            remedy="harness tune MODEL   # of a recipe with the backend cpu and opt_level 3",
        )
    bench = _HostBench(plan, config) if plan.serial is None else _PhoneBench(plan, config)
    with _named():
        place = bench.look()
        default = Choice(
            plan.threads or place.threads,
            plan.cpu_variant or place.variants[0],
            plan.options.tile,
        )
        outcome = stage.tune(
            bench.ready,
            default,
            threads=[plan.threads] if plan.threads else counts(place.big, place.cores),
            variants=[plan.cpu_variant] if plan.cpu_variant else place.variants,
            tiles=tiles(plan.options),
            rounds=rounds,
        )
        bench.warn()
        _warn_of_noise(outcome)
        kept = _kept(plan, place, outcome, rounds)
        path = tuned.path_in(recipes.home(plan.recipe, config.workspace), place.soc)
        tuned.save(path, kept)
    return Tuning(outcome, kept, path)


def counts(big: int, cores: int) -> list[int]:
    """The numbers of threads to try: one to the big cores, and all cores where there are more."""
    found = list(range(1, min(big, _MOST_COUNTED) + 1))
    return found if cores <= found[-1] else [*found, min(cores, MOST_THREADS)]


def tiles(options: CompileOptions) -> list[int]:
    """The tiles to try beside the one that is compiled without being asked."""
    from harness.compiler import quantization

    # As harness.compiler.kernels.matmul has them, which imports tvm.
    weights = quantization.find(options.quantization).weights
    own = options.tile or (4 if weights is None or weights.quantized else 8)
    return [tile for tile in TILES if tile != own]


def _warn_of_noise(outcome: Outcome) -> None:
    from harness.stages.tune.choosing import spread

    times = outcome.default.both_ms()
    noise = spread(times) / stats.median(times)
    if noise > _NOISE:
        console.warn(
            f"the times of one candidate are {noise:.0%} apart: something else was at work; "
            "more --rounds, or a quieter hour, may find more"
        )


def _kept(plan: Plan, place: Place, outcome: Outcome, rounds: int) -> Tuned:
    chosen, default = outcome.chosen.choice, outcome.default.choice
    return Tuned(
        soc=place.soc,
        model=plan.recipe.name,
        quantization=plan.options.quantization,
        device=place.name,
        virtual=place.virtual,
        harness=harness.__version__,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        rounds=rounds,
        choice=Choice(
            threads=None if chosen.threads == default.threads else chosen.threads,
            cpu_variant=None if chosen.cpu_variant == default.cpu_variant else chosen.cpu_variant,
            tile=None if chosen.tile == default.tile else chosen.tile,
        ),
        chosen=outcome.chosen.times(),
        default=outcome.default.times(),
    )


class _HostBench:
    """This machine: packages run by their x86_64 library."""

    def __init__(self, plan: Plan, config: Config) -> None:
        self.plan = plan
        self.road = Road(replace(plan, abis=(Abi.X86_64,)), config)

    def look(self) -> Place:
        """This machine's processor. Raises `UsageError` if no package runs on it."""
        from harness.compiler import host
        from harness.virtual_phone.properties import SOC

        host.check()
        cores = len(os.sched_getaffinity(0))
        variants = _runnable(Abi.X86_64, host.cpu_features(), "this machine")
        threads = min(cores, _MOST_BY_ITSELF)
        # The x86_64 virtual phone computes on the same processor.
        return Place("this machine", SOC[Abi.X86_64], False, threads, cores, cores, variants)

    @contextlib.contextmanager
    def ready(self, wanted: Sequence[int | None]) -> Iterator[Runner]:
        from harness.stages.tune.runners import on_host

        options = self.plan.options
        yield on_host(
            {tile: self.road.compiled(replace(options, tile=tile)).path for tile in wanted}
        )

    def warn(self) -> None:
        """Nothing is told here of heat."""


class _PhoneBench:
    """A device: packages run in the app there."""

    def __init__(self, plan: Plan, config: Config) -> None:
        self.plan = plan
        self.road = Road(plan, config)
        self._states: list[DeviceState] = []

    def look(self) -> Place:
        """The device's processor. Raises `DeviceError` if it does not tell enough of it."""
        from harness.device import processor

        device = self.road.device
        if not device.soc:
            raise DeviceError(
                f"{device} does not say what processor it has",
                cause="ro.soc.model, ro.board.platform and ro.hardware name none",
                remedy=f"adb -s {device.serial} shell getprop ro.soc.model",
            )
        found = processor.read(self.road.link)
        if device.virtual:
            console.warn(
                "a virtual phone's times say nothing about phones; what is chosen here is for "
                "virtual phones on this machine"
            )
        return Place(
            name="virtual phone" if device.virtual else device.model,
            soc=device.soc,
            virtual=device.virtual,
            threads=min(found.big, _MOST_BY_ITSELF),
            cores=found.cores,
            big=found.big,
            variants=_runnable(device.abi, found.features, str(device)),
        )

    @contextlib.contextmanager
    def ready(self, wanted: Sequence[int | None]) -> Iterator[Runner]:
        from harness.device import lock, state
        from harness.stages.tune.runners import on_phone

        road, options = self.road, self.plan.options
        packages = {tile: road.compiled(replace(options, tile=tile)) for tile in wanted}
        installed = {
            tile: road.install(package, options.context) for tile, package in packages.items()
        }
        with lock.hold(road.link):
            self._states.append(state.read(road.link))
            yield on_phone(road.link, installed)
            self._states.append(state.read(road.link))

    def warn(self) -> None:
        """Say what makes the times doubtful. Raises `DeviceError` if the device was restarted."""
        device, states = self.road.device, self._states
        if len({one.boot_id for one in states}) > 1:
            raise DeviceError(
                f"{device} restarted while it was tuned",
                cause="its boot id is another than before",
                remedy="run the same command again",
            )
        if any(one.thermal_status for one in states):
            console.warn(f"{device} was hot: let it cool and tune it again")
        if capped := sorted({cpus for one in states for cpus in one.capped}):
            console.warn(f"{device} holds the clock down on CPUs {', '.join(capped)}")


def _runnable(abi: Abi, features: frozenset[str], where: str) -> tuple[str, ...]:
    """The variants that a processor can run, the best first."""
    from harness.compiler.kernels.isa import Isa

    found = tuple(
        isa.value for isa in reversed(Isa.of(abi)) if features.issuperset(isa.cpu_features)
    )
    if not found:
        raise UsageError(
            f"no variant for {abi} runs on {where}",
            cause=f"it lacks {', '.join(sorted(set(Isa.of(abi)[0].cpu_features) - features))}",
            remedy="harness devices   # another one may",
        )
    return found


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Failures that no other stage has claimed are tune's."""
    try:
        yield
    except HarnessError as failure:
        failure.stage = failure.stage or "tune"
        raise
