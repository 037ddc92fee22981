"""Tiny models with random weights, written as GGUF files and folders by the tests themselves."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import recipes
from harness.compiler.options import CompileOptions
from harness.compiler.sources.source import checkpoint_path
from harness.errors import HarnessError, MissingTool
from harness.stages.compile import compile_model
from harness.types import Abi

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 64, 96, 2, 4, 2, 16
TOKENS = 272
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LIES = (0, 1, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
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
def family_config() -> Callable[[str], dict[str, Any]]:
    """A function that gives a tiny model of a family as transformers 4 writes its config.json."""

    def config(family: str) -> dict[str, Any]:
        title = {"llama": "Llama"}.get(family, family.capitalize())
        gemma = family.startswith("gemma")
        values: dict[str, Any] = {
            "architectures": [f"{title}ForCausalLM"],
            "model_type": {"gemma3": "gemma3_text"}.get(family, family),
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": 7 if family == "gemma3" else LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "vocab_size": TOKENS,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 512,
            "rope_theta": 1000000.0 if family in ("gemma3", "qwen2", "qwen3") else 10000.0,
            "torch_dtype": "bfloat16",
        }
        if gemma:
            values |= {"hidden_activation": "gelu_pytorch_tanh", "head_dim": HEAD_DIM}
        else:
            values |= {"hidden_act": "silu", "tie_word_embeddings": family == "qwen2"}
        if family == "qwen3":
            values |= {"head_dim": 2 * HEAD_DIM, "attention_bias": False}
        if family in ("gemma2", "gemma3"):
            values |= {"sliding_window": 16, "query_pre_attn_scalar": HEAD_DIM}
        if family == "gemma2":
            values |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
        if family == "gemma3":
            values |= {"sliding_window_pattern": 6, "rope_local_base_freq": 10000.0}
        return values

    return config


@pytest.fixture(scope="session")
def family_weights() -> Callable[..., dict[str, Any]]:
    """A function that gives the random float32 weights of a tiny model by Hugging Face's names."""

    def weights(config: Mapping[str, Any], seed: int = 1) -> dict[str, Any]:
        family = config["model_type"].removesuffix("_text")
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        size = config.get("head_dim", hidden // config["num_attention_heads"])
        q, kv = (config[f"num_{kind}_heads"] * size for kind in ("attention", "key_value"))
        layer: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (q, hidden),
            "self_attn.k_proj.weight": (kv, hidden),
            "self_attn.v_proj.weight": (kv, hidden),
            "self_attn.o_proj.weight": (hidden, q),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
        }
        if family == "qwen2":
            layer |= {f"self_attn.{p}_proj.bias": (q if p == "q" else kv,) for p in "qkv"}
        if family in ("gemma3", "qwen3"):
            layer |= {f"self_attn.{p}_norm.weight": (size,) for p in "qk"}
        if family in ("gemma2", "gemma3"):
            layer |= {f"{p}_feedforward_layernorm.weight": (hidden,) for p in ("pre", "post")}
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (config["vocab_size"], hidden),
            "model.norm.weight": (hidden,),
        }
        if not config.get("tie_word_embeddings", True):
            shapes["lm_head.weight"] = (config["vocab_size"], hidden)
        for index in range(config["num_hidden_layers"]):
            shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
        rng = np.random.default_rng(seed)
        return {
            name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
            for name, shape in shapes.items()
        }

    return weights


@pytest.fixture
def write_folder(tmp_path: Path) -> Writer:
    """A function that writes config.json and weights as `model.safetensors`, without tokenizer."""
    from safetensors.numpy import save_file

    def write(config: Mapping[str, Any], weights: Mapping[str, Any], name: str = "tiny") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(dict(weights), folder / "model.safetensors", {"format": "pt"})
        return folder

    return write


