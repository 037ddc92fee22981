"""llama.cpp as a process that answers timing questions; runs in an environment that has it.

Reads one JSON request a line ({"tokens": [...], "generate": n}), writes one JSON answer a line:
prefill seconds, seconds of each decoded token, and the greedy tokens. Needs only llama-cpp-python.
"""

import json
import sys
import time

import llama_cpp


def main() -> None:
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
