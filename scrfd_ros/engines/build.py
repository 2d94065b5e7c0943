# SPDX-License-Identifier: Apache-2.0
"""Build TensorRT engines from ONNX files.

`scrfd_ros.engines.convert` checks that an engine gives the same results as its ONNX file.
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
        workspace_mib: maximum scratch memory, MiB, of a layer; None for no limit.
        timing_cache: file with measured times of layers, which makes the next build faster;
            created if it does not exist. TensorRT-RTX has none.

    Raises:
        ModelError: TensorRT cannot parse or build it; quotes TensorRT's log.
    """
    log = message_log(trt)
    with cuda_failures(trt):
        builder = trt.Builder(log)
    network = builder.create_network(_creation_flags(trt))
    parser = trt.OnnxParser(network, log)
    if hasattr(parser, "set_flag"):
        # For the instance normalization of 1g and 34g, of which 8.x would make a plugin.
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
        # Real files use one name for several sizes, which TensorRT then takes to be equal.
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
    """The flags of the networks used here, which TensorRT's versions have by default or not."""
    flags = 0
    explicit_batch = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    if explicit_batch is not None:
        flags |= 1 << int(explicit_batch)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if strongly_typed is not None and is_strongly_typed(trt):
        flags |= 1 << int(strongly_typed)
    return flags


def _builder_flags(trt: ModuleType, precision: str) -> list[Any]:
    # TensorRT-RTX records an engine in a CUDA graph only if it never allocates memory by itself.
    no_allocation = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    flags = [] if no_allocation is None else [no_allocation]
    if precision == "fp32" or is_strongly_typed(trt):
        return flags
    # With int8, layers that are not quantized run in FP16.
    fp16, int8 = getattr(trt.BuilderFlag, "FP16", None), getattr(trt.BuilderFlag, "INT8", None)
    return [*flags, fp16, *([int8] if precision == "int8" else [])]


def _use_timing_cache(config: Any, path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    # TensorRT refuses a cache of another version or GPU, or a damaged one: begin an empty one.
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)


def _keep_timing_cache(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    try:
        if cache is not None:
            write_bytes(path, bytes(cache.serialize()))
    except ScrfdError as error:  # the engine is good without it
        logging.getLogger(__name__).warning("%s", error)
