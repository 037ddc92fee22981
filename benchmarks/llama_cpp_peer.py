"""llama.cpp as a process that answers timing questions; runs in an environment that has it.

    llama_cpp_peer.py GGUF THREADS CONTEXT

Reads one JSON request a line ({"tokens": [...], "generate": n}), writes one JSON answer a line:
prefill seconds, seconds of each decoded token, and the greedy tokens. Without "tokens" it goes on
from where it is. Needs only llama-cpp-python.
"""

import ctypes
import errno
import json
import struct
import sys
import time
from pathlib import Path

import llama_cpp


def refuse_amx() -> None:
    """Have the kernel refuse this process AMX, in whose path llama.cpp 0.3.36 crashes.

    It asks first and does without if it may not: what else it repacks weights for stays. The
    filter answers arch_prctl(ARCH_REQ_XCOMP_PERM, ...) with EPERM.
    """
    load, equal, answer = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    arch_prctl, request_permission = 158, 0x1023
    program = b"".join(
        struct.pack("<HBBI", *instruction)
        for instruction in (
            (load, 0, 0, 0),  # the system call's number
            (equal, 0, 3, arch_prctl),
            (load, 0, 0, 16),  # its first argument
            (equal, 0, 1, request_permission),
            (answer, 0, 0, refuse),
            (answer, 0, 0, allow),
        )
    )
    code = ctypes.create_string_buffer(program)
    filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, filter_mode, filter_):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def main() -> None:
    if "amx_int8" in Path("/proc/cpuinfo").read_text():
        refuse_amx()
    model = llama_cpp.Llama(
        model_path=sys.argv[1],
        n_ctx=int(sys.argv[3]),
        n_threads=int(sys.argv[2]),
        n_threads_batch=int(sys.argv[2]),
        n_batch=2048,
        verbose=False,
    )
    print(json.dumps({"version": llama_cpp.__version__}), flush=True)
    token = 0
    for line in sys.stdin:
        request = json.loads(line)
        answer = {}
        if "tokens" in request:
            model.reset()
            began = time.perf_counter()
            model.eval(request["tokens"])
            token = model.sample(temp=0.0)
            answer["prefill_s"] = time.perf_counter() - began
        times, tokens = [], [token]
        for _ in range(request["generate"] - 1):
            began = time.perf_counter()
            model.eval([token])
            token = model.sample(temp=0.0)
            times.append(time.perf_counter() - began)
            tokens.append(token)
        print(json.dumps({**answer, "decode_s": times, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main()
