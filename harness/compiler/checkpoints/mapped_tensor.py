"""A checkpoint's tensor whose bytes lie in a mapped file until they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoints.stored_values import decode
from harness.errors import StageFailed


@dataclass(frozen=True, eq=False)
class MappedTensor:
    """Rows of a file, in the order and with the offset that the architecture wants."""

    name: str
    path: Path
    kind: str
    """The stored type by GGUF's name: F32, BF16, Q4_1, ..."""
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]
    """The stored bytes, [rows, bytes of a row]; a vector is one row."""
    row_order: npt.NDArray[np.intp] | None = None
    """Which stored row each row comes from, where the file has another order."""
    offset: float = 0.0
    """What is added to the stored values."""

    def stored(self) -> npt.NDArray[np.uint8]:
        """The bytes as stored, uint8 [rows, bytes of a row]."""
        return self.data if self.row_order is None else self.data[self.row_order]

    def values(self) -> npt.NDArray[np.float32]:
        """The values in float32, of shape `shape`.

        Raises `StageFailed` naming file and tensor if some are not finite.
        """
        return self.row_values(0, len(self.data)).reshape(self.shape)

    def row_values(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        """The values in float32 of the rows [begin, end), [rows, columns]. Raises as `values`."""
        order = self.row_order
        rows = self.data[begin:end] if order is None else self.data[order[begin:end]]
        values = decode(self.kind, rows)
        if values.size and not np.isfinite([values.min(), values.max()]).all():
            raise StageFailed(
                f"{self.path.name} holds weights that are no numbers",
                cause=f"{self.name} has NaN or infinite values",
                remedy=f"ls -l {self.path}   # get the file again from its source",
            )
        if self.offset:
            values += np.float32(self.offset)
        return values
