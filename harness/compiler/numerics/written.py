"""The parameters of a package as its shards hold them: what is measured is what is delivered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Vector
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.model_config import DecoderConfig
from harness.compiler.numerics.evaluate import Array, Values
from harness.compiler.numerics.parts import side_by_side
from harness.compiler.packages.package import TENSOR_CACHE

_BLOCK_VALUES = 1 << 20


def written_values(
    folder: Path, config: DecoderConfig, formats: Mapping[str, WeightFormat]
) -> Values:
    """The float32 values of the packed tensors that `write_weights` put into `folder`."""
    document = json.loads((folder / TENSOR_CACHE).read_text(encoding="utf-8"))
    records: dict[str, tuple[Path, Mapping[str, Any]]] = {
        record["name"]: (folder / shard["dataPath"], record)
        for shard in document["records"]
        for record in shard["records"]
    }
    parameters = {item.name: item for item in decoder(config).parameters()}

    def stored(name: str) -> npt.NDArray[Any]:
        path, record = records[name]
        shape = tuple(record["shape"])
        dtype = np.dtype(record["dtype"])
        return np.memmap(path, dtype, "r", int(record["byteOffset"]), shape)

    def values(name: str) -> Array:
        item = parameters[name]
        if isinstance(item, Vector):
            return np.array(stored(name))
        fmt = formats[name]
        tensors = layout.packed_tensors(fmt, item.rows, item.columns)
        packed = {tensor.part: stored(item.tensor(tensor.part)) for tensor in tensors}
        found = np.empty((item.rows, item.columns), np.float32)
        step = max(1, _BLOCK_VALUES // (layout.ROWS * item.columns))

        def block(start: int) -> None:
            rows = found[start * layout.ROWS : (start + step) * layout.ROWS]
            part = {name: tensor[start : start + step] for name, tensor in packed.items()}
            plain = layout.unpack(fmt, part, len(rows))
            # Formats that fill up their last group have columns that count for nothing.
            rows[:] = layout.dequantize(fmt, plain)[:, : item.columns]

        side_by_side(block, range(0, -(-item.rows // layout.ROWS), step))
        return found

    return values
