"""What a checkpoint says about its tokenizer, independent of the file it came from.

The checkpoint readers fill it in; the tokenizer and chat-template writers turn it into the
files of a model package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class TokenType(IntEnum):
    """Kinds of vocabulary entries, numbered as GGUF's ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """A tokenizer's data as the checkpoint stores it.

    ``tokens[i]`` is the text of id ``i`` in the vocabulary's own spelling (for byte-level BPE:
    GPT-2's visible stand-ins for bytes; control tokens stand as they are). ``merges`` are in
    order of rank, each ``(left, right)``. ``pre`` names the rule that splits text before the
    merges, by llama.cpp's names (``smollm``, ``gpt-2``, ``llama-bpe``, ...).
    """

    model: str
    """``"bpe"``: byte-level byte-pair encoding, the only kind read so far."""
    tokens: tuple[str, ...]
    token_types: tuple[TokenType, ...]
    merges: tuple[tuple[str, str], ...]
    pre: str
    bos_token_id: int | None
    eos_token_id: int | None
    unknown_token_id: int | None
    padding_token_id: int | None
    add_bos: bool
    """Whether encoding a text on its own puts the BOS token in front."""
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None
    """Jinja source, or None where the checkpoint brings none."""
