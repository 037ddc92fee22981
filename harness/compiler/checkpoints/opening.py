"""Opens whatever holds a checkpoint, by the reader that its files are for."""

from __future__ import annotations

from pathlib import Path

from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.gguf_checkpoint import open_gguf_checkpoint
from harness.compiler.checkpoints.hf_checkpoint import open_hf_checkpoint
from harness.compiler.mlc.checkpoint import open_mlc_checkpoint
from harness.compiler.sources import needed_files
from harness.errors import StageFailed, UsageError


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a GGUF file, a Hugging Face folder or one that MLC compiled (or its configuration).

    Raises `StageFailed` for files that are damaged, lack something or contradict each other,
    `UsageError` for what is no checkpoint, and for a family or a feature that the compiler does
    not know.
    """
    try:
        if path.name in (needed_files.CONFIG, needed_files.MLC_CONFIG) and path.is_file():
            path = path.parent
        if not path.is_dir():
            _refuse_other_file(path)
            return open_gguf_checkpoint(path)
        names = needed_files.in_folder(path)
    except OSError as problem:
        raise StageFailed(
            f"cannot read {path.name}",
            cause=problem.strerror or str(problem),
            remedy=f"ls -l {path}",
        ) from problem
    if needed_files.MLC_CONFIG in names:
        return open_mlc_checkpoint(path)
    if needed_files.CONFIG in names:
        return open_hf_checkpoint(path)
    return open_gguf_checkpoint(path / names[0])


def _refuse_other_file(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in needed_files.PICKLES:
        raise needed_files.pickled(str(path.parent), path.name)
    with path.open("rb") as file:
        if suffix == ".gguf" or file.read(4) == b"GGUF":
            return
    raise UsageError(
        f"{path.name} is no checkpoint",
        cause="a checkpoint is a GGUF file, or a folder with config.json and safetensors files",
        remedy="harness models list",
    )
