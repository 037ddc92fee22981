"""Perplexity and KL of compiled models against their source, on texts not calibrated on.

    .venv/bin/python benchmarks/quality.py smollm2-135m-instruct

The source is the checkpoint's own values in a float32 forward pass in numpy. "float" are the same
forward passes with the package's weights, which is what compile writes into a package; "int8" is
the package's x86_64 library on this machine, which rounds activations to 8 bits.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from tokenizers import Tokenizer

from harness import recipes
from harness.compiler import host
from harness.compiler.calibration.samples import start_tokens
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.numerics import quality
from harness.compiler.numerics.evaluate import reference
from harness.compiler.options import CompileOptions
from harness.compiler.packages.package import read_package
from harness.compiler.quantization import QUANTIZATIONS
from harness.compiler.sources.source import checkpoint_path
from harness.stages.compile import compile_model
from harness.types import Abi

VARIANTS = (
    *({"quantization": name} for name in QUANTIZATIONS if not name.endswith("_0")),
    {"quantization": "q4f16_1", "embedding": "q8"},
    {"quantization": "q4f16_1", "calibration": "self"},
    {"quantization": "q4f16_1", "embedding": "q8", "calibration": "self"},
    {"quantization": "q3f16_1", "calibration": "self"},
)
HEAD = ("weights", "bits", "perplexity", "KL float", "KL int8", "code", "docs", "licence", "story")
ROW = "{:<22}" + "{:>11}" * 8 + "{:>8}"


@click.command()
@click.argument("model")
@click.option("--samples", default=128, show_default=True, help="Texts to calibrate on.")
def main(model: str, samples: int) -> None:
    """Measure the quantizations of MODEL, calibrated ones too, and print a table."""
    workspace = Path.cwd()
    recipe = recipes.find(model, workspace)
    checkpoint = open_checkpoint(checkpoint_path(recipe))
    logits: dict[str, tuple[list[int], np.ndarray]] = {}
    print(ROW.format(*HEAD, "s"))
    for variant in VARIANTS:
        flags = {**variant, "context": 1024}
        if "calibration" in variant:
            flags["calibration_samples"] = samples
        began = time.monotonic()
        made = compile_model(recipe, CompileOptions.of(recipe, flags), (Abi.X86_64,), workspace)
        took = time.monotonic() - began
        if not logits:
            tokenizer = Tokenizer.from_file(str(made.path / "tokenizer.json"))
            for name, text in quality.held_out_texts().items():
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                tokens = [*start_tokens(checkpoint.tokenizer), *ids][: quality.MAX_TOKENS]
                logits[name] = tokens, reference(checkpoint).forward(tokens)
        facts = read_package(made.path).facts
        found = facts["quality"]
        rounded = [
            quality.compare(tokens, source, host.logits(made.path, tokens)).mean_kl
            for tokens, source in logits.values()
        ]
        change = found["perplexity"] / found["source_perplexity"] - 1
        print(
            ROW.format(
                " ".join(variant.values()),
                f"{facts['bits_per_weight']:.2f}",
                f"{change:+.1%}",
                f"{found['mean_kl']:.4f}",
                f"{np.mean(rounded):.4f}",
                *(f"{text['mean_kl']:.4f}" for text in found["texts"].values()),
                f"{took:.0f}",
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
