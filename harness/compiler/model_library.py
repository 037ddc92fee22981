"""From a model's configuration to its library: Relax, passes, code, linking."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tvm import IRModule, relax, tirx
from tvm.relax import vm_build
from tvm.target import Target

from harness.compiler import library
from harness.compiler.graph import Graph
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.kernels.matmul import ActivationType
from harness.compiler.model_config import DecoderConfig
from harness.compiler.packages.describe import kv_cache_facts, variants
from harness.compiler.passes import levels, pipeline
from harness.compiler.quantization import Quantization
from harness.types import Abi

_ACTIVATIONS: dict[str, ActivationType] = {"int8": "int8", "float": "float32"}


def compile_library(
    *,
    config: DecoderConfig,
    formats: Mapping[str, WeightFormat],
    chosen: Quantization,
    abi: Abi,
    prefill_chunk: int,
    activations: str,
    path: Path,
    opt_level: int = 3,
    backend: str = "cpu",
    tile: int | None = None,
) -> dict[str, int]:
    """Compile for one ABI to `path`; return the bytes of working memory that each function plans.

    The library has the functions of every variant of the ABI, under names with its suffix, and one
    `_metadata`. It takes any context up to the model's own. `activations` is "int8" or "float":
    what quantized matrices are multiplied with. `opt_level` is one of `passes.levels.CPU`; with the
    `backend` "opencl" kernels are OpenCL's and the level is not looked at. `tile` is the tokens
    of a prompt that share unpacked weights, else the kernels' own number. Raises `StageFailed` if
    the result cannot be loaded.
    """
    level = levels.OPENCL if backend == "opencl" else levels.CPU[opt_level]
    builder = relax.BlockBuilder()
    targets = []
    for isa in variants(abi, backend):
        targets.append(levels.target(isa, backend))
        model = Graph(
            config, formats, chosen.kv_dtype, isa, _ACTIVATIONS[activations], level, builder, tile
        )
        with targets[-1]:
            model.add(prefill_chunk)
    module = builder.finalize()
    memory_usage: dict[str, int] = {}

    def metadata(planned: dict[str, int]) -> str:
        """MLC's keys, for whoever loads the library alone."""
        names = ("embed", "prefill", "decode", "batch_verify")
        memory_usage.update({name: planned[name] for name in names})
        return json.dumps(
            {
                "model_type": config.family,
                "quantization": chosen.name,
                "context_window_size": config.context_window,
                "sliding_window_size": -1,
                "attention_sink_size": -1,
                "prefill_chunk_size": prefill_chunk,
                "max_batch_size": 1,
                "tensor_parallel_shards": 1,
                "pipeline_parallel_stages": 1,
                "params": [
                    {"name": name, "shape": list(shape), "dtype": dtype, "preprocs": []}
                    for name, shape, dtype in model.parameters.specs
                ],
                "memory_usage": memory_usage,
                "kv_cache": kv_cache_facts(config, chosen.kv_dtype),
                "kv_state_kind": "kv_cache",
                "model_config": config.to_json(),
            },
            sort_keys=True,
        )

    with targets[0]:
        module = pipeline(metadata, level)(module)
    with tempfile.TemporaryDirectory(prefix="harness-objects-") as folder:
        executable, objects = _build(module, targets, Path(folder))
        library.export(executable, abi, path, objects)
    return memory_usage


def _build(module: IRModule, targets: Sequence[Target], folder: Path) -> tuple[Any, list[Path]]:
    """`relax.build` for kernels of several targets; those that name none are for the first.

    Returns the executable, with the first target's code in it, and an object file in `folder` for
    each other target. LLVM works on all of them at once. The first target's code must be linked
    first: helpers of which every object brings a copy, such as the conversions of single float16
    values, are taken from there, so it must run on every processor.
    """
    builder = relax.ExecBuilder()
    rest = vm_build._vmcodegen(builder, module)
    kernels: dict[str, dict[Any, tirx.PrimFunc]] = {str(target): {} for target in targets}
    for name, function in rest.functions.items():
        if isinstance(function, tirx.PrimFunc):
            own = function.attrs.get("target", targets[0])
            kernels[str(own)][name] = function.without_attr("target")

    def build(target: Target) -> Any:
        return tirx.build(IRModule(kernels[str(target)], attrs=module.attrs), target)

    def write(index: int) -> Path:
        path = folder / f"{index}.o"
        build(targets[index]).write_to_file(str(path))
        return path

    with ThreadPoolExecutor() as pool:
        first = pool.submit(build, targets[0])
        others = list(pool.map(write, range(1, len(targets))))
    executable = relax.VMExecutable(
        vm_build._ffi_api.VMLink(builder, targets[0], first.result(), [], {})
    )
    return executable, others
