"""`tokenizer.json`: the pipeline of parts that the `tokenizers` library runs.

Format: https://huggingface.co/docs/tokenizers and the serde attributes of the library. The parts
that models of text use are known; the others are refused by name.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from harness.compiler.tokenization.normalization import (
    SPACE,
    CharactersMap,
    PrecompiledMap,
    Prepend,
    PrependRule,
    Replace,
    Squeeze,
    Step,
    Strip,
    UnicodeForm,
)
from harness.compiler.tokenization.tokenizer_source import (
    TokenizerModel,
    TokenizerSource,
    TokenType,
)
from harness.errors import StageFailed, UsageError

# Unicode's White_Space, which does not change any more.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The patterns by llama.cpp's names.
PATTERNS = {
    _GPT2: "gpt-2",
    _TIKTOKEN % r"\p{N}{1,3}": "llama-bpe",
    _TIKTOKEN % r"\p{N}": "qwen2",
}

_Kind = TypeVar("_Kind")


def read_tokenizer_json(path: Path) -> TokenizerSource:
    """The tokenizer in the file, without what the files beside it say.

    Raises `StageFailed` if it is damaged or contradicts itself, `UsageError` for a form that is
    not supported; both name the file.
    """
    return _Reader(path, read_document(path)).source()


@dataclass(frozen=True)
class AddedToken:
    """A token that stands beside the model's vocabulary or in it, found before all others."""

    id: int
    content: str
    special: bool


def with_added_tokens(
    source: TokenizerSource, path: Path, added: list[AddedToken]
) -> TokenizerSource:
    """`source` with the added tokens of a folder or file; `path` is named if they contradict it."""
    tokens, types = list(source.tokens), list(source.token_types)
    scores = list(source.scores)
    numbers = {token: number for number, token in enumerate(tokens)}
    for token in added:
        known = numbers.get(token.content)
        if known is not None and known != token.id:
            raise damaged(
                path, f"the added token {token.content!r} is {token.id} and {known} at once"
            )
        if token.id > len(tokens):
            raise damaged(path, f"there are no tokens from {len(tokens)} to {token.id - 1}")
        if token.id == len(tokens):
            tokens.append(token.content)
            types.append(TokenType.USER_DEFINED)
            scores += [0.0] if scores else []
        elif known is None:
            raise damaged(
                path,
                f"the id {token.id} is the token {tokens[token.id]!r} and the added token "
                f"{token.content!r} at once",
            )
        numbers[token.content] = token.id
        if types[token.id] not in (TokenType.UNKNOWN, TokenType.BYTE):
            types[token.id] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    return replace(source, tokens=tuple(tokens), token_types=tuple(types), scores=tuple(scores))


class _Number(float):
    """A number of `tokenizer.json`, which also knows what the `tokenizers` library reads.

    The library's JSON reader multiplies or divides the digits by a power of ten in double
    precision, so some numbers come out one unit in the last place off, and with them the sums on
    which a unigram model's choice between equally likely ways depends.
    """

    __slots__ = ("read",)
    read: float

    def __new__(cls, text: str) -> _Number:
        number = super().__new__(cls, text)
        mantissa, _, exponent = text.lower().lstrip("-").partition("e")
        whole, _, fraction = mantissa.partition(".")
        power = int(exponent or 0) - len(fraction)
        digits = int(whole + fraction)
        if digits >= 1 << 64 or not -308 <= power <= 308:
            number.read = float(number)
            return number
        size = digits * 10.0**power if power >= 0 else digits / 10.0**-power
        number.read = -size if text.startswith("-") else size
        return number


