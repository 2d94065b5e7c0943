# SPDX-License-Identifier: Apache-2.0
"""Compiles detection/kernels.cu to PTX: `python test/nvrtc.py` writes kernels.ptx beside it.

NVRTC 11.7 is an old one, so that drivers of CUDA 11.7 and newer take its PTX. The tests start this
as a program, since NVRTC leaves the locale C behind, in which Python reads only ASCII.
"""

from __future__ import annotations

import ctypes
import sys
from importlib import metadata
from pathlib import Path

KERNELS = Path(__file__).parents[1] / "scrfd_ros" / "detection" / "kernels.cu"
PTX = KERNELS.with_suffix(".ptx")
NVRTC_PACKAGE, PTXAS_PACKAGE = "nvidia-cuda-nvrtc-cu11", "nvidia-cuda-nvcc-cu12"
# Fused multiplications and additions would round otherwise than OpenCV.
OPTIONS = (b"--gpu-architecture=compute_75", b"--fmad=false")


def file_of(package: str, name: str) -> Path:
    """A file of an installed package, by the beginning of its name.

    Raises:
        PackageNotFoundError: the package is not installed.
    """
    files = metadata.files(package) or []
    (path,) = (file.locate() for file in files if file.name.startswith(name))
    return Path(path)


def compiled() -> bytes:
    """The PTX of kernels.cu."""
    nvrtc = ctypes.CDLL(str(file_of(NVRTC_PACKAGE, "libnvrtc.so")))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source = KERNELS.read_bytes()
    assert not nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source, KERNELS.name.encode(), 0, None, None
    )
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    failed = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.value


if __name__ == "__main__":
    Path(sys.argv[1] if sys.argv[1:] else PTX).write_bytes(compiled())
