"""The road: the stages in order, each run once, nothing done twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness import console, files, resources, tuned
from harness.compiler.options import CompileOptions
from harness.config import Config
from harness.errors import HarnessError, UsageError
from harness.recipes import Recipe
from harness.store import artifacts
from harness.tuned import Choice
from harness.types import (
    MOST_THREADS,
    Abi,
    Device,
    Installation,
    Libc,
    ModelPackage,
    Project,
    Run,
    RuntimeBundle,
    SignedApk,
    Target,
)

if TYPE_CHECKING:
    from harness.device.chat import ChatSettings
    from harness.device.link import DeviceLink
    from harness.device.suites import Outcome

STAGES = ("compile", "build", "render", "package", "deploy", "test", "measure", "report")
# An emulated phone takes a minute for the engine's own suites.
SUITES_SECONDS = 1800.0
Value = TypeVar("Value")


@dataclass(frozen=True)
class Plan:
    """What is asked for: a recipe and what replaces its values."""

    recipe: Recipe
    options: CompileOptions
    abis: tuple[Abi, ...]
    """What is compiled for; empty for the device's ABI."""
    serial: str | None
    abi: Abi
    prompts: tuple[str, ...]
    max_tokens: int
    threads: int | None
    """None for what the device was tuned to, else as many as it has big cores, 4 at most."""
    cpu_variant: str | None
    """None for what the device was tuned to, else the best that it can run."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        config: Config,
        prompts: Sequence[str] = (),
        *,
        abis: Sequence[Abi] = (),
        flags: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The plan for a recipe under the settings in force and `flags` of `CompileOptions`."""
        chosen = {"quantization": config.text("run.quantization"), **(flags or {})}
        return cls(
            recipe=recipe,
            options=CompileOptions.of(recipe, chosen),
            abis=tuple(abis),
            serial=config.text("device.serial"),
            abi=_abi(config.text("device.abi")),
            prompts=tuple(prompts) or recipe.prompts,
            max_tokens=config.number("run.max_tokens") or recipe.max_tokens,
            threads=_threads(config),
            cpu_variant=config.text("run.cpu_variant"),
        )


class AppRoad:
    """The way to the app on a device: what is built for it, and the link to it.

    Each value is made when it is first asked for. `serial` None stands for the virtual phone
    of this `abi`.
    """

    def __init__(self, serial: str | None, abi: Abi, config: Config) -> None:
        self.serial = serial
        self.abi = abi
        self.config = config
        self.workspace = config.workspace
        self.verify = False

    def install(self, package: ModelPackage, context: int | None) -> Installation:
        """The app, and a model package for `context` tokens, on the device."""
        from harness.stages.deploy import deploy

        apk = self.package
        return self._on_device(
            "deploy",
            lambda: deploy(
                self.link, self.device, apk, package, context=context, verify=self.verify
            ),
        )

    @cached_property
    def build(self) -> RuntimeBundle:
        """The native runtime for the device's target."""
        from harness.stages.build import build

        return self._stage("build", lambda: build(self.target, self.workspace))

    @cached_property
    def render(self) -> Project:
        """The Gradle project that carries the runtime."""
        from harness.stages.render import render

        return self._stage("render", lambda: render(self.build, self.workspace))

    @cached_property
    def package(self) -> SignedApk:
        """The signed APK."""
        from harness.stages.package import package

        return self._stage("package", lambda: package(self.render, self.workspace))

    @cached_property
    def target(self) -> Target:
        """What the device needs; a virtual phone need not run yet to know it."""
        if self.serial is None:
            return Target(self.abi, Libc.GLIBC)
        return self.device.target

    @property
    def soc(self) -> str:
        """The device's processor by its name; a virtual phone need not run yet to know it."""
        from harness.virtual_phone.properties import SOC

        return SOC[self.abi] if self.serial is None else self.device.soc

    @cached_property
    def link(self) -> DeviceLink:
        """The connection to the device that was asked for, else to the virtual phone."""
        from harness.device import discover
        from harness.device.adb import AdbLink
        from harness.tools import adb

        with self._named("deploy"):
            client = adb.find()
            if self.serial is not None:
                chosen = discover.choose(discover.attached(client), self.serial)
                return AdbLink(client, chosen.serial)
            return AdbLink(client, self._start_phone(client))

    @cached_property
    def device(self) -> Device:
        """The device behind the link."""
        from harness.device import discover

        return discover.identify(self.link)

    def _start_phone(self, client: Any) -> str:
        from harness.device import discover
        from harness.virtual_phone import lifecycle

        phone = lifecycle.start(
            self.abi,
            self.workspace,
            memory_mib=self.config.number("phone.memory_mib") or 4096,
            storage_mib=self.config.number("phone.storage_mib") or 4096,
        )
        discover.connect(client, phone.serial)
        return phone.serial

    def _on_device(self, name: str, work: Callable[[], Value]) -> Value:
        """Run a stage that has the device to itself; what it stands on is made before."""
        from harness.device import lock

        with self._named(name), lock.hold(self.link):
            return work()

    def _stage(self, name: str, work: Callable[[], Value], *, idle: str = "unchanged") -> Value:
        """Run a stage and say so where it had nothing to do."""
        begun = console.steps_begun()
        with self._named(name):
            value = work()
        if console.steps_begun() == begun and name != "report":
            console.unchanged(name, idle)
        return value

    @contextlib.contextmanager
    def _named(self, stage: str) -> Iterator[None]:
        try:
            yield
        except HarnessError as failure:
            failure.stage = failure.stage or stage
            raise


