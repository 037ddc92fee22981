"""The tokenizer data in a GGUF file's metadata.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer. What the metadata
leave out is what llama.cpp assumes for the kind (src/llama-vocab.cpp).
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Any, TypeVar

from harness.compiler.checkpoints.gguf_file import GgufFile
from harness.compiler.tokenization.normalization import SPACE, Replace, UnicodeForm
from harness.compiler.tokenization.sentencepiece_model import sentencepiece_steps, unigram_scores
from harness.compiler.tokenization.tokenizer_source import (
    TokenizerModel,
    TokenizerSource,
    TokenType,
)
from harness.errors import StageFailed, UsageError

_KINDS = {
    "gpt2": TokenizerModel.BYTE_BPE,
    "llama": TokenizerModel.SCORES_BPE,
    "t5": TokenizerModel.UNIGRAM,
    "gemma4": TokenizerModel.MERGES_BPE,
}
# Names that llama.cpp has for a splitter that it knows by another name too.
_SPLITTERS = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "starcoder": "smollm",
    "refact": "smollm",
}
_Value = TypeVar("_Value", str, int, float)


def read_tokenizer(file: GgufFile) -> TokenizerSource:
    """The tokenizer of a GGUF file.

    Raises `UsageError` for a kind that is not known, `StageFailed` if its data are not whole.
    """
    model = file.metadata.get("tokenizer.ggml.model")
    kind = _KINDS.get(model) if isinstance(model, str) else None
    if kind is None:
        raise UsageError(
            f"{file.path.name} has a tokenizer of the kind {model!r}",
            cause=f"the compiler knows {', '.join(sorted(_KINDS))}",
            remedy="harness models list",
        )
    source = _base(file, kind)
    if kind is TokenizerModel.BYTE_BPE:
        return _byte_level(file, source)
    if kind is TokenizerModel.MERGES_BPE:
        return replace(
            source,
            merges=_merges(file),
            normalizer=(Replace(" ", SPACE),),
            byte_fallback=True,
            fuse_unknown=True,
        )
    return _sentencepiece(file, source)


def _base(file: GgufFile, kind: TokenizerModel) -> TokenizerSource:
    """What all kinds have."""
    tokens = _list(file, "tokenizer.ggml.tokens", str)
    types = _list(file, "tokenizer.ggml.token_type", int)
    if len(types) != len(tokens):
        raise _broken(file, f"{len(tokens)} tokens but {len(types)} token types")
    try:
        kinds = tuple(TokenType(number) for number in types)
    except ValueError as problem:
        raise _broken(file, f"tokenizer.ggml.token_type: {problem}") from problem
    template = file.metadata.get("tokenizer.chat_template")
    eos = _id(file, "eos", len(tokens))
    by_scores = kind is TokenizerModel.SCORES_BPE
    return TokenizerSource(
        model=kind,
        tokens=tuple(tokens),
        token_types=kinds,
        merges=(),
        pre="none",
        bos_token_id=_id(file, "bos", len(tokens)),
        eos_token_id=eos,
        unknown_token_id=_id(file, "unknown", len(tokens)),
        padding_token_id=_id(file, "padding", len(tokens)),
        add_bos=_flag(file, "add_bos_token", default=by_scores),
        add_eos=_flag(file, "add_eos_token", default=kind is TokenizerModel.UNIGRAM),
        chat_template=template if isinstance(template, str) else None,
        end_token_ids=() if eos is None else (eos,),
    )


def _byte_level(file: GgufFile, source: TokenizerSource) -> TokenizerSource:
    if _flag(file, "add_space_prefix", default=False):
        raise UsageError(
            f"{file.path.name} has a tokenizer that is not supported",
            cause="it puts a space before each text, and its model is one of bytes",
            remedy="harness models list",
        )
    name = str(file.metadata.get("tokenizer.ggml.pre", "default"))
    pre = _SPLITTERS.get(name, name)
    return replace(
        source,
        pre=pre,
        merges=_merges(file),
        ignore_merges=pre == "llama-bpe",
        # Qwen's own tokenizer does it, and its GGUF files do not say so.
        normalizer=(UnicodeForm("NFC"),) if pre == "qwen2" else (),
    )


def _sentencepiece(file: GgufFile, source: TokenizerSource) -> TokenizerSource:
    scores = tuple(_list(file, "tokenizer.ggml.scores", float))
    if len(scores) != len(source.tokens) or not all(map(isfinite, scores)):
        raise _broken(file, f"{len(source.tokens)} tokens but {len(scores)} finite scores")
    unknown = source.unknown_token_id
    if unknown is None:
        unknown = next(
            (n for n, kind in enumerate(source.token_types) if kind is TokenType.UNKNOWN), None
        )
    if unknown is None:
        raise _broken(file, "it has no unknown token")
    unigram = source.model is TokenizerModel.UNIGRAM
    if unigram:
        scores = unigram_scores(source.tokens, source.token_types, scores, unknown)
    prefix = _flag(file, "add_space_prefix", default=True)
    remove = _flag(file, "remove_extra_whitespaces", default=False)
    return replace(
        source,
        unknown_token_id=unknown,
        scores=scores,
        normalizer=sentencepiece_steps(
            _charsmap(file), prefix=prefix, prefix_rules=0, remove_spaces=remove
        ),
        byte_fallback=TokenType.BYTE in source.token_types,
        fuse_unknown=True,
        sentencepiece=True,
        strip_spaces=1 if prefix or remove else 0,
    )


def _charsmap(file: GgufFile) -> bytes:
    key = "tokenizer.ggml.precompiled_charsmap"
    if key not in file.metadata:
        return b""
    try:
        # Some writers store the bytes as signed ones.
        return bytes(value & 0xFF for value in _list(file, key, int))
    except ValueError as problem:
        raise _broken(file, f"{key}: {problem}") from problem


def _merges(file: GgufFile) -> tuple[tuple[str, str], ...]:
    return tuple(_merge(file, line) for line in _list(file, "tokenizer.ggml.merges", str))


def _merge(file: GgufFile, line: str) -> tuple[str, str]:
    # No part is empty, but in some files a part begins with a space: split after the first letter.
    cut = line.find(" ", 1)
    if cut < 1 or cut + 1 >= len(line):
        raise _broken(file, f"the merge {line!r} has no two parts")
    return line[:cut], line[cut + 1 :]


def _list(file: GgufFile, key: str, kind: type[_Value]) -> list[_Value]:
    values: Any = file.metadata.get(key)
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise _broken(file, f"{key} is missing or not a list of {kind.__name__}")
    return values


def _id(file: GgufFile, name: str, count: int) -> int | None:
    value = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < count:
        raise _broken(file, f"the {name} token {value!r} is not in the vocabulary")
    return value


def _flag(file: GgufFile, name: str, *, default: bool) -> bool:
    value = file.metadata.get(f"tokenizer.ggml.{name}", default)
    if type(value) is not bool:
        raise _broken(file, f"tokenizer.ggml.{name} is {value!r}")
    return value


def _broken(file: GgufFile, cause: str) -> StageFailed:
    return StageFailed(
        f"the tokenizer in {file.path.name} is not whole",
        cause=cause,
        remedy=f"ls -l {file.path}   # get the file again from its source",
    )
