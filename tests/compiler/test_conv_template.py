"""Jinja templates as MLC's Conversations: which can be, which cannot, and that the proof bites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compiler.templates.conv_template import Conversation, Messages, express, renderer
from harness.errors import UsageError

TEMPLATES = Path(__file__).parents[1] / "chat_templates"
LLAMA_2 = {"bos_token": "<s>", "eos_token": "</s>"}
LLAMA_3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
CHATML = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
HELLO = '["user", "Hello"]'
# The special tokens, the tokens that end an answer, and the first conversation of which a
# Conversation would make another text: most leave out what they say to a system message if there
# is none (MLC then says it to an empty one), others trim messages, which MLC does not.
FAMILIES: dict[str, tuple[dict[str, str], dict[int, str], str | None]] = {
    "every_part": (CHATML, {2: "<|im_end|>"}, ""),
    "gemma2": (GEMMA, {1: "<eos>", 107: "<end_of_turn>"}, '[["user", " "]]'),
    "gemma3": (GEMMA, {1: "<eos>", 106: "<end_of_turn>"}, f"[{HELLO}]"),
    "llama2": (LLAMA_2, {2: "</s>"}, f"[{HELLO}]"),
    "llama3": (LLAMA_3, {128009: "<|eot_id|>"}, f"[{HELLO}]"),
    "llama3_2": (LLAMA_3, {128009: "<|eot_id|>"}, f'[["system", " "], {HELLO}]'),
    "phi3": (LLAMA_2, {32007: "<|end|>"}, f"[{HELLO}]"),
    "qwen2_5": (CHATML, {2: "<|im_end|>"}, None),
    "qwen3": (CHATML, {2: "<|im_end|>"}, f"[{HELLO}]"),
    "smollm2": (CHATML, {2: "<|im_end|>"}, None),
    "tinyllama": (LLAMA_2, {2: "</s>"}, f"[{HELLO}]"),
}


def test_the_table_has_every_template() -> None:
    assert set(FAMILIES) == {path.stem for path in TEMPLATES.glob("*.jinja")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_template_can_be_expressed_or_is_refused_by_name(family: str) -> None:
    tokens, ends, differing = FAMILIES[family]
    template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    if differing is None:
        found = express(family, template, tokens, ends)
        assert (found.user, found.assistant) == ("<|im_start|>user", "<|im_start|>assistant")
        assert found.seps == ("<|im_end|>\n",)
        assert found.role_content_sep == found.role_empty_sep == "\n"
        assert found.system_template == "<|im_start|>system\n{system_message}<|im_end|>\n"
        assert found.system_message == "You are helpful."
        assert found.stop_token_ids == (2,)
        assert found.stop_str == ()
        return
    with pytest.raises(UsageError, match=f"the chat template of {family} cannot be MLC's") as info:
        express(family, template, tokens, ends)
    assert info.value.cause.startswith(f"of {differing}" if differing else "it does not write")
    assert info.value.remedy.startswith("--layout packed")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_a_conversation_is_rendered_as_mlc_documents_it() -> None:
    template = Conversation(
        user="<u>",
        assistant="<a>",
        seps=("|", "||"),
        role_content_sep=":",
        role_empty_sep=";",
        system_template="[{system_message}]",
        system_message="none",
    )
    hello, yes, why = turn("user", "Hello"), turn("assistant", "Yes"), turn("user", "Why?")
    assert template.prompt([hello, yes, why]) == "[none]<u>:Hello|<a>:Yes||<u>:Why?|<a>;"
    assert template.prompt([turn("system", "S"), hello]) == "[S]<u>:Hello|<a>;"
    assert template.prompt([turn("system", ""), hello]) == "[]<u>:Hello|<a>;"


def test_the_first_message_may_go_without_its_role_behind_a_system_text_only() -> None:
    template = Conversation(user="<u>", assistant="<a>", add_role_after_system_message=False)
    hello = turn("user", "Hello")
    assert template.prompt([hello, hello]) == "<u>Hello<u>Hello<a>"
    assert template.prompt([turn("system", "S"), hello, hello]) == "SHello<u>Hello<a>"


def test_a_template_that_merges_the_system_message_into_the_first_question_is_expressed() -> None:
    template = (
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
        "{% set turns = messages[1:] %}{% else %}{% set s = 'Be kind.' %}"
        "{% set turns = messages %}{% endif %}"
        "{% for m in turns %}{% if m.role == 'user' %}{{ '<s>[INST] ' }}"
        "{% if loop.first %}{{ '<<SYS>>' + s + '<</SYS>>' }}{% endif %}"
        "{{ m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}"
        "{% endfor %}{{ ' ' }}"
    )
    found = express("merging", template, LLAMA_2, {2: "</s>"})
    assert not found.add_role_after_system_message
    assert found.system_template == "<s>[INST] <<SYS>>{system_message}<</SYS>>"
    assert found.system_message == "Be kind."
    assert (found.user, found.assistant, found.seps) == ("<s>[INST]", "[/INST]", (" ", "</s>"))
    assert (found.role_content_sep, found.role_empty_sep) == (" ", " ")
    assert found.stop_str == ()
    question = [turn("user", "Why?"), turn("assistant", "So."), turn("user", "Ah")]
    assert found.prompt(question) == renderer(template, LLAMA_2)(question)


def test_a_template_that_refuses_system_messages_counts_where_it_does_not() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ '<' + m.role + '>' + m.content + '</s>' }}{% endfor %}{{ '<assistant>' }}"
    )
    found = express("strict", template, LLAMA_2, {2: "</s>"})
    assert found.system_template == "{system_message}"
    assert found.system_message == ""


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ("m.content | trim", 'of [["system", " "], ["user", "Hello"]] it makes'),
        ("m.content.strip('\\n')", 'of [["system", "\\n"], ["user", "Hello"]] it makes'),
        ("m.content.split('</think>')[-1]", "think>"),
        ("m.content if loop.index < 5 else ''", "it makes"),
        ("m.content | replace('[INST]', '')", "INST"),
        ("m.content | upper", "it does not write every message once"),
        ("m.content + m.content", "it does not write every message once"),
        ("''", "it does not write every message once"),
        ("m.missing.content", "it does not write every message once"),
    ],
)
def test_a_template_that_changes_some_messages_is_refused_with_one_of_them(
    changed: str, cause: str
) -> None:
    template = (
        "{% if messages[0].role != 'system' %}<system></s>{% endif %}"
        f"{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ {changed} }}}}</s>{{% endfor %}}"
        "<assistant>"
    )
    with pytest.raises(UsageError) as info:
        express("changing", template, LLAMA_2, {2: "</s>"})
    assert cause in info.value.cause
    assert len(info.value.cause) < 500


def test_what_is_no_template_is_one_error() -> None:
    with pytest.raises(UsageError, match="chat template"):
        express("broken", "{% for %}", LLAMA_2, {2: "</s>"})


def test_an_answer_that_no_token_ends_is_ended_by_its_text() -> None:
    template = (
        "{% if messages[0].role != 'system' %}system: Talk.###\n{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}###\n{% endfor %}assistant:"
    )
    assert express("plain", template, {}, {2: "</s>"}).stop_str == ("###",)


TEXTS = st.text("ab <>\n", max_size=6)
CONVERSATIONS = st.builds(
    Conversation,
    user=TEXTS,
    assistant=TEXTS,
    seps=st.tuples(TEXTS) | st.tuples(TEXTS, TEXTS),
    role_content_sep=TEXTS,
    role_empty_sep=TEXTS,
    system_template=st.builds(lambda a, b: f"{a}{{system_message}}{b}", TEXTS, TEXTS),
    system_message=TEXTS,
)


def as_jinja(conversation: Conversation) -> str:
    """A template that renders as the Conversation does."""
    before, _, behind = conversation.system_template.partition("{system_message}")
    seps = [conversation.seps[0], conversation.seps[-1]]
    texts = json.dumps(
        {
            "before": before,
            "default": conversation.system_message,
            "behind": behind,
            "user": conversation.user + conversation.role_content_sep,
            "assistant": conversation.assistant + conversation.role_content_sep,
            "seps": seps,
            "begin": conversation.assistant + conversation.role_empty_sep,
        }
    )
    return (
        f"{{% set t = {texts} %}}"
        "{% set own = messages[0].role == 'system' %}"
        "{{ t.before + (messages[0].content if own else t.default) + t.behind }}"
        "{% for m in (messages[1:] if own else messages) %}"
        "{{ t[m.role] + m.content + t.seps[m.role == 'assistant'] }}{% endfor %}{{ t.begin }}"
    )


@settings(max_examples=25, deadline=None)
@given(CONVERSATIONS)
def test_every_conversation_is_found_again_from_a_template_that_says_the_same(
    wanted: Conversation,
) -> None:
    found = express("any", as_jinja(wanted), {}, {0: "<b>"})
    messages: Messages = [
        turn("system", "S"),
        turn("user", "Q"),
        turn("assistant", "A"),
        turn("user", "R"),
    ]
    assert found.prompt(messages) == wanted.prompt(messages)
    assert found.prompt(messages[1:]) == wanted.prompt(messages[1:])
