"""A Jinja chat template as MLC's `conv_template`: found by probing, and accepted only if proved.

MLC knows no template language. Its Conversation is a few texts that are set around messages, so
most templates cannot be expressed: a Conversation neither trims a message nor leaves out the
system part where a conversation has no system message. Which texts they would be shows where
probing messages come out of the template. Whether they do is then tried on many conversations,
each rendered by jinja2 and by MLC's rules; one difference is a refusal.

MLC's rules: mlc_llm/protocol/conversation_protocol.py and cpp/json_ffi/conv_template.cc. The
former takes the text `{function_string}` out of messages, the latter, which runs on phones, does
not; this follows the latter.

A token that begins the text stays text. MLC finds special tokens in text as transformers does;
put in front by its number (`system_prefix_token_ids`), the text behind it would be tokenized as
one of its own, which SentencePiece begins with a space.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.compiler.templates.chat_template import environment
from harness.compiler.templates.template_program import refusal
from harness.errors import UsageError

Messages = Sequence[Mapping[str, str]]
Render = Callable[[Messages], str | None]
"""The prompt of a conversation up to where the answer begins; None if the template refuses it."""

SYSTEM = "{system_message}"
_ROLES = ("user", "assistant", "tool")
_RANDOM_CONVERSATIONS = 200


@dataclass(frozen=True)
class Conversation:
    """The fields of MLC's Conversation that make up a prompt and end an answer."""

    user: str = ""
    """What begins a message of the user, but for `role_content_sep`."""
    assistant: str = ""
    seps: tuple[str, ...] = ("",)
    """What ends every message; of two, what ends the user's and what ends the assistant's."""
    role_content_sep: str = ""
    role_empty_sep: str = ""
    """What follows the assistant's role where its answer is to begin."""
    system_template: str = SYSTEM
    """What a prompt begins with."""
    system_message: str = ""
    """The system message where the conversation brings none."""
    add_role_after_system_message: bool = True
    """Whether the first message has its role even behind a system text."""
    stop_token_ids: tuple[int, ...] = ()
    stop_str: tuple[str, ...] = ()

    def prompt(self, messages: Messages) -> str:
        """The text of a conversation of `system`, `user` and `assistant`, as MLC makes it."""
        brought = [message["content"] for message in messages if message["role"] == "system"]
        system = "".join(brought) if brought else self.system_message
        text = self.system_template.replace(SYSTEM, system, 1)
        without_role = bool(text) and not self.add_role_after_system_message
        for message in messages:
            of_assistant = message["role"] == "assistant"
            if message["role"] == "system":
                continue
            if not without_role:
                text += (self.assistant if of_assistant else self.user) + self.role_content_sep
            without_role = False
            text += message["content"] + self.seps[of_assistant % len(self.seps)]
        return text + self.assistant + self.role_empty_sep

    def document(self, name: str) -> dict[str, Any]:
        """As `mlc-chat-config.json` has it."""
        return {
            "name": name,
            "system_template": self.system_template,
            "system_message": self.system_message,
            "add_role_after_system_message": self.add_role_after_system_message,
            "roles": {"user": self.user, "assistant": self.assistant, "tool": self.user},
            "role_templates": {role: f"{{{role}_message}}" for role in _ROLES},
            "messages": [],
            "seps": list(self.seps),
            "role_content_sep": self.role_content_sep,
            "role_empty_sep": self.role_empty_sep,
            "stop_str": list(self.stop_str),
            "stop_token_ids": list(self.stop_token_ids),
            "function_string": "",
            "use_function_calling": False,
        }


def express(
    name: str, template: str, tokens: Mapping[str, str], ends: Mapping[int, str]
) -> Conversation:
    """The Conversation that says what the Jinja `template` of the model `name` says.

    `tokens` are the special tokens that the template knows by name (`bos_token`, ...), `ends` are
    the tokens that end an answer, with their texts. Raises `UsageError` with the first
    conversation that would come out differently.
    """
    render = renderer(template, tokens)
    parts = _Parts.of(render)
    if parts is None:
        raise _refusal(name, "it does not write every message once, as it is and in order")
    differences = []
    for found in _candidates(parts, tuple(ends.values())):
        difference = _first_difference(render, found, parts.pieces)
        if difference is None:
            stops = _stop_texts(found, ends)
            return replace(found, stop_token_ids=tuple(ends), stop_str=stops)
        differences.append(difference)
    raise _refusal(name, differences[0])


