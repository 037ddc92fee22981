"""Asks the Kotlin tokenizer and chat template, in one JVM for as many questions as wanted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness import recipes
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.sources.source import checkpoint_path
from harness.compiler.tokenization.tokenizer_source import TokenizerSource
from harness.errors import MissingTool
from harness.tools import jdk

SOURCE = Path(__file__).with_name("KotlinCases.java")


class KotlinCases:
    """A running JVM; `jars` is the class path of the Kotlin modules."""

    class Refused(Exception):
        """The chat template refused a conversation."""

    class Failed(Exception):
        """The Kotlin side failed; the argument is the kind of its error."""

    def __init__(self, jars: str) -> None:
        self._child = subprocess.Popen(
            [jdk.find().java, "-cp", jars, SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)

    def open_tokenizer(self, path: Path) -> int:
        """Read a tokenizer.alc; returns the size of its vocabulary."""
        return int(self._ask("tokenizer", _hex(str(path))).removeprefix("size "))

    def open_template(self, document: str) -> None:
        """Read a compiled chat template."""
        self._ask("template", _hex(document))

    def encode(self, text: str, *, markup: bool = False) -> list[int]:
        return _ids(self._ask("markup" if markup else "plain", _hex(text)))

    def encode_all(self, texts: Sequence[str]) -> list[tuple[list[int], str]]:
        """The ids of each text, and the text of these ids."""
        answers: list[tuple[list[int], str]] = []
        for at in range(0, len(texts), 500):
            line = self._ask("all", *map(_hex, texts[at : at + 500]))
            for answer in line.split(" ")[1:]:
                ids, _, text = answer.partition(":")
                answers.append(([int(number) for number in ids.split(",")[:-1]], _text(text)))
        return answers

    def encode_rest(self, text: str, start: int) -> list[int]:
        """The ids of what is behind `start` in a text of markup, as its continuation."""
        return _ids(self._ask("rest", _hex(text), str(start)))

    def decode(self, ids: Sequence[int]) -> str:
        return _text(self._ask("decode", *map(str, ids)))

    def decode_in_pieces(self, ids: Sequence[int]) -> str:
        """By the streaming detokenizer, a token at a time."""
        return _text(self._ask("stream", *map(str, ids)))

    def encode_nanos(self, text: str) -> int:
        """Nanoseconds of processor time that the second encoding of `text` takes."""
        return int(self._ask("time", _hex(text)))

    def render(self, messages: Sequence[dict[str, str]], *, prompt: bool) -> tuple[str, list[str]]:
        """The rendered text, and the parts of it that are markup."""
        words = self._ask("render", str(int(prompt)), *_messages(messages)).split(" ")
        units = bytes.fromhex(words[1])
        numbers = [int(word) for word in words[2:]]
        pieces = [
            units[2 * first : 2 * last + 2]
            for first, last in zip(numbers[::2], numbers[1::2], strict=True)
        ]
        return _decode(units), [_decode(piece) for piece in pieces]

    def prompt_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens of a rendered conversation with its generation prompt."""
        return _ids(self._ask("prompt", "1", *_messages(messages)))

    def _ask(self, *words: str) -> str:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(" ".join(words) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, "the JVM ended"
        answer = line.rstrip("\n")
        if answer.startswith("refused "):
            raise self.Refused(_text(answer.removeprefix("refused ")))
        if answer.startswith("failed "):
            raise self.Failed(answer.split(" ")[1])
        return answer


def _messages(messages: Sequence[dict[str, str]]) -> list[str]:
    return [_hex(part) for message in messages for part in (message["role"], message["content"])]


def _hex(text: str) -> str:
    return text.encode("utf-16-be", "surrogatepass").hex()


def _text(answer: str) -> str:
    return _decode(bytes.fromhex(answer))


def _decode(units: bytes) -> str:
    return units.decode("utf-16-be", "surrogatepass")


def _ids(answer: str) -> list[int]:
    return [int(word) for word in answer.split(" ")[1:]]


@pytest.fixture(scope="session")
def kotlin(kotlin_jars: str) -> Iterator[KotlinCases]:
    """The Kotlin side, ready for questions."""
    cases = KotlinCases(kotlin_jars)
    yield cases
    cases.close()


@pytest.fixture(scope="session")
def smollm2() -> TokenizerSource:
    """The tokenizer of the checkpoint that ships with the harness."""
    recipe = recipes.find("smollm2-135m-instruct", Path.cwd())
    try:
        return open_checkpoint(checkpoint_path(recipe)).tokenizer
    except MissingTool as problem:
        pytest.skip(f"the real checkpoint cannot be had: {problem.cause}")
