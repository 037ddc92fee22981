"""verify: hold a package's logits against a golden file, on the host or on a phone.

Every way of running a model is tried: a text in one piece, in uneven chunks, token by token, and
greedy decoding after it. All of them must give the same logits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import console
from harness.errors import DeviceError, Regression, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from harness.compiler.numerics.fidelity import Fidelity, Tolerance
    from harness.compiler.numerics.golden_logits import GoldenLogits
    from harness.device.app import App

    Logits = npt.NDArray[np.float32]

STAGE = "verify"
# Sizes that begin and end inside pages of the cache, with decoding steps between them.
_UNEVEN = (7, 1, 16, 33, 2)

Runner = Callable[[Sequence[int], Sequence[int]], "Logits"]
"""Tokens and the chunks that they go in, to the logits after each, [tokens, vocabulary]."""


def verify(package: Path, golden: Path, run: Runner, *, where: str) -> Mapping[str, Any]:
    """Run a package in every way and compare: the figures of each way, and what is wrong.

    Raises `UsageError` if the golden file is none or is another model's, and what `run` raises.
    """
    from harness.compiler.numerics.fidelity import tolerance
    from harness.compiler.numerics.golden_logits import read_golden_logits
    from harness.compiler.packages.package import read_package

    facts = read_package(package).facts
    expected = read_golden_logits(golden)
    _check_fits(facts, expected, golden)
    allowed = tolerance(facts["quantization"], facts["stamp"]["options"]["activations"])
    ways: dict[str, Mapping[str, Any]] = {}
    wrong: list[str] = []
    for way, (tokens, chunks) in _ways(expected, int(facts["prefill_chunk"])).items():
        with console.step(STAGE, f"{way} on {where}") as step:
            found = run(tokens, chunks)
            if found.shape != (len(tokens), expected.logits.shape[1]):
                raise DeviceError(
                    f"{where} gave {found.size} logits for {len(tokens)} tokens",
                    cause=f"the vocabulary has {expected.logits.shape[1]}",
                    remedy="run the same command again",
                )
            ways[way], problem = _judge(way, expected, found, allowed)
            step.done(f"{way} on {where}: {_words(ways[way])}")
        if problem:
            wrong.append(f"{way}: {problem}")
    return {
        "package": str(package),
        "golden": str(golden),
        "where": where,
        "quantization": facts["quantization"],
        "tolerance": asdict(allowed),
        "ways": ways,
        "problems": wrong,
    }


def require_passed(document: Mapping[str, Any]) -> None:
    """Raise `Regression` with the problems that `verify` found, if any."""
    if document["problems"]:
        raise Regression(
            f"{document['package']} does not give the logits of {document['golden']}",
            cause="\n         ".join(document["problems"]),
            remedy="compile the model with --quant q0f32 and verify that: it must be exact",
        )


def on_host(package: Path, threads: int, cpu_variant: str | None = None) -> Runner:
    """Run the package's x86_64 library (the best variant or the one named) in its own process."""
    from harness.compiler import host

    def run(tokens: Sequence[int], chunks: Sequence[int]) -> Logits:
        return host.logits(package, tokens, chunks=chunks, threads=threads, cpu_variant=cpu_variant)

    return run


def on_phone(app: App) -> Runner:
    """Run the installed package in the app and pull its logits."""
    import numpy as np

    def run(tokens: Sequence[int], chunks: Sequence[int]) -> Logits:
        with tempfile.TemporaryDirectory(prefix="harness-verify-") as folder:
            path = Path(folder, "logits.f32")
            app.logits(tokens, path, chunks=chunks)
            values = np.fromfile(path, "<f4")
        return values.reshape(len(tokens), -1) if values.size % len(tokens) == 0 else values

    return run


def _ways(golden: GoldenLogits, longest: int) -> dict[str, tuple[Sequence[int], Sequence[int]]]:
    tokens, n = golden.tokens, len(golden.tokens)
    whole = _cut(n, (longest,))
    ways: dict[str, tuple[Sequence[int], Sequence[int]]] = {
        "prefill": (tokens, whole),
        "chunks": (tokens, _cut(n, [min(size, longest) for size in _UNEVEN])),
        "tokens": (tokens, [1] * n),
    }
    if golden.greedy:
        # Up to the first difference this is what decoding freely gives.
        steps = golden.greedy[:-1]
        ways["greedy"] = ((*tokens, *steps), [*whole, *[1] * len(steps)])
    return ways


def _cut(count: int, sizes: Sequence[int]) -> list[int]:
    cut: list[int] = []
    while (left := count - sum(cut)) > 0:
        cut.append(min(left, sizes[len(cut) % len(sizes)]))
    return cut


def _judge(
    way: str, golden: GoldenLogits, found: Logits, allowed: Tolerance
) -> tuple[Mapping[str, Any], str]:
    """The figures of one way, and what is wrong with it."""
    from harness.compiler.numerics.fidelity import fidelity

    measured: Fidelity = fidelity(golden.logits, found[: len(golden.tokens)])
    figures: dict[str, Any] = asdict(measured)
    problem = allowed.broken_by(measured)
    if way == "greedy":
        chosen = found[len(golden.tokens) - 1 :].argmax(-1).tolist()
        same = [a == b for a, b in zip(chosen, golden.greedy, strict=True)]
        count = same.index(False) if False in same else len(same)
        figures["greedy_match"] = count / len(same)
        if allowed.max_abs is not None and count < len(same):
            problem = problem or f"token {count + 1} is {chosen[count]}, not {golden.greedy[count]}"
    return figures, problem


def _words(figures: Mapping[str, Any]) -> str:
    words = (
        f"largest difference {figures['max_abs']:.2g}, mean {figures['mean_abs']:.2g}, "
        f"KL {figures['kl']:.2g}, same best token {figures['top1']:.1%}"
    )
    match = figures.get("greedy_match")
    return words if match is None else f"{words}, greedy agrees {match:.1%}"


def _check_fits(facts: Mapping[str, Any], golden: GoldenLogits, path: Path) -> None:
    vocabulary, context = int(facts["vocab_size"]), int(facts["context_window"])
    if golden.logits.shape[1] != vocabulary:
        raise UsageError(
            f"{path} is another model's golden file",
            cause=f"its vocabulary has {golden.logits.shape[1]} tokens, the package's {vocabulary}",
            remedy="make the golden file from the checkpoint that the package was compiled from",
        )
    needed = len(golden.tokens) + len(golden.greedy)
    if needed > context:
        raise UsageError(
            f"{path} does not fit the package's context",
            cause=f"it has {needed} tokens, the context {context}",
            remedy=f"harness compile MODEL --context {needed}",
        )
