# SPDX-License-Identifier: Apache-2.0
"""Build TensorRT engines from ONNX files.

Types and shapes are TensorRT's business; that an engine gives the same results as its ONNX file
is checked by `scrfd_ros.engines.open`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

from scrfd_ros.errors import ModelError, ScrfdError
from scrfd_ros.files import write_bytes
from scrfd_ros.inference.engine_file import ShapeRange
from scrfd_ros.inference.tensorrt_library import (
    cuda_failures,
    is_rtx,
    is_strongly_typed,
    message_log,
    product,
)


def build_engine(
    trt: ModuleType,
    content: bytes,
    shapes: ShapeRange,
    precision: str,
    *,
    workspace_mib: int | None = None,
    timing_cache: Path | None = None,
) -> bytes:
    """Build an engine. Takes seconds on a workstation, minutes on a Jetson.

    Args:
        trt: TensorRT, see `load_tensorrt`.
        content: an ONNX model with one input; for int8 quantized, and for fp16 with FP16 inside
            where TensorRT `is_strongly_typed`.
        shapes: of the input.
        precision: one of `PRECISIONS`.
        workspace_mib: most scratch memory, in MiB, that a layer may take; None for no limit.
        timing_cache: file with measured times of layers, which makes the next build faster;
            made if it is not there. TensorRT-RTX has none.

    Raises:
        ModelError: TensorRT cannot parse or build it; gives TensorRT's own words.
    """
    log = message_log(trt)
    with cuda_failures(trt):
        builder = trt.Builder(log)
    network = builder.create_network(_creation_flags(trt))
    parser = trt.OnnxParser(network, log)
    if hasattr(parser, "set_flag"):
        # 1g and 34g have instance normalization: without this 8.x makes a plugin of it.
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    if not parser.parse(content) or network.num_inputs != 1:
        reasons = [str(parser.get_error(number)) for number in range(parser.num_errors)]
        raise ModelError(f"{product(trt)} cannot parse it: {'; '.join(reasons) or log.errors()}")
    config = builder.create_builder_config()
    for flag in _builder_flags(trt, precision):
        config.set_flag(flag)
    if workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    tensor = network.get_input(0)
    tensor.shape = tuple(
        low if low == high else -1 for low, high in zip(shapes.min, shapes.max, strict=True)
    )
    if not shapes.is_fixed:
        # Real files call several sizes by one name, which to TensorRT makes them equal.
        if hasattr(tensor, "set_dimension_name"):
            for axis, size in enumerate(tensor.shape):
                tensor.set_dimension_name(axis, f"axis {axis}" if size == -1 else "")
        profile = builder.create_optimization_profile()
        profile.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    if is_rtx(trt):
        timing_cache = None
    if timing_cache is not None:
        _use_timing_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"{product(trt)} cannot build an engine: {log.errors()}")
    if timing_cache is not None:
        _keep_timing_cache(config, timing_cache)
    return bytes(plan)


def _creation_flags(trt: ModuleType) -> int:
    """The flags of the one kind of network used here; versions differ in what needs saying."""
    flags = 0
    explicit_batch = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    if explicit_batch is not None:
        flags |= 1 << int(explicit_batch)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if strongly_typed is not None and is_strongly_typed(trt):
        flags |= 1 << int(strongly_typed)
    return flags


def _builder_flags(trt: ModuleType, precision: str) -> list[Any]:
    if precision == "fp32" or is_strongly_typed(trt):
        return []
    # With int8, layers that are not quantized run in FP16.
    fp16, int8 = getattr(trt.BuilderFlag, "FP16", None), getattr(trt.BuilderFlag, "INT8", None)
    return [fp16, int8] if precision == "int8" else [fp16]


def _use_timing_cache(config: Any, path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    # That of another version or GPU, or a damaged one, is refused: then begin with an empty one.
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)


def _keep_timing_cache(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    try:
        if cache is not None:
            write_bytes(path, bytes(cache.serialize()))
    except ScrfdError as error:  # no reason to throw the engine away
        logging.getLogger(__name__).warning("%s", error)
