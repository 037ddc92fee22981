"""Perplexity and KL of each quantization against its source, on the text beside the recipe.

    .venv/bin/python benchmarks/quality.py smollm2-135m-instruct

The source is the checkpoint's own values in a float32 forward pass in numpy; the quantized model
is the package's x86_64 library on this machine. The figures go to quality.json beside the recipe,
from where compile copies them into packages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import click
from tokenizers import Tokenizer

from harness import files, recipes
from harness.compiler import host, quality
from harness.compiler.checkpoint import open_checkpoint
from harness.compiler.evaluate import reference
from harness.compiler.options import CompileOptions
from harness.compiler.package import tvm_version
from harness.compiler.quantization import QUANTIZATIONS
from harness.compiler.source import checkpoint_hash, checkpoint_path
from harness.compiler.tokenizer import to_hugging_face
from harness.stages.compile import compile_model
from harness.types import Abi

ROW = "{:<12} {:>10} {:>9} {:>9} {:>9}"


@click.command()
@click.argument("model")
def main(model: str) -> None:
    """Measure every quantization of MODEL and print a table."""
    workspace = Path.cwd()
    recipe = recipes.find(model, workspace)
    checkpoint = open_checkpoint(checkpoint_path(recipe))
    text = (recipe.folder / "quality.txt").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(json.dumps(to_hugging_face(checkpoint.tokenizer)))
    tokens = tokenizer.encode(text).ids
    source = reference(checkpoint).forward(tokens)
    found: dict[str, dict[str, object]] = {}
    print(f"{recipe.name}, {len(tokens)} tokens of quality.txt, on the x86_64 host")
    print(ROW.format("weights", "perplexity", "change", "mean KL", "same top"))
    for name in QUANTIZATIONS:
        options = CompileOptions.of(recipe, {"quantization": name})
        package = compile_model(recipe, options, (Abi.X86_64,), workspace)
        result = quality.compare(tokens, source, host.logits(package.path, tokens))
        change = result.perplexity / result.source_perplexity - 1
        print(
            ROW.format(
                name,
                f"{result.perplexity:.3f}",
                f"{change:+.2%}",
                f"{result.mean_kl:.5f}",
                f"{result.same_top:.1%}",
            )
        )
        rounded = {key: round(value, 6) for key, value in dataclasses.asdict(result).items()}
        found[name] = {**rounded, "abi": Abi.X86_64.value, "tvm": tvm_version()}
    document = {
        "schema": quality.SCHEMA,
        "checkpoint": checkpoint_hash(recipe),
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "quantizations": found,
    }
    files.write_json(recipe.folder / quality.FILE, document)


if __name__ == "__main__":
    main()
