"""The host's end of a chat, against apps that say anything at all."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.device import chat as chats
from harness.device.chat import (
    Chat,
    ChatSettings,
    Done,
    Forgotten,
    Piece,
    Ready,
    Refused,
    open_chat,
)
from harness.errors import DeviceError, UsageError

READY = {
    "t": "ready",
    "schema": "harness.chat/1",
    "model": "tiny",
    "quantization": "q0f32",
    "backend": "cpu",
    "threads": 2,
    "context": 64,
}
DONE = {
    "t": "done",
    "reason": "stop",
    "usage": {"prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 3},
    "timings": {"first_token_ns": 7, "prefill_ns": 8, "decode_ns": 9},
    "context_used": 8,
}


class TalkingApp:
    """Both the link and the app: a real socket, on whose other end `script` plays the app."""

    serial = "fake"

    def __init__(self, script: Callable[[socket.socket], None], fails: str = "") -> None:
        self._script = script
        self._fails = fails
        self._server = socket.create_server(("127.0.0.1", 0))
        self.settings: dict[str, Any] = {}
        self.forwarded = ""
        self.stopped = False
        self.ended = threading.Event()

    @contextlib.contextmanager
    def forward(self, remote: str) -> Iterator[int]:
        self.forwarded = remote
        yield self._server.getsockname()[1]
        self.forwarded = ""
        self._server.close()

    def chat(self, settings: dict[str, Any], on_status: Callable[[str], None]) -> None:
        self.settings = settings
        on_status("loading tiny")
        if self._fails == "load":
            raise DeviceError("the model is damaged", cause="c", remedy="r")
        on_status("listening")
        connection, _ = self._server.accept()
        with connection:
            self._script(connection)
        self.ended.set()
        if self._fails == "later":
            raise DeviceError("the app crashed", cause="SIGSEGV", remedy="r")

    def force_stop(self) -> None:
        self.stopped = True


def lines(*messages: Any) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


@contextlib.contextmanager
def opened(app: Any, **settings: Any) -> Iterator[Chat]:
    with open_chat(app, app, ChatSettings(**settings), on_status=lambda _: None) as chat:
        yield chat


def everything(chat: Chat, last: type) -> list[Any]:
    events: list[Any] = []
    while not events or not isinstance(events[-1], last):
        events += chat.receive()
    return events


def test_a_turn_brings_its_pieces_and_how_it_was() -> None:
    asked: list[Any] = []

    def script(host: socket.socket) -> None:
        said = host.makefile("rb")
        host.sendall(lines(READY))
        asked.append(json.loads(said.readline()))
        # Lines come in any pieces.
        for byte in lines({"t": "piece", "text": "Grüß"}, {"t": "piece", "text": " Gott"}, DONE):
            host.sendall(bytes([byte]))
        asked.append(json.loads(said.readline()))
        host.sendall(lines({"t": "reset"}))
        asked.extend(json.loads(line) for line in said)

    app = TalkingApp(script)
    with opened(app, temperature=0.5, seed=3) as chat:
        assert chat.ready == Ready("tiny", "q0f32", "cpu", 2, 64)
        assert app.forwarded == f"localabstract:{app.settings['socket']}"
        chat.turn("hello\nworld 😀")
        assert everything(chat, Done) == [
            Piece("Grüß"),
            Piece(" Gott"),
            Done("stop", 5, 2, 3, 7, 8, 9, 8),
        ]
        chat.reset()
        assert everything(chat, Forgotten) == [Forgotten()]
        chat.stop()
    assert [one["t"] for one in asked] == ["turn", "reset", "stop", "bye"]
    assert asked[0]["text"] == "hello\nworld 😀"
    assert app.settings["schema"] == "harness.chat/1"
    assert (app.settings["temperature"], app.settings["seed"]) == (0.5, 3)
    assert app.ended.wait(30) and not app.stopped and not app.forwarded


def test_every_chat_has_a_socket_that_nobody_can_guess() -> None:
    names = set()
    for _ in range(3):
        app = TalkingApp(lambda host: host.sendall(lines(READY)))
        with opened(app):
            names.add(app.settings["socket"])
    assert len(names) == 3 and all(len(name) >= 29 for name in names)


def test_a_refusal_is_an_event_and_the_chat_goes_on() -> None:
    def script(host: socket.socket) -> None:
        error = {"t": "error", "kind": "context-full", "message": "no room"}
        host.sendall(lines(READY))
        host.recv(1 << 16)
        host.sendall(lines(error, DONE))

    with opened(TalkingApp(script)) as chat:
        chat.turn("hello")
        assert everything(chat, Done)[0] == Refused("context-full", "no room")


def test_a_model_that_does_not_load_is_the_apps_own_error() -> None:
    with (
        pytest.raises(DeviceError, match="the model is damaged"),
        opened(TalkingApp(lambda host: None, fails="load")),
    ):
        raise AssertionError("it was opened")


@pytest.mark.parametrize("fails", ["", "later"])
def test_an_app_that_goes_away_is_an_error_with_the_apps_reason_if_it_has_one(fails: str) -> None:
    app = TalkingApp(lambda host: host.sendall(lines(READY)), fails=fails)
    words = "the app crashed" if fails else "the chat with fake broke off"
    with pytest.raises(DeviceError, match=words), opened(app) as chat:
        while True:
            chat.receive()


def test_an_app_that_never_answers_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "READY_SECONDS", 0.2)
    monkeypatch.setattr(chats, "END_SECONDS", 0.2)
    release = threading.Event()
    app = TalkingApp(lambda host: release.wait(20) and None)
    with pytest.raises(DeviceError, match="broke off"), opened(app):
        raise AssertionError("it was opened")
    assert app.stopped
    release.set()


NOT_A_CHAT = [
    b"\xff\xfe\n",
    b"[1, 2]\n",
    b"null\n",
    lines({"t": "unknown"}),
    lines({**READY, "schema": "harness.chat/2"}),
    lines({**READY, "threads": "many"}),
    lines({"t": "piece", "text": "before anything"}),
    lines(READY, {"t": "piece", "text": "before a turn"}),
    b"[" * 100_000 + b"\n",
    b"x" * (chats.MAX_LINE + 1),
]


@pytest.mark.parametrize("said", NOT_A_CHAT, ids=range(len(NOT_A_CHAT)))
def test_what_is_no_chat_is_one_clear_error(said: bytes) -> None:
    def script(host: socket.socket) -> None:
        with contextlib.suppress(OSError):
            host.sendall(said)
            host.recv(1)

    with pytest.raises(DeviceError, match="not understood"), opened(TalkingApp(script)):
        raise AssertionError("it was opened")


@given(
    said=st.binary(max_size=300)
    | st.lists(st.sampled_from([READY, DONE])).map(lambda messages: lines(*messages))
)
def test_no_bytes_of_an_app_are_a_traceback(said: bytes) -> None:
    def script(host: socket.socket) -> None:
        with contextlib.suppress(OSError):
            host.sendall(said)

    with contextlib.suppress(DeviceError), opened(TalkingApp(script)) as chat:
        while True:
            chat.receive()


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 2.0}],
)
def test_settings_that_no_model_takes_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--t"):
        ChatSettings(**settings)
