"""A package's library against a forward pass in numpy with the package's own weights.

    .venv/bin/python benchmarks/random_checkpoint.py /tmp/gemma-3-1b-random
    .venv/bin/python benchmarks/against_numpy.py /tmp/gemma-3-1b-random --quant q4bf16_1

MODEL is anything that `harness compile` takes. Both compute the same equations from the same
values, so that only rounding is left: of activations to int8 unless they are float, and of what
passes through a float16 KV cache, which numpy rounds where the library does. The libraries of both
ABIs are compiled, the x86_64 one is run: some tokens in one piece, then one more by `decode`.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from harness import recipes
from harness.compiler import host, quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.mlc.tensor_cache import read_tensor_cache
from harness.compiler.numerics.evaluate import Evaluator, Values
from harness.compiler.numerics.fidelity import fidelity
from harness.compiler.options import CompileOptions
from harness.compiler.sources.source import checkpoint_path
from harness.stages.compile import compile_model
from harness.types import Abi


@click.command()
@click.argument("model")
@click.option("--quant", default="q4bf16_1", show_default=True)
@click.option("--activations", default="float", show_default=True)
@click.option("--tokens", default=8, show_default=True, help="Tokens before the decoded one.")
def main(model: str, quant: str, activations: str, tokens: int) -> None:
    """Compile MODEL, run a prefill and one decode step, and compare with numpy."""
    workspace = Path.cwd()
    recipe = recipes.find(model, workspace)
    options = CompileOptions.of(
        recipe, {"quantization": quant, "activations": activations, "context": 512}
    )
    began = time.perf_counter()
    package = compile_model(recipe, options, tuple(Abi), workspace).path
    print(f"compiled for {', '.join(Abi)} in {time.perf_counter() - began:.1f} s")
    print(f"largest process {_gib(resource.RUSAGE_CHILDREN):.2f} GiB")
    checkpoint = open_checkpoint(checkpoint_path(recipe))
    config = checkpoint.config
    chosen = quantization.find(quant)
    formats = chosen.formats(checkpoint, options.group_size, options.embedding)
    ids = np.random.default_rng(1).integers(0, config.vocab_size, tokens + 1).tolist()
    found = host.logits(package, ids, chunks=[tokens, 1])
    values = package_values(package, checkpoint, formats)
    numpy = Evaluator(config, values, keep=False, kv_dtype=chosen.kv_dtype)
    expected = numpy.forward(ids)
    for name, rows in (("prefill", slice(tokens)), ("decode", slice(tokens, None))):
        apart = fidelity(expected[rows], found[rows])
        print(
            f"{name:8} max {apart.max_abs:.2e}  mean {apart.mean_abs:.2e}  KL {apart.kl:.2e}  "
            f"same top {apart.top1:.2f}  of logits up to {np.abs(expected[rows]).max():.1f}"
        )


def package_values(
    package: Path, checkpoint: Checkpoint, formats: Mapping[str, WeightFormat]
) -> Values:
    """The parameters in float32 by name, as a package holds them."""
    items = {item.name: item for item in decoder(checkpoint.config).parameters()}
    records = read_tensor_cache(package)

    def values(name: str) -> npt.NDArray[np.float32]:
        item = items[name]
        if not isinstance(item, Matrix):
            return records[name].values
        fmt = formats[name]
        parts = layout.packed_tensors(fmt, item.rows, item.columns)
        packed = {part.part: records[item.tensor(part.part)].values for part in parts}
        plain = layout.unpack(fmt, packed, item.rows)
        return layout.dequantize(fmt, plain)[:, : item.columns]

    return values


def _gib(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
