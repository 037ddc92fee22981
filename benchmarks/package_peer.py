"""A package's x86_64 library as a process that answers timing questions, as llama_cpp_peer does.

    package_peer.py SETTINGS    # JSON, and the environment, of harness.compiler.host.prepare

Reads one JSON request a line, writes one JSON answer a line:

    {"tokens": [...], "generate": n}   forget all, prefill, then decode: prefill_s, decode_s, tokens
    {"generate": n}                    go on from there: decode_s, tokens
    {"profile": n}                     n more tokens: token_s, and what of it kernels take
    {"bandwidth": bytes}               bytes a second that these threads read
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bandwidth import read_bandwidth

from harness.compiler.session import Session

CHEAP = "vm.builtin.tuple_getitem"
ATTENTION = "vm.builtin.attention_kv_cache_attention_with_fused_qkv"


class Model:
    """The package, and the token that comes next."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.session = Session(settings)
        self.next = 0

    def prefill(self, tokens: list[int]) -> float:
        self.session.reset()
        began = time.perf_counter()
        for size in self.session.sizes(len(tokens)):
            part, tokens = tokens[:size], tokens[size:]
            last = self.session.forward("prefill", part)
        self.next = int(last[-1].argmax())
        return time.perf_counter() - began

    def decode(self) -> float:
        began = time.perf_counter()
        self.next = int(self.session.forward("decode", [self.next])[-1].argmax())
        return time.perf_counter() - began

    def profile(self, count: int) -> dict[str, float]:
        """Seconds a token takes, and those of them that its kernels take.

        The machine calls `listen` around each of its calls. What that costs is taken off each
        kernel's time: it is the time of a call that does nothing.
        """
        token = statistics.median(self.decode() for _ in range(count))
        calls: defaultdict[str, list[float]] = defaultdict(list)
        began: list[float] = []

        def listen(function: Any, name: str, before: bool, result: Any, *arguments: Any) -> None:
            if before:
                began.append(time.perf_counter())
            else:
                calls[name].append(time.perf_counter() - began.pop())

        self.session.vm.set_instrument(listen)
        for _ in range(count):
            self.session.forward("decode", [self.next])
        nothing = statistics.median(calls[CHEAP])
        kernels = sum(
            (statistics.median(times) - nothing) * len(times) / count
            for name, times in calls.items()
            if name == ATTENTION or not name.startswith("vm.")
        )
        return {"token_s": token, "kernels_s": kernels}


def main() -> None:
    settings = json.loads(sys.argv[1])
    model = Model(settings)
    print(json.dumps({"version": settings["backend"]}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "bandwidth" in request:
            answer = {"bandwidth": read_bandwidth(request["bandwidth"])}
        elif "profile" in request:
            answer = dict(model.profile(request["profile"]))
        else:
            if "tokens" in request:
                answer["prefill_s"] = model.prefill(request["tokens"])
            tokens, times = [model.next], []
            for _ in range(request["generate"] - 1):
                times.append(model.decode())
                tokens.append(model.next)
            answer |= {"decode_s": times, "tokens": tokens}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
