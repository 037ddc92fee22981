"""One file for each family of models: its parameters, and its equations once.

The equations are written over `ops.Ops`; `blocks` makes Relax of them, `evaluate` numbers.
"""

from __future__ import annotations

from harness.compiler.architectures.decoder import Decoder
from harness.compiler.architectures.gemma import Gemma
from harness.compiler.architectures.gemma2 import Gemma2
from harness.compiler.architectures.gemma3 import Gemma3
from harness.compiler.architectures.llama import Llama
from harness.compiler.architectures.qwen2 import Qwen2
from harness.compiler.architectures.qwen3 import Qwen3
from harness.compiler.model_config import DecoderConfig

FAMILIES: dict[str, type[Decoder]] = {
    family.family: family for family in (Gemma, Gemma2, Gemma3, Llama, Qwen2, Qwen3)
}


def decoder(config: DecoderConfig) -> Decoder:
    """The equations of a configuration's family."""
    return FAMILIES[config.family](config)
