"""The tokenizer of a Hugging Face folder: `tokenizer.json` or `tokenizer.model` and their kin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.compiler.tokenization.normalization import PrependRule
from harness.compiler.tokenization.sentencepiece_model import read_sentencepiece
from harness.compiler.tokenization.tokenizer_json import (
    AddedToken,
    damaged,
    read_document,
    read_tokenizer_json,
    with_added_tokens,
)
from harness.compiler.tokenization.tokenizer_source import TokenizerSource
from harness.errors import UsageError

_CONFIG = "tokenizer_config.json"


def read_tokenizer_folder(folder: Path) -> TokenizerSource:
    """The tokenizer of the model in `folder`, as transformers would load it.

    Reads `tokenizer.json`, or else `tokenizer.model`; then `tokenizer_config.json`,
    `special_tokens_map.json`, `added_tokens.json`, `generation_config.json`, `config.json` and
    `chat_template.jinja` where they are. Raises `StageFailed` for a file that is damaged or
    contradicts itself, `UsageError` for a form that is not supported; both name the file.
    """
    config = read_document(folder / _CONFIG)
    main = folder / "tokenizer.json"
    if main.is_file():
        source = read_tokenizer_json(main)
    else:
        main = folder / "tokenizer.model"
        if not main.is_file():
            raise UsageError(
                f"{folder} has no tokenizer",
                cause="there is neither a tokenizer.json nor a tokenizer.model",
                remedy=f"ls {folder}",
            )
        # transformers: a "legacy" tokenizer puts the space behind each special token too.
        legacy = config.get("legacy", True) is not False
        source = read_sentencepiece(main, prefix_rules=0 if legacy else PrependRule.FIRST_ONLY)
    return _configured(source, folder, main, config)


def _configured(
    source: TokenizerSource, folder: Path, main: Path, config: dict[str, Any]
) -> TokenizerSource:
    """`source` with what the files beside the tokenizer say."""
    source = with_added_tokens(source, main, _listed_tokens(folder, config))
    ids = {token: number for number, token in enumerate(source.tokens)}
    named = {**read_document(folder / "special_tokens_map.json"), **config}
    model, generation = (
        read_document(folder / "config.json"),
        read_document(folder / "generation_config.json"),
    )

    def special(name: str, default: int | None) -> int | None:
        content = named.get(f"{name}_token")
        if isinstance(content, dict):
            content = content.get("content")
        if isinstance(content, str):
            # A name for a token that the vocabulary lacks: transformers would add it, without
            # a row in the embedding.
            return ids.get(content)
        if f"{name}_token" in config:
            return None
        if default is not None:
            return default
        for place in (generation, model):
            for number in _numbers(place.get(f"{name}_token_id")):
                if number < len(source.tokens):
                    return number
        return None

    eos = special("eos", source.eos_token_id)
    ends = _numbers(generation.get("eos_token_id")) or _numbers(model.get("eos_token_id"))
    ends = [*([eos] if eos is not None else []), *ends]
    add_bos, add_eos = config.get("add_bos_token"), config.get("add_eos_token")
    return replace(
        source,
        bos_token_id=special("bos", source.bos_token_id),
        eos_token_id=eos,
        unknown_token_id=(
            source.unknown_token_id if source.unknown_token_id is not None else special("unk", None)
        ),
        padding_token_id=special("pad", source.padding_token_id),
        end_token_ids=tuple(
            dict.fromkeys(number for number in ends if number < len(source.tokens))
        ),
        chat_template=_chat_template(folder, config),
        add_bos=add_bos if isinstance(add_bos, bool) else source.add_bos,
        add_eos=add_eos if isinstance(add_eos, bool) else source.add_eos,
    )


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [number for number in values if type(number) is int and number >= 0]


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        try:
            return beside.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise damaged(beside, str(problem)) from problem
    template = config.get("chat_template")
    if isinstance(template, list):
        # Several templates by name; transformers takes the one named default.
        named = {
            entry.get("name"): entry.get("template")
            for entry in template
            if isinstance(entry, dict)
        }
        template = named.get("default")
    return template if isinstance(template, str) else None


def _listed_tokens(folder: Path, config: dict[str, Any]) -> list[AddedToken]:
    """The tokens that `added_tokens.json` and `tokenizer_config.json` add."""
    found: dict[int, AddedToken] = {}
    for token, number in read_document(folder / "added_tokens.json").items():
        if type(number) is not int or number < 0:
            raise damaged(
                folder / "added_tokens.json", f"the token {token!r} has the id {number!r}"
            )
        found[number] = AddedToken(number, token, special=True)
    listed = config.get("added_tokens_decoder")
    for key, entry in listed.items() if isinstance(listed, dict) else ():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not key.isdecimal() or len(key) > 9 or not isinstance(content, str):
            raise damaged(
                folder / _CONFIG, f"added_tokens_decoder has the entry {key!r}: {entry!r}"
            )
        found[int(key)] = AddedToken(int(key), content, entry.get("special") is True)
    return [found[number] for number in sorted(found)]
