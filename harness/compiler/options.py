"""What a compile is asked for: the recipe's choices, with those of the command line above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import UsageError
from harness.recipe import Recipe

GROUP_SIZES = (32, 64, 128)
ACTIVATIONS = ("int8", "float")
EMBEDDINGS = ("as-weights", "q8", "f16")
OPT_LEVELS = (0, 1, 2, 3)
BACKENDS = ("cpu", "opencl")
LAYOUTS = ("packed", "mlc")
TILES = (2, 4, 6, 8)


@dataclass(frozen=True)
class CompileOptions:
    """How a checkpoint is compiled. What changes weights and what changes code are told apart."""

    quantization: str
    context: int
    """Tokens of the longest conversation."""
    prefill_chunk: int
    """Tokens of one prefill step at most."""
    context_may_shrink: bool = True
    """Whether `memory_budget` may shorten the context: not if the user asked for it."""
    group_size: int | None = None
    """Weights that share a scale; None for the quantization's own."""
    activations: str = "int8"
    embedding: str = "as-weights"
    calibration: str = "none"
    """`none`, `self`, or the path of a file of texts."""
    calibration_samples: int = Recipe.calibration_samples
    opt_level: int = 3
    backend: str = "cpu"
    layout: str = "packed"
    tile: int | None = None
    """Tokens of a prompt that share unpacked weights; None for the kernels' own number."""
    memory_budget: int | None = None
    """MiB that the engine may use."""

    @classmethod
    def of(cls, recipe: Recipe, flags: Mapping[str, Any] | None = None) -> CompileOptions:
        """The options for a recipe; `flags` by the names of the fields replace its choices.

        A flag that is None says nothing. Raises `UsageError` for a choice that is not known or
        that would change nothing.
        """
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        chosen = {
            "quantization": recipe.quantization,
            "context": recipe.context,
            "prefill_chunk": recipe.prefill_chunk,
            "group_size": recipe.group_size,
            "activations": recipe.activations or cls.activations,
            "embedding": recipe.embedding,
            "calibration": recipe.calibration,
            "calibration_samples": recipe.calibration_samples,
            "opt_level": cls.opt_level if recipe.opt_level is None else recipe.opt_level,
            "backend": recipe.backend,
            "tile": recipe.tile,
            "context_may_shrink": "context" not in given,
        }
        options = cls(**{**chosen, **given})
        options._check()
        if options.plain and options.activations != "float":
            if "activations" in given:
                raise UsageError(
                    f"--activations {options.activations} has no kernels to go with it",
                    cause="those below --opt-level 2 and those of OpenCL take float32",
                    remedy="--activations float",
                )
            options = replace(options, activations="float")
        if options.plain:
            options = replace(options, tile=None)
        if "calibration_samples" in given and options.calibration == "none":
            raise UsageError(
                "--calibration-samples has nothing to count",
                cause="nothing is calibrated",
                remedy="--calibration self --calibration-samples "
                f"{options.calibration_samples}   # text that the model samples",
            )
        return options

    @property
    def plain(self) -> bool:
        """Whether the kernels are plain definitions, without rounded activations and tiles."""
        return self.opt_level < 2 or self.backend == "opencl"

    @property
    def weights(self) -> dict[str, object]:
        """What changes the weights, as JSON; a file of texts counts by its bytes."""
        calibration = self.calibration
        if calibration not in ("none", "self"):
            calibration = f"sha256:{_sha256(Path(calibration))}"
        return {
            "quantization": self.quantization,
            "group_size": self.group_size,
            "embedding": self.embedding,
            "calibration": calibration,
            "calibration_samples": None if calibration == "none" else self.calibration_samples,
        }

    @property
    def code(self) -> dict[str, object]:
        """What changes a library beside the model's shape and the formats of its weights."""
        return {
            "quantization": self.quantization,
            "prefill_chunk": self.prefill_chunk,
            "activations": self.activations,
            "opt_level": self.opt_level,
            "backend": self.backend,
            "tile": self.tile,
        }

    def _check(self) -> None:
        if self.layout == "mlc" and self.memory_budget is not None:
            raise UsageError(
                "--memory-budget cannot be held in MLC's layout",
                cause="such a package has no library, whose memory could be predicted",
                remedy=f"--layout packed --memory-budget {self.memory_budget}",
            )
        for name, known in (
            ("group_size", (None, *GROUP_SIZES)),
            ("activations", ACTIVATIONS),
            ("embedding", EMBEDDINGS),
            ("opt_level", OPT_LEVELS),
            ("backend", BACKENDS),
            ("layout", LAYOUTS),
        ):
            value = getattr(self, name)
            if value not in known:
                names = ", ".join(str(one) for one in known if one is not None)
                flag = name.replace("_", "-")
                raise UsageError(
                    f"{name.replace('_', ' ')} {value} is not known",
                    cause=f"known: {names}",
                    remedy=f"--{flag} {known[-1]}",
                )
        if self.backend == "opencl" and self.opt_level != OPT_LEVELS[-1]:
            raise UsageError(
                f"optimisation level {self.opt_level} does not go with OpenCL",
                cause="the levels are of the CPU's kernels",
                remedy=f"--backend opencl --opt-level {OPT_LEVELS[-1]}",
            )


def _sha256(path: Path) -> str:
    try:
        return files.sha256_file(path)
    except OSError as problem:
        raise UsageError(
            f"there is no text to calibrate on at {path}",
            cause=problem.strerror or str(problem),
            remedy="--calibration self   # text that the model samples, or the path of a file",
        ) from problem
