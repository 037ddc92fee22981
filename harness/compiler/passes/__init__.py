"""The way from a Relax module of kernel calls to what the virtual machine runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from harness.compiler.passes.levels import CPU, Level
from harness.compiler.passes.reuse import reuse_views


def pipeline(metadata: Callable[[dict[str, int]], str], level: Level = CPU[-1]) -> Any:
    """The passes of a model library, as `relax.build` takes them.

    Kernels are called by name, so nothing is fused here: plain ones are scheduled, calls get their
    buffers, buffers are planned, and the rest is the machine's own form. `metadata` turns the bytes
    that each function plans for its buffers into the text that `_metadata` gives.
    """
    before = tvm.transform.Sequential(
        [
            # The cache's creation has an operator in it; a reshape is a view for the machine.
            relax.transform.LegalizeOps(skip_ops=["relax.reshape"]),
            relax.transform.DeadCodeElimination(),
            *([] if level.schedules is None else [level.schedules()]),
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.CanonicalizeBindings(),
            relax.transform.StaticPlanBlockMemory(),
        ]
    )
    # Nothing is freed before a function ends: its buffers share planned storage already.
    after = tvm.transform.Sequential(
        [
            relax.transform.LowerAllocTensor(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            *([reuse_views()] if level.reuses_views else []),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )

    def run(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        module = before(module)
        module["_metadata"] = _text_function(metadata(planned_bytes(module)))
        return after(module)

    return tvm.transform.module_pass(run, opt_level=0, name="ModelLibrary")


def planned_bytes(module: tvm.IRModule) -> dict[str, int]:
    """The bytes of working memory that each Relax function has planned."""
    found: dict[str, int] = {}
    for variable, function in module.functions.items():
        if isinstance(function, relax.Function):
            found[variable.name_hint] = _storage_bytes(function)
    return found


def _storage_bytes(function: relax.Function) -> int:
    total = 0

    def visit(node: Any) -> None:
        nonlocal total
        if isinstance(node, relax.Call) and node.op == tvm.ir.Op.get("relax.memory.alloc_storage"):
            sizes = [getattr(value, "value", None) for value in node.args[0].values]
            total += sum(int(size) for size in sizes if size is not None)

    relax.analysis.post_order_visit(function.body, visit)
    return total


def _text_function(text: str) -> relax.Function:
    builder = relax.BlockBuilder()
    with builder.function("_metadata", []):
        builder.emit_func_output(tvm.ir.StringImm(text))
    return builder.finalize()["_metadata"]
