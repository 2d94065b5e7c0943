# SPDX-License-Identifier: Apache-2.0
"""kernels.ptx is what kernels.cu says, and every GPU that is supported takes it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nvrtc
import pytest


def test_the_ptx_is_compiled_from_the_source(tmp_path: Path) -> None:
    try:
        nvrtc.file_of(nvrtc.NVRTC_PACKAGE, "libnvrtc.so")
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed; it exists for x86_64 only")
    ptx = tmp_path / "kernels.ptx"
    subprocess.run([sys.executable, nvrtc.__file__, ptx], check=True)
    assert nvrtc.PTX.read_bytes() == ptx.read_bytes(), "make it again: python test/nvrtc.py"


# Turing, Orin, Hopper and Blackwell.
@pytest.mark.parametrize("architecture", [75, 87, 90, 120])
def test_assembler_takes_the_ptx(architecture: int, tmp_path: Path) -> None:
    try:
        ptxas = nvrtc.file_of(nvrtc.PTXAS_PACKAGE, "ptxas")
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed; it exists for x86_64 only")
    assert os.access(ptxas, os.X_OK)
    command = [
        ptxas,
        "--verbose",
        "--gpu-name",
        f"sm_{architecture}",
        nvrtc.PTX,
        "-o",
        tmp_path / "code",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # What does not fit into registers would be spilled to slow memory.
    assert result.stderr.count("0 bytes spill stores, 0 bytes spill loads") == 2, result.stderr
