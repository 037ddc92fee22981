"""What the virtual machine has to do for a token, read from its own code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.compiler.architectures import decoder
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.model_config import DecoderConfig, Rope
from harness.errors import UsageError

ATTENTION = "vm.builtin.attention_kv_cache_attention_with_fused_qkv"


def llama(layers: int) -> DecoderConfig:
    return DecoderConfig(
        "llama", 64, 96, layers, 4, 2, 16, 272, 1e-5, 512, True, 0.25, Rope(10000.0)
    )


def gemma3(layers: int) -> DecoderConfig:
    return replace(
        llama(layers),
        family="gemma3",
        local_rope=Rope(100.0),
        sliding_window=16,
        windowed_layers=(True,) * (layers - 1) + (False,),
    )


def decode_calls(config: DecoderConfig, fmt: WeightFormat) -> tuple[Counter[str], dict[str, int]]:
    """How often `decode` calls each function, and the bytes that each function plans."""
    import tvm
    from tvm import relax

    from harness.compiler.graph import Graph
    from harness.compiler.passes import pipeline

    formats = {item.name: fmt for item in decoder(config).matrices()}
    module = Graph(config, formats, "float16", Isa.X86_64_V2).module(64)
    planned: dict[str, int] = {}

    def metadata(found: dict[str, int]) -> str:
        planned.update(found)
        return "{}"

    target = tvm.target.Target(Isa.X86_64_V2.target())
    with target:
        text = str(relax.build(module, target, relax_pipeline=pipeline(metadata)).as_text())
    body = text.partition("@decode:")[2].partition("@")[0]
    return Counter(re.findall(r"^  call +(\S+)", body, re.MULTILINE)), planned


def growth(
    model: Callable[[int], DecoderConfig], fmt: WeightFormat
) -> tuple[Counter[str], Counter[str]]:
    """What two more layers add to the calls of `decode`, and all calls of four."""
    two, planned = decode_calls(model(2), fmt)
    four, planned_four = decode_calls(model(4), fmt)
    assert planned["decode"] == planned_four["decode"] > 0
    grown: Counter[str] = Counter()
    for name, count in (four - two).items():
        grown[re.sub(r"\d+$", "", name)] += count
    return grown, four


@pytest.mark.parametrize("fmt", [WeightFormat.Q4_1, WeightFormat.Q4_SYM_F16])
def test_a_layer_costs_its_kernels_and_its_parameters_and_nothing_else(fmt: WeightFormat) -> None:
    grown, _ = growth(llama, fmt)
    parameters = 2 + 4 * (3 if fmt == WeightFormat.Q4_1 else 2)
    assert grown == {
        "rms_norm_quantize": 4,
        "matmul": 6,
        "gated_matmul": 2,
        "quantize": 4,
        ATTENTION: 2,
        "vm.builtin.tuple_getitem": 2 * parameters,
    }


def test_a_layer_that_rotates_its_heads_costs_one_kernel_more_and_positions_come_once() -> None:
    grown, calls = growth(gemma3, WeightFormat.Q4_SYM_F16)
    assert grown == {
        "rms_norm_quantize": 4,
        "norm_add": 4,
        "matmul": 6,
        "gated_matmul": 2,
        "quantize": 4,
        "_rotary": 2,
        ATTENTION: 2,
        "vm.builtin.tuple_getitem": 2 * (6 + 4 * 2),
    }
    assert calls["vm.builtin.attention_kv_cache_get_query_positions"] == 1


def test_heads_that_no_kernel_serves_are_refused() -> None:
    from harness.compiler.graph import Graph

    config = replace(llama(1), head_dim=24)
    formats = {item.name: WeightFormat.F32 for item in decoder(config).matrices()}
    with pytest.raises(UsageError, match="attention kernels") as problem:
        Graph(config, formats, "float32", Isa.X86_64_V2)
    assert "12 rotated pairs" in str(problem.value.cause)


def test_working_memory_is_planned_for_the_longest_chunk() -> None:
    _, planned = decode_calls(llama(2), WeightFormat.Q4_1)
    assert planned["prefill"] >= 64 * planned["decode"] / 2
    assert planned["prefill"] < 64 * 4 * 4 * 272
