"""A library's variants: one for each kind of core, and the best that a processor runs is taken."""

from __future__ import annotations

import itertools
import json
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compiler import host, quantization
from harness.compiler.architectures import decoder
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.model_config import DecoderConfig, Rope
from harness.compiler.packages import variants
from harness.compiler.packages.describe import target_stamp
from harness.compiler.packages.package import read_package
from harness.errors import UsageError
from harness.types import Abi

Compile = Callable[..., Path]
TOKENS = [int(token) for token in np.random.default_rng(9).integers(3, 260, 100)]
X86_64 = [
    pytest.param(
        isa,
        marks=pytest.mark.skipif(
            platform.machine() != "x86_64" or not host.cpu_features().issuperset(isa.cpu_features),
            reason=f"this processor cannot run {isa}",
        ),
    )
    for isa in Isa.of(Abi.X86_64)
]
CORES = {
    "ssse3 sse4_1 sse4_2 popcnt": Isa.X86_64_V2,
    "ssse3 sse4_1 sse4_2 popcnt avx avx2 fma f16c": Isa.X86_64_V2,
    "ssse3 sse4_1 sse4_2 popcnt avx avx2 bmi1 bmi2 f16c fma abm movbe": Isa.X86_64_V3,
    "ssse3 sse4_1 sse4_2 popcnt avx avx2 bmi1 bmi2 f16c fma abm movbe avx512_vnni": Isa.X86_64_V3,
    "ssse3 sse4_1 sse4_2 popcnt avx avx2 bmi1 bmi2 f16c fma abm movbe avx_vnni": Isa.X86_64_V3_VNNI,
    "fp asimd aes": Isa.ARMV8,
    "fp asimd asimdhp asimddp": Isa.ARMV8_2_DOTPROD,
    "fp asimd i8mm": Isa.ARMV8,
    "fp asimd asimddp sve i8mm bf16": Isa.ARMV8_2_I8MM,
}


def llama() -> DecoderConfig:
    return DecoderConfig(
        family="llama",
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=272,
        context_window=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        query_scale=0.25,
        rope=Rope(10000.0),
    )


@pytest.fixture(scope="module")
def package(tiny_gguf: Path, compiled: Compile) -> Path:
    return compiled(tiny_gguf, "q4f16_gguf", abis=(Abi.X86_64,))


@pytest.mark.parametrize(("features", "expected"), CORES.items(), ids=CORES.values())
def test_a_core_gets_the_best_variant_whose_features_it_has(features: str, expected: Isa) -> None:
    target = target_stamp(expected.abi, "cpu")
    assert variants.choose("tiny", target, features.split()).name == expected


def test_a_core_that_can_run_none_is_refused_by_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="this processor cannot run tiny") as refusal:
        variants.choose("tiny", target_stamp(Abi.X86_64, "cpu"), ["sse4_1", "sse4_2", "popcnt"])
    assert refusal.value.cause == "the code needs ssse3, which the processor lacks"


def test_a_forced_variant_that_cannot_run_is_refused_and_none_is_put_in_its_place() -> None:
    target = target_stamp(Abi.ARM64, "cpu")
    core = ["asimd", "asimddp"]
    assert variants.choose("tiny", target, core, "armv8-a").name == "armv8-a"
    with pytest.raises(UsageError, match=re.escape(f"cannot run {Isa.ARMV8_2_I8MM}")) as refusal:
        variants.choose("tiny", target, core, Isa.ARMV8_2_I8MM)
    assert refusal.value.cause == "the code needs i8mm, which the processor lacks"
    with pytest.raises(UsageError, match="tiny has no code for x86-64-v3") as refusal:
        variants.choose("tiny", target, core, "x86-64-v3")
    assert refusal.value.cause == f"its library has {', '.join(reversed(Isa.of(Abi.ARM64)))}"


def test_a_library_whose_kernels_run_on_a_gpu_has_one_variant() -> None:
    (variant,) = target_stamp(Abi.ARM64, "opencl")["variants"]  # type: ignore[misc]
    assert (variant["name"], variant["suffix"]) == (Isa.ARMV8, "")


def test_a_package_lists_its_variants_with_what_each_needs(package: Path) -> None:
    (target,) = read_package(package).facts["stamp"]["targets"].values()
    assert [one["name"] for one in target["variants"]] == [*reversed(Isa.of(Abi.X86_64))]
    needs = [set(one["cpu_features"]) for one in target["variants"]]
    assert all(better > lesser for better, lesser in itertools.pairwise(needs))
    assert [one["suffix"] for one in target["variants"]] == [
        "@x86-64-v3+avxvnni",
        "@x86-64-v3",
        "",
    ]


def test_what_all_objects_bring_is_taken_from_the_code_that_runs_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Plain kernels call a conversion of float16 that each object has; the first one is linked."""
    from harness.compiler import library
    from harness.compiler.model_library import compile_library

    own: list[Any] = []
    behind: list[Path] = []

    def keep(executable: Any, abi: Abi, path: Path, objects: list[Path]) -> None:
        own.extend(executable.mod._collect_dso_modules())
        behind.extend(one for one in objects if one.is_file())

    monkeypatch.setattr(library, "export", keep)
    config = llama()
    compile_library(
        config=config,
        formats={item.name: WeightFormat.Q4_1 for item in decoder(config).matrices()},
        chosen=quantization.find("q4f16_1"),
        abi=Abi.X86_64,
        prefill_chunk=64,
        activations="float",
        path=tmp_path / "libmodel.so",
        opt_level=0,
    )
    (first,) = (json.loads(one.get_function("_get_target_string")()) for one in own)
    assert first["mcpu"] == Isa.X86_64_V2.target()["mcpu"]
    assert len(behind) == len(X86_64) - 1


@pytest.mark.parametrize("isa", X86_64)
def test_every_variant_gives_the_same_answer_and_says_its_name(package: Path, isa: Isa) -> None:
    expected = host.generate(package, TOKENS[:20], 24)
    found = host.generate(package, TOKENS[:20], 24, cpu_variant=isa)
    assert found["backend"] == f"cpu/{isa}"
    assert found["token_ids"] == expected["token_ids"]


@pytest.mark.parametrize("isa", X86_64)
def test_variants_differ_by_the_rounding_of_floats_only(
    tiny_gguf: Path, compiled: Compile, package: Path, isa: Isa
) -> None:
    """float32's sums, fused or not and in another order, differ by some 2^-24 of their size.

    Where that changes an activation's rounding to int8, a step of 1/127 follows, as it does from
    one way of cutting a prompt into chunks to another.
    """
    exact = compiled(tiny_gguf, "q0f32")
    for chunks in ([64, 36], [1] * 100):
        base = host.logits(exact, TOKENS, chunks=chunks, cpu_variant=Isa.X86_64_V2)
        found = host.logits(exact, TOKENS, chunks=chunks, cpu_variant=isa)
        assert np.abs(found - base).max() < 2e-5 * np.abs(base).max()
        base = host.logits(package, TOKENS, chunks=chunks, cpu_variant=Isa.X86_64_V2)
        found = host.logits(package, TOKENS, chunks=chunks, cpu_variant=isa)
        assert np.abs(found - base).mean() < 1e-2 * base.std()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host")
def test_the_host_refuses_a_variant_of_another_processor(package: Path) -> None:
    with pytest.raises(UsageError, match="tiny has no code for armv8-a"):
        host.logits(package, TOKENS, cpu_variant="armv8-a")
