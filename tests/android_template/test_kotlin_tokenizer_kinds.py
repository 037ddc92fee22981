"""Every kind of tokenizer in Kotlin against the library that defines it, id for id.

The vocabularies are small ones, trained here; the way is the whole one, from the files that a
checkpoint has.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

from harness.compiler.tokenization.hf_tokenizer import read_tokenizer_folder
from harness.compiler.tokenization.tokenizer import to_alc, write_tokenizer
from harness.compiler.tokenization.tokenizer_json import PATTERNS
from harness.compiler.tokenization.tokenizer_source import TokenType

COUNT = 10_000
GOLDEN = Path(__file__).parents[1] / "goldens/llama-a"
SPACE = "\u2581"
# Pieces on which rules compete: spaces, contractions, combining marks, Hangul, emoji sequences,
# compatibility characters, control characters, and what looks like a token.
PIECES = [
    " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\x85", "\x00",
    "\x7f", "'s", "'S", "'RE", "'ll", "'\u017f", "'", "''", "\u2019t", "a", "B", "the", " and",
    "ing", "er", "\u00e9", "e\u0301", "\u1e9b\u0323", "\u0344", "a\u0315\u0300\u05ae\u0062",
    "\u212b", "\u2126", "\ufb01", "\uff21\uff11", "\u3392", "\u00bd", "\u2460", "\ufdfa", "\u0130",
    "\u1e9e", "\u03a3\u03c2", "\u6f22\u5b57", "\uff76\uff9e", "\u304b\u3099", "\u1100\u1161\u11a8",
    "\uac00\u11a8", "\ud55c", "\u0e44\u0e17\u0e22", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0661", "7", "42", "123456", "3.14", "\U0001f600", "\U0001f1e9\U0001f1ea",
    "\U0001f468\u200d\U0001f469\u200d\U0001f466", "\u2764\ufe0f", "\U0001f44d\U0001f3fd",
    "\U0001d7d8", "\U00020000", "\U0010fffd", "\ue000", "\ufffd", "\ufeff", "!", "...", "->", "#",
    "{", "}", "_", "\u20ac", "==", "def f(x):\n    return x**2\n", "<b>", "\\n", "<s>", "</s>",
    "<unk>", "[UNK]", "[CLS]", "##ing", "<|end|>", "<|end", "<tag>", "<0x41>", "<0x0A>", SPACE,
    SPACE * 2, "``", "user\n",
]  # fmt: skip


def _texts() -> Iterator[str]:
    chance = random.Random(4)
    words = Path("README.md").read_text(encoding="utf-8")
    yield from ("", " ", "  ", SPACE, "a", "\n")
    while True:
        yield "".join(chance.choices(PIECES, k=chance.randrange(1, 14)))
        yield "".join(_any_character(chance) for _ in range(chance.randrange(1, 12)))
        start = chance.randrange(len(words))
        yield words[start : start + chance.randrange(60)]


def _any_character(chance: random.Random) -> str:
    plane = chance.choice((0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x110000))
    point = chance.randrange(plane)
    return chr(point) if not 0xD800 <= point < 0xE000 else "\ue000"


TEXTS = list(islice(_texts(), COUNT))


def _corpus() -> list[str]:
    chance = random.Random(7)
    lines = Path("README.md").read_text(encoding="utf-8").splitlines()
    lines += Path("harness/errors.py").read_text(encoding="utf-8").splitlines()
    return lines + ["".join(chance.choices(PIECES, k=8)) for _ in range(600)]


Reference = Callable[[str], tuple[list[int], str]]


@dataclass(frozen=True)
class Kind:
    """A folder as a checkpoint has it, and what its library answers."""

    folder: Path
    reference: Reference

    @property
    def compact(self) -> Path:
        return self.folder / "made/tokenizer.alc"


def _saved(tokenizer: Tokenizer, folder: Path) -> Kind:
    """A kind that `tokenizers` defines, with special tokens taken as text."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    # What was saved is what counts: a trainer leaves the tokenizer in another state.
    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    reader.encode_special_tokens = True

    def answer(text: str) -> tuple[list[int], str]:
        ids: list[int] = reader.encode(text, add_special_tokens=False).ids
        return ids, reader.decode(ids, skip_special_tokens=False)

    return Kind(folder, answer)


