"""Tokenizers of Hugging Face folders and GGUF files, read strictly.

That their ids are those of the reference is tested where they are used: in
tests/android_template/test_kotlin_tokenizer_kinds.py.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from harness.compiler.checkpoints.gguf_file import GgufFile
from harness.compiler.tokenization.gguf_tokenizer import read_tokenizer
from harness.compiler.tokenization.hf_tokenizer import read_tokenizer_folder
from harness.compiler.tokenization.normalization import SPACE
from harness.compiler.tokenization.sentencepiece_model import read_sentencepiece
from harness.compiler.tokenization.tokenizer import to_alc, to_hugging_face, visible_bytes
from harness.compiler.tokenization.tokenizer_json import PATTERNS
from harness.compiler.tokenization.tokenizer_source import TokenizerModel, TokenType
from harness.errors import HarnessError, StageFailed, UsageError

GOLDEN = Path(__file__).parents[1] / "goldens/gemma3-a"
Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    """A tokenizer.json in the form of Llama 3's: all bytes, a merge, three special tokens."""
    letters = list(visible_bytes())
    pattern = next(pattern for pattern, name in PATTERNS.items() if name == "llama-bpe")
    end = len(letters) + 1
    names = ["<|begin|>", "<|end|>", "<|turn|>"]
    return {
        "added_tokens": [
            {"id": end + number, "content": name, "special": True, "normalized": False}
            for number, name in enumerate(names)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": names[0]}}, {"Sequence": {"id": "A"}}],
        },
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {token: number for number, token in enumerate([*letters, "he"])},
            "merges": [["h", "e"]],
        },
    }


Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, document: Document) -> Write:
    """Writes documents by their file's name, `tokenizer.json` among them."""

    def write(**documents: Any) -> Path:
        named = {"tokenizer": document, **documents}
        for name, content in named.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def test_a_llama_3_form_is_read_whole(folder: Write) -> None:
    source = read_tokenizer_folder(
        folder(
            tokenizer_config={"eos_token": {"content": "<|end|>"}, "chat_template": "{{ x }}"},
            special_tokens_map={"eos_token": "<|turn|>", "pad_token": "<|turn|>"},
            generation_config={"eos_token_id": [258, 259, 4000], "bos_token_id": 257},
        )
    )
    assert (source.model, source.pre) == (TokenizerModel.BYTE_BPE, "llama-bpe")
    assert source.ignore_merges and source.merges == (("h", "e"),)
    assert source.tokens[256:] == ("he", "<|begin|>", "<|end|>", "<|turn|>")
    assert set(source.token_types[257:]) == {TokenType.CONTROL}
    assert (source.bos_token_id, source.add_bos) == (257, True)
    assert (source.eos_token_id, source.padding_token_id) == (258, 259)
    assert source.end_token_ids == (258, 259)
    assert source.chat_template == "{{ x }}"
    assert to_hugging_face(source)["model"]["merges"] == [["h", "e"]]


def test_a_template_beside_the_configuration_wins(folder: Write) -> None:
    path = folder(tokenizer_config={"chat_template": "old"})
    (path / "chat_template.jinja").write_text("new", encoding="utf-8")
    assert read_tokenizer_folder(path).chat_template == "new"


def test_of_several_templates_the_default_is_taken(folder: Write) -> None:
    listed = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert (
        read_tokenizer_folder(folder(tokenizer_config={"chat_template": listed})).chat_template
        == "d"
    )


def test_the_configuration_says_whether_a_text_begins_with_bos(folder: Write) -> None:
    path = folder(tokenizer_config={"add_bos_token": False, "bos_token": None})
    source = read_tokenizer_folder(path)
    assert not source.add_bos and source.bos_token_id is None


def test_tokens_of_the_configuration_are_added(folder: Write) -> None:
    listed = {"260": {"content": "<x>", "special": False}, "259": {"content": "<|turn|>"}}
    source = read_tokenizer_folder(folder(tokenizer_config={"added_tokens_decoder": listed}))
    assert source.tokens[260] == "<x>"
    assert source.token_types[259:] == (TokenType.USER_DEFINED,) * 2


def test_added_tokens_without_a_row_in_the_embedding_are_dropped(folder: Write) -> None:
    source = read_tokenizer_folder(folder(generation_config={"eos_token_id": 258}))
    assert source.limited_to(1000) is source
    assert source.limited_to(259).tokens[-1] == "<|end|>"
    for rows in (258, 256):
        with pytest.raises(StageFailed) as caught:
            source.limited_to(rows)
        assert f"token {rows}" in caught.value.cause


