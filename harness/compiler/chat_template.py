"""Compiles a checkpoint's Jinja chat template for the Kotlin engine: `chat_template.alc.json`.

Jinja itself parses the template; its syntax tree is written as JSON, and the engine interprets
it. What the engine's interpreter does not know is refused here, by name and line, so that a
package never has a template that fails on the phone.

The document: {"schema": "harness.chat-template/1", "globals": {name: text}, "body": [statement]}.
A node is a list that begins with its kind:

    text S · print E · if E [body] [else] · for TARGET E FILTER|null [body] [else]
    set TARGET E · break · continue
    TARGET: name S · tuple [TARGET] · field S S   (of a namespace)
    const V · name S · attr E S · item E E · slice E E|null E|null E|null
    call S [E] {S: E} · method E S [E] · filter S E [E] {S: E} · test S E [E]
    compare E [[op, E]] · and E E · or E E · not E · neg E · add E E · sub E E · mul E E
    floordiv E E · mod E E · concat [E] · cond E E E|null · list [E] · tuple [E] · dict [[E, E]]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import files
from harness.compiler.tokenizer_source import TokenizerSource
from harness.errors import StageFailed, UsageError

if TYPE_CHECKING:
    from jinja2 import Environment, nodes

SCHEMA = "harness.chat-template/1"
FILE = "chat_template.alc.json"

FUNCTIONS = {"raise_exception", "namespace", "range"}
METHODS = {
    "strip", "lstrip", "rstrip", "split", "startswith", "endswith", "replace", "upper", "lower",
    "get", "items", "keys", "values",
}  # fmt: skip
FILTERS = {
    "trim", "length", "count", "upper", "lower", "join", "replace", "default", "d", "first",
    "last", "string", "list", "reverse", "items", "tojson",
}  # fmt: skip
TESTS = {
    "defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number",
    "integer", "boolean", "true", "false", "eq", "equalto", "==", "ne", "!=", "in", "odd", "even",
}  # fmt: skip
# Hugging Face's environment has these too; a template that asks for them would get another answer.
UNKNOWN_NAMES = {"strftime_now", "cycler", "joiner", "dict", "lipsum"} | FUNCTIONS
COMPARISONS = {"eq", "ne", "lt", "lteq", "gt", "gteq", "in", "notin"}
INT_LIMIT = 1 << 62


def write_chat_template(source: TokenizerSource, folder: Path) -> None:
    """Write `chat_template.alc.json` into `folder`; nothing where the source has no template.

    Raises as `compile_template`.
    """
    if source.chat_template is None:
        return
    document = compile_template(source.chat_template, template_globals(source))
    files.write_text(folder / FILE, json.dumps(document) + "\n")


def template_globals(source: TokenizerSource) -> dict[str, str]:
    """The special tokens that templates know by name, as Hugging Face passes them."""
    names = {
        "bos_token": source.bos_token_id,
        "eos_token": source.eos_token_id,
        "unk_token": source.unknown_token_id,
        "pad_token": source.padding_token_id,
    }
    return {name: source.tokens[number] for name, number in names.items() if number is not None}


def compile_template(source: str, names: dict[str, str]) -> dict[str, Any]:
    """The document for a Jinja template in which `names` are known.

    Raises `StageFailed` if it is not a template and `UsageError` if it uses what the engine
    cannot do; the cause names the line.
    """
    from jinja2 import TemplateSyntaxError

    try:
        tree = environment().parse(source)
    except TemplateSyntaxError as problem:
        raise StageFailed(
            "the checkpoint's chat template is not valid Jinja",
            cause=f"line {problem.lineno}: {problem.message}",
            remedy="correct tokenizer.chat_template in the checkpoint",
        ) from problem
    return {"schema": SCHEMA, "globals": dict(names), "body": _body(tree.body)}


def environment() -> Environment:
    """Jinja set up as Hugging Face renders chat templates with it.

    See `_compile_jinja_template` in transformers/utils/chat_template_utils.py.
    """
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    result = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = raise_exception
    return result


def _body(statements: list[nodes.Node]) -> list[Any]:
    return [node for statement in statements for node in _statement(statement)]


def _statement(node: nodes.Node) -> list[Any]:
    from jinja2 import nodes

    match node:
        case nodes.Output():
            return [
                ["text", part.data] if isinstance(part, nodes.TemplateData) else ["print", _e(part)]
                for part in node.nodes
            ]
        case nodes.If():
            otherwise = _body(node.else_)
            for branch in reversed(node.elif_):
                otherwise = [["if", _e(branch.test), _body(branch.body), otherwise]]
            return [["if", _e(node.test), _body(node.body), otherwise]]
        case nodes.For() if not node.recursive:
            test = None if node.test is None else _e(node.test)
            head = ["for", _target(node.target), _e(node.iter), test]
            return [[*head, _body(node.body), _body(node.else_)]]
        case nodes.Assign():
            return [["set", _target(node.target), _e(node.node)]]
        case nodes.Break():
            return [["break"]]
        case nodes.Continue():
            return [["continue"]]
        case nodes.ExprStmt():
            raise _unsupported(node, "the statement 'do'")
    raise _unsupported(node, f"the statement '{type(node).__name__.lower()}'")


def _target(node: nodes.Node) -> list[Any]:
    from jinja2 import nodes

    match node:
        case nodes.Name():
            return ["name", node.name]
        case nodes.NSRef():
            return ["field", node.name, node.attr]
        case nodes.Tuple():
            return ["tuple", [_target(item) for item in node.items]]
    raise _unsupported(node, f"an assignment to {type(node).__name__.lower()}")


def _e(node: nodes.Node) -> list[Any]:
    """An expression."""
    from jinja2 import nodes

    binary = {
        nodes.And: "and", nodes.Or: "or", nodes.Add: "add", nodes.Sub: "sub", nodes.Mul: "mul",
        nodes.FloorDiv: "floordiv", nodes.Mod: "mod",
    }  # fmt: skip
    match node:
        case nodes.Const():
            return ["const", _constant(node)]
        case nodes.TemplateData():
            return ["const", node.data]
        case nodes.Name():
            if node.name in UNKNOWN_NAMES:
                raise _unsupported(node, f"the name '{node.name}' as a value")
            return ["name", node.name]
        case nodes.Getattr():
            if node.attr in METHODS:
                raise _unsupported(node, f"the method '{node.attr}' as a value")
            return ["attr", _e(node.node), node.attr]
        case nodes.Getitem(arg=nodes.Slice() as bounds):
            ends = (bounds.start, bounds.stop, bounds.step)
            return ["slice", _e(node.node), *(None if end is None else _e(end) for end in ends)]
        case nodes.Getitem():
            return ["item", _e(node.node), _e(node.arg)]
        case nodes.Call():
            return _call(node)
        case nodes.Filter():
            if node.node is None or node.name not in FILTERS:
                raise _unsupported(node, f"the filter '{node.name}'")
            return ["filter", node.name, _e(node.node), *_arguments(node)]
        case nodes.Test():
            if node.name not in TESTS:
                raise _unsupported(node, f"the test '{node.name}'")
            arguments, named = _arguments(node)
            if named:
                raise _unsupported(node, f"named arguments of the test '{node.name}'")
            return ["test", node.name, _e(node.node), arguments]
        case nodes.Compare():
            pairs = [[operand.op, _e(operand.expr)] for operand in node.ops]
            return ["compare", _e(node.expr), pairs]
        case nodes.Not():
            return ["not", _e(node.node)]
        case nodes.Neg():
            return ["neg", _e(node.node)]
        case nodes.Concat():
            return ["concat", [_e(part) for part in node.nodes]]
        case nodes.CondExpr():
            otherwise = None if node.expr2 is None else _e(node.expr2)
            return ["cond", _e(node.test), _e(node.expr1), otherwise]
        case nodes.List():
            return ["list", [_e(item) for item in node.items]]
        case nodes.Tuple():
            return ["tuple", [_e(item) for item in node.items]]
        case nodes.Dict():
            return ["dict", [[_e(pair.key), _e(pair.value)] for pair in node.items]]
        case nodes.BinExpr() if type(node) in binary:
            return [binary[type(node)], _e(node.left), _e(node.right)]
    raise _unsupported(node, f"the expression '{type(node).__name__.lower()}'")


def _constant(node: nodes.Const) -> object:
    value: object = node.value
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) < INT_LIMIT:
        return value
    raise _unsupported(node, f"the constant {value!r}")


def _call(node: nodes.Call) -> list[Any]:
    from jinja2 import nodes

    arguments, named = _arguments(node)
    match node.node:
        case nodes.Name() as function if function.name in FUNCTIONS:
            return ["call", function.name, arguments, named]
        case nodes.Getattr() as method if method.attr in METHODS:
            if named:
                raise _unsupported(node, f"named arguments of '{method.attr}'")
            return ["method", _e(method.node), method.attr, arguments]
        case nodes.Name() as function:
            raise _unsupported(node, f"the function '{function.name}'")
        case nodes.Getattr() as method:
            raise _unsupported(node, f"the method '{method.attr}'")
    raise _unsupported(node, "a call of a computed function")


def _arguments(
    node: nodes.Call | nodes.Filter | nodes.Test,
) -> tuple[list[Any], dict[str, Any]]:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise _unsupported(node, "a call with * or **")
    return [_e(argument) for argument in node.args], {
        str(pair.key): _e(pair.value) for pair in node.kwargs
    }


def _unsupported(node: nodes.Node, what: str) -> UsageError:
    return UsageError(
        "the checkpoint's chat template is not supported",
        cause=f"line {node.lineno} uses {what}",
        remedy="harness models list",
    )
