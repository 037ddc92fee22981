"""config.json of a Hugging Face folder: which family it describes, and its keys.

https://huggingface.co/docs/transformers/main_classes/configuration
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.compiler.architectures import FAMILIES
from harness.compiler.architectures.decoder import Decoder
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.checkpoints.json_object import read_json_object
from harness.compiler.model_config import DecoderConfig
from harness.errors import HarnessError, UsageError

TEXT_PART = "text_config"
_GENERATORS = ("ForCausalLM", "ForConditionalGeneration")
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


def read_config(path: Path) -> tuple[DecoderConfig, bool]:
    """The configuration in a config.json, and whether it is the text part of a larger model.

    Raises `UsageError` for a family or a feature that the compiler does not know, `StageFailed`
    for a file that is damaged or contradicts itself.
    """
    document = read_json_object(path)
    keys = top = ConfigKeys(path, document)
    nested = document.get(TEXT_PART)
    if nested is not None:
        if not isinstance(nested, dict):
            raise top.wrong(TEXT_PART)
        # The embedding of a multimodal model is tied at the top.
        tied = {"tie_word_embeddings": document.get("tie_word_embeddings")}
        keys = ConfigKeys(path, {**tied, **nested})
    family = _family(keys)
    if nested is not None and document.get("model_type") != family.family:
        raise _unknown_type(top)
    _refuse_other_heads(top, family)
    if document.get("quantization_config") is not None:
        raise top.unsupported("it is quantized already (quantization_config)")
    _check_activation(keys, family)
    return family.configure(keys), nested is not None


def _family(keys: ConfigKeys) -> type[Decoder]:
    name = keys.values.get("model_type")
    for family in FAMILIES.values():
        if name in family.model_types:
            return family
    raise _unknown_type(keys)


def _unknown_type(keys: ConfigKeys) -> HarnessError:
    name = keys.values.get("model_type")
    if not isinstance(name, str):
        return keys.wrong("model_type")
    known = sorted(name for family in FAMILIES.values() for name in family.model_types)
    return UsageError(
        f"{keys.path.parent.name} holds a model of the type {name!r:.60}",
        cause=f"the compiler knows: {', '.join(known)}",
        remedy="harness models list",
    )


def _refuse_other_heads(keys: ConfigKeys, family: type[Decoder]) -> None:
    """The same layers may carry a classifier or belong to something else."""
    classes = keys.values.get("architectures")
    if classes is None:
        return
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise keys.wrong("architectures")
    for name in classes:
        stem = next((name.removesuffix(end) for end in _GENERATORS if name.endswith(end)), None)
        if stem is None:
            raise keys.unsupported(f"it is a {name:.60}, which generates no text")
        if stem.lower() != family.family:
            raise keys.broken(f"its architecture is {name:.60}, its model_type another")


def _check_activation(keys: ConfigKeys, family: type[Decoder]) -> None:
    for key, name in _activation_keys(keys.values).items():
        # The first files of Gemma say gelu where the model was trained with its tanh form.
        early = key == "hidden_act" and name == "gelu" and family.activation == "gelu_tanh"
        if _ACTIVATIONS.get(str(name)) != family.activation and not early:
            raise keys.unsupported(
                f"{key} is {name!r:.60}; {family.family} has {family.activation}"
            )


def _activation_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("hidden_act", "hidden_activation")
    return {key: values[key] for key in keys if values.get(key) is not None}
