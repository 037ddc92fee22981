"""A checkpoint of Gemma 3 1B's sizes with random weights in bfloat16, to measure compiles on.

    .venv/bin/python benchmarks/random_checkpoint.py /tmp/gemma3-1b-random

The folder is Hugging Face's: config.json, one safetensors file of 2.0 GB, written a piece at a
time, and the small tokenizer of a golden, which leaves most rows of the embedding without a token.
The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path

import click
import numpy as np

from harness import files
from harness.compiler.architectures import decoder
from harness.compiler.checkpoints.expected_tensors import expected_tensors
from harness.compiler.checkpoints.hf_config import read_config
from harness.compiler.kernels.layout import narrow

GOLDEN = Path(__file__).parent.parent / "tests" / "goldens" / "gemma3-a"
PIECE = 1 << 22
CONFIG = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_local_base_freq": 10000,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--layers", default=26, show_default=True)
@click.option("--vocabulary", default=262144, show_default=True)
def main(folder: Path, layers: int, vocabulary: int) -> None:
    """Write the checkpoint to FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, "num_hidden_layers": layers, "vocab_size": vocabulary}
    files.write_json(folder / "config.json", config)
    for name in ("tokenizer.model", "generation_config.json"):
        shutil.copyfile(GOLDEN / name, folder / name)
    family = decoder(read_config(folder / "config.json")[0])
    tensors = {name: one.shape for name, one in expected_tensors(family).items()}
    header, offset = {}, 0
    for name, shape in tensors.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with files.atomic_file(folder / "model.safetensors") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in tensors.values():
            # Of a size that keeps what a matrix makes of normed inputs about as large as they are.
            deviation = shape[-1] ** -0.5 if len(shape) == 2 else 0.1
            for start in range(0, math.prod(shape), PIECE):
                count = min(PIECE, math.prod(shape) - start)
                values = random.standard_normal(count, np.float32) * np.float32(deviation)
                file.write(narrow(values, "bfloat16").tobytes())
    print(f"{folder}: {offset / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    main()
