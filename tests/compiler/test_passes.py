"""What the virtual machine has to do for a token, read from its own code."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from harness.compiler.architectures import decoder
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.model_config import DecoderConfig, Rope


def decode_calls(layers: int, fmt: WeightFormat) -> tuple[Counter[str], dict[str, int]]:
    """How often `decode` calls each function, and the bytes that each function plans."""
    import tvm
    from tvm import relax

    from harness.compiler.graph import Graph
    from harness.compiler.passes import pipeline

    config = DecoderConfig(
        "llama", 64, 96, layers, 4, 2, 16, 272, 1e-5, 512, True, 0.25, Rope(10000.0)
    )
    formats = {item.name: fmt for item in decoder(config).matrices()}
    module = Graph(config, formats, "float16", Isa.X86_64_V3).module(64)
    planned: dict[str, int] = {}

    def metadata(found: dict[str, int]) -> str:
        planned.update(found)
        return "{}"

    target = tvm.target.Target(Isa.X86_64_V3.target())
    with target:
        text = str(relax.build(module, target, relax_pipeline=pipeline(metadata)).as_text())
    body = text.partition("@decode:")[2].partition("@")[0]
    return Counter(re.findall(r"^  call +(\S+)", body, re.MULTILINE)), planned


@pytest.mark.parametrize("fmt", [WeightFormat.Q4_1, WeightFormat.Q4_SYM_F16])
def test_a_layer_costs_its_kernels_and_its_parameters_and_nothing_else(fmt: WeightFormat) -> None:
    two, planned = decode_calls(2, fmt)
    four, planned_four = decode_calls(4, fmt)
    kernels = {"rms_norm_quantize": 2, "matmul": 3, "gated_matmul": 1, "quantize": 2}
    grown = Counter({re.sub(r"\d+$", "", name): 0 for name in four})
    for name, count in (four - two).items():
        grown[re.sub(r"\d+$", "", name)] += count
    parameters = 2 + 4 * (3 if fmt is WeightFormat.Q4_1 else 2)
    expected = {name: 2 * count for name, count in kernels.items()}
    expected["vm.builtin.attention_kv_cache_attention_with_fused_qkv"] = 2
    expected["vm.builtin.tuple_getitem"] = 2 * parameters
    assert {name: count for name, count in grown.items() if count} == expected
    assert planned["decode"] == planned_four["decode"] > 0


def test_working_memory_is_planned_for_the_longest_chunk() -> None:
    _, planned = decode_calls(2, WeightFormat.Q4_1)
    assert planned["prefill"] >= 64 * planned["decode"] / 2
    assert planned["prefill"] < 64 * 4 * 4 * 272
