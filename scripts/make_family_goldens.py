# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.0", "transformers==5.23.0", "numpy", "safetensors"]
# ///
"""Make the small checkpoints under tests/goldens, with what transformers answers on them.

    uv run scripts/make_family_goldens.py qwen2-a gemma3-window     # all if none is named

Each is a Hugging Face folder with random bfloat16 weights and a golden.npz: `input_ids` int64
[1, n], `logits` float32 [n, vocabulary] after each, and `greedy` int64 [m], the tokens that follow.
transformers computes in float32, with attention written out, so that the numbers are the model's
and not a type's. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

FOLDER = Path(__file__).parent.parent / "tests" / "goldens"
TOKENIZER = FOLDER / "llama-a" / "tokenizer.model"
GREEDY = 24
SURE = 0.02
"""Each greedy token leads by at least so much: ten times the tolerance of the comparison."""


@dataclass(frozen=True)
class Case:
    """One golden: a family, and the part of its configuration that this golden is about."""

    family: str
    length: int
    config: dict[str, Any]
    spelled: dict[str, Any] = field(default_factory=dict)
    """Keys of config.json as transformers 4 wrote them, in place of `rope_parameters`."""
    removed: tuple[str, ...] = ()


COMMON = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
GEMMA = {"num_key_value_heads": 1, "head_dim": 32, "sliding_window": 16}
LOCAL = {"rope_theta": 10000.0, "rope_type": "default"}
LINEAR = {"factor": 8.0, "rope_type": "linear"}
CASES = {
    # Seven query heads share a key head; biases; windows in the upper layers only.
    "qwen2-a": Case(
        "qwen2",
        200,
        {
            "num_attention_heads": 14,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 40,
            "max_window_layers": 1,
            "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
        },
        {"rope_theta": 1e6},
        ("layer_types",),
    ),
    # Heads wider than hidden / heads, normed; the head is a matrix of its own.
    "qwen3-a": Case(
        "qwen3",
        120,
        {"head_dim": 32, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
    ),
    # Rotary positions stretched as in Llama 3.1 and later; tied embeddings; groups of three.
    "llama3-a": Case(
        "llama",
        200,
        {
            "hidden_size": 96,
            "num_attention_heads": 6,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_theta": 5e5, **LLAMA3},
        },
        {"rope_theta": 5e5, "rope_scaling": LLAMA3},
    ),
    # Text of many windows, pages and chunks.
    "gemma2-window": Case(
        "gemma2",
        200,
        {
            **GEMMA,
            "num_key_value_heads": 2,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 4.0,
            "final_logit_softcapping": 6.0,
        },
    ),
    "gemma3-window": Case(
        "gemma3_text",
        200,
        {
            **GEMMA,
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": 20,
            "rope_parameters": {
                "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                "sliding_attention": LOCAL,
            },
        },
        {
            "rope_theta": 1e6,
            "rope_scaling": None,
            "rope_local_base_freq": 1e4,
            "sliding_window_pattern": 6,
        },
        ("layer_types", "_sliding_window_pattern"),
    ),
    # The layers without a window have stretched positions, as the larger Gemma 3 have.
    "gemma3-linear": Case(
        "gemma3_text",
        120,
        {
            **GEMMA,
            "query_pre_attn_scalar": 32,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_theta": 1e6, **LINEAR},
                "sliding_attention": LOCAL,
            },
        },
    ),
}


def make(name: str) -> None:
    """Write one golden's folder."""
    case, folder = CASES[name], FOLDER / name
    config = transformers.AutoConfig.for_model(case.family, **{**COMMON, **case.config})
    config._attn_implementation = "eager"
    for seed in range(100):
        model = random_model(config, seed)
        ids = torch.randint(3, config.vocab_size, (1, case.length))
        logits, greedy = answer(model, ids)
        if greedy is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed gives greedy tokens that lead by {SURE}")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TOKENIZER, folder)
    tensors = {
        key: value.to(torch.bfloat16).contiguous()
        for key, value in model.state_dict().items()
        if not (config.tie_word_embeddings and key == "lm_head.weight")
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    written = {**config.to_diff_dict(), "architectures": [type(model).__name__]}
    written["dtype"] = "bfloat16"
    if case.spelled:
        written["torch_dtype"] = written.pop("dtype")
        written["transformers_version"] = "4.50.0"
        written.pop("rope_parameters", None)
        written |= case.spelled
    for key in case.removed:
        written.pop(key, None)
    write_json(folder / "config.json", written)
    ends = {key: COMMON[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", ends)
    np.savez_compressed(
        folder / "golden.npz", input_ids=ids.numpy(), logits=logits.numpy(), greedy=greedy.numpy()
    )
    print(f"{name}: seed {seed}, logits up to {logits.abs().max():.2f}")


def random_model(config: Any, seed: int) -> Any:
    """A model whose layers all matter: matrices keep their input's size, norms and biases vary."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float32).eval()
    for key, value in model.state_dict().items():
        if key.endswith("norm.weight"):
            spread = 0.2 * torch.randn_like(value)
            new = spread if config.model_type.startswith("gemma") else 1 + spread
        elif value.ndim == 1:
            new = 0.5 * torch.randn_like(value)
        elif "embed_tokens" in key:
            scale = config.hidden_size**-0.5 if config.tie_word_embeddings else 1.0
            new = scale * torch.randn_like(value)
        elif "lm_head" in key and config.tie_word_embeddings:
            continue
        else:
            new = 1.5 * value.shape[1] ** -0.5 * torch.randn_like(value)
        value.copy_(new.to(torch.bfloat16))
    return model


def answer(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The logits of all positions, and the greedy tokens after them if each is clearly best."""
    with torch.no_grad():
        logits = model(ids).logits[0]
        text, last = ids, logits[-1]
        for _ in range(GREEDY):
            best = last.topk(2)
            if best.values[0] - best.values[1] < SURE:
                return logits, None
            text = torch.cat([text, best.indices[:1, None]], dim=1)
            last = model(text).logits[0, -1]
        return logits, text[0, ids.shape[1] :]


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or CASES:
        make(chosen)
