"""A package loaded into this process: for the child process that `host` starts, nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.packages.package import Package, read_package
from harness.errors import MissingTool
from harness.types import Abi

Array = npt.NDArray[np.float32]
Progress = Callable[[float, float, str], None]


def host_logits(settings: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The task behind `host.logits`: writes `folder`/logits.npy."""
    session = Session(settings)
    rows: list[Array] = []
    left: list[int] = settings["tokens"]
    for size in settings["chunks"] or session.sizes(len(left)):
        part, left = left[:size], left[size:]
        rows.append(session.forward("decode" if size == 1 else "batch_verify", part))
        progress(len(settings["tokens"]) - len(left), len(settings["tokens"]), "tokens")
    np.save(Path(settings["folder"]) / "logits.npy", np.concatenate(rows))
    return {}


def host_generate(settings: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The task behind `host.generate`."""
    session = Session(settings)
    left: list[int] = settings["tokens"]
    began = time.perf_counter_ns()
    for size in session.sizes(len(left)):
        part, left = left[:size], left[size:]
        last = session.forward("prefill", part)
    found = [int(last[-1].argmax())]
    times = [time.perf_counter_ns() - began]
    ends = set(session.facts["eos_token_ids"])
    while len(found) < settings["count"] and found[-1] not in ends:
        began = time.perf_counter_ns()
        found.append(int(session.forward("decode", found[-1:])[-1].argmax()))
        times.append(time.perf_counter_ns() - began)
        progress(len(found), settings["count"], "tokens")
    return {
        "token_ids": found,
        "backend": settings["backend"],
        "prefill_ns": times[0],
        "decode_ns": times[1:],
    }


def host_times(settings: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The task behind `host.times`: once to warm up, and once that counts."""
    session = Session(settings)
    prompt = [at % session.facts["vocab_size"] for at in range(settings["prompt"])]
    for _ in range(2):
        session.reset()
        times = [time.perf_counter_ns()]
        at = 0
        for size in session.sizes(len(prompt)):
            last = session.forward("prefill", prompt[at : at + size])
            at += size
        times.append(time.perf_counter_ns())
        for _ in range(settings["count"]):
            last = session.forward("decode", [int(last[-1].argmax())])
            times.append(time.perf_counter_ns())
    prefill, *decode = (after - before for before, after in pairwise(times))
    return {"prefill_ns": prefill, "decode_ns": decode}


def host_memory(settings: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The task behind `host.memory_used`."""
    import tvm  # its own memory is nothing that a package adds

    assert tvm
    before = _resident_bytes()
    session = Session(settings)
    count = session.facts["context_window"] - 1
    done = 0
    for size in session.sizes(count):
        session.forward("prefill", [0] * size)
        done += size
        progress(done, count, "tokens")
    session.forward("decode", [0])
    return {"bytes": _resident_bytes() - before}


def _resident_bytes() -> int:
    """The memory that this process has in use: exact, unlike the kernel's running counts."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/smaps_rollup has no Rss")


def _device(package: Package) -> Any:
    """Where a package's library for this host computes.

    Raises `MissingTool` if it is a GPU and the installed TVM cannot run one.
    """
    import tvm

    backend = package.facts["stamp"]["targets"][Abi.X86_64].get("backend", "cpu")
    if backend == "cpu":
        return tvm.cpu()
    device = tvm.device(backend, 0)
    if not device.exist:
        raise MissingTool(
            f"{package.facts['name']} does not run here: it was compiled for {backend}",
            cause=f"the installed TVM has no runtime for {backend}, or there is no such device",
            remedy="harness compile MODEL --backend cpu",
        )
    return device


class Session:
    """A loaded package with one sequence. Only for the process that the package runs in.

    Of the settings it takes "package", "threads" and the "suffix" of the variant that runs.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        import tvm
        from tvm import relax

        found = read_package(Path(settings["package"]))
        self._suffix = settings["suffix"]
        self.facts = found.facts
        self._tvm = tvm
        tvm.get_global_func("runtime.config_threadpool")(1, settings["threads"])
        self._device = _device(found)
        library = tvm.runtime.load_module(str(found.file(f"lib/{Abi.X86_64}/libmodel.so")))
        self.vm = relax.VirtualMachine(library, self._device)
        self.metadata = json.loads(str(self.vm["_metadata"]()))
        self._params = self._load(found.path)
        self._chunk = int(self.facts["prefill_chunk"])
        page, context = self.facts["kv_cache"]["page_size"], self.facts["context_window"]
        sizes = (1, context, self._chunk, page, 0)
        shapes = [tvm.runtime.ShapeTuple([size]) for size in sizes]
        self._kv = self._function("create_tir_paged_kv_cache")(*shapes)
        self._global = {
            name: tvm.get_global_func(f"vm.builtin.kv_state_{name}")
            for name in ("add_sequence", "remove_sequence", "begin_forward", "end_forward")
        }
        self._reshape = tvm.get_global_func("vm.builtin.reshape")
        self._global["add_sequence"](self._kv, 0)

    def reset(self) -> None:
        """Forget all tokens."""
        self._global["remove_sequence"](self._kv, 0)
        self._global["add_sequence"](self._kv, 0)

    def _function(self, name: str) -> Any:
        return self.vm[name + self._suffix]

    def _load(self, path: Path) -> list[Any]:
        document = json.loads((path / "tensor-cache.json").read_text(encoding="utf-8"))
        tensors: dict[str, Any] = {}
        for shard in document["records"]:
            # Copy on write: tensors are made of writable memory only, and nobody writes to it.
            mapped = np.memmap(path / shard["dataPath"], np.uint8, "c")
            for record in shard["records"]:
                begin = record["byteOffset"]
                raw = mapped[begin : begin + record["nbytes"]]
                values = raw.view(record["dtype"]).reshape(record["shape"])
                tensors[record["name"]] = self._placed(values)
        return [tensors[name] for name in document["metadata"]["params"]]

    def _placed(self, values: npt.NDArray[Any]) -> Any:
        """The values where the library computes: as they lie in memory, or copied to a GPU's."""
        if self._device == self._tvm.cpu():
            return self._tvm.runtime.from_dlpack(values)
        return self._tvm.runtime.tensor(values, self._device)

    def forward(self, function: str, tokens: Sequence[int]) -> Array:
        """Append `tokens` by `prefill`, `decode` or `batch_verify`; its logits [m, vocab]."""
        tvm = self._tvm
        ids = tvm.runtime.tensor(np.asarray(tokens, np.int32), self._device)
        shape = tvm.runtime.ShapeTuple
        embeds = self._function("embed")(ids, self._params)
        embeds = self._reshape(embeds, shape([1, *embeds.shape]))
        self._global["begin_forward"](self._kv, shape([0]), shape([len(tokens)]))
        out, _ = self._function(function)(embeds, self._kv, self._params)
        self._global["end_forward"](self._kv)
        values: Array = out.numpy()[0]
        return values

    def sizes(self, count: int) -> list[int]:
        """`count` tokens in pieces that fit one call."""
        return [min(self._chunk, count - at) for at in range(0, count, self._chunk)]
