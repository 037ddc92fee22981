from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.templates.chat_template import FILE, compile_template, write_chat_template
from harness.errors import UsageError

TEMPLATES = sorted((Path(__file__).parents[1] / "chat_templates").glob("*.jinja"))


def test_a_template_is_compiled_to_its_syntax_tree() -> None:
    document = compile_template("a{% if x %}{{ x ~ 1 }}{% endif %}", {"eos_token": "</s>"})
    assert document == {
        "schema": "harness.chat-template/1",
        "eos_token": "</s>",
        "program": [
            ["text", "a"],
            ["if", ["name", "x"], [["print", ["concat", [["name", "x"], ["const", 1]]]]], []],
        ],
    }


def test_blocks_are_trimmed_as_hugging_face_does() -> None:
    document = compile_template("a\n   {% if x %}\nb\n{% endif %}\n", {})
    assert document["program"] == [["text", "a\n"], ["if", ["name", "x"], [["text", "b\n"]], []]]


def test_named_arguments_are_put_in_their_places() -> None:
    document = compile_template("{{ x | default(boolean=true) }}", {})
    assert document["program"] == [
        ["print", ["filter", "default", ["name", "x"], [None, ["const", True]]]]
    ]


def test_a_file_is_written_for_a_checkpoint_with_a_template_only(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    source = open_checkpoint(tiny_gguf).tokenizer
    write_chat_template(replace(source, chat_template=None), tmp_path)
    assert not (tmp_path / FILE).exists()
    write_chat_template(source, tmp_path)
    document = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert document["bos_token"] == "<|im_start|>"
    assert document["eos_token"] == "<|im_end|>"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_templates_of_known_families_can_be_compiled(path: Path) -> None:
    assert compile_template(path.read_text(encoding="utf-8"), {})["program"]


@pytest.mark.parametrize(
    "source",
    [
        "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}b{% endif %}",
        "{% if x is defined and strftime_now is defined %}a{% else %}b{% endif %}",
        "{% if not strftime_now is undefined %}{{ strftime_now('%Y') }}{% endif %}b",
        "{% if strftime_now is undefined %}b{% elif x %}{{ strftime_now('%Y') }}{% endif %}",
        "{{ strftime_now('%Y') if strftime_now is defined else 'b' }}",
    ],
)
def test_a_template_that_can_do_without_a_clock_is_compiled(source: str) -> None:
    assert '"b"' in json.dumps(compile_template(source, {}))


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("\n\n{{ strftime_now('%Y') }}", "line 3: uses the function 'strftime_now'"),
        ("{{ strftime_now }}", "'strftime_now' as a value"),
        ("{% macro f() %}{% endmacro %}", "the statement 'macro'"),
        ("{% include 'x' %}", "the statement 'include'"),
        ("{% set x %}a{% endset %}", "the statement 'assignblock'"),
        ("{% generation %}a{% endgeneration %}", "unknown tag 'generation'"),
        ("{{ x | pprint }}", "the filter 'pprint'"),
        ("{{ x | join(attribute='a') }}", "these arguments of the filter 'join'"),
        ("{{ x | trim('a', 'b') }}", "these arguments of the filter 'trim'"),
        ("{{ x | trim('a', chars='b') }}", "these arguments of the filter 'trim'"),
        ("{{ x | replace('a') }}", "these arguments of the filter 'replace'"),
        ("{{ x is callable }}", "the test 'callable'"),
        ("{{ x.title() }}", "the method 'title'"),
        ("{{ x.items }}", "the attribute 'items'"),
        ("{{ x.__class__ }}", "the attribute '__class__'"),
        ("{% for a in b %}{{ loop.cycle }}{% endfor %}", "the attribute 'cycle'"),
        ("{% for loop in b %}{% endfor %}", "an assignment to 'loop'"),
        ("{% set range = 1 %}", "an assignment to 'range'"),
        ("{{ range }}", "'range' as a value"),
        ("{{ namespace(x) }}", "the function 'namespace'"),
        ("{{ 1.5 }}", "the constant 1.5"),
        ("{{ 10000000000000000000 }}", "the constant 10000000000000000000"),
        ("{{ 7 / 2 }}", "the expression 'div'"),
        ("{{ '%d' % 2 }}", "the formatting of a string with '%'"),
        ("{{ range(*x) }}", "these arguments of the function 'range'"),
        ("{{ x()() }}", "a call of a computed function"),
        ("{% for a in b recursive %}{% endfor %}", "a recursive loop"),
        ("{% for a in b %}{% else %}{% break %}{% endfor %}", "'break' outside a loop"),
        ("a\n{% if %}", "line 2: Expected an expression"),
        ("{{ " + "(" * 2000 + ")" * 2000 + " }}", "nested too deeply"),
        ("{{ " + "not " * 300 + "x }}", "nested too deeply"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name_and_line(source: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_template(source, {})
    assert caught.value.cause.startswith("line ")
    assert cause in caught.value.cause
    assert caught.value.remedy


@given(st.text("{}%#- ab|()[].,'=~+\n", max_size=40))
def test_any_text_is_compiled_or_refused(source: str) -> None:
    for attempt in source, "{{" + source + "}}", "{% if a %}" + source + "{% endif %}":
        with contextlib.suppress(UsageError):
            json.dumps(compile_template(attempt, {}))
