"""A chat with the app: one conversation over a socket that adb forwards, in lines of JSON.

The app's verb `chat` loads the model, listens on an abstract socket and serves one host. What the
two say to each other docs/chat.md tells; `Chat` is the host's end of it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.device.app import App
from harness.device.link import DeviceLink
from harness.errors import DeviceError, UsageError

SCHEMA = "harness.chat/1"
MAX_LINE = 1 << 20
# A turn and its escapes fit the longest line that the app takes.
MAX_TURN = 512 << 10
POLL_SECONDS = 0.2
READY_SECONDS = 30.0
SEND_SECONDS = 30.0
# How long the app may take to end once its host has left: it unloads the model.
END_SECONDS = 30.0
_RECEIVE = 1 << 16


@dataclass(frozen=True)
class ChatSettings:
    """How answers are made. Raises `UsageError` for values that no model can take."""

    system: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        # Written so that NaN, which compares with nothing, is refused too.
        if not 0 <= self.temperature <= 100:
            raise UsageError(f"--temperature must be 0 to 100, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p must be above 0 and at most 1, not {self.top_p}")


@dataclass(frozen=True)
class Ready:
    """The app has the model and listens to its host."""

    model: str
    quantization: str
    backend: str
    threads: int
    context: int


@dataclass(frozen=True)
class Piece:
    """The next text of the answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The answer is complete. Times are of the device's clock, in nanoseconds."""

    reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_token_ns: int | None
    prefill_ns: int
    decode_ns: int
    context_used: int


@dataclass(frozen=True)
class Refused:
    """The app could not do it; the chat goes on."""

    kind: str
    message: str


@dataclass(frozen=True)
class Forgotten:
    """The conversation is empty again."""


Event = Ready | Piece | Done | Refused | Forgotten


