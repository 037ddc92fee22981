"""Every optimisation level gives the same answers; each brings what it says."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compiler import host
from harness.compiler.architectures import decoder
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.library import RUNTIME_SONAME
from harness.compiler.model_config import DecoderConfig, Rope
from harness.compiler.numerics.golden_logits import read_golden_logits
from harness.compiler.options import CompileOptions
from harness.errors import UsageError
from tests.compiler.conftest import recipe_for

# Soft caps and windows that matter; norms of heads and two kinds of rotary positions.
GOLDENS = {"gemma2-window": 0, "gemma3-linear": 1}
"""Models and the level at which plain kernels make them."""
ROUNDED = "gemma3-linear"
FOLDER = Path(__file__).parent.parent / "goldens"
TOLERANCE = 2e-3
CHUNKS = [7, 1, 16, 33]
WAYS = ("whole", "chunks", "tokens", "free")
Ways = Mapping[str, np.ndarray]
runs = pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host")


def case(golden: str, quantization: str, activations: str, level: int) -> dict[str, object]:
    expected = read_golden_logits(FOLDER / golden / "golden.npz")
    return {
        "name": f"{golden}-{quantization}-{activations}-{level}",
        "checkpoint": str(FOLDER / golden),
        "quantization": quantization,
        "activations": activations,
        "opt_level": level,
        "tokens": expected.tokens,
        "chunks": CHUNKS,
        "steps": len(expected.greedy) - 1,
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ways]:
    """What compiled models give in every way, all of them run in one process."""
    folder = tmp_path_factory.mktemp("levels")
    (folder / RUNTIME_SONAME).symlink_to(host._runtime())
    cases = [case(golden, "q0f32", "float", level) for golden, level in GOLDENS.items()]
    cases += [case(ROUNDED, "q4f16_1", "int8", level) for level in (1, 2, 3)]
    script = Path(__file__).with_name("run_families.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        input=json.dumps(cases),
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr

    def of(*parts: object) -> Ways:
        with np.load(folder / f"{'-'.join(map(str, parts))}.npz") as found:
            return dict(found)

    return of


@runs
@pytest.mark.parametrize("golden", GOLDENS)
def test_plain_kernels_give_the_logits_of_transformers(
    golden: str, ran: Callable[..., Ways]
) -> None:
    expected = read_golden_logits(FOLDER / golden / "golden.npz")
    found = ran(golden, "q0f32", "float", GOLDENS[golden])
    for way in ("whole", "chunks", "tokens"):
        assert np.abs(found[way] - expected.logits).max() < TOLERANCE, way
    assert found["free"].argmax(-1).tolist() == list(expected.greedy)


@runs
def test_a_norm_by_itself_is_rounded_as_the_fused_one(ran: Callable[..., Ways]) -> None:
    """Only the last bit of a norm may differ, and with it a rounding to int8 here and there."""
    full, found = (ran(ROUNDED, "q4f16_1", "int8", one) for one in (3, 2))
    plain = ran(ROUNDED, "q4f16_1", "int8", 1)
    for way in WAYS:
        rounding = np.abs(plain[way] - full[way]).mean()
        assert 0 < rounding < 0.05, way
        assert np.abs(found[way] - full[way]).mean() < rounding / 5, way


def decode_calls(level: int) -> Counter[str]:
    """What `decode` of a model with two layers calls, and how often."""
    from harness.compiler.graph import Graph
    from harness.compiler.passes import levels, pipeline

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 272,
        "context_window": 512,
    }
    config = DecoderConfig(
        family="llama",
        **sizes,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        query_scale=0.25,
        rope=Rope(10000.0),
    )
    formats = {item.name: WeightFormat.Q4_SYM_F16 for item in decoder(config).matrices()}
    chosen = levels.CPU[level]
    with levels.target(Isa.X86_64_V2, "cpu"):
        module = Graph(config, formats, "float16", Isa.X86_64_V2, level=chosen).module(64)
        lowered = pipeline(lambda _: "{}", chosen)(module)
    calls = re.findall(r"(?:R\.vm\.|(?<![\w.]))([a-z_]+?)\d*\(", lowered["decode"].script())
    return Counter(calls)


def test_only_the_highest_level_fuses_norms_and_keeps_views() -> None:
    fused, written = decode_calls(3), decode_calls(2)
    assert (fused["rms_norm_quantize"], fused["rms_norm"], fused["quantize"]) == (5, 0, 4)
    assert (written["rms_norm_quantize"], written["rms_norm"], written["quantize"]) == (0, 5, 9)
    assert fused["alloc_tensor"] < written["alloc_tensor"] / 2


def test_plain_levels_round_no_activations() -> None:
    plain = decode_calls(0)
    assert plain == decode_calls(1)
    assert (plain["matmul"], plain["gated_matmul"], plain["rms_norm"]) == (7, 2, 5)
    assert not plain["quantize"] and not plain["rms_norm_quantize"]


def test_plain_kernels_are_stamped_with_the_activations_that_they_take(tiny_gguf: Path) -> None:
    recipe = recipe_for(tiny_gguf)
    assert CompileOptions.of(recipe, {"opt_level": 2}).code["activations"] == "int8"
    assert CompileOptions.of(recipe, {"opt_level": 1}).code["activations"] == "float"
    assert CompileOptions.of(recipe, {"backend": "opencl"}).code["activations"] == "float"
    with pytest.raises(UsageError, match="--activations int8"):
        CompileOptions.of(recipe, {"opt_level": 0, "activations": "int8"})


def test_schedules_share_rows_among_threads() -> None:
    import tvm

    from harness.compiler.kernels import plain
    from harness.compiler.passes.schedules import cpu_schedules

    kernel = plain.matmul(Isa.X86_64_V2, WeightFormat.Q4_1, 64, 64, tokens=1)
    with tvm.target.Target(Isa.X86_64_V2.target()):
        scheduled = cpu_schedules()(tvm.IRModule({"kernel": kernel}))
    assert "T.parallel" not in kernel.script()
    assert "T.parallel" in scheduled["kernel"].script()
