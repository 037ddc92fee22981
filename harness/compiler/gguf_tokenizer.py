"""The tokenizer data in a GGUF file's metadata.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
"""

from __future__ import annotations

from typing import Any

from harness.compiler.gguf_file import GgufFile
from harness.compiler.tokenizer_source import TokenizerSource, TokenType
from harness.errors import StageFailed, UsageError


def read_tokenizer(file: GgufFile) -> TokenizerSource:
    """The byte-level BPE tokenizer of a GGUF file.

    Raises `UsageError` for another kind of tokenizer, `StageFailed` if its data are not whole.
    """
    model = file.metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise UsageError(
            f"{file.path.name} has a tokenizer of the kind {model!r}",
            cause="the compiler knows byte-level BPE (gpt2)",
            remedy="harness models list",
        )
    tokens = _list(file, "tokenizer.ggml.tokens", str)
    types = _list(file, "tokenizer.ggml.token_type", int)
    if len(types) != len(tokens):
        raise _broken(file, f"{len(tokens)} tokens but {len(types)} token types")
    try:
        kinds = tuple(TokenType(kind) for kind in types)
    except ValueError as problem:
        raise _broken(file, f"tokenizer.ggml.token_type: {problem}") from problem
    template = file.metadata.get("tokenizer.chat_template")
    return TokenizerSource(
        model="bpe",
        tokens=tuple(tokens),
        token_types=kinds,
        merges=tuple(_merge(file, line) for line in _list(file, "tokenizer.ggml.merges", str)),
        pre=str(file.metadata.get("tokenizer.ggml.pre", "default")),
        bos_token_id=_id(file, "bos", len(tokens)),
        eos_token_id=_id(file, "eos", len(tokens)),
        unknown_token_id=_id(file, "unknown", len(tokens)),
        padding_token_id=_id(file, "padding", len(tokens)),
        add_bos=_flag(file, "add_bos_token"),
        add_eos=_flag(file, "add_eos_token"),
        add_space_prefix=_flag(file, "add_space_prefix"),
        chat_template=template if isinstance(template, str) else None,
    )


def _merge(file: GgufFile, line: str) -> tuple[str, str]:
    # No part is empty, but in some files a part begins with a space: split after the first letter.
    cut = line.find(" ", 1)
    if cut < 1 or cut + 1 >= len(line):
        raise _broken(file, f"the merge {line!r} has no two parts")
    return line[:cut], line[cut + 1 :]


def _list(file: GgufFile, key: str, kind: type) -> list[Any]:
    values = file.metadata.get(key)
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


def _flag(file: GgufFile, name: str) -> bool:
    value = file.metadata.get(f"tokenizer.ggml.{name}", False)
    if type(value) is not bool:
        raise _broken(file, f"tokenizer.ggml.{name} is {value!r}")
    return value


def _broken(file: GgufFile, cause: str) -> StageFailed:
    return StageFailed(
        f"the tokenizer in {file.path.name} is not whole",
        cause=cause,
        remedy=f"ls -l {file.path}   # get the file again from its source",
    )
