"""A folder that MLC compiled as a checkpoint: its configuration, shards and tokenizer.

Its matrices are quantized already. In a package of the same form they stay what they are; any
other is made from their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.architectures import decoder
from harness.compiler.architectures.decoder import Decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.checkpoint import Checkpoint, CheckpointTensor
from harness.compiler.checkpoints.expected_tensors import check_names, expected_tensors
from harness.compiler.checkpoints.json_object import read_json_object
from harness.compiler.checkpoints.mapped_tensor import MappedTensor
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.mlc.config import read_model_config
from harness.compiler.mlc.format_rows import to_rows
from harness.compiler.mlc.forms import (
    FORMS,
    Form,
    MlcParameter,
    from_mlc,
    mlc_tensors,
    parameters,
)
from harness.compiler.mlc.tensor_cache import Record, read_tensor_cache
from harness.compiler.sources.needed_files import MLC_CONFIG
from harness.compiler.tokenization.hf_tokenizer import read_tokenizer_folder
from harness.compiler.tokenization.tokenizer_source import TokenizerSource
from harness.errors import StageFailed, UsageError

_QUANTIZED_PARTS = ("q_weight", "q_scale")
_KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def open_mlc_checkpoint(folder: Path) -> Checkpoint:
    """Open a folder with MLC's `mlc-chat-config.json`, its tensor cache and its tokenizer.

    Raises `StageFailed` for files that are damaged, missing or contradict each other,
    `UsageError` for a family or a quantization that the compiler does not know.
    """
    path = folder / MLC_CONFIG
    document = read_json_object(path)
    config = read_model_config(path, document)
    family = decoder(config)
    form = _form(folder, document)
    records = read_tensor_cache(folder)
    wanted = _wanted(family, form)
    check_names(folder, records, wanted)
    for name, (shape, dtype) in wanted.items():
        _check(records[name], shape, dtype)
    tensors: dict[str, CheckpointTensor] = {}
    for parameter in parameters(family):
        tensors |= _tensors(family, form, parameter, records)
    tokenizer = read_tokenizer_folder(folder).limited_to(config.vocab_size)
    tokenizer = _with_ends(tokenizer, document)
    name = folder.resolve().name
    return Checkpoint(folder, name, config.family, config, tokenizer, tensors)


@dataclass(frozen=True, eq=False)
class MlcTensor:
    """A quantized tensor in MLC's words, read where they lie in a shard."""

    name: str
    path: Path
    shape: tuple[int, ...]
    fmt: WeightFormat
    tensors: Mapping[str, npt.NDArray[Any]]
    """MLC's tensors by part, rows first, of this tensor's rows."""
    scale_dtype: str
    """The type that scales are stored in; it may be narrower than the format's."""

    @property
    def kind(self) -> str:
        """The name of its weight format."""
        return str(self.fmt)

    def stored(self) -> npt.NDArray[np.uint8]:
        """Integers and scales of each row, as `format_rows` has them."""
        return to_rows(self._plain(0, self.shape[0]))

    def values(self) -> npt.NDArray[np.float32]:
        """The values in float32, of shape `shape`; `StageFailed` if some are not finite."""
        return self.row_values(0, self.shape[0])

    def row_values(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        """The values in float32 of the rows [begin, end) alone. Raises as `values` does."""
        return layout.dequantize(self.fmt, self._plain(begin, end))[:, : self.shape[1]]

    def _plain(self, begin: int, end: int) -> Mapping[str, npt.NDArray[Any]]:
        try:
            rows = {part: values[begin:end] for part, values in self.tensors.items()}
            scales = layout.widen(rows["q_scale"], self.scale_dtype)
            if not np.isfinite(scales).all():
                raise ValueError("q_scale has NaN or infinite values")
            if self.scale_dtype != self.fmt.dtype:
                rows["q_scale"] = layout.narrow(scales, self.fmt.dtype)
            plain = from_mlc(self.fmt, rows)
        except ValueError as problem:
            raise StageFailed(
                f"{self.path.name} holds weights that are no numbers",
                cause=f"{self.name}: {problem}",
                remedy=f"ls -l {self.path}   # get the file again from its source",
            ) from problem
        return plain


def _form(folder: Path, document: Mapping[str, Any]) -> Form:
    name = document.get("quantization")
    if not isinstance(name, str) or name not in FORMS:
        raise UsageError(
            f"the compiler cannot read weights that MLC stored as {name!r:.60}",
            cause=f"{folder.name} has them; known: {', '.join(FORMS)}",
            remedy="compile the model's own checkpoint instead",
        )
    return FORMS[name]


def _wanted(family: Decoder, form: Form) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and the type of each record of a model by its name."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for parameter in parameters(family):
        item = parameter.item
        if not isinstance(item, Matrix):
            found[parameter.name] = ((parameter.count,), form.dtype)
            continue
        fmt, by_columns = form.format(item.name), form.by_columns(item.name)
        try:
            parts = mlc_tensors(fmt, parameter.count, item.columns, by_columns)
        except ValueError as problem:
            raise UsageError(
                f"the compiler cannot read {parameter.name} as MLC stores it",
                cause=str(problem),
                remedy="compile the model's own checkpoint instead",
            ) from problem
        for part, expected in parts.items():
            found[f"{parameter.name}.{part}"] = expected
    return found


def _check(record: Record, shape: tuple[int, ...], dtype: str) -> None:
    # float32 may have been halved on its way to the disk.
    fits = record.dtype == dtype or (record.dtype, dtype) == ("bfloat16", "float32")
    if record.values.shape != shape or not fits:
        raise StageFailed(
            f"{record.path.name} contradicts {MLC_CONFIG}",
            cause=f"{record.name} is {record.dtype}{list(record.values.shape)}, "
            f"{MLC_CONFIG} makes it {dtype}{list(shape)}",
            remedy=f"ls -l {record.path}   # copy or fetch the whole folder again",
        )


def _tensors(
    family: Decoder, form: Form, parameter: MlcParameter, records: Mapping[str, Record]
) -> dict[str, CheckpointTensor]:
    """The tensors of Hugging Face's that one of MLC's parameters is made of."""
    item, expected = parameter.item, expected_tensors(family)
    found: dict[str, CheckpointTensor] = {}
    begin = 0
    for source in parameter.sources:
        shape, offset = expected[source].shape, expected[source].offset
        end = begin + shape[0]
        if not isinstance(item, Matrix):
            # MLC stores what the family adds; it is added again where the tensor is used.
            record = records[parameter.name]
            row = record.values[begin:end].reshape(1, -1)
            found[source] = _mapped(source, record, shape, row, -offset)
        elif (fmt := form.format(item.name)).quantized:
            words, scales = (records[f"{parameter.name}.{part}"] for part in _QUANTIZED_PARTS)
            by_part = {
                part: (record.values.T if form.by_columns(item.name) else record.values)[begin:end]
                for part, record in zip(_QUANTIZED_PARTS, (words, scales), strict=True)
            }
            found[source] = MlcTensor(source, words.path, shape, fmt, by_part, scales.dtype)
        else:
            record = records[f"{parameter.name}.weight"]
            found[source] = _mapped(source, record, shape, record.values[begin:end])
        begin = end
    return found


def _mapped(
    name: str,
    record: Record,
    shape: tuple[int, ...],
    rows: npt.NDArray[Any],
    offset: float = 0.0,
) -> MappedTensor:
    data = rows.view(np.uint8)
    return MappedTensor(name, record.path, _KINDS[record.dtype], shape, data, offset=offset)


def _with_ends(tokenizer: TokenizerSource, document: Mapping[str, Any]) -> TokenizerSource:
    """The tokenizer with the tokens that MLC's configuration ends an answer with.

    Its `eos_token_id` counts only where nothing else says it: MLC writes 2 for what it does not
    know.
    """
    conversation = document.get("conv_template")
    stops = conversation.get("stop_token_ids") if isinstance(conversation, dict) else None
    ends = [*tokenizer.end_token_ids, *_ids(stops, tokenizer)]
    if not ends and tokenizer.eos_token_id is None:
        ends = _ids(document.get("eos_token_id"), tokenizer)
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else next(iter(ends), None)
    return replace(tokenizer, eos_token_id=eos, end_token_ids=tuple(dict.fromkeys(ends)))


def _ids(value: Any, tokenizer: TokenizerSource) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if type(one) is int and 0 <= one < len(tokenizer.tokens)]
