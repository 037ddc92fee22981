"""The task `weights`: from a checkpoint to shards, tokenizer and chat template, and their worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer

from harness.compiler import calibration, quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.calibration.samples import start_tokens
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.numerics import quality
from harness.compiler.numerics.evaluate import parameter_values, source_values
from harness.compiler.numerics.written import written_values
from harness.compiler.packages import package
from harness.compiler.templates.chat_template import write_chat_template
from harness.compiler.tokenization.tokenizer import write_tokenizer
from harness.compiler.tokenization.tokenizer_source import TokenizerSource, TokenType

Progress = Callable[[float, float, str], None]
Settings = Mapping[str, Any]
Plain = Mapping[str, npt.NDArray[Any]]

# Control tokens that end an answer whatever a file names as its one EOS token.
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")


def weights(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Write shards, tokenizer and chat template of `checkpoint` in `quantization` to `folder`.

    `group_size`, `embedding`, `calibration` and `calibration_samples` are those of
    `options.CompileOptions`. The result describes the model as the task `library` wants it, and
    its quality; the same settings give the same bytes, whatever the number of processors.
    """
    # numpy's work is shared out by `parts`, in pieces that do not depend on the processors.
    with threadpool_limits(limits=1, user_api="blas"):
        return _weights(settings, progress)


def _weights(settings: Settings, progress: Progress) -> dict[str, Any]:
    folder = Path(settings["folder"])
    checkpoint = open_checkpoint(Path(settings["checkpoint"]))
    chosen = quantization.find(settings["quantization"])
    formats = chosen.formats(checkpoint, settings["group_size"], settings["embedding"])
    write_tokenizer(checkpoint.tokenizer, folder)
    write_chat_template(checkpoint.tokenizer, folder)
    encode = _encoder(folder)
    where, count = settings["calibration"], settings["calibration_samples"]
    if where == "none":
        matrices = _rounded(checkpoint, formats, progress)
    else:
        calibration.check(formats, count)
        texts = calibration.texts(checkpoint, where, count, encode, progress)
        matrices = calibration.calibrated(checkpoint, formats, texts, progress)
    packed = _packed(checkpoint, formats, matrices)
    metadata = {"quantization": chosen.name, "layout": package.LAYOUT}
    size = package.write_weights(folder, packed, metadata)
    found = _quality(checkpoint, formats, folder, encode, progress)
    return {
        "architecture": checkpoint.architecture,
        "config": checkpoint.config.to_json(),
        "formats": {name: str(fmt) for name, fmt in formats.items()},
        "weights_bytes": size,
        "tokens": _special_tokens(checkpoint.tokenizer),
        "chat_template": checkpoint.tokenizer.chat_template,
        "not_kept": chosen.not_kept(checkpoint, formats),
        "quality": found,
        "advice": calibration.advice(formats) if where == "none" else None,
    }


def _rounded(
    checkpoint: Checkpoint, formats: Mapping[str, WeightFormat], progress: Progress
) -> Iterator[tuple[str, Plain]]:
    items = decoder(checkpoint.config).matrices()
    for count, item in enumerate(items):
        progress(count, len(items), "matrices")
        tensors = [checkpoint.tensors[name] for name in item.sources]
        yield item.name, quantization.store(formats[item.name], tensors)
    progress(len(items), len(items), "matrices")


def _packed(
    checkpoint: Checkpoint,
    formats: Mapping[str, WeightFormat],
    matrices: Iterator[tuple[str, Plain]],
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Every parameter of the library by name, in its order; `matrices` come in that order too."""
    for item in decoder(checkpoint.config).parameters():
        if not isinstance(item, Matrix):
            yield item.name, parameter_values(checkpoint, item)
            continue
        name, plain = next(matrices)
        assert name == item.name
        tensors = layout.pack(formats[name], plain)
        for part in layout.packed_tensors(formats[name], item.rows, item.columns):
            yield item.tensor(part.part), tensors[part.part]
    # Nothing is left: this lets it say that it is done.
    assert next(matrices, None) is None


def _encoder(folder: Path) -> Callable[[str], list[int]]:
    """The tokenizer that was written into `folder`, without tokens before or after a text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text: str) -> list[int]:
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return tokens

    return encode


def _quality(
    checkpoint: Checkpoint,
    formats: Mapping[str, WeightFormat],
    folder: Path,
    encode: Callable[[str], list[int]],
    progress: Progress,
) -> dict[str, Any]:
    config, source = checkpoint.config, checkpoint.tokenizer
    sizes = {item.name: item.rows * item.columns for item in decoder(config).matrices()}
    most = quality.affordable_tokens(config, sum(sizes.values()))
    start = start_tokens(source)
    texts = {
        name: [*start, *encode(text)][:most] for name, text in quality.held_out_texts().items()
    }
    model = written_values(folder, config, formats)
    return quality.measure(config, source_values(checkpoint), model, texts, progress)


def _special_tokens(tokenizer: TokenizerSource) -> dict[str, Any]:
    return {
        "bos": tokenizer.bos_token_id,
        "eos": end_tokens(tokenizer),
        "padding": tokenizer.padding_token_id,
    }


def end_tokens(tokenizer: TokenizerSource) -> list[int]:
    """The tokens that end an answer: those the checkpoint names, then others by their text."""
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    found = list(dict.fromkeys([*eos, *tokenizer.end_token_ids]))
    for index, (token, kind) in enumerate(
        zip(tokenizer.tokens, tokenizer.token_types, strict=True)
    ):
        if kind is TokenType.CONTROL and token in _END_TOKENS and index not in found:
            found.append(index)
    return found
