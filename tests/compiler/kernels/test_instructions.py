"""What the kernels may use of a processor, and that they use what makes them quick."""

import re
import subprocess
import sys

import pytest

from harness.compiler.kernels import activations, attention, embedding, kv_pages, matmul, rotary
from harness.compiler.kernels.heads import Heads
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat

FORMATS = [
    WeightFormat.Q3_SYM_F16,
    WeightFormat.Q4_1,
    WeightFormat("q4_sym_bf16", 64),
    WeightFormat.Q8_0,
    WeightFormat.F16,
    WeightFormat.F32,
]


def every_kernel(isa):
    heads = Heads(9, 3, 64, "float16")
    functions = {
        "quantize": activations.quantize(isa, 576, tokens=None, dtype="float16"),
        "norm": activations.rms_norm(isa, 576, 1e-5, tokens=1),
        "norm_quantize": activations.rms_norm_quantize(isa, 576, 1e-5, tokens=1, group=40),
        "norm_add": activations.norm_add(isa, 576, 1e-5, tokens=1),
        "matmul_float": matmul.matmul(
            isa,
            WeightFormat.Q4_SYM_F16,
            576,
            576,
            tokens=None,
            activations="float32",
            bias=True,
            softcap=30.0,
        ),
        "silu": matmul.gated_matmul(isa, WeightFormat.Q4_1, 256, 576, tokens=None),
        "gelu": matmul.gated_matmul(
            isa, WeightFormat.Q3_SYM_F16, 256, 576, tokens=1, activation="gelu_tanh"
        ),
        "decode": attention.decode(heads),
        "paged": attention.prefill_paged(heads),
        "ragged": attention.prefill_ragged(heads),
        "rope": kv_pages.split_rotary(heads, [0.1] * 32),
        "norms and rope": rotary.rotary(
            heads, [0.1] * 32, q_norm=True, k_norm=True, eps=1e-6, tokens=None
        ),
        "append": kv_pages.append(heads),
        "merge": kv_pages.merge_state(heads),
        "copy": kv_pages.copy_page(heads),
    }
    for fmt in FORMATS:
        functions[f"embedding_{fmt.name}"] = embedding.embedding(isa, fmt, 100, 576, tokens=None)
        for tokens, suffix in ((1, "one"), (None, "many")):
            functions[f"matmul_{fmt.name}_{suffix}"] = matmul.matmul(
                isa, fmt, 576, 576, tokens=tokens, residual=True
            )
    return functions


@pytest.fixture(scope="module")
def compiled():
    import tvm

    def compile_(isa):
        target = tvm.target.Target(isa.target())
        with target:
            functions = every_kernel(isa)
        named = {
            n: f.with_attr("global_symbol", n).without_attr("target") for n, f in functions.items()
        }
        return tvm.compile(tvm.IRModule(named), target=target).mod.inspect_source("asm")

    return {isa: compile_(isa) for isa in Isa}


def mnemonics(assembly):
    return set(re.findall(r"^\t(?:\{vex\}\t)?([a-z][a-z0-9.]*)\b", assembly, re.MULTILINE))


def assembles(assembly, cpu, tmp_path):
    """Whether an assembler for this processor takes the code, and what it says if not."""
    source = tmp_path / "kernels.s"
    source.write_text(assembly)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu"),
            *(f"-mcpu={cpu}", "-c", str(source), "-o", str(tmp_path / "kernels.o")),
        ],
        capture_output=True,
        text=True,
    )
    return done.returncode == 0, done.stderr


def test_arm64_has_of_each_level_what_its_name_says_and_no_more(compiled, tmp_path):
    """An assembler for the level takes the code, one for the level before it does not."""
    levels = {
        Isa.ARMV8: ("generic", "generic-neon", "smlal"),
        Isa.ARMV8_2_DOTPROD: ("generic+dotprod", "generic", "sdot"),
        Isa.ARMV8_2_I8MM: ("generic+dotprod+i8mm", "generic+dotprod", "smmla"),
    }
    for isa, (level, lower, instruction) in levels.items():
        taken, problems = assembles(compiled[isa], level, tmp_path)
        assert taken, problems[:2000]
        assert not assembles(compiled[isa], lower, tmp_path)[0]
        assert instruction in mnemonics(compiled[isa])
    assert not {"sdot", "smmla"} & mnemonics(compiled[Isa.ARMV8])
    for isa in (Isa.ARMV8_2_DOTPROD, Isa.ARMV8_2_I8MM):
        assert re.search(r"sdot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[\d\]", compiled[isa])


def test_x86_64_v2_has_nothing_of_avx_and_no_calls_for_halves(compiled):
    assembly = compiled[Isa.X86_64_V2]
    assert not re.search(r"%[yz]mm|%k[0-7]\b", assembly)
    found = mnemonics(assembly)
    assert not {m for m in found if m.startswith("v")}
    assert not found & {"shlx", "shrx", "sarx", "rorx", "mulx", "andn", "lzcnt", "tzcnt", "movbe"}
    assert {"pmaddubsw", "pmaddwd", "mulps", "roundps"} <= found
    assert not re.search(r"(call|jmp)q?\t.*__(trunc|extend)", assembly)


@pytest.mark.parametrize("isa", [Isa.X86_64_V3, Isa.X86_64_V3_VNNI])
def test_x86_64_has_avx2_and_nothing_of_avx512(compiled, isa):
    assembly = compiled[isa]
    assert not re.search(r"%zmm|%[xyz]mm(1[6-9]|2\d|3[01])\b|%k[0-7]\b|\{%k|\{evex\}", assembly)
    found = mnemonics(assembly)
    dots = {m for m in found if m.startswith(("vpdp", "vpopcnt", "vpmadd", "vdpbf16", "tdp"))}
    if isa is Isa.X86_64_V3:
        assert dots == {"vpmaddubsw", "vpmaddwd"}
    else:
        assert dots == {"vpdpbusd"}
        assert len(re.findall(r"vpdpbusd", assembly)) == len(
            re.findall(r"\{vex\}\tvpdpbusd", assembly)
        )
    assert {"vfmadd231ps", "vcvtph2ps"} <= found


@pytest.mark.parametrize("isa", list(Isa), ids=lambda isa: isa.name.lower())
def test_kernels_allocate_little_and_need_little_of_libc(compiled, isa):
    """Scratch is on the stack, but for what threads hand each other of one token's attention; they
    call the runtime's errors, libm and memcpy."""
    assembly = compiled[isa]
    functions = re.split(r"^([A-Za-z]\w*):", assembly, flags=re.MULTILINE)[1:]
    uses = re.compile(r"^\t.*(call|adrp|mov|ldr).*AllocWorkspace", re.MULTILINE)
    assert {
        name.removeprefix("__tvm_ffi_").partition("_")[0]
        for name, body in zip(functions[::2], functions[1::2], strict=True)
        if uses.search(body)
    } == {"decode"}
    called = set(re.findall(r"^\t(?:callq?|bl|jmp)\t\*?([A-Za-z]\w*)", assembly, re.MULTILINE))
    outside = {c.split("@")[0] for c in called if not re.search(rf"^{c}:", assembly, re.MULTILINE)}
    assert outside <= {*("cosf", "sinf", "log2f", "memcpy", "TVMFFIErrorSetRaisedFromCStrParts")}
