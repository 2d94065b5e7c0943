# SPDX-License-Identifier: Apache-2.0
"""PRelu as convolutions, which ONNX Runtime runs faster on a processor.

ONNX Runtime has no PRelu for the blocked layout of its convolutions. So it changes the layout
before and after each. That and PRelu itself take half of the time of w600k_mbf. What it has in that
layout are convolutions, Relu and sums. With a slope s for each channel,

    PRelu(x) = x + (1 - s) * Relu(-x)

where both products are convolutions of 1x1 with one weight for each channel. Relu joins the first
and the sum joins the second, so there are two passes over the values.
"""

from __future__ import annotations

import functools
import logging
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.engines.adapted import Adaptation, load_adapted
from scrfd_ros.engines.agreement import compare_embeddings, judge
from scrfd_ros.engines.drawn_faces import drawn_faces, drawn_landmarks
from scrfd_ros.errors import BackendError, ModelError, ScrfdError
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_file import read_model
from scrfd_ros.inference.onnx_parts import (
    INITIALIZER,
    NODE,
    float_values,
    graph_of,
    node,
    read_node,
    tensor_name,
    with_graph,
)
from scrfd_ros.inference.onnx_runtime import uses_processor
from scrfd_ros.inference.protobuf import Field, byte_fields, field
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

_LIMITS = {"non_finite_values": 0, "min_cosine": 0.99999, "max_norm_difference": 1e-4}

_logger = logging.getLogger(__name__)


def with_convolutions(content: bytes) -> bytes:
    """An ONNX file with convolutions in place of each PRelu that has a slope for each channel.

    Raises:
        ModelError: it has no such PRelu.
        ValueError: the file is malformed.
    """
    slopes = _slopes(content)
    if not slopes:
        raise ModelError("it has no PRelu with a constant slope for each channel")

    def change(part: Field) -> bytes | memoryview:
        if part.number == NODE:
            prelu = read_node(part.content)
            if prelu.outputs and prelu.outputs[0] in slopes:
                return _convolutions(prelu.inputs[0], prelu.outputs[0], slopes[prelu.outputs[0]])
        return part.whole

    return with_graph(content, change)


def _slopes(content: bytes) -> Mapping[str, NDArray[np.float32]]:
    """Slopes of each PRelu that has one for each channel, float32 [C], by the PRelu's output.

    None of a quantized model, where other roundings become steps.
    """
    graph = graph_of(content)
    nodes = list(map(read_node, byte_fields(graph, NODE)))
    if any(each.kind == "QuantizeLinear" for each in nodes):
        return {}
    weights = {tensor_name(each): each for each in byte_fields(graph, INITIALIZER)}
    found = {}
    for each in nodes:
        is_prelu = each.kind == "PRelu" and each.outputs and len(each.inputs) == 2
        if is_prelu and each.inputs[1] in weights:
            slopes = float_values(weights[each.inputs[1]])
            if slopes is not None and slopes.shape == (slopes.size, 1, 1):
                found[each.outputs[0]] = slopes[:, 0, 0]
    return found


def _convolutions(source: str, output: str, slopes: NDArray[np.float32]) -> bytes:
    """The nodes that take the place of a PRelu, encoded."""
    names = [f"{output} {name}" for name in ("minus", "negated", "relu", "rise", "scaled")]
    minus, negated, relu, rise, scaled = names
    shape = (len(slopes), 1, 1, 1)
    convolution = functools.partial(node, "Conv", group=len(slopes), kernel_shape=[1, 1])
    nodes = (
        node("Constant", minus, [], value=np.full(shape, -1, np.float32)),
        convolution(negated, [source, minus]),
        node("Relu", relu, [negated]),
        node("Constant", rise, [], value=(1 - slopes).reshape(shape)),
        convolution(scaled, [relu, rise]),
        node("Add", output, [scaled, source]),
    )
    return b"".join(field(NODE, each) for each in nodes)


def check_embeddings(changed: Network, original: Network) -> None:
    """Compare a recognizer with the one it was made from, on drawn faces.

    Raises:
        ModelError: the embeddings differ, or it is no recognizer.
    """
    crops = align_faces(drawn_faces(), drawn_landmarks())
    found, expected = (ArcFace(network).embed(crops) for network in (changed, original))
    reasons = judge(compare_embeddings(*found, *expected).figures, _LIMITS)
    if reasons:
        raise ModelError(f"its embeddings change: {reasons[0]}")


PRELU = Adaptation("prelu", 1, with_convolutions, check_embeddings)
"""Makes a recognizer faster on ONNX Runtime on a processor."""


def load_without_prelu(path: Path, *, threads: int = 0) -> Network:
    """Load an ONNX file with ONNX Runtime; a recognizer is changed where that makes it faster.

    Where the change is not possible, it is logged once.

    Args:
        path: the file.
        threads: see `load_network`.

    Raises:
        BackendError: ONNX Runtime is missing on this machine.
        ModelError: the file cannot be used.
    """
    if is_faster_without(path):
        try:
            return load_adapted(path, PRELU, "onnxruntime", threads=threads)
        except BackendError:
            raise
        except ScrfdError as error:
            _log_slower(path, str(error))
    return load_network(path, "onnxruntime", threads=threads)


def is_faster_without(path: Path) -> bool:
    """Whether an ONNX file has PRelu that ONNX Runtime would run faster as convolutions here.

    That is on processors of x86_64. On others it is not measured, and the blocked layout is not in
    every version of ONNX Runtime.

    Raises:
        ModelError: the file cannot be read.
    """
    if platform.machine() != "x86_64" or not uses_processor():
        return False
    content = read_model(path)
    try:
        return bool(_slopes(content))
    except (ModelError, ValueError):
        return False  # whoever loads it says what is wrong


@functools.cache  # once for all loads
def _log_slower(path: Path, reason: str) -> None:
    _logger.warning("%s: runs slower than it could, with PRelu as it is: %s", path, reason)
