"""The shell protocol's codec, quoting, and the sync service against a strict peer."""

from __future__ import annotations

import io
import shlex
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.device import server, shell, sync
from harness.device.link import quote

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(words, min_size=1))
def test_a_quoted_command_reads_back_unchanged(argv: list[str]) -> None:
    assert shlex.split(quote(argv)) == argv


@pytest.mark.parametrize("argv", [[], ["a\0b"]])
def test_what_no_shell_can_take_is_refused(argv: list[str]) -> None:
    with pytest.raises(ValueError, match="not a command line"):
        quote(argv)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(data[position : position + size])
        position += size
    return [*pieces, data[position:]]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=100))),
    st.lists(st.integers(0, 40)),
)
def test_packets_survive_any_fragmentation(
    packets: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    data = b"".join(shell.packet(stream, body) for stream, body in packets)
    reader = shell.PacketReader()
    assert [one for piece in cut(data, sizes) for one in reader.feed(piece)] == packets


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r")), st.lists(st.integers(0, 9)))
def test_lines_survive_any_fragmentation(text: str, sizes: list[int]) -> None:
    splitter = shell.LineSplitter()
    lines = [line for piece in cut(text.encode(), sizes) for line in splitter.feed(piece)]
    lines += splitter.finish()
    assert lines == (text.removesuffix("\n").split("\n") if text else [])


def peer(answer: bytes) -> tuple[socket.socket, threading.Thread]:
    """A connection whose other end sends `answer` at once and then reads until the end."""
    near, far = socket.socketpair()
    near.settimeout(5)

    def serve() -> None:
        with far:
            far.sendall(answer)
            while far.recv(1 << 16):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return near, thread


def test_a_push_reports_the_devices_reason_before_it_is_all_sent() -> None:
    reason = b"write failed: No space left on device"
    near, thread = peer(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
    sent: list[int] = []
    with near:
        # Wait for the answer, so that the first look finds it.
        near.recv(1, socket.MSG_PEEK)
        with pytest.raises(sync.Failed, match="No space left"):
            sync.send_file(near, io.BytesIO(bytes(1 << 22)), "/data/x", progress=sent.append)
    assert sent == []
    thread.join()


def test_a_push_is_not_done_before_the_device_says_so() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.shutdown(socket.SHUT_WR)
        near.settimeout(5)
        with pytest.raises(server.Broken):
            sync.send_file(near, io.BytesIO(b"x"), "/data/x")


@given(st.binary(max_size=300_000))
def test_a_pull_gives_what_the_device_sends(data: bytes) -> None:
    blocks = [data[start : start + sync.DATA_MAX] for start in range(0, len(data), sync.DATA_MAX)]
    answer = b"".join(struct.pack("<4sI", b"DATA", len(block)) + block for block in blocks)
    near, thread = peer(answer + struct.pack("<4sI", b"DONE", 0))
    with near:
        assert b"".join(sync.receive_file(near, "/data/x")) == data
    thread.join()


@pytest.mark.parametrize("answer", [b"", b"DATA", struct.pack("<4sI", b"DATA", 9) + b"x"])
def test_a_pull_that_breaks_off_is_broken(answer: bytes) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        far.sendall(answer)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(server.Broken):
            list(sync.receive_file(near, "/data/x"))


def test_a_stream_without_an_exit_code_is_broken() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(shell.packet(shell.STDOUT, b"one\ntw"))
        far.shutdown(socket.SHUT_WR)
        stream = shell.ShellStream(near)
        lines = stream.lines(5)
        assert next(lines) == "one"
        with pytest.raises(server.Broken):
            next(lines)


def test_a_stream_can_be_read_on_after_a_silence() -> None:
    near, far = socket.socketpair()
    with near, far:
        stream = shell.ShellStream(near)
        far.sendall(shell.packet(shell.STDOUT, b"one\ntw"))
        lines = stream.lines(0.05)
        assert next(lines) == "one"
        with pytest.raises(TimeoutError):
            next(lines)
        far.sendall(shell.packet(shell.STDOUT, b"o\r\nend") + shell.packet(shell.EXIT, b"\3"))
        assert list(stream.lines(5)) == ["two", "end"]
        assert stream.exit_code == 3


def test_closing_a_stream_ends_its_reader() -> None:
    near, far = socket.socketpair()
    with far:
        stream = shell.ShellStream(near)
        threading.Timer(0.1, stream.close).start()
        assert list(stream.lines()) == []
