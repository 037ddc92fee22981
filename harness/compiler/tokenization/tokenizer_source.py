"""What a checkpoint says about its tokenizer, independent of the file it came from.

The checkpoint readers fill it in; the tokenizer and chat-template writers turn it into the
files of a model package.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from harness.compiler.tokenization.normalization import Step
from harness.errors import StageFailed


class TokenType(IntEnum):
    """Kinds of vocabulary entries, numbered as SentencePiece and GGUF number them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class TokenizerModel(IntEnum):
    """How a piece of text becomes tokens; the numbers are those of `tokenizer.alc`."""

    BYTE_BPE = 1
    """Byte-level byte-pair encoding: merges of bytes, in order of rank (GPT-2)."""
    MERGES_BPE = 2
    """Byte-pair encoding of characters by listed merges, as `tokenizers` does it."""
    SCORES_BPE = 3
    """Byte-pair encoding of characters by the merged piece's score, as SentencePiece does it."""
    UNIGRAM = 4
    """The most probable sequence of pieces (Kudo 2018)."""
    WORDPIECE = 5
    """The longest piece first, inside words (BERT)."""


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """A tokenizer's data as the checkpoint stores it.

    ``tokens[i]`` is the text of id ``i`` in the vocabulary's own spelling (for byte-level BPE:
    GPT-2's visible stand-ins for bytes; control tokens stand as they are). ``merges`` are in
    order of rank, each ``(left, right)``. ``pre`` names the rule that splits text before the
    model sees it: for byte-level BPE by llama.cpp's names (``smollm``, ``gpt-2``,
    ``llama-bpe``, ``qwen2``), else ``none``, ``words`` (a piece begins at each U+2581) or
    ``bert``.
    """

    model: TokenizerModel
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
    chat_template: str | None
    """Jinja source, or None where the checkpoint brings none."""
    end_token_ids: tuple[int, ...] = ()
    """All tokens that end an answer, by the checkpoint's generation settings."""
    scores: tuple[float, ...] = ()
    """One a token for SCORES_BPE and UNIGRAM: the higher, the earlier or likelier."""
    normalizer: tuple[Step, ...] = ()
    """What happens to a text, in order, before it is split."""
    byte_fallback: bool = False
    """Whether a character without a token becomes the tokens of its UTF-8 bytes."""
    fuse_unknown: bool = False
    """Whether neighbouring characters without a token become one unknown token."""
    ignore_merges: bool = False
    """Whether a piece that is a token is that token, whatever its merges say."""
    sentencepiece: bool = False
    """Whether SentencePiece is the reference: it finds user-defined symbols in the normalized
    text, and sums scores in single precision."""
    strip_spaces: int | None = 0
    """How many leading spaces of a text's first token decoding leaves out; None: all."""
    continuing_prefix: str = ""
    """What marks a WordPiece token that continues a word."""
    clean_up: bool = False
    """Whether decoding WordPiece puts no space before punctuation and English contractions."""
    longest_word: int = 0
    """WordPiece: a word of more characters than this is one unknown token."""
    document: dict[str, Any] | None = field(default=None, compare=False)
    """The checkpoint's own `tokenizer.json`, where it has one."""

    def limited_to(self, rows: int) -> TokenizerSource:
        """The tokenizer of a model whose embedding has `rows` rows.

        An embedding may be padded, and a vocabulary may end with tokens that were added for
        another variant of the model (Gemma 3's image token): those are dropped. Raises
        `StageFailed` if an ordinary token or one that the model ends with has no row.
        """
        if len(self.tokens) <= rows:
            return self
        named = {self.bos_token_id, self.eos_token_id, *self.end_token_ids}
        for number in range(rows, len(self.tokens)):
            kind = self.token_types[number]
            dropped = kind in (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED)
            if not dropped or number in named:
                raise StageFailed(
                    "the model's tokenizer does not fit its embedding",
                    cause=f"token {number} ({self.tokens[number]!r}) has no row; "
                    f"the embedding has {rows} rows, the vocabulary {len(self.tokens)} tokens",
                    remedy="get the checkpoint again from its source",
                )

        def within(number: int | None) -> int | None:
            return number if number is not None and number < rows else None

        return replace(
            self,
            tokens=self.tokens[:rows],
            token_types=self.token_types[:rows],
            scores=self.scores[:rows],
            unknown_token_id=within(self.unknown_token_id),
            padding_token_id=within(self.padding_token_id),
        )
