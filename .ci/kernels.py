#!/usr/bin/env python3
"""Compiles the CUDA kernels with NVIDIA's own run-time compiler, which needs neither a device nor a driver.

    python kernels.py FOLDER      # the folder of libnvrtc.so.13, as `pip install nvidia-cuda-nvrtc` makes it

To machine code of the oldest generation that NVRTC 13 knows and of a recent one, and compares their names with those that the program loads.
"""

import ctypes
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "stages/nn/src"
LIBRARY = Path(sys.argv[1])
ctypes.CDLL(str(next(LIBRARY.glob("libnvrtc-builtins.so*"))), mode=ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(str(LIBRARY / "libnvrtc.so.13"))

host = (ROOT / "backend/cuda/gpu.rs").read_text()
source = "".join((ROOT / "kernels/cuda" / name).read_text() for name in re.findall(r"kernels/cuda/(\w+\.cu)\"", host))
loaded = re.findall(r'"(\w+)"', re.search(r"const KERNELS[^=]*= \[(.*?)\];", host, re.S)[1])


def compile_for(target: str) -> bytes:
    """What NVRTC makes of the source: PTX of a compute_NN, machine code of an sm_NN."""
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={target}".encode())
    code, size = nvrtc.nvrtcCompileProgram(program, 1, options), ctypes.c_size_t()
    if code != 0:
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        sys.exit(f"the kernels do not compile for {target}:\n{log.value.decode()}")
    kind = "CUBIN" if target.startswith("sm_") else "PTX"
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    made = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{kind}")(program, made) == 0
    return made.raw


entries = re.findall(r"\.entry (\w+)", compile_for("compute_75").decode())
if set(entries) != set(loaded) or len(loaded) != len(set(loaded)):
    sys.exit(f"the source and KERNELS differ in {sorted(set(entries) ^ set(loaded))}")
for generation in (75, 90):
    size = len(compile_for(f"sm_{generation}"))
    print(f"sm_{generation}: {len(entries)} kernels, {size >> 10} KiB")
