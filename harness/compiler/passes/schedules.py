"""Schedules for kernels that come as plain definitions: TVM's own rules, and one more for GPUs.

Kernels that are written with their loops say so, and are left alone.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir import dlight
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.s_tir.dlight.base import max_threads_per_block
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule


def cpu_schedules() -> Any:
    """The pass that shares rows among threads and unrolls sums, as MLC's flow does on a CPU.

    Of dlight's two rules for CPUs only this one serves weights whose rows are interleaved.
    """
    return dlight.ApplyDefaultSchedule(dlight.cpu.Reduction())


def gpu_schedules() -> Any:
    """The pass that gives every kernel its work items."""
    return dlight.ApplyDefaultSchedule(
        _ItemForEachResult(), dlight.gpu.GeneralReduction(), dlight.gpu.Fallback()
    )


class _ItemForEachResult(GPUScheduleRule):  # type: ignore[misc]
    """Matrix products: one work item makes all sums that a result needs, and then the result.

    For functions whose last block only combines, element by element, what reductions before it
    gave. Neighbouring items take neighbouring rows, whose words lie side by side.
    """

    def apply(self, func: tirx.PrimFunc, target: Any, _: bool) -> s_tir.Schedule | None:
        if not isinstance(func, tirx.PrimFunc) or not self.is_target_available(target):
            return None
        schedule = s_tir.Schedule(func)
        blocks = normalize_prim_func(schedule)
        if not blocks or len(blocks) < 2 or not blocks[-1].is_injective():
            return None
        *sums, result = blocks
        if any(block.dom_kind() != result.dom_kind() + "R" for block in sums):
            return None
        *tokens, rows = schedule.get_loops(result.block_rv)
        group, item = schedule.split(rows, [None, max_threads_per_block(target)])
        schedule.bind(group, "blockIdx.x")
        schedule.bind(item, "threadIdx.x")
        if tokens:
            schedule.bind(schedule.fuse(*tokens), "blockIdx.y")
        for block in (one.block_rv for one in reversed(sums)):
            schedule.compute_at(block, item, preserve_unit_loops=True)
            schedule.set_scope(block, 0, "local")
        for block in (one.block_rv for one in sums):
            schedule.decompose_reduction(block, schedule.get_loops(block)[-1])
        return schedule
