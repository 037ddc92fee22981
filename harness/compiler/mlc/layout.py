"""A package's weights, configuration and tokenizer as MLC's own tools lay them out.

The packed weights are put back into MLC's plain form: integers and scales stay what they are,
norms and biases are rounded to the type of the quantization, as MLC has them. The folder has no
library: ours takes packed weights, and MLC's are compiled by MLC for a GPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from harness import files
from harness.compiler.architectures import decoder
from harness.compiler.architectures.decoder import Decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.json_object import read_json_object
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.mlc.config import model_config
from harness.compiler.mlc.forms import FORMS, Form, Plain, parameters, to_mlc
from harness.compiler.mlc.tensor_cache import read_tensor_cache, write_tensor_cache
from harness.compiler.model_config import DecoderConfig
from harness.compiler.sources.needed_files import MLC_CACHES, MLC_CONFIG
from harness.compiler.templates import chat_template, conv_template
from harness.compiler.templates.conv_template import Conversation
from harness.errors import UsageError

_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
Progress = Callable[[float, float, str], None]


def write(
    folder: Path,
    packed: Path,
    model: Mapping[str, Any],
    *,
    name: str,
    quantization: str,
    context: int,
    prefill_chunk: int,
    progress: Progress,
) -> int:
    """Write the model whose packed weights and tokenizer lie in `packed` to the new `folder`.

    `model` is what the task `weights` returned, `name` the model's in errors. Returns the bytes
    of all shards. Raises `UsageError` if MLC has no form for these weights, no place for something
    in the configuration, or no Conversation that says what the chat template says.
    """
    config = DecoderConfig.from_json(model["config"])
    formats = {item: WeightFormat.parse(text) for item, text in model["formats"].items()}
    known = _form(quantization, formats)
    tokenizer = Tokenizer.from_file(str(packed / _TOKENIZER))
    active = min(tokenizer.get_vocab_size(), config.vocab_size)
    described = {
        **_chat_config(model, known, config, context, prefill_chunk, active),
        "tokenizer_info": _tokenizer_info(read_json_object(packed / _TOKENIZER)),
        "conv_template": conversation(name, packed, model),
    }
    folder.mkdir()
    tensors = _tensors(decoder(config), FORMS[known], packed, progress)
    size = write_tensor_cache(folder, tensors, {"quantization": known})
    # Until 2025 MLC looked for it under this name.
    shutil.copyfile(folder / MLC_CACHES[0], folder / MLC_CACHES[1])
    shutil.copyfile(packed / _TOKENIZER, folder / _TOKENIZER)
    files.write_json(folder / _TOKENIZER_CONFIG, _tokenizer_config(model, tokenizer))
    files.write_json(folder / MLC_CONFIG, described)
    return size


def _form(quantization: str, formats: Mapping[str, WeightFormat]) -> str:
    """MLC's name for matrices in these formats, the quantization's own if it fits."""
    for name in (quantization, *FORMS):
        form = FORMS.get(name)
        if form and all(form.format(matrix) == fmt for matrix, fmt in formats.items()):
            return name
    kinds = ", ".join(sorted({str(fmt) for fmt in formats.values()}))
    raise UsageError(
        f"MLC has no form for the weights of {quantization} as they are asked for",
        cause=f"they are {kinds}; its forms: {', '.join(FORMS)}",
        remedy="--layout packed   # or leave out --group-size and --embedding",
    )


def conversation(name: str, packed: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """The `conv_template` of the model `name`, whose tokenizer and template lie in `packed`.

    Raises `UsageError` if no Conversation says what the chat template says.
    """
    numbers, template = model["tokens"]["eos"], model["chat_template"]
    if template is None:
        # Messages as they are: MLC calls that LM.
        return Conversation(stop_token_ids=tuple(numbers)).document("LM")
    tokenizer = Tokenizer.from_file(str(packed / _TOKENIZER))
    ends = {number: str(tokenizer.id_to_token(number)) for number in numbers}
    compiled = read_json_object(packed / chat_template.FILE)
    tokens = {key: text for key, text in compiled.items() if key.endswith("_token")}
    return conv_template.express(name, template, tokens, ends).document(name)


def _tokenizer_config(model: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """What transformers reads beside `tokenizer.json`."""
    numbers, template = model["tokens"], model["chat_template"]
    named = {"bos": numbers["bos"], "eos": next(iter(numbers["eos"]), None)}
    named["pad"] = numbers["padding"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{k}_token": tokenizer.id_to_token(n) for k, n in named.items() if n is not None},
        **({} if template is None else {"chat_template": template}),
    }


def _tokenizer_info(document: Mapping[str, Any]) -> dict[str, Any]:
    """What MLC finds in a `tokenizer.json`: cpp/tokenizers/tokenizers.cc, DetectTokenizerInfo."""
    decoders = _steps(document.get("decoder"), "decoders")
    methods = {"ByteLevel": "byte_level", "ByteFallback": "byte_fallback"}
    found = [methods[step["type"]] for step in decoders if step.get("type") in methods]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "token_postproc_method": found[-1] if found else "byte_fallback",
        "prepend_space_in_encode": {"type": "Prepend", "prepend": "\u2581"}
        in _steps(document.get("normalizer"), "normalizers"),
        "strip_space_in_decode": strip in decoders,
    }


def _steps(part: Any, name: str) -> list[Mapping[str, Any]]:
    """A part of a tokenizer, which may be a sequence of steps."""
    if not part:
        return []
    return list(part[name]) if part.get("type") == "Sequence" else [part]


def _chat_config(
    model: Mapping[str, Any],
    quantization: str,
    config: DecoderConfig,
    context: int,
    prefill_chunk: int,
    active: int,
) -> dict[str, Any]:
    """MLC's `mlc-chat-config.json` but for the Conversation; `active` tokens have a text."""
    sizes = {
        "context_window_size": context,
        "sliding_window_size": -1,
        "prefill_chunk_size": prefill_chunk,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
    }
    return {
        "version": "0.1.0",
        "model_type": config.family,
        "quantization": quantization,
        "model_config": model_config(config, context, prefill_chunk),
        "model_task": "chat",
        "vocab_size": config.vocab_size,
        "active_vocab_size": active,
        **sizes,
        "temperature": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "top_p": 1.0,
        "tokenizer_files": [_TOKENIZER, _TOKENIZER_CONFIG],
        "pad_token_id": model["tokens"]["padding"],
        "bos_token_id": model["tokens"]["bos"],
        "eos_token_id": model["tokens"]["eos"],
    }


