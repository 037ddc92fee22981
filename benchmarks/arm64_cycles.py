"""Cycles of the arm64 inner loops for 32 weights, ours and ggml's, by LLVM's models of three cores.

    apt-get install llvm     # llvm-mca
    .venv/bin/python benchmarks/arm64_cycles.py --ggml llama.cpp/ggml

The loops are those of a decoded token's matrix product in 4 bits: ours for Q4_1 and for the
symmetric format, ggml's `vec_dot` for Q4_0 and, where it repacks for `sdot`, its `gemv`. They are
compiled here, cut out of the assembly and given to llvm-mca, which takes all data to be in the
first-level cache: what memory does is not in these figures. An `sdot` does 16 weights.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

CORES = ("cortex-a55", "cortex-a76", "cortex-x1")
ITERATIONS = 200
SDOT = re.compile(r"^\tsdot\t")
FUNCTIONS = (
    ("quants.c", "ggml_vec_dot_q4_0_q8_0"),
    ("repack.cpp", "ggml_gemv_q4_0_4x4_q8_0"),
)


def ours(name: str) -> str:
    """The assembly of a product with one token's activations."""
    import tvm

    from harness.compiler.kernels import matmul
    from harness.compiler.kernels.isa import Isa
    from harness.compiler.kernels.layout import WeightFormat

    isa = Isa.ARMV8_2_DOTPROD
    kernel = matmul.matmul(isa, WeightFormat.parse(name), 2048, 2048, tokens=1)
    module = tvm.IRModule({"product": kernel.with_attr("global_symbol", "product")})
    compiled = tvm.compile(module, target=tvm.target.Target(isa.target()))
    return str(compiled.mod.inspect_source("asm"))


def theirs(ggml: Path, source: str, function: str) -> str:
    """The assembly of one of ggml's functions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.s"
        includes = [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu")]
        compiler = "c++" if source.endswith("cpp") else "cc"
        subprocess.run(
            [
                *(sys.executable, "-m", "ziglang", compiler, "-target", "aarch64-linux-gnu"),
                *("-mcpu=generic+v8_2a+dotprod", "-O3", "-g0", "-DNDEBUG", "-D_GNU_SOURCE", "-w"),
                *(*includes, "-S", str(ggml / "src/ggml-cpu/arch/arm" / source), "-o", str(path)),
            ],
            check=True,
        )
        text = path.read_text()
    found = re.search(rf"^_?\w*{function}\w*:.*?^\.Lfunc_end", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise click.ClickException(f"{source} has no {function}")
    return found.group()


def inner_loop(assembly: str) -> list[str]:
    """The instructions of the shortest loop with an `sdot` in it."""
    lines = assembly.splitlines()
    labels = {
        line.partition(":")[0]: at for at, line in enumerate(lines) if re.match(r"\.?\w+:", line)
    }
    loops = []
    for at, line in enumerate(lines):
        target = re.match(r"\t(?:b\.\w+|b|cbn?z\t\w+,|tbn?z\t\w+, #\d+,)\s+(\.\w+)", line)
        begin = labels.get(target.group(1), at) if target else at
        body = [one for one in lines[begin : at + 1] if re.match(r"\t[a-z]", one)]
        if begin < at and any(SDOT.match(one) for one in body):
            loops.append(body)
    if not loops:
        raise click.ClickException("no loop with an sdot was found")
    return min(loops, key=len)


def cycles(loop: list[str], core: str) -> float:
    """Cycles of one iteration."""
    done = subprocess.run(
        ["llvm-mca", "-mtriple=aarch64", f"-mcpu={core}", f"-iterations={ITERATIONS}"],
        input="\n".join(loop) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert total is not None
    return int(total.group(1)) / ITERATIONS


@click.command()
@click.option("--ggml", type=click.Path(path_type=Path, exists=True), help="ggml's sources.")
def main(ggml: Path | None) -> None:
    """Print the table."""
    loops = {f"harness, {name}": inner_loop(ours(name)) for name in ("q4_1", "q4_sym_f16")}
    for source, function in FUNCTIONS if ggml else ():
        assert ggml is not None
        loops[f"ggml, {function}"] = inner_loop(theirs(ggml, source, function))
    click.echo(f"| loop | weights | instructions | {' | '.join(CORES)} |")
    click.echo("|-|-|-|" + "-|" * len(CORES))
    for name, loop in loops.items():
        weights = 16 * sum(bool(SDOT.match(one)) for one in loop)
        each = " | ".join(f"{cycles(loop, core) * 32 / weights:.1f}" for core in CORES)
        click.echo(f"| {name} | {weights} | {len(loop)} | {each} |")


if __name__ == "__main__":
    main()
