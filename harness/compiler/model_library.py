"""From a model's configuration to its library: Relax, passes, code, linking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tvm import relax

from harness.compiler import library
from harness.compiler.graph import Graph
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.kernels.matmul import ActivationType
from harness.compiler.model_config import DecoderConfig
from harness.compiler.packages.describe import kv_cache_facts
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
) -> dict[str, int]:
    """Compile for one ABI to `path`; return the bytes of working memory that each function plans.

    `activations` is "int8" or "float": what quantized matrices are multiplied with. The library
    takes any context up to the model's own. `opt_level` is one of `passes.levels.CPU`; with the
    `backend` "opencl" kernels are OpenCL's and the level is not looked at. Raises `StageFailed` if
    the result cannot be loaded.
    """
    isa = Isa.of(abi)
    level = levels.OPENCL if backend == "opencl" else levels.CPU[opt_level]
    target = levels.target(isa, backend)
    model = Graph(config, formats, chosen.kv_dtype, isa, _ACTIVATIONS[activations], level)
    with target:
        module = model.module(prefill_chunk)
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

    with target:
        executable = relax.build(module, target, relax_pipeline=pipeline(metadata, level))
    library.export(executable, abi, path)
    return memory_usage
