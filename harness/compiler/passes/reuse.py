"""Values that a function makes again and again are made once.

Layers are alike, so after memory planning each asks for the same views of the same storage: one
tensor object at the same place serves all. On a CPU every such call costs the virtual machine
about as much as a small kernel.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

_ALLOCATE = "relax.vm.alloc_tensor"
_RESHAPE = "vm.builtin.reshape"
_CONSTANT = "compute_symbolic_expr"


def reuse_views() -> Any:
    """The pass, for modules whose calls are lowered and whose parameters are not yet checked."""

    def run(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        for variable, function in module.functions.items():
            if isinstance(function, relax.Function):
                module[variable] = relax.analysis.remove_all_unused(
                    _Reuse(module).visit_expr(function)
                )
        return module

    return tvm.transform.module_pass(run, opt_level=0, name="ReuseViews")


@relax.expr_functor.mutator
class _Reuse(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.made: dict[tuple[object, ...], relax.Var] = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = self.visit_expr(binding.value)
        key = _key(value)
        if key in self.made:
            self.set_var_remap(binding.var, self.made[key])
            return
        new = self.visit_var_def(binding.var)
        self.builder_.emit_normalized(relax.VarBinding(new, value))
        self.set_var_remap(binding.var, new)
        if key is not None:
            self.made[key] = new


def _key(value: relax.Expr) -> tuple[object, ...] | None:
    """Equal for calls that give the same view; None for what must be called each time."""
    if not isinstance(value, relax.Call):
        return None
    op = value.op
    if isinstance(op, tvm.ir.Op) and op.name == _ALLOCATE:
        name = _ALLOCATE
    elif isinstance(op, relax.ExternFunc) and str(op.global_symbol) == _RESHAPE:
        name = _RESHAPE
    elif isinstance(op, tvm.ir.GlobalVar) and op.name_hint.startswith(_CONSTANT) and not value.args:
        name = op.name_hint
    else:
        return None
    return (name, *(hash(arg) if isinstance(arg, relax.Var) else str(arg) for arg in value.args))
