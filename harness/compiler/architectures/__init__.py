"""One file for each family of models: its parameters, and its equations once.

The equations are written over `ops.Ops`; `blocks` makes Relax of them, `evaluate` numbers.
"""

from __future__ import annotations

from harness.compiler.architectures.decoder import Decoder
from harness.compiler.architectures.llama import Llama
from harness.compiler.model_config import DecoderConfig

FAMILIES: dict[str, type[Decoder]] = {family.family: family for family in (Llama,)}


def decoder(config: DecoderConfig) -> Decoder:
    """The equations of a configuration's family."""
    return FAMILIES[config.family](config)