def _tensors(
    family: Decoder, form: Form, packed: Path, progress: Progress
) -> Iterator[tuple[str, str, npt.NDArray[Any]]]:
    """MLC's tensors in order, from one of our matrices at a time."""
    records = read_tensor_cache(packed)
    found = parameters(family)
    plain: tuple[str, Plain] = ("", {})
    for count, parameter in enumerate(found):
        progress(count, len(found), "tensors")
        item = parameter.item
        rows = slice(parameter.first, parameter.first + parameter.count)
        if not isinstance(item, Matrix):
            yield (
                parameter.name,
                form.dtype,
                _narrow(parameter.name, records[item.name].values[rows], form.dtype),
            )
            continue
        fmt = form.format(item.name)
        if plain[0] != item.name:
            parts = layout.packed_tensors(fmt, item.rows, item.columns)
            values = {part.part: records[item.tensor(part.part)].values for part in parts}
            plain = (item.name, layout.unpack(fmt, values, item.rows))
        own = {part: np.ascontiguousarray(values[rows]) for part, values in plain[1].items()}
        for part, tensor in _matrix(parameter.name, fmt, own, form.by_columns(item.name)).items():
            dtype = "uint32" if part == "q_weight" else fmt.dtype
            yield f"{parameter.name}.{part}", dtype, tensor
    progress(len(found), len(found), "tensors")


def _matrix(name: str, fmt: WeightFormat, plain: Plain, by_columns: bool) -> Plain:
    try:
        return to_mlc(fmt, plain, by_columns)
    except ValueError as problem:
        raise UsageError(
            f"{name} cannot be stored as MLC does", cause=str(problem), remedy="--layout packed"
        ) from problem


def _narrow(name: str, values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        found = layout.narrow(values, dtype)
    if not np.isfinite(layout.widen(found, dtype)).all():
        raise UsageError(
            f"{name} cannot be stored as MLC does",
            cause=f"a value of it is too large for {dtype}",
            remedy="--quant q4bf16_1",
        )
    return found
