"""Names of packed packages: `ava-<family><generation>-<size>-<quantization>-android.tar`.

Family, generation and size are one code, such as `GE3-1b` for Gemma 3 1B: two letters of the
family, its generation, and the size as its makers round it. A recipe may say its own.
"""

from __future__ import annotations

import re

from harness.compiler.model_config import DecoderConfig

# Llama's generation is in no key of its configuration; the vocabulary grew from 32,000 tokens.
_LLAMA_3_VOCABULARY = 128_000
_SIZE = re.compile(r"(?<![a-z0-9.])([0-9]+(?:\.[0-9]+)?)([mb])(?![a-z0-9])")
_UNITS = {"m": 1e6, "b": 1e9}


def archive_name(code: str, quantization: str) -> str:
    """The file name of a package's archive."""
    return f"ava-{code}-{quantization}-android.tar"


def model_code(name: str, config: DecoderConfig, parameters: int) -> str:
    """Family, generation and size of a model whose recipe does not say them.

    `name` is the model's; the size in it counts where the number of parameters bears it out.
    """
    letters = config.family.rstrip("0123456789")
    generation = config.family.removeprefix(letters) or "1"
    if config.family == "llama":
        generation = "3" if config.vocab_size >= _LLAMA_3_VOCABULARY else "2"
    return f"{letters[:2].upper()}{generation}-{_size(name, parameters)}"


def _size(name: str, parameters: int) -> str:
    for number, unit in _SIZE.findall(name.lower()):
        announced = float(number) * _UNITS[unit]
        # Makers round as they like: "2b" has 2.6 billion parameters with its embedding.
        if announced and 0.67 < parameters / announced < 1.5:
            return f"{number}{unit}"
    if parameters < 0.95e9:
        return f"{parameters / 1e6:.0f}m"
    return f"{parameters / 1e9:.1f}".removesuffix(".0") + "b"