def test_a_sentencepiece_model_is_read_with_what_is_beside_it() -> None:
    source = read_tokenizer_folder(GOLDEN)
    assert source.model is TokenizerModel.SCORES_BPE and len(source.tokens) == 512
    assert (source.bos_token_id, source.eos_token_id, source.padding_token_id) == (2, 1, 0)
    assert source.add_bos and source.byte_fallback and source.end_token_ids == (1,)


def test_the_library_reads_what_is_written_for_a_sentencepiece_model() -> None:
    source = read_tokenizer_folder(GOLDEN)
    reader = Tokenizer.from_str(json.dumps(to_hugging_face(source)))
    reader.encode_special_tokens = True
    golden = json.loads((GOLDEN.parent / "llama-a/texts.json").read_text(encoding="utf-8"))
    assert [reader.encode(text).ids for text, _ in golden] == [ids for _, ids in golden]


@pytest.mark.parametrize(
    ("legacy", "tokens"),
    [
        (True, [SPACE, "t", "he", "<s>", SPACE, "t", "he"]),
        (False, [SPACE, "t", "he", "<s>", "t", "he"]),
    ],
)
def test_a_legacy_tokenizer_puts_a_space_behind_special_tokens_too(
    tmp_path: Path, legacy: bool, tokens: list[str]
) -> None:
    vocabulary = ["<unk>", "<s>", SPACE, "t", "h", "e", "he"]
    spec = b"".join(_field(1, _piece(piece, number)) for number, piece in enumerate(vocabulary))
    # Of the trainer's and the normalizer's settings only that it is BPE, without extra rules.
    spec += _field(2, b"\x18\x02") + _field(3, b"\x20\x00")
    (tmp_path / "tokenizer.model").write_bytes(spec)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
    source = read_tokenizer_folder(tmp_path)
    reader = Tokenizer.from_str(json.dumps(to_hugging_face(source)))
    assert reader.encode("the<s>the").tokens == tokens


def _piece(text: str, number: int) -> bytes:
    kind = {"<unk>": 2, "<s>": 3}.get(text, 1)
    return _field(1, text.encode()) + b"\x15" + struct.pack("<f", -number) + bytes((0x18, kind))


