from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest

from harness.compiler import quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.decoder import EMBEDDING
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.checkpoint import Checkpoint, CheckpointTensor
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.quantization import exact, symmetric
from harness.errors import UsageError

Q = gguf.GGMLQuantizationType


def matrices(checkpoint: Checkpoint) -> list[Matrix]:
    return decoder(checkpoint.config).matrices()


def sources(checkpoint: Checkpoint, item: Matrix) -> list[CheckpointTensor]:
    return [checkpoint.tensors[name] for name in item.sources]


def values(checkpoint: Checkpoint, item: Matrix) -> np.ndarray:
    return np.concatenate([source.values() for source in sources(checkpoint, item)])


def stored(checkpoint: Checkpoint, item: Matrix, fmt: WeightFormat) -> np.ndarray:
    """What is read back of a matrix that was stored and packed."""
    packed = layout.pack(fmt, quantization.store(fmt, sources(checkpoint, item)))
    return layout.dequantize(fmt, layout.unpack(fmt, packed, item.rows))[:, : item.columns]


def rounded_the_long_way(weights: np.ndarray, bits: int, group: int, kind: type) -> np.ndarray:
    """MLC's rule, value by value, each step in the type `kind`."""
    zero = kind(2 ** (bits - 1) - 1)
    found = np.zeros(weights.shape)
    for row in range(len(weights)):
        for start in range(0, weights.shape[1], group):
            here = slice(start, start + group)
            part = weights[row, here].astype(kind)
            scale = kind(np.abs(part).max() / zero)
            for column, value in enumerate(part, start):
                if scale:
                    step = float(np.rint(kind(kind(value / scale) + zero)))
                    kept = min(max(step, 0.0), 2.0 * float(zero)) - float(zero)
                    found[row, column] = kept * float(scale)
    return found


@pytest.mark.parametrize("matrix", [Q.Q4_0, Q.Q4_1, Q.Q8_0, Q.F16, Q.BF16, Q.F32])
@pytest.mark.parametrize("table", [Q.Q4_1, Q.Q8_0])
def test_q4f16_gguf_keeps_every_value_of_the_file(
    write_gguf: Callable[..., Path], matrix: Q, table: Q
) -> None:
    checkpoint = open_checkpoint(write_gguf(matrix=matrix, table=table))
    chosen = quantization.find("q4f16_gguf")
    formats = chosen.formats(checkpoint)
    for item in matrices(checkpoint):
        found = stored(checkpoint, item, formats[item.name])
        assert np.array_equal(found, values(checkpoint, item)), item.name
    assert chosen.not_kept(checkpoint, formats) == {}


def test_q4f16_gguf_keeps_other_types_in_float16_and_says_so(
    write_gguf: Callable[..., Path],
) -> None:
    checkpoint = open_checkpoint(write_gguf(matrix=Q.Q5_0, table=Q.Q8_0))
    chosen = quantization.find("q4f16_gguf")
    formats = chosen.formats(checkpoint)
    down = next(item for item in matrices(checkpoint) if item.name.endswith("0.mlp.down_proj"))
    assert formats[down.name] == WeightFormat.F16
    expected = values(checkpoint, down)
    assert np.allclose(stored(checkpoint, down, WeightFormat.F16), expected, rtol=2**-11, atol=0)
    told = chosen.not_kept(checkpoint, formats)
    assert told["model.layers.0.mlp.down_proj.weight"] == "Q5_0 as f16"
    assert EMBEDDING + ".weight" not in told


def test_stacked_tensors_go_to_the_smallest_form_that_holds_all_of_them() -> None:
    kinds = {
        ("Q4_0", "Q4_1"): WeightFormat.Q4_1,
        ("Q4_0", "Q8_0"): WeightFormat.Q8_0,
        ("Q4_1", "Q8_0"): WeightFormat.F16,
        ("F16", "BF16"): WeightFormat.F32,
        ("F16", "F16"): WeightFormat.F16,
        ("Q6_K", "F32"): WeightFormat.F16,
    }
    for pair, expected in kinds.items():
        assert exact.choose([named(kind) for kind in pair]) == expected, pair


