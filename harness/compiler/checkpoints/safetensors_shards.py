"""The safetensors files of one checkpoint as one set of tensors.

A checkpoint in several files has an index that says which file each tensor is in:
https://huggingface.co/docs/transformers/big_models#sharded-checkpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.compiler.checkpoints.json_object import read_json_object
from harness.compiler.checkpoints.safetensors_file import SafeTensor, read_safetensors
from harness.errors import StageFailed


def read_shards(index: Path) -> Mapping[str, SafeTensor]:
    """The tensors of the files beside an index.

    Raises `StageFailed` if a file is not there or not whole, and if index and files do not agree
    on what is where.
    """
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict):
        raise _contradiction(index, "it has no weight_map")
    shards: dict[str, Mapping[str, SafeTensor]] = {}
    found: dict[str, SafeTensor] = {}
    for shard in sorted({f"{name}" for name in places.values()}):
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise _contradiction(index, f"it names {shard!r:.100}, which is not beside it")
        shards[shard] = read_safetensors(index.with_name(shard))
        for name, tensor in shards[shard].items():
            if name in found:
                raise _contradiction(
                    index, f"{name!r:.100} is in {found[name].path.name} and in {shard}"
                )
            found[name] = tensor
            if places.get(name) != shard:
                raise _contradiction(
                    index, f"{name!r:.100} is in {shard}, not in {places.get(name)!r:.100}"
                )
    for name, shard in places.items():
        if name not in found:
            raise _contradiction(index, f"{name!r:.100} is not in {shard}")
    return found


def _contradiction(index: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"{index.name} does not describe the files beside it",
        cause=cause,
        remedy=f"ls -l {index.parent}   # get the folder again from its source",
    )
