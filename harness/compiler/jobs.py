"""The compiler's tasks, as the child process runs them.

Each takes its settings and a function for progress, and returns what the caller must know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.compiler import package, quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoint import Checkpoint, open_checkpoint
from harness.compiler.evaluate import parameter_values
from harness.compiler.kernels import layout
from harness.compiler.model_config import DecoderConfig
from harness.compiler.tokenizer_source import TokenizerSource, TokenType
from harness.errors import UsageError
from harness.types import Abi

Progress = Callable[[float, float, str], None]
Settings = Mapping[str, Any]

# Control tokens that end an answer whatever a file names as its one EOS token.
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")


def weights(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Write shards, tokenizer and chat template of `checkpoint` in `quantization` to `folder`.

    The result describes the model as the task `library` wants it.
    """
    from harness.compiler.chat_template import write_chat_template
    from harness.compiler.tokenizer import write_tokenizer

    folder = Path(settings["folder"])
    checkpoint = open_checkpoint(Path(settings["checkpoint"]))
    chosen = quantization.find(settings["quantization"])
    formats = _formats(checkpoint, chosen)
    write_tokenizer(checkpoint.tokenizer, folder)
    write_chat_template(checkpoint.tokenizer, folder)
    packed = _packed(checkpoint, chosen, formats, progress)
    metadata = {"quantization": chosen.name, "layout": package.LAYOUT}
    size = package.write_weights(folder, packed, metadata)
    return {
        "architecture": checkpoint.architecture,
        "config": checkpoint.config.to_json(),
        "formats": {name: str(fmt) for name, fmt in formats.items()},
        "weights_bytes": size,
        "tokens": _special_tokens(checkpoint.tokenizer),
        "chat_template": checkpoint.tokenizer.chat_template,
    }


def _formats(
    checkpoint: Checkpoint, chosen: quantization.Quantization
) -> dict[str, layout.WeightFormat]:
    formats = {}
    for item in decoder(checkpoint.config).matrices():
        if item.columns % layout.GROUP:
            raise UsageError(
                f"{item.name} of {checkpoint.name} cannot be packed",
                cause=f"its {item.columns} columns are not a multiple of {layout.GROUP}",
                remedy="harness models list",
            )
        formats[item.name] = chosen.choose([checkpoint.tensors[name] for name in item.sources])
    return formats


def _packed(
    checkpoint: Checkpoint,
    chosen: quantization.Quantization,
    formats: Mapping[str, layout.WeightFormat],
    progress: Progress,
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Every parameter of the library by name, one matrix in memory at a time."""
    items = decoder(checkpoint.config).parameters()
    for count, item in enumerate(items):
        progress(count, len(items), "tensors")
        if not isinstance(item, Matrix):
            yield item.name, parameter_values(checkpoint, item)
            continue
        fmt = formats[item.name]
        plain = chosen.convert([checkpoint.tensors[name] for name in item.sources])
        tensors = layout.pack(fmt, plain)
        for part in layout.packed_tensors(fmt, item.rows, item.columns):
            yield item.tensor(part.part), tensors[part.part]
    progress(len(items), len(items), "tensors")


def _special_tokens(tokenizer: TokenizerSource) -> dict[str, Any]:
    return {
        "bos": tokenizer.bos_token_id,
        "eos": end_tokens(tokenizer),
        "padding": tokenizer.padding_token_id,
    }


def end_tokens(tokenizer: TokenizerSource) -> list[int]:
    """The tokens that end an answer: the file's EOS first, then others known by their text."""
    found = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for index, (token, kind) in enumerate(
        zip(tokenizer.tokens, tokenizer.token_types, strict=True)
    ):
        if kind is TokenType.CONTROL and token in _END_TOKENS and index not in found:
            found.append(index)
    return found


def library(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Compile the model of `config` and `formats` for `abi` to `folder`/libmodel.so.

    The result has the bytes of working memory that each of its functions plans.
    """
    from harness.compiler.library import SONAME
    from harness.compiler.model_library import compile_library

    formats = {name: layout.WeightFormat.parse(fmt) for name, fmt in settings["formats"].items()}
    planned = compile_library(
        config=DecoderConfig.from_json(settings["config"]),
        formats=formats,
        chosen=quantization.find(settings["quantization"]),
        abi=Abi(settings["abi"]),
        prefill_chunk=settings["prefill_chunk"],
        activations=settings["activations"],
        path=Path(settings["folder"]) / SONAME,
    )
    return {"memory_usage": planned}


def task(name: str) -> Callable[[Settings, Progress], dict[str, Any]]:
    """The task of this name."""
    if name.startswith("host_"):
        from harness.compiler import session

        return {
            "host_logits": session.host_logits,
            "host_generate": session.host_generate,
            "host_memory": session.host_memory,
        }[name]
    return {"weights": weights, "library": library}[name]