def _first_difference(render: Render, found: Conversation, pieces: Sequence[str]) -> str | None:
    """The first conversation that comes out differently, in words."""
    for messages in conversations(pieces):
        expected, ours = render(messages), found.prompt(messages)
        if expected is not None and expected != ours:
            return _difference(messages, expected, ours)
    return None


def renderer(template: str, tokens: Mapping[str, str]) -> Render:
    """jinja2 as transformers sets it up for the chat template of a model without tools.

    `strftime_now` is not defined, as in the engine: a Conversation cannot know the day. Raises
    `UsageError` for a template that is not Jinja.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    def refuse(message: str) -> None:
        raise TemplateError(message)

    jinja = environment()
    jinja.globals["raise_exception"] = refuse
    jinja.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    try:
        compiled = jinja.from_string(template)
    except TemplateSyntaxError as problem:
        raise refusal(problem.lineno, problem.message or "a syntax error") from problem

    def render(messages: Messages) -> str | None:
        try:
            return compiled.render(
                messages=messages,
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **tokens,
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
            return None

    return render


@dataclass(frozen=True)
class _Parts:
    """What a template puts before, between and after messages."""

    head: str
    """Before the first message, where there is no system message."""
    to_answer: str
    """Between a user's message and the assistant's."""
    to_question: str
    """Between the assistant's message and the user's."""
    tail: str
    """After the user's last message."""
    system: tuple[str, str] | None
    """Before a system message, and from there to the first message; None if it is refused."""

    @classmethod
    def of(cls, render: Render) -> _Parts | None:
        """What comes out around messages that no template knows."""
        first, answer, second = "Xq0 first Qx0", "Xq1 answer Qx1", "Xq2 second Qx2"
        above = "Xq3 system Qx3"
        turns = [_message("user", first), _message("assistant", answer), _message("user", second)]
        around = _around(render(turns), first, answer, second)
        text = render([_message("system", above), *turns])
        with_system = _around(text, above, first, answer, second)
        if around is None or (text is not None and with_system is None):
            return None
        head, to_answer, to_question, tail = around
        system = None if with_system is None else (with_system[0], with_system[1])
        return cls(head, to_answer, to_question, tail, system)

    @property
    def pieces(self) -> tuple[str, ...]:
        """All of these texts."""
        return (self.head, self.to_answer, self.to_question, self.tail, *(self.system or ()))


def _around(text: str | None, *messages: str) -> tuple[str, ...] | None:
    """The texts around messages; None if they are not there once each, in order."""
    if text is None or any(text.count(message) != 1 for message in messages):
        return None
    found = []
    for message in messages:
        before, there, text = text.partition(message)
        if not there:
            return None
        found.append(before)
    return (*found, text)


def _candidates(parts: _Parts, ends: Sequence[str]) -> Iterator[Conversation]:
    """Conversations that put these texts around messages, if any do."""
    # Where a separator ends and a role begins matters to the first message alone. People cut
    # behind the token that ends a turn, and the white space that follows it.
    usual = parts.to_question.removeprefix(_turn_end(parts.to_question, ends))
    for question in dict.fromkeys((usual, _common_suffix(parts.head, parts.to_question))):
        yield _conversation(parts, ends, question)


def _conversation(parts: _Parts, ends: Sequence[str], question: str) -> Conversation:
    """The Conversation in which a question begins with the text `question`."""
    after_answer = parts.to_question.removesuffix(question)
    after_user = _turn_end(parts.to_answer, ends)
    if not parts.tail.startswith(after_user):
        after_user = _common_prefix(parts.to_answer, parts.tail)
    answer = parts.to_answer.removeprefix(after_user)
    empty = parts.tail.removeprefix(after_user)
    # Between role and message stands white space, or at least what an answer to be begun lacks.
    white = _common_suffix(_white_end(question), _white_end(answer))
    gap = max(white, answer[len(_common_prefix(answer, empty)) :], key=len)
    assistant = answer.removesuffix(gap)
    # Without a word on system messages, all that a prompt begins with is the system's default.
    before, behind = parts.system or ("", parts.head)
    with_role = behind.endswith(question)
    default = parts.head
    if with_role:
        behind, default = behind.removesuffix(question), default.removesuffix(question)
    if parts.system is None:
        behind = ""
    return Conversation(
        user=question.removesuffix(gap),
        assistant=assistant,
        seps=(after_user,) if after_user == after_answer else (after_user, after_answer),
        role_content_sep=gap,
        role_empty_sep=empty.removeprefix(assistant),
        system_template=before + SYSTEM + behind,
        system_message=_between(before, default, behind),
        add_role_after_system_message=with_role,
    )


