"""A model's configuration by the names of Hugging Face's config.json, read strictly.

transformers 4 and 5 write some things differently: both are read. A key that is absent or null
has the value that the family's class in transformers gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.compiler.model_config import DecoderConfig, Rope, RopeScaling
from harness.errors import StageFailed, UsageError

MAX_LAYERS = 1024
_MAX_INTEGER = 2**31 - 1
_FULL, _WINDOWED = "full_attention", "sliding_attention"
# What no family computes: biases elsewhere than in q, k and v, attention to later tokens.
_MUST_BE_OFF = ("mlp_bias", "use_bidirectional_attention")
_EXPERTS = ("num_experts", "num_local_experts")


@dataclass(frozen=True)
class ConfigKeys:
    """The keys of one checkpoint; where it is a GGUF file, its metadata under these names.

    Every reader raises `StageFailed` with the file and the key if a value is missing, of another
    type or out of its range, and `UsageError` if it asks for what the compiler does not know.
    """

    path: Path
    values: Mapping[str, Any]
    spelled: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a key, where that is another name."""
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def defaulting(self, **defaults: Any) -> ConfigKeys:
        """The same, with values for keys that the file leaves out."""
        return replace(self, defaults={**self.defaults, **defaults})

    def integer(
        self, key: str, default: int | None = None, *, least: int = 1, most: int = _MAX_INTEGER
    ) -> int:
        """A whole number of at least `least`."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(key)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(key)
        if not 0.0 < value < 1e30:
            raise self.wrong(key)
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """A positive number, or None where the file has null or nothing."""
        return None if self._value(key, None) is None else self.number(key)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key)
        return value

    def rope(self) -> Rope:
        """The rotary positions of all layers, or of those that see the whole text.

        transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters`,
        flat or for each type of layers.
        """
        key = "rope_scaling" if self.values.get("rope_parameters") is None else "rope_parameters"
        declared: Any = self._mapping(key)
        if _is_layered(declared):
            key = f"{key}.{_FULL}"
            declared = declared.get(_FULL)
        return self._rope(key, declared, self.number("rope_theta", 10000.0))

    def local_rope(self, theta: float) -> Rope:
        """The rotary positions of the windowed layers of a family where they have their own."""
        declared = self._mapping("rope_parameters")
        declared = declared.get(_WINDOWED, {}) if _is_layered(declared) else {}
        return self._rope(
            f"rope_parameters.{_WINDOWED}", declared, self.number("rope_local_base_freq", theta)
        )

    def windows(self, windowed: Callable[[int], bool]) -> dict[str, Any]:
        """`sliding_window` and `windowed_layers` of the configuration.

        The layers are those that `layer_types` names, or else those for which `windowed` is true.
        """
        layers = self._layers()
        kinds = self.values.get("layer_types")
        if kinds is None:
            chosen = tuple(windowed(layer) for layer in range(layers))
        else:
            if not isinstance(kinds, list) or len(kinds) != layers:
                raise self.broken(f"layer_types is no list of {layers} layers")
            for kind in kinds:
                if kind not in (_FULL, _WINDOWED):
                    raise self.unsupported(f"layer_types has {kind!r:.60}")
            chosen = tuple(kind == _WINDOWED for kind in kinds)
        if not any(chosen):
            return {}
        return {"sliding_window": self.integer("sliding_window"), "windowed_layers": chosen}

    def decoder(self, family: str, **others: Any) -> DecoderConfig:
        """What all families share; `others` are the fields that a family reads for itself."""
        self._refuse_unknown(others)
        heads = self.integer("num_attention_heads")
        kv_heads = self.integer("num_key_value_heads", heads)
        hidden = self.integer("hidden_size")
        head_dim = self.integer("head_dim", max(hidden // heads, 1))
        if heads % kv_heads or head_dim % 2:
            raise self.broken(f"{heads} query heads, {kv_heads} key heads of {head_dim}")
        fields: dict[str, Any] = {
            "family": family,
            "hidden_size": hidden,
            "intermediate_size": self.integer("intermediate_size"),
            "num_hidden_layers": self._layers(),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "vocab_size": self.integer("vocab_size"),
            "rms_norm_eps": self.number("rms_norm_eps"),
            "context_window": self.integer("max_position_embeddings"),
            "tie_word_embeddings": self.flag("tie_word_embeddings", False),
            "query_scale": head_dim**-0.5,
            "rope": self.rope(),
        }
        return DecoderConfig(**{**fields, **others})

    def wrong(self, key: str) -> StageFailed:
        """The error for a value that is missing or cannot be."""
        name = self.spelled.get(key, key)
        value = self._value(key, None)
        return self.broken(f"it lacks {name}" if value is None else f"{name} is {value!r:.100}")

    def broken(self, cause: str) -> StageFailed:
        """The error for a configuration that makes no model."""
        return StageFailed(
            f"{self.path.name} is not a whole model",
            cause=cause,
            remedy=f"ls -l {self.path}   # get the file again from its source",
        )

    def unsupported(self, cause: str) -> UsageError:
        """The error for a model that would be computed wrongly."""
        return UsageError(
            f"{self.path.name} describes a model of a form that the compiler does not know",
            cause=cause,
            remedy="harness models list",
        )

    def _refuse_unknown(self, others: Mapping[str, Any]) -> None:
        for key in _MUST_BE_OFF:
            if self.flag(key, False):
                raise self.unsupported(f"{self.spelled.get(key, key)} is true")
        if self.flag("attention_bias", False) and not others.get("attention_bias"):
            raise self.unsupported("attention_bias is true")
        for key in _EXPERTS:
            if self.integer(key, 0, least=0):
                raise self.unsupported(f"{self.spelled.get(key, key)}: it is a mixture of experts")
        if "local_rope" not in others and _is_layered(self._mapping("rope_parameters")):
            raise self.unsupported("rope_parameters has one entry for each type of layers")

    def _layers(self) -> int:
        return self.integer("num_hidden_layers", most=MAX_LAYERS)

    def _rope(self, key: str, declared: Any, theta: float) -> Rope:
        if not isinstance(declared, dict):
            raise self.broken(f"{key} is {declared!r:.100}")
        names = ("rope_theta", "partial_rotary_factor", "factor", *_LLAMA3)
        keys = ConfigKeys(self.path, declared, {name: f"{key}.{name}" for name in names})
        theta = keys.number("rope_theta", theta)
        share = keys.number("partial_rotary_factor", self.number("partial_rotary_factor", 1.0))
        if share != 1.0:
            raise self.unsupported(f"it rotates {share} of each head")
        kind = declared.get("rope_type") or declared.get("type") or "default"
        if kind == "default":
            return Rope(theta)
        if kind == "linear":
            return Rope(theta, RopeScaling(kind, keys.number("factor")))
        if kind == "llama3":
            low, high = (keys.number(name) for name in _LLAMA3[:2])
            if low >= high:
                raise self.broken(f"{key} has a low_freq_factor of {low}, a high one of {high}")
            context = keys.integer(_LLAMA3[2])
            return Rope(theta, RopeScaling(kind, keys.number("factor"), low, high, context))
        raise self.unsupported(
            f"its rotary positions are scaled as {kind!r:.60}; known are linear and llama3"
        )

    def _mapping(self, key: str) -> Mapping[str, Any]:
        value = self._value(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key)
        return value

    def _value(self, key: str, default: Any) -> Any:
        for values in (self.values, self.defaults):
            if values.get(key) is not None:
                return values[key]
        return default


_LLAMA3 = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def _is_layered(rope_parameters: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in rope_parameters.values())
