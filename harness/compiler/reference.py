"""An independent Llama in numpy float32, without tvm: what compiled models are held against.

It decodes each tensor of the checkpoint when it needs it (or once, with `keep`), so that its
weights are the checkpoint's own values whatever their type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoint import Checkpoint

Array = npt.NDArray[np.float32]


class Reference:
    """A forward pass with its own cache of keys and values.

    `values(name)` gives a parameter in float32 by its checkpoint name; by default the
    checkpoint's own, kept after the first use.
    """

    def __init__(
        self, checkpoint: Checkpoint, values: Callable[[str], Array] | None = None
    ) -> None:
        self.config = checkpoint.config
        self._values = values or (lambda name: checkpoint.tensors[name].values())
        self._kept: dict[str, Array] = {}
        self._keys: list[list[Array]] = []
        self._entries: list[list[Array]] = []
        self.reset()

    def reset(self) -> None:
        """Forget the text so far."""
        self._keys = [[] for _ in range(self.config.num_hidden_layers)]
        self._entries = [[] for _ in range(self.config.num_hidden_layers)]

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return sum(len(block) for block in self._keys[0])

    def logits(self, tokens: Sequence[int]) -> Array:
        """Append `tokens` and return the logits after each of them, [len(tokens), vocab]."""
        config = self.config
        positions = np.arange(self.length, self.length + len(tokens))
        x = self._weight("model.embed_tokens.weight")[np.asarray(tokens)]
        for layer in range(config.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            h = self._norm(x, prefix + "input_layernorm.weight")
            x = x + self._attention(layer, prefix + "self_attn.", h, positions)
            h = self._norm(x, prefix + "post_attention_layernorm.weight")
            gate = h @ self._weight(prefix + "mlp.gate_proj.weight").T
            up = h @ self._weight(prefix + "mlp.up_proj.weight").T
            inner = gate / (1 + np.exp(-gate)) * up
            x = x + inner @ self._weight(prefix + "mlp.down_proj.weight").T
        head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
        return self._norm(x, "model.norm.weight") @ self._weight(head).T

    def _attention(
        self, layer: int, prefix: str, h: Array, positions: npt.NDArray[np.intp]
    ) -> Array:
        config = self.config
        n, heads, kv_heads = len(h), config.num_attention_heads, config.num_key_value_heads
        size = config.head_dim
        q = (h @ self._weight(prefix + "q_proj.weight").T).reshape(n, heads, size)
        k = (h @ self._weight(prefix + "k_proj.weight").T).reshape(n, kv_heads, size)
        v = (h @ self._weight(prefix + "v_proj.weight").T).reshape(n, kv_heads, size)
        self._keys[layer].append(self._rotate(k, positions))
        self._entries[layer].append(v)
        keys = np.concatenate(self._keys[layer])
        entries = np.concatenate(self._entries[layer])
        grouped = self._rotate(q, positions).reshape(n, kv_heads, heads // kv_heads, size)
        scores = np.einsum("nkgd,tkd->kgnt", grouped, keys, optimize=True) / np.sqrt(
            np.float32(size)
        )
        hidden = np.arange(len(keys))[None, :] > positions[:, None]
        scores = np.where(hidden, np.float32(-np.inf), scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("kgnt,tkd->nkgd", weights, entries, optimize=True)
        result: Array = mixed.reshape(n, heads * size) @ self._weight(prefix + "o_proj.weight").T
        return result

    def _rotate(self, x: Array, positions: npt.NDArray[np.intp]) -> Array:
        half = self.config.head_dim // 2
        exponents = np.arange(half, dtype=np.float64) / half
        angles = positions[:, None] * self.config.rope_theta**-exponents
        cos = np.cos(angles).astype(np.float32)[:, None, :]
        sin = np.sin(angles).astype(np.float32)[:, None, :]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def _norm(self, x: Array, name: str) -> Array:
        mean = np.square(x).mean(-1, keepdims=True)
        scaled: Array = x / np.sqrt(mean + np.float32(self.config.rms_norm_eps))
        return scaled * self._weight(name)

    def _weight(self, name: str) -> Array:
        if name not in self._kept:
            self._kept[name] = self._values(name)
        return self._kept[name]


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities, along the last axis, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return result
