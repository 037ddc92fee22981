"""The recipe of a checkpoint that has none: a file, a folder or a Hugging Face id, and defaults.

A GGUF file whose matrices are quantized keeps them exactly; everything else gets `q4f16_1`. The
context is the model's own up to 4096 tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.compiler.sources import hub_lock, needed_files
from harness.errors import UsageError
from harness.recipe import LOCK, FileSource, HubSource, Recipe

CONTEXT = 4096
PREFILL_CHUNK = 256
EXACT = "q4f16_gguf"
QUANTIZATION = "q4f16_1"
PROMPT = "How many days are in a week?"
MAX_TOKENS = 64
_EXACT_KINDS = frozenset({"Q4_0", "Q4_1", "Q8_0"})
_MAX_CONFIG_BYTES = 16 << 20


def from_path(path: Path) -> Recipe:
    """The recipe for a GGUF file, a Hugging Face folder or a folder that MLC compiled.

    Raises `UsageError` if it is none of these or cannot be read, `StageFailed` if it is damaged.
    """
    path = path.resolve()
    try:
        return _from_folder(path) if path.is_dir() else _from_file(path)
    except OSError as problem:
        raise UsageError(
            f"cannot read {path}",
            cause=problem.strerror or str(problem),
            remedy=f"ls -l {path}",
        ) from problem


def from_hub(id: str, revision: str, models: Path) -> Recipe:
    """The recipe for a repository of the Hugging Face Hub ("org/name").

    Its lock lies in a folder of the model's name under `models`. Its configuration is fetched.
    Raises as `hub_lock.fetch` does.
    """
    name = _slug(id.partition("/")[2])
    source = HubSource(id, revision, (), models / name / LOCK)
    config = hub_lock.fetch_config(source, "compile")
    if not config:
        (path,) = hub_lock.fetch(source, "compile").values()
        quantization, context = _of_gguf(path)
    else:
        ((kind, path),) = config.items()
        quantization, context = _of_config(kind, path)
    return _recipe(models / name, name, id, source, quantization, context)


def _from_file(path: Path) -> Recipe:
    if path.suffix.lower() == ".gguf":
        quantization, context = _of_gguf(path)
        source = FileSource(path, None)
        return _recipe(path.parent, _slug(path.stem), path.stem, source, quantization, context)
    if path.suffix.lower() == ".safetensors":
        raise UsageError(
            f"{path} holds weights alone",
            cause="a compile needs the configuration and the tokenizer beside them too",
            remedy=f"harness compile {path.parent}",
        )
    if path.suffix.lower() in needed_files.PICKLES:
        raise needed_files.pickled(str(path.parent), path.name)
    raise UsageError(
        f"{path} is no checkpoint",
        cause="it is no GGUF file and no folder",
        remedy="give a Hugging Face folder, a GGUF file, or a folder that MLC compiled",
    )


def _from_folder(path: Path) -> Recipe:
    needed = needed_files.in_folder(path)
    kind = needed_files.MLC_CONFIG if needed_files.MLC_CONFIG in needed else needed_files.CONFIG
    if kind not in needed:
        return _from_file(path / needed[0])
    quantization, context = _of_config(kind, path / kind)
    source = FileSource(path, None)
    return _recipe(path, _slug(path.name), path.name, source, quantization, context)


def _recipe(
    folder: Path,
    name: str,
    title: str,
    source: FileSource | HubSource,
    quantization: str,
    context: int,
) -> Recipe:
    return Recipe(
        folder=folder,
        name=name,
        title=title,
        license="unknown",
        source=source,
        quantization=quantization,
        context=context,
        prefill_chunk=min(PREFILL_CHUNK, context),
        prompts=(PROMPT,),
        max_tokens=MAX_TOKENS,
    )


def _of_gguf(path: Path) -> tuple[str, int]:
    """Quantization and context for a GGUF file."""
    from harness.compiler.checkpoints.gguf_file import read_gguf

    file = read_gguf(path)
    matrices = {tensor.type.name for tensor in file.tensors.values() if len(tensor.shape) == 2}
    exact = bool(matrices) and matrices <= _EXACT_KINDS
    family = file.metadata.get("general.architecture")
    context = _context(file.metadata.get(f"{family}.context_length"))
    return EXACT if exact else QUANTIZATION, context


def _of_config(kind: str, path: Path) -> tuple[str, int]:
    """Quantization and context for a `config.json` or an `mlc-chat-config.json`."""
    document = _read_json(path)
    if kind == needed_files.MLC_CONFIG:
        quantization = document.get("quantization")
        known = isinstance(quantization, str) and quantization
        return str(quantization) if known else QUANTIZATION, _context(
            document.get("context_window_size")
        )
    # A multimodal model has its decoder's numbers in a table of their own.
    inner = document.get("text_config")
    decoder = inner if isinstance(inner, Mapping) else document
    return QUANTIZATION, _context(decoder.get("max_position_embeddings"))


def _context(value: object) -> int:
    """The model's own context up to the default one; the default where it does not say."""
    known = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return min(int(str(value)), CONTEXT) if known else CONTEXT


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("it holds no table")
    except (ValueError, RecursionError) as problem:
        raise UsageError(
            f"{path} is no model configuration",
            cause=str(problem),
            remedy=f"less {path}",
        ) from problem
    return document


def _slug(text: str) -> str:
    """A recipe's name from a file's: lower case, digits, dots, dashes and underlines."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-") or "model"
