"""A model's configuration by the names of Hugging Face's config.json, read strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.compiler.model_config import DecoderConfig, Rope, RopeScaling
from harness.errors import StageFailed


@dataclass(frozen=True)
class ConfigKeys:
    """The keys of one checkpoint; where it is a GGUF file, its metadata under these names.

    Every reader raises `StageFailed` with the file and the key if a value is missing, of another
    type or out of its range.
    """

    path: Path
    values: Mapping[str, Any]
    spelled: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a key, where that is another name."""

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(key)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(key)
        if not 0.0 < value < float("inf"):
            raise self.wrong(key)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key)
        return value

    def optional_number(self, key: str) -> float | None:
        """A positive number, or None where the file has none."""
        return None if self.values.get(key) is None else self.number(key)

    def defaulting(self, **defaults: Any) -> ConfigKeys:
        """These keys, with a family's defaults for those that the file leaves out."""
        said = {key: value for key, value in self.values.items() if value is not None}
        return replace(self, values={**defaults, **said})

    def rope(self) -> Rope:
        """The rotary positions of all layers, or of those without a window."""
        return self._rope("full_attention", self.number("rope_theta", 10000.0), "rope_scaling")

    def local_rope(self, theta: float) -> Rope:
        """The rotary positions of windowed layers, of base `theta` if the file says nothing."""
        return self._rope("sliding_attention", self.number("rope_local_base_freq", theta), None)

    def windows(self, windowed: Callable[[int], bool]) -> dict[str, Any]:
        """The fields of `DecoderConfig` that say which layers have a window, and its size.

        `windowed` is the family's rule by the index of a layer, where the file has no list.
        """
        count = self.integer("num_hidden_layers")
        kinds = self.values.get("layer_types")
        if kinds is None:
            layers = tuple(windowed(layer) for layer in range(count))
        elif (
            not isinstance(kinds, list)
            or len(kinds) != count
            or not {*map(str, kinds)} <= {"full_attention", "sliding_attention"}
        ):
            raise self.wrong("layer_types")
        else:
            layers = tuple(kind == "sliding_attention" for kind in kinds)
        if not any(layers) or self.values.get("sliding_window") is None:
            return {}
        return {"sliding_window": self.integer("sliding_window"), "windowed_layers": layers}

    def _rope(self, layers: str, theta: float, scaling_key: str | None) -> Rope:
        # transformers 5 has one entry for all layers, or one for each kind of them.
        found = self.values.get("rope_parameters")
        if isinstance(found, dict):
            found = found.get(layers, found)
            keys = replace(self, values=found)
            return Rope(keys.number("rope_theta", theta), keys._rope_scaling(found))
        scaling = None if scaling_key is None else self.values.get(scaling_key)
        return Rope(theta, None if scaling is None else self._rope_scaling(scaling))

    def _rope_scaling(self, found: Any) -> RopeScaling | None:
        if not isinstance(found, dict):
            raise self.broken(f"its rope_scaling is {found!r}")
        keys = replace(self, values=found)
        kind = found.get("rope_type", found.get("type", "default"))
        if kind == "default":
            return None
        if kind == "linear":
            return RopeScaling(kind, keys.number("factor"))
        if kind == "llama3":
            return RopeScaling(
                kind,
                keys.number("factor"),
                keys.number("low_freq_factor"),
                keys.number("high_freq_factor"),
                keys.integer("original_max_position_embeddings"),
            )
        raise self.broken(f"its rotary positions are of the type {kind!r}")

    def decoder(self, family: str, **others: Any) -> DecoderConfig:
        """What all families share; `others` are the fields that a family reads for itself."""
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
            "num_hidden_layers": self.integer("num_hidden_layers"),
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
        lacking = self.values.get(key) is None
        return self.broken(f"it lacks {name}" if lacking else f"{name} is {self.values[key]!r}")

    def broken(self, cause: str) -> StageFailed:
        """The error for a configuration that makes no model."""
        return StageFailed(
            f"{self.path.name} is not a whole model",
            cause=cause,
            remedy=f"ls -l {self.path}   # get the file again from its source",
        )

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value