class Road(AppRoad):
    """One walk along the stages; a stage's value is made when it is first asked for."""

    def __init__(self, plan: Plan, config: Config) -> None:
        super().__init__(plan.serial, plan.abi, config)
        self.plan = plan
        self.retest = False

    def walk(self, first: str = STAGES[0], last: str = STAGES[-1]) -> Any:
        """Run the stages from `first` to `last` and return the value of the last one.

        What stages before `first` made must be there. Raises `UsageError` where the order is
        wrong, else what a stage raises, with the stage's name in it.
        """
        begin, end = STAGES.index(first), STAGES.index(last)
        if begin > end:
            raise UsageError(f"--from {first} comes after --to {last}", remedy=" < ".join(STAGES))
        value: Any = None
        for index, stage in enumerate(STAGES[: end + 1]):
            if index < begin and index > STAGES.index("package"):
                continue  # what a device stage did is asked for by the stage that needs it
            frozen = artifacts.frozen() if index < begin else contextlib.nullcontext()
            with frozen:
                value = self.value(stage)
        return value

    def value(self, stage: str) -> Any:
        """What a stage makes; whatever it stands on is made first."""
        return getattr(self, "tested" if stage == "test" else stage)

    @cached_property
    def compile(self) -> ModelPackage:
        """The model package with a library for each ABI of the plan, else for the device."""
        options = self.plan.options
        if self.tuned.tile is not None:
            options = replace(options, tile=self.tuned.tile)
        return self.compiled(options)

    def compiled(self, options: CompileOptions) -> ModelPackage:
        """The model compiled with these options instead of the plan's."""
        from harness.stages.compile import compile_model

        plan = self.plan
        abis = plan.abis or (self.target.abi,)
        return self._stage(
            "compile", lambda: compile_model(plan.recipe, options, abis, self.workspace)
        )

    @cached_property
    def tuned(self) -> Choice:
        """What `harness tune` found for the device's processor and the plan leaves open.

        A library for ABIs that are asked for is for no device, and for none of its processors.
        """
        plan = self.plan
        if plan.abis or plan.options.plain:
            return Choice()
        with self._named("compile"):
            found = tuned.find(plan.recipe, self.soc, self.workspace)
        if found is None:
            return Choice()
        known, path = found
        if known.quantization != plan.options.quantization:
            console.info(f"not tuned for {self.soc} in {plan.options.quantization}: see {path}")
            return Choice()
        taken = replace(
            known.choice,
            threads=None if plan.threads else known.choice.threads,
            cpu_variant=None if plan.cpu_variant else known.choice.cpu_variant,
        )
        if taken != Choice():
            console.info(f"tuned for {self.soc}: {taken}")
        return taken

    @property
    def threads(self) -> int | None:
        """The plan's threads, else those that the device's processor was tuned to."""
        return self.plan.threads or self.tuned.threads

    @property
    def cpu_variant(self) -> str | None:
        """The plan's variant, else the one that the device's processor was tuned to."""
        return self.plan.cpu_variant or self.tuned.cpu_variant

    @cached_property
    def deploy(self) -> Installation:
        """The APK and the model on the device."""
        return self.install(self.compile, self.plan.options.context)

    @cached_property
    def tested(self) -> Mapping[str, Any]:
        """How many device tests passed; not run again on what has passed them already."""
        from harness.stages.test import run_device_tests

        golden = self.plan.recipe.folder / "golden.json"
        installation = self.deploy

        def test(folder: Any) -> Mapping[str, object]:
            report = run_device_tests(
                installation,
                golden=golden if golden.is_file() else None,
                threads=self.threads,
                cpu_variant=self.cpu_variant,
            )
            return {name: report.count(name) for name in ("passed", "skipped", "failed")}

        inputs = {
            "apk": installation.apk_sha256,
            "package": installation.package.key,
            "serial": installation.device.serial,
            "fingerprint": installation.device.fingerprint,
            "threads": self.threads,
            "cpu_variant": self.cpu_variant,
            "suites": _hashes(resources.path("device-tests")),
            "golden": files.sha256_file(golden) if golden.is_file() else None,
        }
        with self._named("test"):
            if self.retest:
                return test(None)
            passed = self._stage(
                "test",
                lambda: artifacts.produce(self.workspace, "test", inputs, test),
                idle="passed before on this device; `harness test` runs them again",
            )
            facts: Mapping[str, Any] = passed.manifest["facts"]
            return facts

    @cached_property
    def measure(self) -> Run:
        """The recorded run of the prompts."""
        from harness.stages.measure import measure

        installation = self.deploy
        return self._on_device(
            "measure",
            lambda: measure(
                self.link,
                installation,
                prompts=self.plan.prompts,
                max_tokens=self.plan.max_tokens,
                threads=self.threads,
                cpu_variant=self.cpu_variant,
                workspace=self.workspace,
            ),
        )

    def chat(self, settings: ChatSettings, *, context: int | None) -> bool:
        """Talk to the model on the device; False where Ctrl-C ended it."""
        from harness.stages.chat import chat

        tokens = context or self.plan.options.context
        installation = self.install(self.compile, tokens)
        return self._on_device(
            "chat",
            lambda: chat(
                self.link,
                installation,
                settings,
                threads=self.threads,
                cpu_variant=self.cpu_variant,
                context=tokens,
            ),
        )

    @cached_property
    def report(self) -> Any:
        """The figures of the run, with its HTML page written."""
        from harness.stages.report import report

        return self._stage("report", lambda: report(self.measure))


