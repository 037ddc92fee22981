"""A family's equations in numpy float32, without tvm: what compiled models are held against.

Quality is measured and weights are calibrated with it too, so it works on batches, one layer at a
time, and asks for each parameter by its name when it needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix, Vector
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.model_config import DecoderConfig

Array = npt.NDArray[np.float32]
Values = Callable[[str], Array]
"""A parameter in float32 by its name: a matrix [rows, columns] or a vector."""
Observer = Callable[[str, Array], None]


class Evaluator:
    """Forward passes over a batch of sequences of one length, with a cache of keys and values.

    `observe(matrix, x)` is called with the rows [tokens, columns] that each matrix is multiplied
    with. With `keep` a parameter stays in memory after its first use. With a `kv_dtype` of float16,
    what goes into the KV cache's kernels and comes out of them is rounded as compiled models do.
    """

    def __init__(
        self,
        config: DecoderConfig,
        values: Values,
        *,
        keep: bool = True,
        observe: Observer | None = None,
        kv_dtype: str = "float32",
    ) -> None:
        self.config = config
        self.decoder = decoder(config)
        self.observe = observe
        self._values = values
        self._keep = keep
        self._kv_dtype = kv_dtype
        self._kept: dict[str, Array] = {}
        self._ids: npt.NDArray[np.intp] = np.zeros((1, 0), np.intp)
        self.reset()

    def reset(self) -> None:
        """Forget the text so far."""
        layers = range(self.config.num_hidden_layers)
        self._keys: list[list[Array]] = [[] for _ in layers]
        self._entries: list[list[Array]] = [[] for _ in layers]

    def forward(self, tokens: Sequence[int] | npt.NDArray[np.integer]) -> Array:
        """Append tokens [n] or [batch, n]; the logits after each, [n, vocab] or [batch, n, vocab].

        A batch keeps its size until `reset`.
        """
        ids = np.asarray(tokens, np.intp)
        x = self.embeddings(ids)
        for layer in range(self.config.num_hidden_layers):
            x = self.layer(layer, x)
        found = self.head(x)
        return found if ids.ndim == 2 else found[0]

    def embeddings(self, tokens: npt.NDArray[np.integer]) -> Array:
        """The residual stream [batch, n, hidden] of tokens [batch, n] before the first layer."""
        self._ids = np.atleast_2d(tokens)
        stream: Array = self.decoder.embed(self)
        return stream

    def layer(self, index: int, x: Array) -> Array:
        """The residual stream [batch, n, hidden] after one layer; its cache grows by n."""
        stream: Array = self.decoder.layer(self, index, x)
        return stream

    def head(self, x: Array) -> Array:
        """The logits [batch, n, vocab] of the last residual stream."""
        found: Array = self.decoder.logits(self, self.decoder.final(self, x))
        return found

    # The operations of `architectures.ops.Ops`, on arrays [batch, n, features].

    def embed(self, table: str, scale: float = 1.0) -> Array:
        return self._value(table)[self._ids] * np.float32(scale)

    def norm(self, x: Array, weight: str) -> Array:
        mean = np.square(x).mean(-1, keepdims=True)
        scaled: Array = x / np.sqrt(mean + np.float32(self.config.rms_norm_eps))
        return scaled * self._value(weight)

    def attention(
        self,
        layer: int,
        x: Array,
        qkv: str,
        *,
        bias: str | None = None,
        q_norm: str | None = None,
        k_norm: str | None = None,
    ) -> Array:
        config = self.config
        heads, kv_heads, size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        fused = self.linear(qkv, x)
        if bias is not None:
            fused = fused + self._value(bias)
        split = self._rounded(fused).reshape(*fused.shape[:2], heads + 2 * kv_heads, size)
        q, k, v = np.split(split, [heads, heads + kv_heads], axis=2)
        q = q if q_norm is None else self.norm(q, q_norm)
        k = k if k_norm is None else self.norm(k, k_norm)
        before = sum(block.shape[1] for block in self._keys[layer])
        positions = np.arange(before, before + x.shape[1])
        self._keys[layer].append(self._rounded(self._rotate(layer, k, positions)))
        self._entries[layer].append(v)
        keys = np.concatenate(self._keys[layer], axis=1)
        entries = np.concatenate(self._entries[layer], axis=1)
        grouped = self._rounded(self._rotate(layer, q, positions))
        grouped = grouped.reshape(*q.shape[:2], kv_heads, heads // kv_heads, size)
        scores = np.einsum("bnkgd,btkd->bkgnt", grouped, keys, optimize=True)
        scores *= np.float32(config.query_scale)
        if config.attention_softcap is not None:
            scores = _softcap(scores, config.attention_softcap)
        distance = positions[:, None] - np.arange(keys.shape[1])[None, :]
        window = config.window(layer)
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        scores[..., hidden] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("bkgnt,btkd->bnkgd", weights, entries, optimize=True)
        return self._rounded(mixed).reshape(*x.shape[:2], heads * size)

    def linear(self, matrix: str, x: Array, *, residual: Array | None = None) -> Array:
        rows = x.reshape(-1, x.shape[-1])
        if self.observe is not None:
            self.observe(matrix, rows)
        # One product for the whole batch, which reads the matrix once.
        product: Array = (rows @ self._value(matrix).T).reshape(*x.shape[:-1], -1)
        return product if residual is None else residual + product

    def gated(self, matrix: str, x: Array, activation: str) -> Array:
        gate, up = np.split(self.linear(matrix, x), 2, axis=-1)
        return _ACTIVATIONS[activation](gate) * up

    def add_norm(self, x: Array, y: Array, weight: str) -> Array:
        return x + self.norm(y, weight)

    def logits(self, matrix: str, x: Array, *, softcap: float | None = None) -> Array:
        scores = self.linear(matrix, x)
        return scores if softcap is None else _softcap(scores, softcap)

    def _rotate(self, layer: int, x: Array, positions: npt.NDArray[np.intp]) -> Array:
        half = self.config.head_dim // 2
        frequencies = np.asarray(self.config.layer_rope(layer).frequencies(self.config.head_dim))
        angles = positions[:, None] * frequencies
        cos = np.cos(angles).astype(np.float32)[:, None, :]
        sin = np.sin(angles).astype(np.float32)[:, None, :]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def _rounded(self, x: Array) -> Array:
        return np.ascontiguousarray(x.astype(self._kv_dtype), np.float32)

    def _value(self, name: str) -> Array:
        if name in self._kept:
            return self._kept[name]
        value = self._values(name)
        if self._keep:
            self._kept[name] = value
        return value


def source_values(checkpoint: Checkpoint) -> Values:
    """The checkpoint's own values, for `Evaluator`."""
    parameters = {item.name: item for item in decoder(checkpoint.config).parameters()}

    def values(name: str) -> Array:
        return parameter_values(checkpoint, parameters[name])

    return values


def parameter_values(checkpoint: Checkpoint, item: Matrix | Vector) -> Array:
    """A parameter of the model from the tensors of a checkpoint, in float32."""
    parts = [checkpoint.tensors[source].values() for source in item.sources]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if isinstance(item, Vector) and item.offset:
        return joined + np.float32(item.offset)
    return joined


def reference(checkpoint: Checkpoint) -> Evaluator:
    """The model with the checkpoint's own values."""
    return Evaluator(checkpoint.config, source_values(checkpoint))


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities, along the last axis, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return result


def _softcap(x: Array, cap: float) -> Array:
    capped: Array = np.tanh(x / np.float32(cap)) * np.float32(cap)
    return capped


def _silu(x: Array) -> Array:
    with np.errstate(over="ignore"):
        gated: Array = x / (1 + np.exp(-x))
    return gated


def _gelu_tanh(x: Array) -> Array:
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    gelu: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
    return gelu


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"silu": _silu, "gelu_tanh": _gelu_tanh}