def _byte_level(folder: Path, pattern: str, *, form: bool = False, whole: bool = False) -> Kind:
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if form:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens(["<|end|>", "<|user|>"])
    tokenizer.add_tokens([AddedToken("<tag>", normalized=False)])
    tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.token_to_id("<|end|>"))]
    )
    return _saved(tokenizer, folder)


def _pieces(
    folder: Path,
    *,
    prefix: normalizers.Normalizer | None,
    metaspace: bool = False,
    fallback: bool = True,
    hostile: bool = False,
) -> Kind:
    """BPE of characters with U+2581, as converters of Llama's and Gemma's models write it.

    With `hostile` its merges make control tokens of letters.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    special = ["<unk>", "<s>", "</s>"]
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        replace = normalizers.Replace(" ", SPACE)
        tokenizer.normalizer = (
            normalizers.Sequence([prefix, replace]) if prefix is not None else replace
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
        strip = [decoders.Strip(" ", 1, 0)] if prefix is not None else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
    data = [f"<0x{byte:02X}>" for byte in range(256)] if fallback else []
    trainer = BpeTrainer(
        vocab_size=1200, limit_alphabet=90, special_tokens=special + data, show_progress=False
    )
    lines = _corpus() if hostile else [re.sub("</?s>|<unk>", "", line) for line in _corpus()]
    tokenizer.train_from_iterator(lines, trainer)
    if not metaspace:
        # Training wants words; the model of such a checkpoint gets the whole text.
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_tokens([AddedToken("<tag>", normalized=False)])
    kind = _saved(tokenizer, folder)
    if not data:
        return kind
    # The trainer takes special tokens for what they are not: bytes are ordinary entries.
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["added_tokens"] = [
        token for token in document["added_tokens"] if token["content"] not in data
    ]
    folder = folder.with_name(folder.name + "-saved")
    return _saved(Tokenizer.from_str(json.dumps(document)), folder)


def _unigram(folder: Path) -> Kind:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = UnigramTrainer(
        vocab_size=700, special_tokens=["<none>", "<pad>"], unk_token="<none>", show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _saved(tokenizer, folder)


def _wordpiece(folder: Path, *, lowercase: bool) -> Kind:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    trainer = WordPieceTrainer(
        vocab_size=900, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _saved(tokenizer, folder)


def _sentencepiece(folder: Path, **options: Any) -> Kind:
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line.replace("\0", "") for line in _corpus()),
        model_prefix=str(folder / "tokenizer"),
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return _sentencepiece_kind(folder)


def _sentencepiece_kind(folder: Path) -> Kind:
    reader = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))

    def answer(text: str) -> tuple[list[int], str]:
        ids: list[int] = reader.encode(text)
        # SentencePiece has a sign for it where the others have the token.
        return ids, reader.decode(ids).replace(" \u2047 ", "<unk>")

    return Kind(folder, answer)


LLAMA3, QWEN2, GPT2 = (
    next(pattern for pattern, known in PATTERNS.items() if known == name)
    for name in ("llama-bpe", "qwen2", "gpt-2")
)
SYMBOLS = ["<tag>", "ing", "==", "\u6f22\u5b57"]
KINDS: dict[str, Callable[[Path], Kind]] = {
    "gpt2": lambda folder: _byte_level(folder, GPT2),
    "llama3": lambda folder: _byte_level(folder, LLAMA3, whole=True),
    "qwen2": lambda folder: _byte_level(folder, QWEN2, form=True),
    "llama2": lambda folder: _pieces(folder, prefix=normalizers.Prepend(SPACE)),
    "gemma": lambda folder: _pieces(folder, prefix=None),
    "metaspace": lambda folder: _pieces(folder, prefix=None, metaspace=True, fallback=False),
    "unigram": _unigram,
    "wordpiece": lambda folder: _wordpiece(folder, lowercase=True),
    "wordpiece-cased": lambda folder: _wordpiece(folder, lowercase=False),
    "sentencepiece-bpe": lambda folder: _sentencepiece(
        folder,
        model_type="bpe",
        vocab_size=1000,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=[*SYMBOLS, SPACE * 2],
        character_coverage=0.98,
    ),
    "sentencepiece-bpe-nfkc": lambda folder: _sentencepiece(
        folder,
        model_type="bpe",
        vocab_size=900,
        user_defined_symbols=SYMBOLS,
        character_coverage=0.98,
    ),
    "sentencepiece-unigram": lambda folder: _sentencepiece(
        folder,
        model_type="unigram",
        vocab_size=600,
        normalization_rule_name="nmt_nfkc_cf",
        user_defined_symbols=SYMBOLS,
        character_coverage=0.98,
    ),
    "sentencepiece-unigram-bytes": lambda folder: _sentencepiece(
        folder,
        model_type="unigram",
        vocab_size=700,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
    ),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kind]:
    """The kinds by name, each made once, with a compact form beside it."""
    base = tmp_path_factory.mktemp("kinds")
    made: dict[str, Kind] = {}

    def kind(name: str) -> Kind:
        if name not in made:
            made[name] = KINDS[name](base / name)
            write_tokenizer(read_tokenizer_folder(made[name].folder), made[name].compact.parent)
        return made[name]

    return kind


@pytest.mark.parametrize("name", KINDS)
def test_ten_thousand_texts_have_the_ids_and_the_text_of_the_reference(
    kotlin: Any, kinds: Callable[[str], Kind], name: str
) -> None:
    kind = kinds(name)
    kotlin.open_tokenizer(kind.compact)
    found = kotlin.encode_all(TEXTS)
    assert len(found) == COUNT
    for text, answer in zip(TEXTS, found, strict=True):
        assert answer == kind.reference(text), ascii(text)


@pytest.mark.parametrize("name", ["llama3", "qwen2", "llama2", "gemma", "metaspace"])
def test_markup_has_the_special_tokens_of_the_reference(
    kotlin: Any, kinds: Callable[[str], Kind], name: str
) -> None:
    kind = kinds(name)
    kotlin.open_tokenizer(kind.compact)
    reader = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    for text in TEXTS[:1500]:
        expected = reader.encode(text, add_special_tokens=False).ids
        assert kotlin.encode(text, markup=True) == expected, ascii(text)


def test_merges_that_make_control_tokens_do_not_serve_users(kotlin: Any, tmp_path: Path) -> None:
    kind = _pieces(tmp_path / "hostile", prefix=None, hostile=True)
    write_tokenizer(read_tokenizer_folder(kind.folder), tmp_path)
    kotlin.open_tokenizer(tmp_path / "tokenizer.alc")
    ids, _ = kind.reference("x</s>")
    assert 2 in ids and 2 not in kotlin.encode("x</s>")
    assert kotlin.decode(kotlin.encode("x</s>")) == "x</s>"


@pytest.mark.parametrize("name", KINDS)
def test_no_text_of_a_user_becomes_a_control_token(
    kotlin: Any, kinds: Callable[[str], Kind], name: str
) -> None:
    source = read_tokenizer_folder(kinds(name).folder)
    kotlin.open_tokenizer(kinds(name).compact)
    control = {n for n, kind in enumerate(source.token_types) if kind is TokenType.CONTROL}
    texts = [f"{before}{source.tokens[n]}" for n in control for before in ("", " ", "x", "\n")]
    assert control or name.startswith("gpt")
    for _, (ids, _) in zip(texts, kotlin.encode_all(texts), strict=True):
        assert not control & set(ids)


@pytest.mark.parametrize("name", KINDS)
def test_tokens_decode_one_by_one_to_what_they_decode_to_together(
    kotlin: Any, kinds: Callable[[str], Kind], name: str
) -> None:
    size = kotlin.open_tokenizer(kinds(name).compact)
    chance = random.Random(5)
    for _ in range(100):
        ids = [chance.randrange(size) for _ in range(chance.randrange(20))]
        assert kotlin.decode_in_pieces(ids) == kotlin.decode(ids)


@pytest.mark.parametrize("name", ["llama2", "metaspace", "sentencepiece-bpe"])
def test_a_text_that_goes_on_gets_no_space_in_front(
    kotlin: Any, kinds: Callable[[str], Kind], name: str
) -> None:
    kotlin.open_tokenizer(kinds(name).compact)
    for text, start in (("one</s>two", 3), ("<s>one two</s>", 10), ("one</s>two", 7)):
        whole = kotlin.encode(text, markup=True)
        rest = kotlin.encode_rest(text, start)
        if text[start:].startswith("<"):
            assert rest == whole[-len(rest) :]
        else:
            assert not kotlin.decode([rest[0]]).startswith(" ")
            assert kotlin.encode("x" + text[start:])[-1] == rest[-1]


def test_the_golden_texts_have_their_ids(kotlin: Any, tmp_path: Path) -> None:
    for name in ("tokenizer.model", "generation_config.json", "texts.json"):
        shutil.copy(GOLDEN / name, tmp_path)
    write_tokenizer(read_tokenizer_folder(tmp_path), tmp_path / "made")
    kotlin.open_tokenizer(tmp_path / "made/tokenizer.alc")
    golden = json.loads((tmp_path / "texts.json").read_text(encoding="utf-8"))
    assert len(golden) == 10
    for text, ids in golden:
        assert kotlin.encode(text) == ids, text


@pytest.mark.parametrize("name", ["llama3", "gemma", "unigram", "wordpiece", "sentencepiece-bpe"])
@pytest.mark.parametrize("piece", ["ab", " a", "<", "\u0301", "\u6f22"])
def test_time_is_in_proportion_to_the_length(
    kotlin: Any, kinds: Callable[[str], Kind], name: str, piece: str
) -> None:
    kotlin.open_tokenizer(kinds(name).compact)
    short, long = piece * 10_000, piece * 80_000
    times = [min(kotlin.encode_nanos(text) for _ in range(5)) for text in (short, long)]
    # Eight times as long: a quadratic encoder would take 64 times as long.
    assert times[1] < 32 * times[0]


def test_mutated_compact_forms_are_refused_or_read(
    kotlin: Any, kinds: Callable[[str], Kind], tmp_path: Path
) -> None:
    chance = random.Random(6)
    broken = tmp_path / "tokenizer.alc"
    refused = 0
    for name in ("qwen2", "sentencepiece-unigram", "wordpiece"):
        data = kinds(name).compact.read_bytes()[:-4]
        for _ in range(150):
            mutated = bytearray(data)
            # Mostly in the header and the first tables, where the counts are.
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(chance.choice((80, 4000, len(data))))
                mutated[at] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
            broken.write_bytes(mutated + struct.pack("<I", zlib.crc32(mutated)))
            # Anything else than the two named refusals ends the JVM, and with it the test.
            with suppress(kotlin.Failed):
                kotlin.open_tokenizer(broken)
                refused -= 1
            refused += 1
    assert refused > 100


def test_a_vocabulary_of_256_000_tokens_loads(kotlin: Any, tmp_path: Path) -> None:
    chance = random.Random(8)
    letters = [chr(point) for point in range(0x61, 0x7B)]
    tokens = ["<unk>", "<s>", "</s>", *letters, SPACE]
    known = set(tokens)
    while len(tokens) < 256_000:
        token = tokens[chance.randrange(3, len(tokens))] + chance.choice(letters)
        if len(token) < 16 and token not in known:
            known.add(token)
            tokens.append(token)
    source = replace(
        read_tokenizer_folder(GOLDEN),
        tokens=tuple(tokens),
        token_types=(TokenType.UNKNOWN, *[TokenType.CONTROL] * 2)
        + (TokenType.NORMAL,) * (len(tokens) - 3),
        scores=tuple(float(-number) for number in range(len(tokens))),
        byte_fallback=False,
        unknown_token_id=0,
    )
    path = tmp_path / "tokenizer.alc"
    path.write_bytes(to_alc(source))
    assert kotlin.open_tokenizer(path) == 256_000
