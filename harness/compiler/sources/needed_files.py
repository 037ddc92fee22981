"""Which files of a folder or a hub's repository make up a checkpoint.

Weights are read from safetensors, GGUF and MLC's shards only. Pickles run code when they are
opened: they are neither fetched nor read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath

from harness.errors import StageFailed, UsageError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
MLC_CONFIG = "mlc-chat-config.json"
MLC_CACHES = ("tensor-cache.json", "ndarray-cache.json")
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_BESIDE = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_MLC_SHARD = re.compile(r"params_shard_[0-9]+\.bin")
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def select(where: str, names: Collection[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """The needed ones among `names`, sorted; `read` gives a small file's bytes.

    A repository that holds nothing but one GGUF file needs that one. `where` names the folder or
    the repository in errors.

    Raises `UsageError` if these files are no checkpoint, or one whose weights are pickled, and
    `StageFailed` if its index is damaged or names files that are not there.
    """
    available = set(names)
    if MLC_CONFIG in available:
        return _mlc(where, available)
    if CONFIG in available:
        weights = _weights(where, available, read)
        return tuple(sorted({CONFIG, *weights, *available.intersection(_BESIDE)}))
    gguf = sorted(name for name in available if name.lower().endswith(".gguf"))
    if len(gguf) == 1:
        return (gguf[0],)
    if gguf:
        raise UsageError(
            f"{where} holds {len(gguf)} GGUF files",
            cause=f"which of them is meant: {_some(gguf)}?",
            remedy=f"name one: the file's path, or files = [{gguf[0]!r}] in a recipe",
        )
    raise UsageError(
        f"{where} is no checkpoint",
        cause=f"it has no {CONFIG}, no {MLC_CONFIG} and no GGUF file",
        remedy="give a Hugging Face folder, a GGUF file, or a folder that MLC compiled",
    )


def in_folder(folder: Path) -> tuple[str, ...]:
    """The names of a folder's files that make up its checkpoint, sorted. Others do not count.

    Raises as `select` does, and `OSError`.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return select(str(folder), names, lambda name: (folder / name).read_bytes())


def _mlc(where: str, available: set[str]) -> tuple[str, ...]:
    caches = [name for name in MLC_CACHES if name in available]
    shards = {name for name in available if _MLC_SHARD.fullmatch(name)}
    if not caches or not shards:
        raise StageFailed(
            f"{where} is not a whole model that MLC compiled",
            cause=f"it has no {' or '.join(MLC_CACHES)}" if not caches else "it has no shards",
            remedy="copy the whole folder again",
        )
    return tuple(sorted({MLC_CONFIG, caches[0], *shards, *available.intersection(_BESIDE)}))


def _weights(where: str, available: set[str], read: Callable[[str], bytes]) -> set[str]:
    if INDEX in available:
        shards = _shards(where, read(INDEX))
        missing = sorted(shards - available)
        if missing:
            raise StageFailed(
                f"{where} is not a whole checkpoint",
                cause=f"{INDEX} names {_some(missing)}, which it has not",
                remedy="copy or fetch the whole folder again",
            )
        return {INDEX, *shards}
    if WEIGHTS in available:
        return {WEIGHTS}
    # A single file under another name is as clear.
    others = {name for name in available if name.endswith(".safetensors") and "/" not in name}
    if len(others) == 1:
        return others
    pickles = sorted(name for name in available if PurePosixPath(name).suffix in PICKLES)
    if pickles and not others:
        raise pickled(where, pickles[0])
    raise UsageError(
        f"{where} is no checkpoint",
        cause=f"it has {len(others)} safetensors files and no {INDEX}"
        if others
        else f"beside {CONFIG} it has no safetensors file",
        remedy="give a folder with model.safetensors, or its shards and their index",
    )


def pickled(where: str, name: str) -> UsageError:
    """The refusal of weights in a form that runs code when it is opened."""
    return UsageError(
        f"the weights of {where} are pickled",
        cause=f"{name} may run any code when it is opened, so it is never read",
        remedy="convert it to safetensors, or take a repository that has safetensors or GGUF",
    )


def _shards(where: str, data: bytes) -> set[str]:
    try:
        document = json.loads(data)
        shards = set(document["weight_map"].values())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as problem:
        cause = f"{INDEX} cannot be read: {type(problem).__name__}: {problem}"
        raise _bad_index(where, cause[:300]) from problem
    for name in shards:
        if (
            not isinstance(name, str)
            or not _PLAIN.fullmatch(name)
            or not name.endswith(".safetensors")
        ):
            raise _bad_index(where, f"{INDEX} names {name!r:.100}, which is no safetensors file")
    if not shards:
        raise _bad_index(where, f"{INDEX} names no files")
    return shards


def _bad_index(where: str, cause: str) -> StageFailed:
    return StageFailed(
        f"{where} is not a whole checkpoint",
        cause=cause,
        remedy="copy or fetch the whole folder again",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
