"""A GGUF file of random Q4_0 weights in the sizes of a known model, for timings alone.

    .venv/bin/python benchmarks/random_gguf.py tinyllama-1.1b /tmp/tinyllama.gguf

Every matrix is Q4_0, the embedding too; norms are ones. The tokenizer knows printable ASCII
and as many unused tokens as make the vocabulary. The same shape and seed give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import gguf
import numpy as np

LETTERS = [*map(chr, range(33, 127)), "\u010a", "\u0120"]
"""Printable ASCII, and what stands for the line feed and the blank in a byte-level vocabulary."""
BLOCK, BLOCK_BYTES = 32, 18
"""Values and bytes of a block of Q4_0: a float16 scale and 32 nibbles."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, and the architecture that has them."""

    architecture: str
    layers: int
    hidden: int
    inner: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    rope_base: float
    window: int | None = None


SHAPES = {
    "smollm2-135m": Shape("llama", 30, 576, 1536, 9, 3, 64, 49152, True, 1e5),
    "tinyllama-1.1b": Shape("llama", 22, 2048, 5632, 32, 4, 64, 32000, False, 1e4),
    "gemma-3-1b": Shape("gemma3", 26, 1152, 6912, 4, 1, 256, 262144, True, 1e6, window=512),
    # SmolLM2's layers with next to nothing in them: what is left of its time are the calls.
    "smollm2-calls": Shape("llama", 30, 32, 32, 2, 1, 16, 128, True, 1e5),
}


def write(shape: Shape, path: Path, seed: int = 0) -> None:
    """Write the file."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_block_count(shape.layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.architecture == "llama":
        writer.add_rope_dimension_count(shape.head_size)
    if shape.window is not None:
        writer.add_sliding_window(shape.window)
    _add_tokenizer(writer, shape.vocabulary)
    random = np.random.default_rng(seed)
    for name, dimensions in _tensors(shape):
        if len(dimensions) == 1:
            writer.add_tensor(name, np.ones(dimensions, np.float32))
        else:
            kind = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(name, _blocks(random, *dimensions), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
    hidden, inner, size = shape.hidden, shape.inner, shape.head_size
    query, key_value = shape.heads * size, shape.key_value_heads * size
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "attn_q": (query, hidden),
        "attn_k": (key_value, hidden),
        "attn_v": (key_value, hidden),
        "attn_output": (hidden, query),
        "ffn_norm": (hidden,),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
    if shape.architecture == "gemma3":
        layer |= dict.fromkeys(("attn_q_norm", "attn_k_norm"), (size,))
        layer |= dict.fromkeys(("post_attention_norm", "post_ffw_norm"), (hidden,))
    found: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (shape.vocabulary, hidden)),
        ("output_norm.weight", (hidden,)),
    ]
    if not shape.tied:
        found.append(("output.weight", (shape.vocabulary, hidden)))
    for index in range(shape.layers):
        found += [(f"blk.{index}.{name}.weight", size) for name, size in layer.items()]
    return found


def _blocks(random: np.random.Generator, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Random nibbles with scales that keep what a matrix makes of normed inputs about as large."""
    blocks = random.integers(0, 256, (rows, columns // BLOCK, BLOCK_BYTES), np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(0.2 * columns**-0.5).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *LETTERS, "he"]
    unused = [f"<unused{index}>" for index in range(vocabulary - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*tokens, *unused])
    writer.add_token_types(
        [3] * len(special) + [1] * (len(tokens) - len(special)) + [5] * len(unused)
    )
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
    )


@click.command()
@click.argument("shape", type=click.Choice(list(SHAPES)))
@click.argument("path", type=click.Path(path_type=Path))
def main(shape: str, path: Path) -> None:
    """Write random weights in the sizes of SHAPE to PATH."""
    write(SHAPES[shape], path)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
