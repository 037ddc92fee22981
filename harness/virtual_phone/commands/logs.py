"""log and logcat."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from harness.virtual_phone.calls import Call
from harness.virtual_phone.log_format import Renderer
from harness.virtual_phone.logcat_options import BadOption, LogcatOptions
from harness.virtual_phone.logd import MAX_RING, MIN_RING, Buffer, Entry, Priority
from harness.virtual_phone.sandbox import SHELL_UID
from harness.virtual_phone.system import System

_SHELL_PID = 2
_BLOCK = 64 << 10
_BATCH = 2000
_UNEXPECTED_END = (
    "logcat: Unexpected EOF!\n\n"
    "This means that either the device shut down, logd crashed, or this instance of logcat was "
    "unable to read log\nmessages as quickly as they were being produced.\n\n"
    "If you have enabled significant logging, look into using the -G option to increase log "
    "buffer sizes.\n"
)


async def log(system: System, call: Call) -> int:
    """`log [-p PRIORITY] [-t TAG] MESSAGE...`."""
    tag, priority = "log", Priority.INFO
    words = call.arguments
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in ("-t", "-p"):
            if not words:
                return await call.fail(f"log: {option} needs an argument")
            value = words.pop(0)
            if option == "-t":
                tag = value
            else:
                found = Priority.from_letter(value[:1])
                if found is None:
                    return await call.fail(f"log: bad -p '{value}'")
                priority = found
    message = " ".join(words).encode("utf-8", "surrogateescape")
    system.logd.write(
        Buffer.MAIN,
        priority,
        tag.encode(),
        message,
        pid=_SHELL_PID,
        tid=_SHELL_PID,
        uid=SHELL_UID,
    )
    return 0


async def logcat(system: System, call: Call) -> int:
    """`logcat`: what the log holds, and unless told otherwise what comes."""
    try:
        options = LogcatOptions.parse(call.arguments, call.log_tags)
    except BadOption as problem:
        return await call.fail(f"logcat: {problem}")
    if options.clear:
        system.logd.clear(options.buffers)
        return 0
    if options.set_size:
        if not MIN_RING <= options.set_size <= MAX_RING:
            return await call.fail(f"logcat: failed to set the log size to {options.set_size}")
        for buffer in options.buffers:
            system.logd.resize(buffer, options.set_size)
        return 0
    if options.show_size:
        await call.out("".join(_size_line(system, buffer) for buffer in sorted(options.buffers)))
        return 0
    return await _Reading(system, call, options).run()


def _size_line(system: System, buffer: Buffer) -> str:
    limit, used = (
        f"{amount >> 20} MiB" if amount >= 1 << 20 else f"{amount >> 10} KiB"
        for amount in (system.logd.limits[buffer], system.logd.used[buffer])
    )
    return (
        f"{buffer.name.lower()}: ring buffer is {limit} ({used} consumed, {used} readable), "
        "max entry is 5120 B, max payload is 4068 B\n"
    )


class _Reading:
    """One logcat that prints entries."""

    def __init__(self, system: System, call: Call, options: LogcatOptions) -> None:
        self._logd = system.logd
        self._call = call
        self._options = options
        self._renderer = Renderer(options.form, dividers=options.dividers)
        self._arrived: asyncio.Queue[Entry | None] = asyncio.Queue()
        self._left = options.max_count or -1

    async def run(self) -> int:
        """Print until the end that the options ask for."""
        if not self._options.dump:
            self._logd.attach(self._arrived.put_nowait)
        try:
            held = [e for e in self._logd.entries(self._options.buffers) if self._options.wants(e)]
            if self._options.tail is not None:
                held = held[len(held) - min(len(held), self._options.tail) :]
            await self._print(held)
            if self._options.dump or self._left == 0:
                return 0
            return await self._follow()
        finally:
            self._logd.detach(self._arrived.put_nowait)

    async def _follow(self) -> int:
        gone = asyncio.ensure_future(self._call.gone.wait())
        try:
            while self._left != 0:
                arrival = asyncio.ensure_future(self._arrived.get())
                await asyncio.wait({arrival, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not arrival.done():
                    arrival.cancel()
                    return 0
                batch = [arrival.result()]
                while not self._arrived.empty() and len(batch) < _BATCH:
                    batch.append(self._arrived.get_nowait())
                await self._print([e for e in batch if e is not None and self._options.wants(e)])
                if None in batch:
                    await self._call.error(_UNEXPECTED_END)
                    return 1
            return 0
        finally:
            gone.cancel()

    async def _print(self, entries: Sequence[Entry]) -> None:
        if self._left >= 0:
            entries = entries[: self._left]
            self._left -= len(entries)
        text = b"".join(map(self._renderer.render, entries))
        for start in range(0, len(text), _BLOCK):
            await self._call.out(text[start : start + _BLOCK])
