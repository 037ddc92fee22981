"""A tiny Llama with random weights, written as a GGUF file by the tests themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import recipes
from harness.compiler.source import checkpoint_path
from harness.errors import MissingTool
from harness.stages.compile import compile_model
from harness.types import Abi

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 64, 96, 2, 4, 2, 16
TOKENS = 272
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
Writer = Callable[..., Path]


def byte_letters() -> list[str]:
    """GPT-2's visible stand-ins for the 256 bytes, in the order of its vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [letters[byte] for byte in (*printable, *others)]


def gguf_pairs_to_halves(rows: int) -> np.ndarray[Any, Any]:
    """The row of a half-rotation projection that GGUF stores at each place (its convention)."""
    return np.arange(rows).reshape(-1, 2, HEAD_DIM // 2).swapaxes(1, 2).reshape(rows)


@pytest.fixture(scope="session")
def write_gguf(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """A function that writes a tiny model and returns its path.

    `matrix` and `table` are the stored types of the layers' matrices and of the embedding;
    `change(writer)` may add metadata, `skip` leaves tensors out, `weights` collects the values
    in Hugging Face's order of rows.
    """
    import gguf

    def write(
        *,
        matrix: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_1,
        table: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
        tied: bool = True,
        architecture: str = "llama",
        skip: tuple[str, ...] = (),
        change: Callable[[gguf.GGUFWriter], None] | None = None,
        weights: dict[str, Any] | None = None,
        seed: int = 1,
    ) -> Path:
        path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name("Tiny")
        writer.add_block_count(LAYERS)
        writer.add_context_length(512)
        writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_rope_freq_base(10000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        _add_tokenizer(writer)
        rng = np.random.default_rng(seed)

        def add(name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> None:
            if len(shape) == 1:
                values = 1 + 0.1 * rng.standard_normal(shape)
            else:
                values = rng.standard_normal(shape) * 1.5 / np.sqrt(shape[1])
            values = values.astype(np.float32)
            stored = gguf.quants.quantize(values, kind)
            if weights is not None:
                weights[name] = gguf.quants.dequantize(stored, kind)
            if name.endswith(("attn_q.weight", "attn_k.weight")):
                stored = stored[gguf_pairs_to_halves(len(stored))]
            if name not in skip:
                writer.add_tensor(name, np.ascontiguousarray(stored), raw_dtype=kind)

        f32, kv = gguf.GGMLQuantizationType.F32, KV_HEADS * HEAD_DIM
        add("token_embd.weight", (TOKENS, HIDDEN), table)
        if not tied:
            add("output.weight", (TOKENS, HIDDEN), table)
        add("output_norm.weight", (HIDDEN,), f32)
        for layer in range(LAYERS):
            prefix = f"blk.{layer}."
            add(prefix + "attn_norm.weight", (HIDDEN,), f32)
            add(prefix + "attn_q.weight", (HIDDEN, HIDDEN), matrix)
            add(prefix + "attn_k.weight", (kv, HIDDEN), matrix)
            add(prefix + "attn_v.weight", (kv, HIDDEN), matrix)
            add(prefix + "attn_output.weight", (HIDDEN, HIDDEN), matrix)
            add(prefix + "ffn_norm.weight", (HIDDEN,), f32)
            add(prefix + "ffn_gate.weight", (INNER, HIDDEN), matrix)
            add(prefix + "ffn_up.weight", (INNER, HIDDEN), matrix)
            add(prefix + "ffn_down.weight", (HIDDEN, INNER), matrix)
        if change is not None:
            change(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add_tokenizer(writer: Any) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = byte_letters()
    merges = ["h e", "l l", "he ll", "Ġ w", "o r", "Ġw or", "l d", "Ġ t", "i n", "Ġt he"]
    joined = [merge.replace(" ", "") for merge in merges]
    tokens = [*special, *letters, *joined]
    unused = [f"<unused{index}>" for index in range(TOKENS - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*tokens, *unused])
    writer.add_token_types([3] * len(special) + [1] * (len(tokens) - 3) + [5] * len(unused))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_gguf(write_gguf: Writer) -> Path:
    """The tiny model with Q4_1 matrices and a Q8_0 embedding, as the demo's model has them."""
    return write_gguf()


def recipe_for(path: Path, **changes: Any) -> recipes.Recipe:
    """A recipe for a GGUF file on this machine."""
    values: dict[str, Any] = {
        "folder": path.parent,
        "name": "tiny",
        "title": "Tiny",
        "license": "Apache-2.0",
        "source": recipes.FileSource(path, None),
        "quantization": "q4f16_gguf",
        "context": 512,
        "prefill_chunk": 64,
        "prompts": ("Hello",),
        "max_tokens": 8,
    }
    return recipes.Recipe(**{**values, **changes})


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A workspace for packages, gone after the tests: real ones are large."""
    with tempfile.TemporaryDirectory(prefix="harness-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def compiled(workspace: Path) -> Callable[..., Path]:
    """A function that compiles a GGUF file for this host and returns the package's folder."""

    def compile_(path: Path, quantization: str, **changes: Any) -> Path:
        recipe = recipe_for(path, **changes)
        return compile_model(recipe, quantization, (Abi.X86_64,), workspace).path

    return compile_


@pytest.fixture(scope="session")
def smollm2() -> tuple[recipes.Recipe, Path]:
    """The recipe and the checkpoint of the model that ships with the harness."""
    recipe = recipes.find("smollm2-135m-instruct", Path.cwd())
    try:
        return recipe, checkpoint_path(recipe)
    except MissingTool as problem:
        pytest.skip(f"the real checkpoint is not in the cache: {problem.cause}")
