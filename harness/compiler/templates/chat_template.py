"""Compiles a checkpoint's Jinja chat template for the Kotlin engine: `chat_template.alc.json`.

Jinja itself parses the template; its syntax tree is written as JSON, and the engine interprets
it. What the engine's interpreter does not know is refused here, by name and line, so that no
package has a template that can only fail on the phone.

The document is {"schema": "harness.chat-template/1", "bos_token": S, "eos_token": S,
"unk_token": S, "pad_token": S, "program": [statement]}. Tokens that the checkpoint does not name
are absent; `template_program` describes the statements.

`strftime_now` is undefined, unlike in Hugging Face's renderer: a conversation has the same text
on every day. Templates that ask whether it is defined fall back to a date of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import files
from harness.compiler.templates.template_program import TOO_DEEP, refusal, template_program
from harness.compiler.tokenization.tokenizer_source import TokenizerSource

if TYPE_CHECKING:
    from jinja2 import Environment

SCHEMA = "harness.chat-template/1"
FILE = "chat_template.alc.json"


def write_chat_template(source: TokenizerSource, folder: Path) -> None:
    """Write `chat_template.alc.json` into `folder`; nothing where the source has no template.

    Raises as `compile_template`.
    """
    if source.chat_template is None:
        return
    document = compile_template(source.chat_template, special_tokens(source))
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    files.write_text(folder / FILE, text + "\n")


def special_tokens(source: TokenizerSource) -> dict[str, str]:
    """The special tokens that templates know by name, as Hugging Face passes them."""
    numbers = {
        "bos_token": source.bos_token_id,
        "eos_token": source.eos_token_id,
        "unk_token": source.unknown_token_id,
        "pad_token": source.padding_token_id,
    }
    return {name: source.tokens[number] for name, number in numbers.items() if number is not None}


def compile_template(source: str, tokens: dict[str, str]) -> dict[str, Any]:
    """The document for a Jinja template that knows the special `tokens` by name.

    Raises `UsageError` if it is not Jinja or uses what the engine cannot do; the cause names the
    construct and the line.
    """
    from jinja2 import TemplateSyntaxError

    try:
        tree = environment().parse(source)
        program = template_program(tree)
    except TemplateSyntaxError as problem:
        raise refusal(problem.lineno, problem.message or "a syntax error") from problem
    except RecursionError:
        raise refusal(1, TOO_DEEP) from None
    return {"schema": SCHEMA, **tokens, "program": program}


def environment() -> Environment:
    """Jinja as Hugging Face sets it up for chat templates.

    See `_compile_jinja_template` in transformers/utils/chat_template_utils.py.
    """
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
