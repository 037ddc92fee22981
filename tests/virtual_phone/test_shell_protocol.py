"""Shell v2: packets survive any cutting of the stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.virtual_phone import shell_protocol
from harness.virtual_phone.shell_protocol import Unpacker, WindowSize
from harness.virtual_phone.shell_service import ShellRequest

packets = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


@given(packets, st.lists(st.integers(1, 40), max_size=50))
def test_packets_come_back_however_the_stream_is_cut(
    sent: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(shell_protocol.pack(kind, data) for kind, data in sent)
    unpacker = Unpacker()
    received: list[tuple[int, bytes]] = []
    for cut in cuts:
        received += unpacker.feed(stream[:cut])
        stream = stream[cut:]
    received += unpacker.feed(stream)
    assert received == sent


sizes = st.integers(0, 65535)


@given(sizes, sizes, sizes, sizes)
def test_a_window_size_is_read(rows: int, columns: int, width: int, height: int) -> None:
    text = f"{rows}x{columns},{width}x{height}\0".encode()
    assert WindowSize.parse(text) == WindowSize(rows, columns, width, height)


@given(st.binary(max_size=40))
def test_another_text_is_no_window_size(text: bytes) -> None:
    size = WindowSize.parse(text)
    assert size is None or len(size.pack()) == 8


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exec:cat x", ShellRequest("cat x", packets=False, terminal=False)),
        ("shell:ls", ShellRequest("ls", packets=False, terminal=False)),
        ("shell:", ShellRequest("", packets=False, terminal=True)),
        ("shell,v2,raw:a:b", ShellRequest("a:b", packets=True, terminal=False)),
        ("shell,v2,raw:", ShellRequest("", packets=True, terminal=False)),
        (
            "shell,v2,TERM=xterm,pty:",
            ShellRequest("", packets=True, terminal=True, terminal_name="xterm"),
        ),
    ],
)
def test_the_name_of_a_shell_service_tells_what_is_asked_for(
    name: str, expected: ShellRequest
) -> None:
    assert ShellRequest.parse(name) == expected