class _Reader:
    """Turns the document of one `tokenizer.json` into a `TokenizerSource`."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self._path = path
        self._document = document

    def source(self) -> TokenizerSource:
        steps = [*self._normalizers(self._part("normalizer"))]
        pre, byte_level, more = self._pre_tokenizers()
        steps += more
        model = self._get(self._document, "model", dict)
        kind = self._get(model, "type", str) if "type" in model else "BPE"
        if byte_level:
            if kind != "BPE":
                self._refuse(f"its model is {kind} of bytes")
            source = self._byte_pairs(model, TokenizerModel.BYTE_BPE)
        elif kind == "BPE":
            source = self._byte_pairs(model, TokenizerModel.MERGES_BPE)
        elif kind == "Unigram":
            source = self._unigram(model)
        elif kind == "WordPiece":
            source = self._wordpiece(model)
        else:
            self._refuse(f"its model is {kind}")
        if (source.model is TokenizerModel.WORDPIECE) != (pre == "bert"):
            self._refuse(f"its model is {kind} and its pre-tokenizer {pre}")
        source = replace(source, pre=pre, normalizer=tuple(steps), document=self._document)
        source = with_added_tokens(source, self._path, self._added_tokens(source))
        source = self._decoded(source)
        return self._processed(source)

    # The models.

    def _byte_pairs(self, model: dict[str, Any], kind: TokenizerModel) -> TokenizerSource:
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(name):
                self._refuse(f"its model has the {name} {model[name]!r}")
        tokens = self._vocabulary(model)
        fallback = model.get("byte_fallback") is True
        unknown = self._unknown(model, tokens)
        if kind is TokenizerModel.BYTE_BPE and (unknown is not None or fallback):
            self._refuse("its model of bytes has an unknown token or a fallback")
        return self._made(
            kind,
            tokens,
            unknown,
            merges=tuple(self._merges(model, set(tokens))),
            byte_fallback=fallback,
            fuse_unknown=model.get("fuse_unk") is True,
            ignore_merges=model.get("ignore_merges") is True,
        )

    def _unigram(self, model: dict[str, Any]) -> TokenizerSource:
        entries = self._get(model, "vocab", list)
        tokens, scores = [], []
        for entry in entries:
            match entry:
                case [str(token), _Number() as score] if isfinite(score.read):
                    tokens.append(token)
                    scores.append(score.read)
                case [str(token), int(score)] if abs(score) < 1 << 32:
                    tokens.append(token)
                    scores.append(float(score))
                case _:
                    self._break(f"its vocabulary has the entry {entry!r}")
        unknown = model.get("unk_id")
        if type(unknown) is not int or not 0 <= unknown < len(tokens):
            self._break(f"its unknown token is {unknown!r} of {len(tokens)}")
        # As Unigram::encode_optimized in the tokenizers library: below the least likely piece.
        scores[unknown] = min(scores) - 10.0
        return self._made(
            TokenizerModel.UNIGRAM,
            tuple(tokens),
            unknown,
            scores=tuple(scores),
            byte_fallback=model.get("byte_fallback") is True,
            fuse_unknown=True,
        )

    def _wordpiece(self, model: dict[str, Any]) -> TokenizerSource:
        tokens = self._vocabulary(model)
        unknown = self._unknown(model, tokens)
        if unknown is None:
            self._break("it names no unknown token")
        longest = self._get(model, "max_input_chars_per_word", int)
        if not 0 < longest < 1 << 31:
            self._break(f"its words have at most {longest} characters")
        return self._made(
            TokenizerModel.WORDPIECE,
            tokens,
            unknown,
            continuing_prefix=self._get(model, "continuing_subword_prefix", str),
            longest_word=longest,
        )

    def _made(
        self, kind: TokenizerModel, tokens: tuple[str, ...], unknown: int | None, **more: Any
    ) -> TokenizerSource:
        types = [TokenType.NORMAL] * len(tokens)
        if more.get("byte_fallback"):
            for number, token in enumerate(tokens):
                if BYTE_TOKEN.fullmatch(token):
                    types[number] = TokenType.BYTE
        if unknown is not None:
            types[unknown] = TokenType.UNKNOWN
        return TokenizerSource(
            model=kind,
            tokens=tokens,
            token_types=tuple(types),
            merges=more.pop("merges", ()),
            pre="none",
            bos_token_id=None,
            eos_token_id=None,
            unknown_token_id=unknown,
            padding_token_id=None,
            add_bos=False,
            add_eos=False,
            chat_template=None,
            **more,
        )

    def _vocabulary(self, model: dict[str, Any]) -> tuple[str, ...]:
        vocabulary = self._get(model, "vocab", dict)
        tokens: dict[int, str] = {}
        for token, number in vocabulary.items():
            if type(number) is not int or number < 0:
                self._break(f"the token {token!r} has the id {number!r}")
            if number in tokens:
                self._break(f"{tokens[number]!r} and {token!r} have the same id {number}")
            tokens[number] = token
        # Added tokens may fill what the model's vocabulary leaves out.
        for added in self._entries():
            known = vocabulary.get(added.content, added.id)
            if known != added.id:
                self._break(f"the token {added.content!r} is {known} and {added.id} at once")
            tokens.setdefault(added.id, added.content)
        for number in range(len(tokens)):
            if number not in tokens:
                self._break(f"there is no token {number}, but one {max(tokens)}")
        return tuple(tokens[number] for number in range(len(tokens)))

    def _merges(self, model: dict[str, Any], known: set[str]) -> Iterator[tuple[str, str]]:
        for merge in self._get(model, "merges", list):
            match merge:
                case [str(left), str(right)]:
                    pass
                case str() if merge.count(" ") == 1:
                    left, right = merge.split(" ")
                case _:
                    self._break(f"the merge {merge!r} has no two parts")
            for part in (left, right, left + right):
                if part not in known:
                    self._break(f"the merge {merge!r} needs the token {part!r}")
            yield left, right

    def _unknown(self, model: dict[str, Any], tokens: tuple[str, ...]) -> int | None:
        name = model.get("unk_token")
        if name is None:
            return None
        if name not in tokens:
            self._break(f"its unknown token {name!r} is not in its vocabulary")
        return tokens.index(name)

    # The pipeline around the model.

    def _normalizers(self, part: dict[str, Any] | None) -> Iterator[Step]:
        if part is None:
            return
        kind = self._get(part, "type", str)
        if kind == "Sequence":
            for inner in self._get(part, "normalizers", list):
                yield from self._normalizers(self._checked(inner, dict, "a normalizer"))
        elif kind in ("NFC", "NFD", "NFKC", "NFKD"):
            yield UnicodeForm(kind)
        elif kind in ("Lowercase", "StripAccents", "Nmt"):
            yield CharactersMap(((("type", kind),),))
        elif kind == "BertNormalizer":
            yield from self._bert_normalizer(part)
        elif kind == "Prepend":
            yield Prepend(self._get(part, "prepend", str))
        elif kind == "Replace":
            pattern, content = self._get(part, "pattern", dict), self._get(part, "content", str)
            if pattern.get("Regex") == " {2,}":
                yield Squeeze(content)
            elif isinstance(pattern.get("String"), str) and pattern["String"]:
                yield Replace(pattern["String"], content)
            else:
                self._refuse(f"its normalizer replaces {pattern!r}")
        elif kind == "Strip":
            left, right = (self._get(part, f"strip_{side}", bool) for side in ("left", "right"))
            yield Strip(left, right, WHITE_SPACE)
        elif kind == "Precompiled":
            encoded = self._get(part, "precompiled_charsmap", str)
            try:
                data = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError) as problem:
                self._break(f"its precompiled_charsmap is no base64: {problem}")
            if data:
                yield PrecompiledMap(data)
        else:
            self._refuse(f"it has the normalizer {kind}")

    def _bert_normalizer(self, part: dict[str, Any]) -> Iterator[Step]:
        lowercase = self._get(part, "lowercase", bool)
        strip = part.get("strip_accents")
        # Its parts one by one, because only stripping accents looks at more than a character: it
        # decomposes, which sorts combining characters.
        parts = {
            "clean_text": self._get(part, "clean_text", bool),
            "handle_chinese_chars": self._get(part, "handle_chinese_chars", bool),
            "strip_accents": strip if isinstance(strip, bool) else lowercase,
            "lowercase": lowercase,
        }
        for name in (name for name, wanted in parts.items() if wanted):
            if name == "strip_accents":
                yield UnicodeForm("NFD")
            only = {"type": "BertNormalizer", **dict.fromkeys(parts, False), name: True}
            yield CharactersMap((tuple(sorted(only.items())),))

    def _pre_tokenizers(self) -> tuple[str, bool, list[Step]]:
        """The rule by its name, whether the model is one of bytes, and steps in disguise."""
        parts = list(self._flat(self._part("pre_tokenizer"), "pretokenizers"))
        kinds = [self._get(part, "type", str) for part in parts]
        match kinds:
            case []:
                return "none", False, []
            case ["BertPreTokenizer"]:
                return "bert", False, []
            case ["Metaspace"]:
                return self._metaspace(parts[0])
            case ["Split"] if self._splits_spaces(parts[0]):
                return "none", False, []
            case ["ByteLevel"]:
                return self._byte_level(parts[0], regex=True), True, []
            case ["Digits", "ByteLevel"] if parts[0].get("individual_digits") is True:
                self._byte_level(parts[1], regex=True)
                return "smollm", True, []
            case ["Split", "ByteLevel"]:
                self._byte_level(parts[1], regex=False)
                return self._pattern(parts[0]), True, []
        self._refuse(f"it has the pre-tokenizer {' and '.join(kinds)}")

    def _metaspace(self, part: dict[str, Any]) -> tuple[str, bool, list[Step]]:
        space = self._get(part, "replacement", str)
        scheme = part.get("prepend_scheme")
        if scheme is None:
            # Older versions wrote a flag.
            scheme = "always" if part.get("add_prefix_space", True) else "never"
        rules = {"always": 0, "first": int(PrependRule.FIRST_ONLY), "never": None}
        if space != SPACE or scheme not in rules:
            self._refuse(f"it has the pre-tokenizer Metaspace of {space!r}, {scheme}")
        steps: list[Step] = [Replace(" ", SPACE)]
        rule = rules[scheme]
        if rule is not None:
            steps.append(Prepend(SPACE, rule | PrependRule.UNLESS_PRESENT))
        return "none" if part.get("split") is False else "words", False, steps

    def _splits_spaces(self, part: dict[str, Any]) -> bool:
        """Whether a splitter at spaces has nothing to do, because no space is left."""
        pattern = self._get(part, "pattern", dict)
        return pattern == {"String": " "} and any(
            isinstance(step, Replace) and step.old == " " and " " not in step.new
            for step in self._normalizers(self._part("normalizer"))
        )

    def _byte_level(self, part: dict[str, Any], *, regex: bool) -> str:
        if part.get("add_prefix_space", True) is not False:
            self._refuse("it puts a space before each text (ByteLevel's add_prefix_space)")
        if part.get("use_regex", True) is not regex:
            self._refuse(f"its ByteLevel pre-tokenizer has use_regex {not regex}")
        return "gpt-2"

    def _pattern(self, part: dict[str, Any]) -> str:
        pattern = self._get(part, "pattern", dict).get("Regex")
        name = PATTERNS.get(pattern) if isinstance(pattern, str) else None
        if name is None or part.get("behavior") != "Isolated" or part.get("invert") is True:
            self._refuse(f"it splits text by the pattern {part.get('pattern')!r}")
        return name

    def _decoded(self, source: TokenizerSource) -> TokenizerSource:
        """`source` with what its decoder says."""
        parts = list(self._flat(self._part("decoder"), "decoders"))
        kinds = [self._get(part, "type", str) for part in parts]
        # Which tokens are bytes and that all are joined is known without being told.
        told = [kind for kind in kinds if kind not in ("ByteFallback", "Fuse")]
        of_bytes = source.model is TokenizerModel.BYTE_BPE
        pieces = source.model in (TokenizerModel.MERGES_BPE, TokenizerModel.UNIGRAM)
        match told:
            case ["ByteLevel"] if of_bytes:
                return source
            case ["WordPiece"] if source.model is TokenizerModel.WORDPIECE:
                part = parts[kinds.index("WordPiece")]
                if self._get(part, "prefix", str) != source.continuing_prefix:
                    self._refuse("its decoder has another prefix than its model")
                return replace(source, clean_up=self._get(part, "cleanup", bool))
            case ["Metaspace"] if pieces:
                part = parts[kinds.index("Metaspace")]
                _, _, steps = self._metaspace(part)
                return replace(source, strip_spaces=None if len(steps) > 1 else 0)
            case ["Replace", *rest] if pieces and rest in ([], ["Strip"]):
                part = parts[kinds.index("Replace")]
                if part.get("pattern") == {"String": SPACE} and part.get("content") == " ":
                    return replace(source, strip_spaces=self._stripped(parts, kinds))
        self._refuse(f"it has the decoder {' and '.join(kinds) or 'null'}")

    def _stripped(self, parts: list[dict[str, Any]], kinds: list[str]) -> int:
        if "Strip" not in kinds:
            return 0
        part = parts[kinds.index("Strip")]
        start = self._get(part, "start", int)
        if part.get("content") != " " or part.get("stop") != 0 or start not in (0, 1):
            self._refuse(f"it has the decoder {part!r}")
        return start

    def _processed(self, source: TokenizerSource) -> TokenizerSource:
        """`source` with the tokens that its post-processor puts around a text."""
        bos = eos = None
        for part in self._flat(self._part("post_processor"), "processors"):
            kind = self._get(part, "type", str)
            if kind == "ByteLevel":
                continue
            if kind in ("BertProcessing", "RobertaProcessing"):
                around = [self._get(part, name, list)[:1] for name in ("cls", "sep")]
                names = [[*around[0]], [*around[1]]]
            elif kind == "TemplateProcessing":
                names = self._template(part)
            else:
                self._refuse(f"it has the post-processor {kind}")
            for found in names:
                if len(found) > 1 or not all(name in source.tokens for name in found):
                    self._refuse(f"its post-processor puts {found!r} beside a text")
            bos, eos = (source.tokens.index(found[0]) if found else None for found in names)
        return replace(
            source,
            bos_token_id=bos,
            eos_token_id=eos,
            add_bos=bos is not None,
            add_eos=eos is not None,
        )

    def _template(self, part: dict[str, Any]) -> list[list[str]]:
        names: list[list[str]] = [[]]
        for piece in self._get(part, "single", list):
            match piece:
                case {"SpecialToken": {"id": str(name)}}:
                    names[-1].append(name)
                case {"Sequence": {"id": "A"}} if len(names) == 1:
                    names.append([])
                case _:
                    self._refuse(f"its post-processor has the part {piece!r}")
        if len(names) != 2:
            self._refuse("its post-processor leaves the text out")
        return names

    def _added_tokens(self, source: TokenizerSource) -> list[AddedToken]:
        for entry in self._part_list("added_tokens"):
            content = entry.get("content")
            for name in ("single_word", "lstrip", "rstrip"):
                if entry.get(name) is True:
                    self._refuse(f"its added token {content!r} has {name}")
            # A control token is found in the text of a template, as it stands there.
            if (
                entry.get("normalized") is True
                and entry.get("special") is not True
                and source.normalizer
            ):
                self._refuse(f"its added token {content!r} is searched in normalized text")
        return sorted(self._entries(), key=lambda token: token.id)

    def _entries(self) -> Iterator[AddedToken]:
        for entry in self._part_list("added_tokens"):
            match entry:
                case {"id": int(number), "content": str(content)} if number >= 0 and content:
                    yield AddedToken(number, content, entry.get("special") is True)
                case _:
                    self._break(f"it has the added token {entry!r}")

    # Access that believes nothing.

    def _part(self, name: str) -> dict[str, Any] | None:
        part = self._document.get(name)
        return None if part is None else self._checked(part, dict, f"its {name}")

    def _part_list(self, name: str) -> list[dict[str, Any]]:
        return [
            self._checked(entry, dict, f"an entry of {name}")
            for entry in self._checked(self._document.get(name) or [], list, name)
        ]

    def _flat(self, part: dict[str, Any] | None, name: str) -> Iterator[dict[str, Any]]:
        """The parts of a sequence, or the one part."""
        if part is None:
            return
        if part.get("type") != "Sequence":
            yield part
            return
        for inner in self._get(part, name, list):
            yield from self._flat(self._checked(inner, dict, f"one of its {name}"), name)

    def _get(self, document: dict[str, Any], name: str, kind: type[_Kind]) -> _Kind:
        return self._checked(document.get(name), kind, name)

    def _checked(self, value: object, kind: type[_Kind], name: str) -> _Kind:
        if type(value) is not kind:
            shown = repr(value)
            self._break(f"{name} is {shown if len(shown) < 60 else shown[:60] + '...'}")
        return value

    def _refuse(self, cause: str) -> NoReturn:
        raise UsageError(
            f"the tokenizer in {self._path} is of a form that is not supported",
            cause=cause,
            remedy="harness models list",
        )

    def _break(self, cause: str) -> NoReturn:
        raise damaged(self._path, cause)


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty where there is no such file. `StageFailed` if damaged."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes(), parse_float=_Number)
    except (OSError, ValueError, RecursionError) as problem:
        raise damaged(path, f"it is no JSON: {problem}") from problem
    if not isinstance(document, dict):
        raise damaged(path, "it is no JSON object")
    return document


def damaged(path: Path, cause: str) -> StageFailed:
    """The error for a file that contradicts itself or cannot be read."""
    return StageFailed(
        f"{path} is damaged",
        cause=cause,
        remedy=f"ls -l {path}   # get the file again from its source",
    )
