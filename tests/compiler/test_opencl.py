"""OpenCL libraries: their C is what every Adreno and Mali takes, and packages name the backend."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compiler import host, quantization
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.plain_cache import GROUP_ITEMS
from harness.compiler.numerics.evaluate import reference
from harness.compiler.options import CompileOptions
from harness.compiler.packages.package import read_package
from harness.errors import MissingTool, UsageError
from harness.stages.compile import compile_model
from harness.types import Abi
from tests.compiler.conftest import recipe_for

FOLDER = Path(__file__).parent.parent / "goldens"
TOKENS = [int(token) for token in np.random.default_rng(5).integers(3, 260, 90)]
LOCAL_BYTES = 32 << 10
"""What Adreno and Mali give a work group."""
# Soft caps and windows; three bits, norms of heads and two kinds of rotary positions; biases.
MODELS = [("gemma2-window", "q4bf16_1"), ("gemma3-linear", "q3f16_1"), ("qwen2-a", "q0f32")]
# Clang knows OpenCL's functions but not, without its headers, the names of types.
TYPES = """
typedef unsigned char uchar; typedef unsigned short ushort;
typedef unsigned int uint; typedef unsigned long ulong;
typedef __SIZE_TYPE__ size_t; typedef uint cl_mem_fence_flags;
#define CLK_LOCAL_MEM_FENCE 1
"""


def module(name: str, quant: str) -> Any:
    """A golden's model, to be called where the target is current."""
    from harness.compiler.graph import Graph
    from harness.compiler.passes import levels

    checkpoint, chosen = open_checkpoint(FOLDER / name), quantization.find(quant)
    graph = Graph(
        checkpoint.config,
        chosen.formats(checkpoint),
        chosen.kv_dtype,
        Isa.ARMV8,
        level=levels.OPENCL,
    )
    return graph.module(64)


def opencl_c(name: str, quant: str) -> str:
    """The kernels of a golden's model."""
    from tvm import relax

    from harness.compiler.passes import levels, pipeline

    with levels.target(Isa.ARMV8, "opencl") as target:
        passes = pipeline(lambda _: "{}", levels.OPENCL)
        built = relax.build(module(name, quant), target, relax_pipeline=passes)
    (source,) = (
        one.inspect_source() for one in _imported(built.mod) if one.kind.startswith("opencl")
    )
    return str(source)


def _imported(module: Any) -> list[Any]:
    found = []
    for one in module.imports:
        found += [one, *_imported(one)]
    return found


def check(source: str, folder: Path, *extensions: str) -> str:
    """What clang has to say of OpenCL 1.2 C with these extensions and no others."""
    path = folder / "kernels.cl"
    path.write_text(TYPES + source)
    allowed = ",".join(f"+{extension}" for extension in extensions)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ziglang", "clang", "-x", "cl", "-target", "spir64"),
            *("-cl-std=CL1.2", "-cl-no-stdinc", "-Xclang", "-fdeclare-opencl-builtins"),
            *("-Xclang", f"-cl-ext=-all{',' if allowed else ''}{allowed}", "-fsyntax-only"),
            str(path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize(("name", "quant"), MODELS)
def test_kernels_are_opencl_c_without_doubles_and_with_little_local_memory(
    name: str, quant: str, tmp_path: Path
) -> None:
    source = opencl_c(name, quant)
    half = "half" in source
    assert half == (quant != "q0f32")
    assert ("#pragma OPENCL EXTENSION cl_khr_fp16 : enable" in source) == half
    assert check(source, tmp_path, *(["cl_khr_fp16"] if half else [])) == ""
    kernels = re.split(r"\n__kernel void ", source)
    assert len(kernels) > 30
    assert not re.search(r"\bdouble", source)
    for kernel in kernels:
        sizes = re.findall(r"__local (\w+) \w+\[(\d+)\]", kernel)
        assert sum({"float": 4, "int": 4, "half": 2}[kind] * int(n) for kind, n in sizes) <= (
            LOCAL_BYTES
        )


def test_the_check_of_opencl_c_finds_what_is_wrong(tmp_path: Path) -> None:
    kernel = "__kernel void f(__global float* x) {{ x[get_global_id(0)] = {}; }}"
    assert check(kernel.format("exp(x[0])"), tmp_path) == ""
    assert "undeclared" in check(kernel.format("expp(x[0])"), tmp_path)
    assert "double" in check(kernel.format("(double)x[0]"), tmp_path)
    half = "__kernel void f(__global half* x) { half y = x[0]; x[1] = y; }"
    assert "half" in check(half, tmp_path, "cl_khr_fp16")
    pragma = "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
    assert check(pragma + half, tmp_path, "cl_khr_fp16") == ""


def test_one_library_serves_adreno_and_mali() -> None:
    from harness.compiler.passes import levels
    from harness.compiler.passes.schedules import gpu_schedules

    texts = set()
    for device in (None, "adreno", "mali"):
        with levels.target(Isa.ARMV8, "opencl", device):
            texts.add(gpu_schedules()(module(*MODELS[0])).script())
    (text,) = texts
    extents = re.findall(r'(\d+)(?:\))?, thread="threadIdx', text)
    extents += re.findall(r'launch_thread\("threadIdx.x", (\d+)\)', text)
    # Norms add up in groups of 256, which is TVM's choice and what both have at least.
    assert len(extents) > 20 and set(extents) == {str(GROUP_ITEMS), "256"}
    assert extents.count("256") < 6


@pytest.fixture(scope="module")
def package(tiny_gguf: Path, workspace: Path) -> Path:
    recipe = recipe_for(tiny_gguf, backend="opencl", prefill_chunk=128)
    options = CompileOptions.of(recipe, {"quantization": "q0f32"})
    return compile_model(recipe, options, (Abi.ARM64, Abi.X86_64), workspace).path


def test_a_package_is_stamped_with_its_backend(package: Path) -> None:
    read = read_package(package, verify=True)
    targets = read.facts["stamp"]["targets"]
    assert {abi: one["backend"] for abi, one in targets.items()} == {
        Abi.ARM64: "opencl",
        Abi.X86_64: "opencl",
    }
    for abi in targets:
        assert b"__kernel void " in read.file(f"lib/{abi}/libmodel.so").read_bytes()


def opencl_runs() -> bool:
    import tvm

    return bool(tvm.device("opencl", 0).exist)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host")
def test_a_runtime_without_opencl_refuses_the_package_by_name(package: Path) -> None:
    if opencl_runs():
        pytest.skip("the installed TVM has an OpenCL runtime and a device for it")
    with pytest.raises(MissingTool, match="tiny does not run here: it was compiled for opencl"):
        host.logits(package, TOKENS)


@pytest.mark.gpu
@pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host")
def test_a_gpu_gives_the_logits_of_the_reference(package: Path, tiny_gguf: Path) -> None:
    if not opencl_runs():
        pytest.skip("the installed TVM has no OpenCL runtime, or there is no device for it")
    expected = reference(open_checkpoint(tiny_gguf)).forward(TOKENS)
    for chunks in ([90], [64, 1, 25], [1] * 90):
        found = host.logits(package, TOKENS, chunks=chunks)
        assert np.abs(found - expected).max() < 1e-4, chunks


def test_a_level_of_the_cpus_kernels_is_refused(tiny_gguf: Path) -> None:
    with pytest.raises(UsageError, match="does not go with OpenCL"):
        CompileOptions.of(recipe_for(tiny_gguf), {"backend": "opencl", "opt_level": 1})
