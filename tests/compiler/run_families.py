"""Compile checkpoints and run them in every way, many in one process: a script for test_families.

    python run_families.py FOLDER < cases.json

A case has a `name`, a `checkpoint`, a `quantization`, `activations`, an `opt_level` if it is not 3,
and what to run: `tokens`, `chunks`, `steps` (tokens after those, one at a time).
FOLDER/<name>.npz gets each way's logits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from harness.compiler import quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.model_config import PAGE_TOKENS
from harness.compiler.model_library import compile_library
from harness.compiler.numerics.evaluate import parameter_values
from harness.types import Abi

CHUNK = 256
Array = np.ndarray[Any, Any]


def shape(*sizes: int) -> Any:
    return tvm.runtime.ShapeTuple(sizes)


class Model:
    """A compiled model with one sequence."""

    def __init__(self, case: dict[str, Any], folder: Path) -> None:
        checkpoint = open_checkpoint(Path(case["checkpoint"]))
        chosen = quantization.find(case["quantization"])
        formats = chosen.formats(checkpoint)
        path = folder / f"{case['name']}.so"
        compile_library(
            config=checkpoint.config,
            formats=formats,
            chosen=chosen,
            abi=Abi.X86_64,
            prefill_chunk=CHUNK,
            activations=case["activations"],
            opt_level=case.get("opt_level", 3),
            path=path,
        )
        self.vm = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        names = [item["name"] for item in json.loads(str(self.vm["_metadata"]()))["params"]]
        found = packed(checkpoint, formats)
        self.params = [tvm.runtime.tensor(found[name]) for name in names]
        self.begin()

    def begin(self) -> None:
        """A new sequence."""
        sizes = (1, 512, CHUNK, PAGE_TOKENS, 0)
        self.kv = self.vm["create_tir_paged_kv_cache"](*map(shape, sizes))
        tvm.get_global_func("vm.builtin.kv_state_add_sequence")(self.kv, 0)

    def forward(self, function: str, tokens: Sequence[int]) -> Array:
        """The logits [m, vocabulary] of new tokens."""
        ids = tvm.runtime.tensor(np.asarray(tokens, np.int32))
        embeds = self.vm["embed"](ids, self.params)
        embeds = tvm.get_global_func("vm.builtin.reshape")(embeds, shape(1, *embeds.shape))
        begin = tvm.get_global_func("vm.builtin.kv_state_begin_forward")
        begin(self.kv, shape(0), shape(len(tokens)))
        out, _ = self.vm[function](embeds, self.kv, self.params)
        tvm.get_global_func("vm.builtin.kv_state_end_forward")(self.kv)
        result: Array = out.numpy()[0]
        return result


def packed(checkpoint: Checkpoint, formats: dict[str, WeightFormat]) -> dict[str, Array]:
    found = {}
    for item in decoder(checkpoint.config).parameters():
        if not isinstance(item, Matrix):
            found[item.name] = parameter_values(checkpoint, item)
            continue
        sources = [checkpoint.tensors[name] for name in item.sources]
        plain = quantization.store(formats[item.name], sources)
        for part, values in layout.pack(formats[item.name], plain).items():
            found[item.tensor(part)] = values
    return found


def ways(model: Model, case: dict[str, Any]) -> dict[str, Array]:
    tokens, rows = case["tokens"], {}
    rows["whole"] = model.forward("batch_verify", tokens)
    model.begin()
    parts = np.split(np.asarray(tokens), np.cumsum(case["chunks"]))
    rows["chunks"] = np.concatenate([model.forward("batch_verify", part) for part in parts])
    model.begin()
    rows["tokens"] = np.concatenate([model.forward("decode", [token]) for token in tokens])
    model.begin()
    free = [model.forward("prefill", tokens)]
    for _ in range(case["steps"]):
        free.append(model.forward("decode", [int(free[-1].argmax())]))
    rows["free"] = np.concatenate(free)
    return rows


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for entry in json.load(sys.stdin):
        np.savez(target / f"{entry['name']}.npz", **ways(Model(entry, target), entry))