def _field(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer with at most 127 bytes."""
    return bytes((number << 3 | 2, len(data))) + data


def _gguf(model: str) -> GgufFile:
    source = read_sentencepiece(GOLDEN / "tokenizer.model")
    metadata = {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": list(source.tokens),
        "tokenizer.ggml.token_type": [int(kind) for kind in source.token_types],
        "tokenizer.ggml.scores": list(source.scores),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
    }
    return GgufFile(Path("model.gguf"), metadata, {})


def test_a_gguf_says_the_same_as_the_model_it_was_made_of() -> None:
    assert to_alc(read_tokenizer(_gguf("llama"))) == to_alc(
        read_sentencepiece(GOLDEN / "tokenizer.model")
    )


def test_a_unigram_gguf_keeps_its_rules_of_normalization() -> None:
    file = _gguf("t5")
    rules = list(b"\x08\0\0\0" + bytes(8) + b"x\0")
    file.metadata.update({"tokenizer.ggml.precompiled_charsmap": rules})  # type: ignore[attr-defined]
    source = read_tokenizer(file)
    assert source.model is TokenizerModel.UNIGRAM and source.add_eos and not source.add_bos
    assert bytes(rules) in to_alc(source)


@pytest.mark.parametrize("model", ["bert", "rwkv", 7, None])
def test_another_kind_of_gguf_tokenizer_is_refused_by_name(model: Any) -> None:
    with pytest.raises(UsageError) as caught:
        read_tokenizer(_gguf(model))
    assert repr(model) in caught.value.what and "model.gguf" in caught.value.what


def _changed(document: Document, path: str, value: Any) -> Document:
    changed = json.loads(json.dumps(document))
    *parents, last = path.split(".")
    place: Any = changed
    for name in parents:
        place = place[int(name) if name.isdecimal() else name]
    place[int(last) if last.isdecimal() else last] = value
    return changed  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "error", "cause"),
    [
        ("normalizer", {"type": "Rot13"}, UsageError, "normalizer Rot13"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"},
         UsageError, "a+"),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "?"}, StageFailed, "base64"),
        ("normalizer", [], StageFailed, "normalizer is []"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", r"\w+", UsageError, r"\\w+"),
        ("pre_tokenizer.pretokenizers.1.add_prefix_space", True, UsageError, "add_prefix_space"),
        ("pre_tokenizer", {"type": "UnicodeScripts"}, UsageError, "UnicodeScripts"),
        ("decoder", {"type": "CTC"}, UsageError, "CTC"),
        ("decoder", None, UsageError, "decoder null"),
        ("post_processor", {"type": "Odd"}, UsageError, "Odd"),
        ("model.type", "WordLevel", UsageError, "WordLevel"),
        ("model.dropout", 0.1, UsageError, "dropout"),
        ("model.end_of_word_suffix", "</w>", UsageError, "</w>"),
        ("model.merges", [["h", "q"]], StageFailed, "'hq'"),
        ("model.merges", ["h"], StageFailed, "no two parts"),
        ("model.vocab.he", 3, StageFailed, "the same id 3"),
        ("model.vocab.he", -1, StageFailed, "-1"),
        ("model.vocab.he", 900, StageFailed, "there is no token 256"),
        ("model.vocab.he", "x", StageFailed, "'x'"),
        ("model.vocab", None, StageFailed, "vocab is None"),
        ("added_tokens.2.id", 3, StageFailed, "at once"),
        ("added_tokens.2.id", 400, StageFailed, "no token"),
        ("added_tokens.2.content", "he", StageFailed, "at once"),
        ("added_tokens.2.content", "\ud800", StageFailed, "not Unicode"),
        ("added_tokens.0.lstrip", True, UsageError, "lstrip"),
        ("added_tokens.0", 5, StageFailed, "added_tokens is 5"),
    ],
)  # fmt: skip
def test_what_is_broken_or_not_supported_is_one_error(
    folder: Write, document: Document, path: str, value: Any, error: type[HarnessError], cause: str
) -> None:
    place = folder(tokenizer=_changed(document, path, value))
    with pytest.raises(error) as caught:
        to_alc(read_tokenizer_folder(place))
    assert cause in caught.value.cause and caught.value.remedy


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tokenizer"):
        read_tokenizer_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1' * 100_000, "[" * 100_000, "\xff"])
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"]
)
def test_a_file_that_is_no_json_object_is_named(folder: Write, name: str, text: str) -> None:
    place = folder()
    (place / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(StageFailed) as caught:
        read_tokenizer_folder(place)
    assert name in caught.value.what


def _mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        mutated = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(mutated))
            match chance.randrange(4):
                case 0:
                    mutated[at] = chance.randrange(256)
                case 1:
                    mutated[at] ^= 1 << chance.randrange(8)
                case 2:
                    del mutated[at : at + chance.randrange(1, 40)]
                case _:
                    end = at + chance.randrange(1, 40)
                    mutated[at:at] = mutated[at:end]
        yield bytes(mutated)


def _is_refused(read: Callable[[], object]) -> bool:
    """Whether reading ends in an error that says why and what to do; any other one is raised."""
    try:
        read()
    except HarnessError as problem:
        return bool(problem.cause and problem.remedy)
    return False


def test_thousands_of_mutated_sentencepiece_models_are_refused_or_read(tmp_path: Path) -> None:
    data = (GOLDEN / "tokenizer.model").read_bytes()
    path = tmp_path / "tokenizer.model"
    refused = 0
    for mutated in _mutations(data, 1500, seed=1):
        path.write_bytes(mutated)
        refused += _is_refused(lambda: to_alc(read_sentencepiece(path)))
    assert 100 < refused < 1500


def test_thousands_of_mutated_documents_are_refused_or_read(
    folder: Write, document: Document
) -> None:
    # A short vocabulary, so that mutations hit the structure too.
    document["model"]["vocab"] = {"h": 0, "e": 1, "he": 2}
    for number, token in enumerate(document["added_tokens"]):
        token["id"] = 3 + number
    place = folder()
    data = (place / "tokenizer.json").read_bytes()
    refused = 0
    for mutated in _mutations(data, 2000, seed=2):
        (place / "tokenizer.json").write_bytes(mutated)
        refused += _is_refused(lambda: to_alc(read_tokenizer_folder(place)))
    assert 500 < refused < 2000
