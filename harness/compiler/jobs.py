"""The compiler's tasks, as the child process runs them.

Each takes its settings and a function for progress, and returns what the caller must know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.compiler import quantization
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.model_config import DecoderConfig
from harness.types import Abi

Progress = Callable[[float, float, str], None]
Settings = Mapping[str, Any]


def library(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Compile the model of `config` and `formats` for `abi` to `folder`/libmodel.so.

    The result has the bytes of working memory that each of its functions plans.
    """
    from harness.compiler.library import SONAME
    from harness.compiler.model_library import compile_library

    formats = {name: WeightFormat.parse(fmt) for name, fmt in settings["formats"].items()}
    planned = compile_library(
        config=DecoderConfig.from_json(settings["config"]),
        formats=formats,
        chosen=quantization.find(settings["quantization"]),
        abi=Abi(settings["abi"]),
        prefill_chunk=settings["prefill_chunk"],
        activations=settings["activations"],
        opt_level=settings["opt_level"],
        backend=settings["backend"],
        tile=settings["tile"],
        path=Path(settings["folder"]) / SONAME,
    )
    return {"memory_usage": planned}


def task(name: str) -> Callable[[Settings, Progress], dict[str, Any]]:
    """The task of this name."""
    if name.startswith("host_"):
        from harness.compiler import session

        return {
            "host_logits": session.host_logits,
            "host_generate": session.host_generate,
            "host_times": session.host_times,
            "host_memory": session.host_memory,
        }[name]
    if name == "weights":
        from harness.compiler.weights import weights

        return weights
    return {"library": library}[name]