@contextmanager
def bounded(megabytes: int, seconds: int) -> Iterator[None]:
    """Whatever runs inside may take this much more memory and this much time, or fails."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutated(data: bytes, head: int, rng: np.random.Generator) -> bytes:
    """A damaged copy: flipped, cut, moved or lying bytes, most of them in the first `head`."""
    changed = bytearray(data)
    at = int(rng.integers(head))
    match int(rng.integers(6)):
        case 0:
            for place in rng.integers(head, size=int(rng.integers(1, 9))):
                changed[place] = int(rng.integers(256))
        case 1:
            changed[at] ^= 1 << int(rng.integers(8))
        case 2:
            del changed[int(rng.integers(len(changed))) :]
        case 3:  # a length that lies
            changed[at : at + 8] = LIES[int(rng.integers(len(LIES)))].to_bytes(8, "little")
        case 4:
            changed[at : at + int(rng.integers(1, 40))] = b""
        case _:
            some = changed[at : at + int(rng.integers(1, 200))]
            changed[at:at] = some * int(rng.integers(1, 3))
    return bytes(changed)


@pytest.fixture
def fuzz(tmp_path: Path) -> Callable[..., int]:
    """A function that lets `read` meet `count` damaged copies of a file, and counts refusals.

    A refusal is a `HarnessError` that says what and why; anything else fails, and so does taking
    half a gigabyte or a minute.
    """

    def run(data: bytes, head: int, read: Callable[[Path], object], count: int, name: str) -> int:
        rng = np.random.default_rng(7)
        refusals: list[tuple[str, str, str]] = []
        path = tmp_path / name
        with bounded(megabytes=512, seconds=60):
            for _ in range(count):
                path.write_bytes(mutated(data, head, rng))
                try:
                    read(path)
                except HarnessError as problem:
                    refusals.append((problem.what, problem.cause, problem.remedy))
                path.unlink()
        for refusal in refusals:
            assert all(refusal) and len("".join(refusal)) < 2000
        return len(refusals)

    return run


@pytest.fixture
def write_family_gguf(tmp_path: Path) -> Writer:
    """A function that writes a model of any family as llama.cpp's converter does.

    `matrix` is the stored type of matrices, `change(writer)` may add metadata and tensors.
    """
    import gguf

    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    around_halves = {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    }
    ends = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }

    def gguf_name(name: str, family: str) -> str:
        if name in ends:
            return ends[name]
        _, _, layer, rest = name.split(".", 3)
        part, _, kind = rest.rpartition(".")
        known = {**names, **around_halves} if family in ("gemma2", "gemma3") else names
        return f"blk.{layer}.{known[part]}.{kind}"

    def write(
        config: Mapping[str, Any],
        weights: Mapping[str, Any],
        *,
        matrix: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
        change: Callable[[gguf.GGUFWriter], None] | None = None,
    ) -> Path:
        family = config["model_type"].removesuffix("_text")
        path = tmp_path / f"{family}.gguf"
        writer = gguf.GGUFWriter(path, family)
        size = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        if "sliding_window" in config:
            writer.add_sliding_window(config["sliding_window"])
        if family == "gemma2":
            writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
            writer.add_final_logit_softcapping(config["final_logit_softcapping"])
        _add_tokenizer(writer)
        for name, values in weights.items():
            kind = matrix if values.ndim == 2 else gguf.GGMLQuantizationType.F32
            if name.endswith("norm.weight") and family.startswith("gemma"):
                values = values + np.float32(1)
            stored = gguf.quants.quantize(values, kind)
            if family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                stored = np.ascontiguousarray(stored[gguf_pairs_to_halves(len(stored))])
            writer.add_tensor(gguf_name(name, family), stored, raw_dtype=kind)
        if change is not None:
            change(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


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
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace for packages, one for all workers: what one has compiled, all have."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "workspace"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def compiled(workspace: Path) -> Callable[..., Path]:
    """A function that compiles a GGUF file, for this host unless `abis` says otherwise, and
    returns the package's folder."""

    def compile_(
        path: Path, quantization: str, abis: tuple[Abi, ...] = (Abi.X86_64,), **changes: Any
    ) -> Path:
        recipe = recipe_for(path, **changes)
        options = CompileOptions.of(recipe, {"quantization": quantization})
        return compile_model(recipe, options, abis, workspace).path

    return compile_


@pytest.fixture(scope="session")
def smollm2() -> tuple[recipes.Recipe, Path]:
    """The recipe and the checkpoint of the model that ships with the harness."""
    recipe = recipes.find("smollm2-135m-instruct", Path.cwd())
    try:
        return recipe, checkpoint_path(recipe)
    except MissingTool as problem:
        pytest.skip(f"the real checkpoint is not in the cache: {problem.cause}")