class Chat:
    """The host's end of a chat that is ready for turns.

    Every call raises `DeviceError` once the app or the connection to it is gone.
    """

    def __init__(self, connection: socket.socket, serial: str, run: _Run) -> None:
        self._connection = connection
        self._serial = serial
        self._run = run
        self._pending = bytearray()
        connection.settimeout(READY_SECONDS)
        first = self.receive()
        while not first:
            first = self.receive()
        # Nothing was asked yet, so nothing can follow.
        if len(first) > 1 or not isinstance(first[0], Ready):
            raise _not_understood(serial, f"it began with {first}")
        self.ready = first[0]

    def fileno(self) -> int:
        """For `select`: readable when `receive` has something to give."""
        return self._connection.fileno()

    def turn(self, text: str) -> None:
        """Say something to the model; pieces and `Done` follow, or `Refused`."""
        self._send({"t": "turn", "text": text})

    def stop(self) -> None:
        """End the answer that is being given; its `Done` follows."""
        self._send({"t": "stop"})

    def reset(self) -> None:
        """Forget the conversation; `Forgotten` follows."""
        self._send({"t": "reset"})

    def receive(self) -> list[Event]:
        """What has come, waiting for some bytes where there are none yet."""
        try:
            data = self._connection.recv(_RECEIVE)
        except OSError as problem:
            raise self._run.failure(self._serial, str(problem)) from problem
        if not data:
            raise self._run.failure(self._serial, "the app closed the connection")
        self._pending += data
        *lines, rest = self._pending.split(b"\n")
        self._pending = rest
        if len(rest) > MAX_LINE:
            raise _not_understood(self._serial, f"a line of more than {MAX_LINE} bytes")
        return [self._read(bytes(line)) for line in lines]

    def _read(self, line: bytes) -> Event:
        try:
            return _event(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            cause = f"{line[:80]!r}: {type(problem).__name__} {problem}"
            raise _not_understood(self._serial, cause) from problem

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._connection.settimeout(SEND_SECONDS)
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as problem:
            raise self._run.failure(self._serial, str(problem)) from problem

    def close(self) -> None:
        """Leave the chat; the app ends."""
        with contextlib.suppress(OSError):
            self._connection.sendall(b'{"t":"bye"}\n')
        self._connection.close()


def _event(message: Mapping[str, Any]) -> Event:
    match message["t"]:
        case "piece":
            return Piece(str(message["text"]))
        case "done":
            usage, timings = message["usage"], message["timings"]
            first = timings["first_token_ns"]
            return Done(
                reason=str(message["reason"]),
                prompt_tokens=int(usage["prompt_tokens"]),
                cached_tokens=int(usage["cached_tokens"]),
                completion_tokens=int(usage["completion_tokens"]),
                first_token_ns=None if first is None else int(first),
                prefill_ns=int(timings["prefill_ns"]),
                decode_ns=int(timings["decode_ns"]),
                context_used=int(message["context_used"]),
            )
        case "error":
            return Refused(str(message["kind"]), str(message["message"]))
        case "reset":
            return Forgotten()
        case "ready" if message["schema"] == SCHEMA:
            return Ready(
                model=str(message["model"]),
                quantization=str(message["quantization"]),
                backend=str(message["backend"]),
                threads=int(message["threads"]),
                context=int(message["context"]),
            )
    raise ValueError(f"not a message of {SCHEMA}")


@contextlib.contextmanager
def open_chat(
    link: DeviceLink,
    app: App,
    settings: ChatSettings,
    *,
    on_status: Callable[[str], None],
) -> Iterator[Chat]:
    """A chat with the app, which is started for it and ends with the block.

    For who holds the device's lock. Raises `DeviceError` where the app does not come up.
    """
    # Nobody can guess the name, and two chats do not meet.
    name = f"harness-chat-{secrets.token_hex(8)}"
    chosen = {"schema": SCHEMA, "socket": name, **asdict(settings)}
    with link.forward(f"localabstract:{name}") as port:
        run = _Run(app, chosen, on_status)
        connected = False
        try:
            run.wait_until_listening(link.serial)
            connection = _connect(port, link.serial, run)
            with contextlib.closing(connection):
                chat = Chat(connection, link.serial, run)
                connected = True
                with contextlib.closing(chat):
                    yield chat
        finally:
            run.end(app, patience=END_SECONDS if connected else 0)


def _connect(port: int, serial: str, run: _Run) -> socket.socket:
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=READY_SECONDS)
    except OSError as problem:
        raise run.failure(serial, str(problem)) from problem
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class _Run:
    """The app's run, followed in a thread while the chat goes on in the caller's."""

    def __init__(
        self, app: App, settings: Mapping[str, Any], on_status: Callable[[str], None]
    ) -> None:
        self._listening = threading.Event()
        self._ended = threading.Event()
        self._problem: BaseException | None = None

        def status(text: str) -> None:
            if text == "listening":
                self._listening.set()
            elif not self._listening.is_set():
                on_status(text)

        def follow() -> None:
            try:
                app.chat(settings, status)
            except BaseException as problem:
                self._problem = problem
            finally:
                self._ended.set()

        threading.Thread(target=follow, daemon=True, name="chat").start()

    def wait_until_listening(self, serial: str) -> None:
        """Raises `DeviceError` if the app ends before it listens; itself it takes any time."""
        while not self._listening.wait(POLL_SECONDS):
            if self._ended.is_set():
                raise self.failure(serial, "the app ended before it listened")

    def failure(self, serial: str, seen: str) -> BaseException:
        """Why the chat broke off: the run knows more than the socket, where `seen` was."""
        self._ended.wait(END_SECONDS)
        return self._problem or DeviceError(
            f"the chat with {serial} broke off",
            cause=seen,
            remedy=f"harness devices   # is {serial} there?",
        )

    def end(self, app: App, *, patience: float) -> None:
        """Wait for the app to end by itself, else end it."""
        if not self._ended.wait(patience):
            with contextlib.suppress(DeviceError):
                app.force_stop()
            self._ended.wait(END_SECONDS)


def _not_understood(serial: str, cause: str) -> DeviceError:
    return DeviceError(
        f"the chat with {serial} is not understood",
        cause=cause,
        remedy=f"harness deploy MODEL -s {serial}   # installs the matching app",
    )
