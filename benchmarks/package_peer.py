"""A package's x86_64 library as a process that answers timing questions, as llama_cpp_peer does.

    package_peer.py SETTINGS    # JSON, and the environment, of harness.compiler.host.prepare

Reads one JSON request a line, writes one JSON answer a line:

    {"tokens": [...], "generate": n}   forget all, prefill, then decode: prefill_s, decode_s, tokens
    {"generate": n}                    go on from there: decode_s, tokens
    {"bandwidth": bytes}               bytes a second that these threads read
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from bandwidth import read_bandwidth

from harness.compiler.session import Session


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


def main() -> None:
    settings = json.loads(sys.argv[1])
    model = Model(settings)
    print(json.dumps({"version": settings["backend"]}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "bandwidth" in request:
            answer = {"bandwidth": read_bandwidth(request["bandwidth"])}
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