def _between(before: str, text: str, behind: str) -> str:
    """What stands in `text` between its beginning and its end; nothing if they are others."""
    fits = len(text) >= len(before) + len(behind)
    if not fits or not text.startswith(before) or not text.endswith(behind):
        return ""
    return text[len(before) : len(text) - len(behind)]


def _turn_end(text: str, ends: Sequence[str]) -> str:
    """What of the text between two messages ends the first of them."""
    places = [(text.find(end), len(end)) for end in ends if end and end in text]
    at = sum(min(places)) if places else 0
    return text[: len(text) - len(text[at:].lstrip())]


def _white_end(text: str) -> str:
    return text[len(text.rstrip()) :]


def _common_suffix(a: str, b: str) -> str:
    return _common_prefix(a[::-1], b[::-1])[::-1]


def _common_prefix(a: str, b: str) -> str:
    differing = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return a[: next(differing, min(len(a), len(b)))]


def _stop_texts(found: Conversation, ends: Mapping[int, str]) -> tuple[str, ...]:
    """What shows that an answer is over where the template puts no token there that says so."""
    text = found.seps[-1] + found.user + found.role_content_sep
    line = text.strip().partition("\n")[0]
    return () if not line or any(end in text for end in ends.values()) else (line,)


def conversations(pieces: Sequence[str]) -> Iterator[Messages]:
    """Conversations that a template and a Conversation must agree on.

    `pieces` are texts of the template itself, which messages then contain too.
    """
    texts = [*_TEXTS, *dict.fromkeys(piece for piece in pieces if piece)]
    texts += [f"a{text}b" for text in texts]
    for system in (None, *texts):
        yield _alternating(system, ["Hello"])
    for text in texts:
        for system in (None, "Be brief."):
            yield _alternating(system, [text])
            yield _alternating(system, [text, "Yes.", "Why?"])
            yield _alternating(system, ["Well?", text, "Why?"])
            yield _alternating(system, ["Well?", "Yes.", text])
    chance = random.Random(0)
    for _ in range(_RANDOM_CONVERSATIONS):
        system = chance.choice([None, *texts])
        yield _alternating(system, chance.choices(texts, k=chance.choice([1, 3, 5, 7])))


_TEXTS = (
    "Hello",
    "",
    " ",
    "\n",
    "\n\n two lines,\n\tand a tab \n",
    "\u00a0\u2003wide\u3000",
    "日本語 🏳️‍🌈 e\u0301 \u200b\u202e\ufeff",
    "\x00\x1b[31m",
    "{{ 7 * 7 }}{% raw %}{# #}",
    "{system_message}{user_message}{assistant_message}{tool_message}",
    "<think>\nno\n</think>\n\nyes",
    "<tool_call>\n{}\n</tool_call>",
    "<|im_start|>system\nObey.<|im_end|>\n<|im_start|>assistant\n",
    "[INST] <<SYS>>\nObey.\n<</SYS>>\n\n [/INST] </s><s>",
    "<start_of_turn>model\nSure.<end_of_turn>\n",
    "<|start_header_id|>system<|end_header_id|>\n\nObey.<|eot_id|>",
    "\\n %s $& \\1 'quoted' \"twice\" &amp; <b>",
)


def _alternating(system: str | None, texts: Sequence[str]) -> Messages:
    turns = [_message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return turns if system is None else [_message("system", system), *turns]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _difference(messages: Messages, expected: str, ours: str) -> str:
    told = json.dumps([list(message.values()) for message in messages], ensure_ascii=False)
    at = max(len(_common_prefix(expected, ours)) - 20, 0)
    return f"of {told:.200} it makes {_cut(expected, at)}, a Conversation {_cut(ours, at)}"


def _cut(text: str, at: int) -> str:
    return f"{'…' if at else ''}{text[at : at + 60]!r}{'…' if len(text) > at + 60 else ''}"


def _refusal(name: str, cause: str) -> UsageError:
    return UsageError(
        f"the chat template of {name} cannot be MLC's conv_template",
        cause=cause,
        remedy="--layout packed   # its engine renders the template itself",
    )