def verify(package: Path, golden: Path, config: Config) -> Mapping[str, Any]:
    """A package's logits (its folder or its archive) against a golden file.

    It runs on this machine, or on the device that is asked for. Raises what `stages.verify`
    raises, and what the stages up to deploy raise.
    """
    from harness.device.app import App
    from harness.stages import verify as stage

    serial, threads = config.text("device.serial"), _threads(config)
    cpu_variant = config.text("run.cpu_variant")
    opened = _opened(package, config.workspace)
    folder = opened.path
    if serial is None:
        run = stage.on_host(folder, threads or 2, cpu_variant)
        return stage.verify(folder, golden, run, where="this machine")
    road = AppRoad(serial, _abi(config.text("device.abi")), config)
    installation = road.install(opened, None)
    app = App(
        road.link,
        model=installation.stamp,
        name=opened.name,
        application_id=installation.application_id,
        threads=threads,
        cpu_variant=cpu_variant,
    )
    return road._on_device(
        "verify",
        lambda: stage.verify(folder, golden, stage.on_phone(app), where=str(road.device)),
    )


def engine_suites(road: AppRoad, package: Path) -> tuple[Outcome, ...]:
    """The Kotlin modules' own tests on the road's device, on the model package in a folder.

    Raises what the stages up to package raise, and `DeviceError` if the tests do not come to
    their end.
    """
    from harness.device import suites
    from harness.stages.package.suites import suites as make

    apk = road._stage("package", lambda: make(road.render, road.workspace))

    def run() -> tuple[Outcome, ...]:
        with console.step("test", f"suites on {road.device}") as step:
            step.update("installing")
            road.link.install(apk.path)
            try:
                outcomes = suites.run(
                    road.link,
                    apk.application_id,
                    apk.classes,
                    package=suites.push_package(road.link, package),
                    timeout=SUITES_SECONDS,
                    on_test=step.update,
                )
            finally:
                suites.clear(road.link)
            passed = sum(one.outcome == "passed" for one in outcomes)
            step.done(f"{passed} of {len(outcomes)} tests of the engine passed on {road.device}")
        return outcomes

    return road._on_device("test", run)


def _opened(package: Path, workspace: Path) -> ModelPackage:
    """A package by its folder, or by its archive, which is unpacked once."""
    from harness.compiler.packages import archive
    from harness.compiler.packages.package import read_package

    if package.is_file():
        inputs = {"archive": files.sha256_file(package)}

        def unpack(folder: Path) -> Mapping[str, object]:
            with console.step("verify", f"unpacking {package.name}"):
                archive.open_tar(package, folder / "package")
            return {}

        package = artifacts.produce(workspace, "unpack", inputs, unpack).path / "package"
    found = read_package(package, verify=True)
    return ModelPackage(
        path=package,
        key=files.sha256_file(found.file("package.json")),
        name=str(found.facts["name"]),
        quantization=str(found.facts["quantization"]),
        abis=tuple(Abi(abi) for abi in found.abis),
        weights_bytes=int(found.facts["weights_bytes"]),
    )


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): files.sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _threads(config: Config) -> int | None:
    threads = config.number("run.threads")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(
            f"a forward pass cannot have {threads} threads",
            cause=f"it takes 1 to {MOST_THREADS}",
            remedy="--threads 2   # or run.threads in harness.toml",
        )
    return threads


def _abi(name: str | None) -> Abi:
    try:
        return Abi(name or Abi.ARM64)
    except ValueError as problem:
        raise UsageError(
            f"{name!r} is not an ABI that the harness builds for",
            cause=f"known: {', '.join(abi.value for abi in Abi)}",
            remedy="harness config show --origin",
        ) from problem
