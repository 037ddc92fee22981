"""What a package is said to need is what it then uses, and a budget is kept."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compiler import host
from harness.compiler.packages import memory
from harness.compiler.packages.memory import MIB, Footprint
from harness.compiler.packages.package import read_package
from harness.errors import UsageError
from harness.recipes import Recipe

BYTES = st.integers(0, 1 << 34)
FOOTPRINTS = st.builds(
    Footprint,
    weights=BYTES,
    workspace=BYTES,
    overhead=BYTES,
    kv_bytes_per_token=st.integers(1, 1 << 20),
)
runs_here = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="packages run on an x86_64 host"
)


@given(footprint=FOOTPRINTS, budget=st.integers(0, 1 << 36))
def test_the_largest_context_fits_and_one_page_more_does_not(
    footprint: Footprint, budget: int
) -> None:
    most = footprint.largest_context(budget)
    assert most % 16 == 0
    assert most == 0 or footprint.total(most) <= budget
    assert footprint.total(most + 16) > budget


@given(footprint=FOOTPRINTS, context=st.integers(1, 1 << 17))
def test_the_parts_of_a_footprint_make_its_total(footprint: Footprint, context: int) -> None:
    document = footprint.document(context)
    parts = ("weights", "kv_cache", "workspace", "overhead")
    assert document["total"] == sum(document[name] for name in parts)
    assert document["kv_cache"] >= context * footprint.kv_bytes_per_token


SMALL = Footprint(weights=90 * MIB, workspace=5 * MIB, overhead=MIB, kv_bytes_per_token=1 << 14)


def within(context: int, budget: int, *, may_shrink: bool = True) -> int:
    return memory.context_within(
        SMALL, context, least=256, may_shrink=may_shrink, budget=budget * MIB
    )


def test_a_context_that_fits_stays() -> None:
    assert within(4096, 200) == 4096


def test_a_context_that_does_not_fit_becomes_the_largest_that_does() -> None:
    assert within(4096, 128) == SMALL.largest_context(128 * MIB) == 2032


def test_a_context_that_was_asked_for_is_refused_with_its_numbers_and_what_would_fit() -> None:
    with pytest.raises(UsageError, match="160 MiB do not fit the budget of 128 MiB") as caught:
        within(4096, 128, may_shrink=False)
    assert "weights 90.0, KV cache of 4096 tokens 64.2, workspace 5.0" in caught.value.cause
    assert caught.value.remedy == "--context 2032"


def test_a_budget_that_leaves_no_room_for_one_step_is_refused_with_what_would_do() -> None:
    with pytest.raises(UsageError) as caught:
        within(4096, 97)
    assert caught.value.remedy.startswith("--memory-budget 101,")
    assert within(4096, 101) >= 256


@runs_here
def test_a_tiny_package_uses_what_was_predicted(
    write_gguf: Callable[..., Path], compiled: Callable[..., Path]
) -> None:
    """Its context is long, so that it is the cache and the buffers that count."""

    def long_context(writer: Any) -> None:
        writer.kv_data[0].pop("llama.context_length")
        writer.add_context_length(4096)

    path = write_gguf(change=long_context)
    package = compiled(path, "q0f32", context=4096, prefill_chunk=512)
    assert host.memory_used(package) == pytest.approx(predicted(package), rel=0.1)


@runs_here
def test_smollm2_uses_what_was_predicted(
    smollm2: tuple[Recipe, Path], compiled: Callable[..., Path]
) -> None:
    package = compiled(smollm2[1], "q4f16_gguf")
    assert host.memory_used(package) == pytest.approx(predicted(package), rel=0.1)


def predicted(package: Path) -> int:
    total: int = read_package(package).facts["memory"]["total"]
    return total