@pytest.mark.parametrize(
    ("name", "bits", "kind"),
    [
        ("q4f16_1", 4, np.float16),
        ("q4f16_0", 4, np.float16),
        ("q4f32_1", 4, np.float32),
        ("q3f16_1", 3, np.float16),
    ],
)
def test_symmetric_forms_round_as_mlc_does(
    tiny_gguf: Path, name: str, bits: int, kind: type
) -> None:
    checkpoint = open_checkpoint(tiny_gguf)
    fmt = quantization.find(name).formats(checkpoint)["model.layers.0.self_attn.o_proj"]
    item = next(item for item in matrices(checkpoint) if item.name.endswith("0.self_attn.o_proj"))
    expected = rounded_the_long_way(values(checkpoint, item), bits, fmt.group, kind)
    assert np.array_equal(stored(checkpoint, item, fmt), expected.astype(np.float32))


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("name", ["q4f16_1", "q4bf16_1", "q4f32_1", "q8f16_1"])
def test_values_are_within_half_a_step_in_every_group_size(name: str, group: int) -> None:
    fmt = quantization.find(name).weights
    assert fmt is not None
    fmt = WeightFormat(fmt.name, group)
    weights = np.random.default_rng(3).normal(size=(9, 256)).astype(np.float32)
    plain = symmetric.round_to_nearest(weights, fmt)
    steps = layout.widen(plain["q_scale"], fmt.dtype).repeat(group, axis=1)
    error = np.abs(layout.dequantize(fmt, plain) - weights)
    # A scale in bfloat16 may be so small that the largest value is cut off: 127/128 of it.
    slack = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.05}[fmt.dtype]
    assert (error <= (0.5 + slack) * steps).all()


def test_a_group_size_that_does_not_divide_names_tensor_columns_and_size(tiny_gguf: Path) -> None:
    checkpoint = open_checkpoint(tiny_gguf)
    with pytest.raises(UsageError) as caught:
        quantization.find("q4f16_1").formats(checkpoint, group_size=128)
    assert "model." in caught.value.what and "128" in caught.value.what
    assert "columns" in caught.value.what and caught.value.remedy == "--group-size 32"


@pytest.mark.parametrize(("name", "size"), [("q3f16_1", 64), ("q0f32", 32), ("q4f16_gguf", 64)])
def test_a_group_size_that_a_quantization_has_not_is_refused(
    tiny_gguf: Path, name: str, size: int
) -> None:
    with pytest.raises(UsageError, match="group"):
        quantization.find(name).formats(open_checkpoint(tiny_gguf), group_size=size)


@pytest.mark.parametrize(
    ("embedding", "expected"), [("q8", WeightFormat.Q8_0), ("f16", WeightFormat.F16)]
)
def test_the_embedding_may_have_a_form_of_its_own(
    write_gguf: Callable[..., Path], embedding: str, expected: WeightFormat
) -> None:
    checkpoint = open_checkpoint(write_gguf(table=Q.Q8_0))
    formats = quantization.find("q4f16_1").formats(checkpoint, embedding=embedding)
    assert formats.pop(EMBEDDING) == expected
    assert set(formats.values()) == {WeightFormat.Q4_SYM_F16}
    # What is in eight bits already is not rounded again.
    if embedding == "q8":
        table = matrices(checkpoint)[0]
        assert np.array_equal(stored(checkpoint, table, expected), values(checkpoint, table))


def test_a_value_that_float16_does_not_hold_is_an_error_that_names_its_tensor() -> None:
    large = named("BF16", np.full((8, 64), 1e5, np.float32))
    for fmt in (WeightFormat.F16, WeightFormat.Q4_SYM_F16):
        with pytest.raises(UsageError, match=r"some\.weight") as caught:
            quantization.store(fmt, [large])
        assert "bf16" in caught.value.remedy
    assert np.isfinite(quantization.store(WeightFormat.Q4_SYM_BF16, [large])["q_weight"]).all()


def test_a_group_of_zeros_stays_zero() -> None:
    fmt = WeightFormat.Q4_SYM_F16
    plain = symmetric.round_to_nearest(np.zeros((2, 64), np.float32), fmt)
    assert not layout.dequantize(fmt, plain).any()


@pytest.mark.parametrize(("name", "relative"), [("q0f32", 0), ("q0f16", 2**-11), ("q0bf16", 2**-8)])
def test_weights_that_are_not_quantized_are_within_their_type(
    tiny_gguf: Path, name: str, relative: float
) -> None:
    checkpoint = open_checkpoint(tiny_gguf)
    formats = quantization.find(name).formats(checkpoint)
    for item in matrices(checkpoint):
        found = stored(checkpoint, item, formats[item.name])
        # The smallest float16 is far below any weight here; what is under it becomes zero.
        assert np.allclose(found, values(checkpoint, item), rtol=relative, atol=1e-7), item.name


def named(kind: str, weights: np.ndarray | None = None) -> CheckpointTensor:
    """A tensor of a checkpoint that exists in memory only."""
    found = np.zeros((8, 64), np.float32) if weights is None else weights

    @dataclass
    class InMemory:
        name: str
        kind: str
        shape: tuple[int, ...]

        def stored(self) -> np.ndarray:
            return found.view(np.uint8)

        def values(self) -> np.ndarray:
            return found

        def row_values(self, begin: int, end: int) -> np.ndarray:
            return found[begin:end]

    return InMemory("some.weight", kind, found.shape)


def test_an_unknown_quantization_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="q3") as caught:
        quantization.find("q3")
    assert "q4f16_gguf" in caught.value.cause
