"""elf reads what a loader reads, and calls everything else damaged."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import StageFailed
from harness.tools import elf


@pytest.fixture(scope="module")
def library() -> Path:
    """A shared library that is on every machine with the harness: tvm-ffi's own."""
    spec = importlib.util.find_spec("tvm_ffi")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "lib" / "libtvm_ffi.so"


def test_a_library_says_what_it_is_and_what_it_needs(library: Path) -> None:
    facts = elf.read(library)
    assert facts.soname == "libtvm_ffi.so"
    assert "libc.so.6" in facts.needed
    assert "TVMFFIFunctionCall" in facts.exports
    assert "memcpy" in facts.imports | facts.weak_imports
    assert not facts.exports & facts.imports
    assert facts.alignments


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("not a library")
    with pytest.raises(StageFailed, match="cannot read the shared library"):
        elf.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="cannot read"):
        elf.read(tmp_path / "none.so")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    length=st.integers(0, 1 << 16),
    changes=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_library_is_read_or_refused(
    length: int,
    changes: list[tuple[int, int]],
    library: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    damaged = bytearray(library.read_bytes()[:length])
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    path = tmp_path_factory.mktemp("elf") / "damaged.so"
    path.write_bytes(damaged)
    with contextlib.suppress(StageFailed):
        elf.read(path)
