"""What a package is said to need is what it then uses, and a budget is kept."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compiler import host
from harness.compiler.architectures import decoder
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat, packed_tensors
from harness.compiler.model_config import DecoderConfig, Rope
from harness.compiler.packages import memory
from harness.compiler.packages.describe import parameter_count
from harness.compiler.packages.memory import MIB, Footprint
from harness.compiler.packages.package import read_package
from harness.errors import UsageError
from harness.recipes import Recipe
from harness.types import Abi

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


def gemma(**sizes: Any) -> DecoderConfig:
    """A Gemma's configuration; what its memory does not depend on is left as the test models'."""
    rope = Rope(10000.0)
    return DecoderConfig(
        **{
            "head_dim": 256,
            "vocab_size": 256000,
            "rms_norm_eps": 1e-6,
            "context_window": 8192,
            "tie_word_embeddings": True,
            "query_scale": 0.0625,
            "rope": rope,
            **sizes,
        }
    )


GEMMA_2B = gemma(
    family="gemma",
    hidden_size=2048,
    intermediate_size=16384,
    num_hidden_layers=18,
    num_attention_heads=8,
    num_key_value_heads=1,
)
GEMMA_2_2B = gemma(
    family="gemma2",
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    num_attention_heads=8,
    num_key_value_heads=4,
    sliding_window=4096,
    windowed_layers=(True, False) * 13,
    attention_softcap=50.0,
    final_softcap=30.0,
)


def planned_buffers(config: DecoderConfig, fmt: WeightFormat, prefill_chunk: int) -> dict[str, int]:
    """The working memory that each function of the model's library plans; nothing is compiled."""
    import tvm

    from harness.compiler.graph import Graph
    from harness.compiler.passes import pipeline

    formats = {item.name: fmt for item in decoder(config).matrices()}
    found: dict[str, int] = {}

    def metadata(planned: dict[str, int]) -> str:
        found.update(planned)
        return "{}"

    isa = Isa.of(Abi.ARM64)[0]
    with tvm.target.Target(isa.target()):
        pipeline(metadata)(Graph(config, formats, "float16", isa).module(prefill_chunk))
    return found


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(GEMMA_2B, 2_506_172_416), (GEMMA_2_2B, 2_614_341_888)],
    ids=["gemma", "gemma-2"],
)
def test_a_model_of_two_billion_parameters_fits_two_gib(
    config: DecoderConfig, parameters: int
) -> None:
    """In four bits and with 4096 tokens of context, if it uses what tiny models do use."""
    assert parameter_count(config) == parameters
    fmt = WeightFormat.Q4_SYM_F16
    weights = sum(
        math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        for item in decoder(config).matrices()
        for tensor in packed_tensors(fmt, item.rows, item.columns)
    )
    prediction = memory.footprint(
        config,
        kv_dtype="float16",
        prefill_chunk=256,
        weights_bytes=weights,
        planned=[planned_buffers(config, fmt, 256)],
        library_bytes=4 * MIB,
    )
    assert 1024 * MIB < prediction.total(4096) < 2048 * MIB
