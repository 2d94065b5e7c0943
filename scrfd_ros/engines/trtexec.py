# SPDX-License-Identifier: Apache-2.0
"""The command line of NVIDIA's trtexec that builds the same engine as `build_engine`."""

from __future__ import annotations

from pathlib import Path

from scrfd_ros.inference.engine_file import ShapeRange

_JETSON = Path("/usr/src/tensorrt/bin/trtexec")  # not in PATH there
_WITHOUT_PRECISIONS = (11, 0)


def trtexec_command(
    tensorrt: tuple[int, ...],
    model: Path,
    engine: Path,
    input_name: str,
    shapes: ShapeRange,
    precision: str,
    workspace_mib: int | None = None,
) -> list[str]:
    """Words of the command line for a version of TensorRT, 8.5 or newer.

    Args:
        tensorrt: major and minor version.
        model: an ONNX file with no free size except the batch; quantized for int8, and with FP16
            inside for fp16 from TensorRT 11 on.
        engine: file to write.
        input_name: of the model's input.
        shapes: of the input.
        precision: one of `PRECISIONS`.
        workspace_mib: maximum scratch memory, MiB, of a layer; None for no limit.
    """
    words = [
        str(_JETSON) if _JETSON.exists() else "trtexec",
        f"--onnx={model}",
        f"--saveEngine={engine}",
    ]
    if tensorrt < _WITHOUT_PRECISIONS:
        words += {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}[precision]
    if workspace_mib is not None:
        words.append(f"--memPoolSize=workspace:{workspace_mib}")
    if not shapes.is_fixed:
        for option, shape in (("min", shapes.min), ("opt", shapes.opt), ("max", shapes.max)):
            words.append(f"--{option}Shapes={input_name}:{'x'.join(map(str, shape))}")
    return words
