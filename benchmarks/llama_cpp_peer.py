"""llama.cpp as a process that answers timing questions; runs in an environment that has it.

Reads one JSON request a line ({"tokens": [...], "generate": n}), writes one JSON answer a line:
prefill seconds, seconds of each decoded token, and the greedy tokens. Needs only llama-cpp-python.
"""

import json
import sys
import time
from pathlib import Path

import llama_cpp
from llama_cpp import llama_cpp as native


def plain_buffers() -> None:
    """Keep llama.cpp from its AMX buffers, in which 0.3.36 crashes with Q4_1 and Q8_0 weights.

    It repacks neither type for any other x86 instructions, so nothing else changes.
    """
    defaults = native.llama_model_default_params

    def without_extra_buffers() -> native.llama_model_params:
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    native.llama_model_default_params = without_extra_buffers


def main() -> None:
    if "amx_int8" in Path("/proc/cpuinfo").read_text():
        plain_buffers()
    model = llama_cpp.Llama(
        model_path=sys.argv[1],
        n_ctx=int(sys.argv[3]),
        n_threads=int(sys.argv[2]),
        n_threads_batch=int(sys.argv[2]),
        n_batch=2048,
        verbose=False,
    )
    print(json.dumps({"version": llama_cpp.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        model.reset()
        began = time.perf_counter()
        model.eval(request["tokens"])
        token = model.sample(temp=0.0)
        prefill = time.perf_counter() - began
        times, tokens = [], [token]
        for _ in range(request["generate"] - 1):
            began = time.perf_counter()
            model.eval([token])
            token = model.sample(temp=0.0)
            times.append(time.perf_counter() - began)
            tokens.append(token)
        answer = {"prefill_s": prefill, "decode_s": times, "tokens": tokens}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
