"""am and monkey: the activity manager's command line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.virtual_phone.app_process import Instrumenting
from harness.virtual_phone.calls import Call
from harness.virtual_phone.packages import Package
from harness.virtual_phone.system import System

_WITH_VALUE = {"--user", "--abi", "-p", "-f", "--display"}


class _BadWords(ValueError):
    """A command line that am refuses."""


@dataclass
class _InstrumentWords:
    component: str = ""
    raw: bool = False
    wait: bool = False
    arguments: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, words: list[str]) -> _InstrumentWords:
        """Read what follows `am instrument`; raises `_BadWords`."""
        found = cls()
        pending = list(words)
        while pending:
            word = pending.pop(0)
            if word == "-e":
                if len(pending) < 2:
                    raise _BadWords('Argument expected after "-e"')
                name, value = pending.pop(0), pending.pop(0)
                found.arguments[name] = value
            elif word == "-r":
                found.raw = True
            elif word == "-w":
                found.wait = True
            elif word in _WITH_VALUE:
                pending[:1] = []
            elif word.startswith("-") and not word.startswith("--"):
                raise _BadWords(f"Unknown option: {word}")
            elif not word.startswith("-"):
                found.component = word
        if "/" not in found.component:
            raise _BadWords(
                "Error: No instrumentation component supplied"
                if not found.component
                else f"Bad component name: {found.component}"
            )
        return found


async def am(system: System, call: Call) -> int:
    """`am start|instrument|force-stop|...`."""
    words = call.arguments
    match words:
        case [("start" | "start-activity"), *rest]:
            return await _start(system, call, rest)
        case ["instrument", *rest]:
            return await _instrument(system, call, rest)
        case ["force-stop", *rest]:
            await system.activities.force_stop(rest[-1] if rest else "")
            return 0
        case ["kill", *rest]:
            system.activities.kill(rest[-1] if rest else "")
            return 0
        case ["kill-all"]:
            for process in system.activities.running():
                process.kill()
            return 0
        case ["crash", name]:
            system.activities.kill(name)
            return 0
        case ["get-current-user"]:
            await call.out("0\n")
            return 0
        case _:
            return await call.fail(f"Unknown command: {' '.join(words[:1])}", 255)


async def monkey(system: System, call: Call) -> int:
    """`monkey -p PACKAGE ... COUNT`: starts the launcher activity, as tools use it."""
    words = call.arguments
    name = words[words.index("-p") + 1] if "-p" in words[:-1] else ""
    package = system.packages.find(name)
    if package is None or package.launcher is None:
        await call.out("** No activities found to run, monkey aborted.\n")
        return 252
    await system.activities.start_activity(package, package.launcher, {})
    await call.out("Events injected: 1\n")
    return 0


async def _start(system: System, call: Call, words: list[str]) -> int:
    extras = _text_extras(words)
    component = words[words.index("-n") + 1] if "-n" in words[:-1] else ""
    name, _, activity = component.partition("/")
    if not component and words and not words[-1].startswith("-"):
        name = words[-1]
    await call.out(f"Starting: Intent {{ cmp={component or name} }}\n")
    package = system.packages.find(name)
    wanted = _class_name(package, activity) if package else ""
    if package is None or wanted not in [each.name for each in package.activities]:
        await call.error(
            f"Error type 3\nError: Activity class {{{name}/{wanted or activity}}} does not exist.\n"
        )
        return 1
    started = await system.activities.start_activity(package, wanted, extras)
    if "-W" in words:
        state = "ok" if started else "timeout"
        await call.out(f"Status: {state}\nLaunchState: COLD\nActivity: {component}\nComplete\n")
    return 0


def _text_extras(words: list[str]) -> dict[str, str]:
    """What `-e NAME TEXT`, `--es NAME TEXT` say."""
    places = [index for index, word in enumerate(words[:-2]) if word in ("-e", "--es")]
    return {words[index + 1]: words[index + 2] for index in places}


def _class_name(package: Package, activity: str) -> str:
    if not activity:
        return package.launcher or ""
    return package.name + activity if activity.startswith(".") else activity


async def _instrument(system: System, call: Call, words: list[str]) -> int:
    try:
        parsed = _InstrumentWords.parse(words)
    except _BadWords as problem:
        return await call.fail(str(problem), 255)
    name, _, runner = parsed.component.partition("/")
    package = system.packages.find(name)
    runner = name + runner if runner.startswith(".") else runner
    if package is None or runner not in [each for each, _ in package.instrumentations]:
        return await _not_found(call, parsed, name, runner)
    return await _Run(system, call, parsed.raw).go(
        package, Instrumenting(runner, parsed.arguments), wait=parsed.wait
    )


async def _not_found(call: Call, parsed: _InstrumentWords, name: str, runner: str) -> int:
    if parsed.raw:
        where = f"ComponentInfo{{{name}/{runner}}}"
        await call.out(
            "INSTRUMENTATION_STATUS: id=ActivityManagerService\n"
            "INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: "
            f"{where}\nINSTRUMENTATION_STATUS_CODE: -1\n"
        )
    await call.error(
        f"android.util.AndroidException: INSTRUMENTATION_FAILED: {parsed.component}\n"
        "\tat com.android.commands.am.Instrument.run(Instrument.java:543)\n"
        "\tat com.android.commands.am.Am.runInstrument(Am.java:232)\n"
    )
    return 1


class _Run:
    """An instrumentation whose reports are printed as they come."""

    def __init__(self, system: System, call: Call, raw: bool) -> None:
        self._activities = system.activities
        self._call = call
        self._raw = raw
        self._reports: asyncio.Queue[str | None] = asyncio.Queue()

    async def go(self, package: Package, instrumenting: Instrumenting, *, wait: bool) -> int:
        """Start it and, with `wait`, print until it has ended. The app outlives its caller."""
        process = await self._activities.instrument(package, instrumenting)
        if not wait:
            return 0
        process.on_status = self._status
        ending = asyncio.ensure_future(process.ended.wait())
        ending.add_done_callback(lambda _: self._reports.put_nowait(None))
        try:
            while (report := await self._next()) is not None:
                await self._call.out(report)
            if self._call.gone.is_set():
                return 0
            await self._call.out(self._result(process.outcome.code, process.outcome.results))
        finally:
            process.on_status = None
            ending.cancel()
        return 0

    async def _next(self) -> str | None:
        report = asyncio.ensure_future(self._reports.get())
        gone = asyncio.ensure_future(self._call.gone.wait())
        await asyncio.wait({report, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not report.done():
            report.cancel()
            return None
        return report.result()

    def _status(self, code: int, values: Mapping[str, str]) -> None:
        if self._raw:
            lines = [f"INSTRUMENTATION_STATUS: {name}={values[name]}\n" for name in sorted(values)]
            lines.append(f"INSTRUMENTATION_STATUS_CODE: {code}\n")
            self._reports.put_nowait("".join(lines))
        elif "stream" in values:
            self._reports.put_nowait(values["stream"])

    def _result(self, code: int, values: Mapping[str, str]) -> str:
        if self._raw:
            lines = [f"INSTRUMENTATION_RESULT: {name}={values[name]}\n" for name in sorted(values)]
            return "".join(lines) + f"INSTRUMENTATION_CODE: {code}\n"
        if "stream" in values:
            return values["stream"] + "\n"
        return "".join(f"INSTRUMENTATION_RESULT: {name}={values[name]}\n" for name in values)
