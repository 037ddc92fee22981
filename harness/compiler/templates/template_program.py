"""A template's syntax tree as lists, for an interpreter without Jinja: what is in the subset.

A statement or an expression E is a list that begins with its kind:

    text S · print E · if E [statement] [statement] · break · continue · set TARGET E
    for TARGET E E|null [statement] [statement]         (values, filter, body, else)

    TARGET: name S · tuple [TARGET] · field S S         (of a namespace: its name, the field)

    const V · name S · attr E S · item E E · slice E E|null E|null E|null
    compare E [[operator, E]] · and E E · or E E · not E · cond E E E|null
    neg E · add E E · sub E E · mul E E · floordiv E E · mod E E · concat [E]
    list [E] · tuple [E] · dict [[E, E]] · namespace {S: E}
    call S [E|null] · method S E [E|null] · filter S E [E|null] · test S E [E]

Arguments are in the order of `PARAMETERS`; null stands for one that the template leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import nodes

# Each callable's parameters after the value that it works on; those in brackets may be left out.
PARAMETERS = {
    "call": {"raise_exception": "message", "range": "start [stop] [step]"},
    "method": {
        "strip": "[chars]", "lstrip": "[chars]", "rstrip": "[chars]", "split": "[sep] [maxsplit]",
        "startswith": "prefix", "endswith": "suffix", "replace": "old new [count]",
        "upper": "", "lower": "", "get": "key [default]", "items": "", "keys": "", "values": "",
    },
    "filter": {
        "trim": "[chars]", "length": "", "count": "", "upper": "", "lower": "", "join": "[d]",
        "replace": "old new [count]", "default": "[default_value] [boolean]",
        "d": "[default_value] [boolean]", "first": "", "last": "", "string": "", "list": "",
        "reverse": "", "items": "", "tojson": "[indent]",
    },
    "test": {
        "defined": "", "undefined": "", "none": "", "string": "", "mapping": "", "sequence": "",
        "iterable": "", "number": "", "integer": "", "boolean": "", "true": "", "false": "",
        "odd": "", "even": "", "eq": "other", "equalto": "other", "==": "other", "ne": "other",
        "!=": "other", "in": "seq",
    },
}  # fmt: skip

LOOP = {
    "index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0",
    "previtem", "nextitem",
}  # fmt: skip
# Names that mean a Python object in Jinja; the engine has none to give.
PYTHON_NAMES = {"range", "namespace", "raise_exception", "dict", "cycler", "joiner", "lipsum"} | {
    "self", "super", "caller", "varargs", "kwargs",
}  # fmt: skip
# Jinja prefers a Python object's own attribute to a mapping's key of that name.
PYTHON_ATTRIBUTES = {
    name for kind in (str, int, list, tuple, dict, range) for name in dir(kind) if name[0] != "_"
}
ABSENT = {"strftime_now"}
INT_LIMIT = 1 << 62
# The engine reads and runs a program by recursion; real templates stay under 40.
MAX_DEPTH = 200
TOO_DEEP = "statements or expressions are nested too deeply"


def template_program(tree: nodes.Template) -> list[Any]:
    """The statements of a template.

    Raises `UsageError` for what is not in the subset, by name and line.
    """
    statements = _Compiler(tree).body(tree.body)
    if _depth(statements) > MAX_DEPTH:
        raise refusal(1, TOO_DEEP)
    return statements


def refusal(line: int, why: str) -> UsageError:
    """Why a template cannot be compiled, as the user reads it."""
    return UsageError(
        "the checkpoint's chat template cannot be compiled",
        cause=f"line {line}: {why}",
        remedy="harness models list   # models whose templates are known to work",
    )


class _Compiler:
    """Turns the nodes of one template into lists."""

    def __init__(self, tree: nodes.Template) -> None:
        from jinja2 import nodes

        names = tree.find_all(nodes.Name)
        stored = {name.name for name in names if name.ctx == "store"}
        self._absent = ABSENT - stored
        self._loops = 0
        self._binary: dict[type[nodes.Node], str] = {
            nodes.And: "and", nodes.Or: "or", nodes.Add: "add", nodes.Sub: "sub",
            nodes.Mul: "mul", nodes.FloorDiv: "floordiv", nodes.Mod: "mod",
        }  # fmt: skip
        # Names whose attributes are the template's own, whatever Python's types have.
        self._namespaces = {
            item.target.name
            for item in tree.find_all(nodes.Assign)
            if isinstance(item.target, nodes.Name) and _is_namespace(item.node)
        }

    def body(self, statements: Sequence[nodes.Node]) -> list[Any]:
        return [node for statement in statements for node in self._statement(statement)]

    def _statement(self, node: nodes.Node) -> list[Any]:
        from jinja2 import nodes

        match node:
            case nodes.Output():
                return [self._output(part) for part in node.nodes]
            case nodes.If():
                return self._if([node, *node.elif_], node.else_)
            case nodes.For() if not node.recursive:
                return [self._for(node)]
            case nodes.Assign():
                return [["set", self._target(node.target), self._e(node.node)]]
            case nodes.Break() if self._loops:
                return [["break"]]
            case nodes.Continue() if self._loops:
                return [["continue"]]
            case nodes.Break() | nodes.Continue():
                raise _unsupported(node, f"'{type(node).__name__.lower()}' outside a loop")
            case nodes.For():
                raise _unsupported(node, "a recursive loop")
        raise _unsupported(node, f"the statement '{type(node).__name__.lower()}'")

    def _for(self, node: nodes.For) -> list[Any]:
        head = [self._target(node.target), self._e(node.iter), self._maybe(node.test)]
        self._loops += 1
        body = self.body(node.body)
        self._loops -= 1
        return ["for", *head, body, self.body(node.else_)]

    def _output(self, node: nodes.Node) -> list[Any]:
        from jinja2 import nodes

        return (
            ["text", node.data]
            if isinstance(node, nodes.TemplateData)
            else ["print", self._e(node)]
        )

    def _if(self, branches: Sequence[nodes.If], otherwise: Sequence[nodes.Node]) -> list[Any]:
        """The branches as nested statements, without those that can never be taken."""
        if not branches:
            return self.body(otherwise)
        branch, rest = branches[0], branches[1:]
        known = self._truth(branch.test)
        if known is None:
            test = self._e(branch.test)
            return [["if", test, self.body(branch.body), self._if(rest, otherwise)]]
        return self.body(branch.body) if known else self._if(rest, otherwise)

    def _truth(self, node: nodes.Node) -> bool | None:
        """What a test is in every rendering, as far as it follows from absent names."""
        from jinja2 import nodes

        match node:
            case nodes.Test(name="defined" | "undefined" as test, node=nodes.Name(name=name)):
                return (test == "undefined") if name in self._absent else None
            case nodes.Not():
                inner = self._truth(node.node)
                return None if inner is None else not inner
            case nodes.And():
                # The first operand decides alone; a later one only after the first was evaluated.
                left = self._truth(node.left)
                return self._truth(node.right) if left else left
        return None

    def _choice(self, node: nodes.CondExpr) -> list[Any]:
        known = self._truth(node.test)
        if known:
            return self._e(node.expr1)
        if known is False and node.expr2 is not None:
            return self._e(node.expr2)
        return ["cond", self._e(node.test), self._e(node.expr1), self._maybe(node.expr2)]

    def _target(self, node: nodes.Node) -> list[Any]:
        from jinja2 import nodes

        match node:
            case nodes.Name() if node.name in PYTHON_NAMES or node.name == "loop":
                raise _unsupported(node, f"an assignment to '{node.name}'")
            case nodes.Name():
                return ["name", node.name]
            case nodes.NSRef():
                return ["field", node.name, node.attr]
            case nodes.Tuple():
                return ["tuple", [self._target(item) for item in node.items]]
        raise _unsupported(node, f"an assignment to '{type(node).__name__.lower()}'")

    def _es(self, expressions: Sequence[nodes.Node]) -> list[Any]:
        return [self._e(expression) for expression in expressions]

    def _maybe(self, node: nodes.Node | None) -> list[Any] | None:
        return None if node is None else self._e(node)

    def _e(self, node: nodes.Node) -> list[Any]:
        from jinja2 import nodes

        match node:
            case nodes.Const():
                return ["const", _constant(node)]
            case nodes.TemplateData():
                return ["const", node.data]
            case nodes.Name():
                if node.name in PYTHON_NAMES or node.name in self._absent:
                    raise _unsupported(node, f"'{node.name}' as a value")
                return ["name", node.name]
            case nodes.Getattr():
                return ["attr", self._e(node.node), self._attribute(node)]
            case nodes.Getitem(arg=nodes.Slice() as ends):
                bounds = [self._maybe(end) for end in (ends.start, ends.stop, ends.step)]
                return ["slice", self._e(node.node), *bounds]
            case nodes.Getitem():
                return ["item", self._e(node.node), self._e(node.arg)]
            case nodes.Call():
                return self._call(node)
            case nodes.Filter() if node.node is not None:
                arguments = self._arguments("filter", node.name, node)
                return ["filter", node.name, self._e(node.node), arguments]
            case nodes.Test():
                arguments = self._arguments("test", node.name, node)
                return ["test", node.name, self._tested(node), arguments]
            case nodes.Compare():
                pairs = [[operand.op, self._e(operand.expr)] for operand in node.ops]
                return ["compare", self._e(node.expr), pairs]
            case nodes.Not():
                return ["not", self._e(node.node)]
            case nodes.Neg():
                return ["neg", self._e(node.node)]
            case nodes.Concat():
                return ["concat", self._es(node.nodes)]
            case nodes.CondExpr():
                return self._choice(node)
            case nodes.List():
                return ["list", self._es(node.items)]
            case nodes.Tuple():
                return ["tuple", self._es(node.items)]
            case nodes.Dict():
                return ["dict", [[self._e(pair.key), self._e(pair.value)] for pair in node.items]]
            case nodes.Mod(left=nodes.Const(value=str())):
                raise _unsupported(node, "the formatting of a string with '%'")
            case nodes.BinExpr() if type(node) in self._binary:
                return [self._binary[type(node)], self._e(node.left), self._e(node.right)]
        raise _unsupported(node, f"the expression '{type(node).__name__.lower()}'")

    def _tested(self, node: nodes.Test) -> list[Any]:
        """What `node` tests. An absent name may be asked for as long as it is not used."""
        from jinja2 import nodes

        match node.node:
            case nodes.Name(name=name) if name in self._absent and "defined" in node.name:
                return ["name", name]
        return self._e(node.node)

    def _attribute(self, node: nodes.Getattr) -> str:
        from jinja2 import nodes

        owner = node.node.name if isinstance(node.node, nodes.Name) else None
        if owner == "loop" and node.attr in LOOP:
            return node.attr
        python = node.attr in PYTHON_ATTRIBUTES and owner not in self._namespaces
        if python or node.attr.startswith("_") or owner == "loop":
            raise _unsupported(node, f"the attribute '{node.attr}'")
        return node.attr

    def _call(self, node: nodes.Call) -> list[Any]:
        from jinja2 import nodes

        match node.node:
            case nodes.Name(name="namespace") if _is_namespace(node):
                return ["namespace", {pair.key: self._e(pair.value) for pair in node.kwargs}]
            case nodes.Name(name=name):
                return ["call", name, self._arguments("call", name, node)]
            case nodes.Getattr(attr=name, node=owner):
                arguments = self._arguments("method", name, node)
                return ["method", name, self._e(owner), arguments]
        raise _unsupported(node, "a call of a computed function")

    def _arguments(
        self, kind: str, name: str, node: nodes.Call | nodes.Filter | nodes.Test
    ) -> list[Any]:
        """All arguments by position, with the template's names for them resolved."""
        what = "function" if kind == "call" else kind
        if name not in PARAMETERS[kind]:
            raise _unsupported(node, f"the {what} '{name}'")
        parameters = PARAMETERS[kind][name].split()
        names = [parameter.strip("[]") for parameter in parameters]
        given: dict[str, nodes.Node] = dict(zip(names, node.args, strict=False))
        named = {str(pair.key): pair.value for pair in node.kwargs}
        required = {parameter for parameter in parameters if parameter[0] != "["}
        if (
            node.dyn_args is not None
            or node.dyn_kwargs is not None
            or len(node.args) > len(names)
            or named.keys() & given.keys()
            or named.keys() - set(names)
            or required - given.keys() - named.keys()
        ):
            raise _unsupported(node, f"these arguments of the {what} '{name}'")
        given.update(named)
        return [self._maybe(given.get(parameter)) for parameter in names]


def _is_namespace(node: nodes.Node) -> bool:
    """Whether this is `namespace(name=value, ...)`, the one form that is supported."""
    from jinja2 import nodes

    match node:
        case nodes.Call(node=nodes.Name(name="namespace"), args=[]):
            return node.dyn_args is None and node.dyn_kwargs is None
    return False


def _constant(node: nodes.Const) -> object:
    value: object = node.value
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) < INT_LIMIT:
        return value
    raise _unsupported(node, f"the constant {value!r}")


def _depth(node: object) -> int:
    match node:
        case dict():
            return 1 + max(map(_depth, node.values()), default=0)
        case list():
            return 1 + max(map(_depth, node), default=0)
    return 0


def _unsupported(node: nodes.Node, what: str) -> UsageError:
    return refusal(node.lineno, f"uses {what}, which is not supported")
