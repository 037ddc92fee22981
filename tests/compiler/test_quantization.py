from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from harness.compiler import quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoint import Checkpoint, open_checkpoint
from harness.compiler.kernels import layout
from harness.errors import UsageError

Q = gguf.GGMLQuantizationType


def matrices(checkpoint: Checkpoint) -> list[Matrix]:
    return decoder(checkpoint.config).matrices()


@pytest.mark.parametrize("matrix", [Q.Q4_0, Q.Q4_1, Q.Q8_0])
@pytest.mark.parametrize("table", [Q.Q4_1, Q.Q8_0])
def test_q4f16_gguf_keeps_every_value_of_the_file(
    write_gguf: Callable[..., Path], matrix: Q, table: Q
) -> None:
    checkpoint = open_checkpoint(write_gguf(matrix=matrix, table=table))
    exact = quantization.find("q4f16_gguf")
    for item in matrices(checkpoint):
        sources = [checkpoint.tensors[name] for name in item.sources]
        fmt = exact.choose(sources)
        plain = layout.unpack(fmt, layout.pack(fmt, exact.convert(sources)), item.rows)
        expected = np.concatenate([source.values() for source in sources])
        assert np.array_equal(layout.dequantize(fmt, plain), expected), item.name


def test_q4f16_gguf_refuses_types_that_it_cannot_keep(write_gguf: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(write_gguf(matrix=Q.F16))
    exact = quantization.find("q4f16_gguf")
    with pytest.raises(UsageError, match="F16") as caught:
        exact.choose([checkpoint.tensors["model.layers.0.mlp.down_proj.weight"]])
    assert caught.value.remedy == "--quant q4f16_1"


@pytest.mark.parametrize(("name", "limit"), [("q4f16_1", 0.51), ("q4f32_1", 0.501)])
def test_symmetric_four_bits_are_within_half_a_step(
    tiny_gguf: Path, name: str, limit: float
) -> None:
    checkpoint = open_checkpoint(tiny_gguf)
    chosen = quantization.find(name)
    for item in matrices(checkpoint):
        sources = [checkpoint.tensors[source] for source in item.sources]
        fmt = chosen.choose(sources)
        plain = chosen.convert(sources)
        expected = np.concatenate([source.values() for source in sources])
        steps = plain["q_scale"].astype(np.float32).repeat(layout.GROUP, axis=1)
        error = np.abs(layout.dequantize(fmt, plain) - expected)
        assert (error <= limit * steps).all(), item.name


def test_a_group_of_zeros_stays_zero() -> None:
    from harness.compiler.quantization.symmetric import _quantize

    words, scales = _quantize(np.zeros((2, 64), np.float32), "float16")
    plain = {"q_weight": words, "q_scale": scales}
    assert not layout.dequantize(layout.WeightFormat.Q4_SYM_F16, plain).any()


def test_q0f32_keeps_every_value(tiny_gguf: Path) -> None:
    checkpoint = open_checkpoint(tiny_gguf)
    for item in matrices(checkpoint):
        sources = [checkpoint.tensors[name] for name in item.sources]
        plain = quantization.find("q0f32").convert(sources)
        assert np.array_equal(plain["weight"], np.concatenate([s.values() for s in sources]))


def test_an_unknown_quantization_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="q3") as caught:
        quantization.find("q3")
    assert "q4f16_gguf" in caught.value.cause
