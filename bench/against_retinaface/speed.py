# SPDX-License-Identifier: Apache-2.0
"""Time, operations and size of the networks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import retinaface
from numpy.typing import NDArray
from retinaface.weights import WEIGHTS
from turns import times_in_turns

from against_retinaface.detectors import letterboxed, load_detectors
from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture

ROUNDS = {320: 40, 640: 20, 1280: 8}
"""How often each detector runs, by input size."""

THRESHOLD = 0.5
PACKAGE = "RetinaFace, own package"


def call_times(folder: Path, size: int, threads: int) -> dict[str, NDArray[np.float64]]:
    """Time from an image of the input's size to its six faces, for all detectors in turns.

    Args:
        threads: 1 for one thread, timed in seconds of the processor, which other programs disturb
            least; 0 for one for each core, timed in seconds of the clock.

    Returns:
        Seconds of each call, float64 [rounds], by detector.
    """
    image, _ = letterboxed(read_image(ensure_picture("t1.jpg")), size)
    rgb = np.ascontiguousarray(image[..., ::-1])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    retinaface.ONNX_SESSION = onnxruntime.InferenceSession(WEIGHTS, options)
    calls: dict[str, Callable[[], object]] = {
        PACKAGE: lambda: retinaface.detect_faces(rgb, score_threshold=THRESHOLD)
    }
    for name, detector in load_detectors(folder, size, THRESHOLD, threads).items():
        calls[name] = lambda detector=detector: detector.detect(image)
    for call in calls.values():
        call()  # the first one is slower
    clock = time.process_time if threads == 1 else time.perf_counter
    return times_in_turns(calls, ROUNDS[size], clock)


def multiplications(content: bytes, size: int) -> int:
    """How many multiplications an ONNX file's convolutions take, for a square input of this size.

    The network runs once, with the results of its convolutions as outputs: sizes that are computed
    on the way are then known.
    """
    model = onnx.load_from_string(content)
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    others = {node.op_type for node in model.graph.node} & {"Gemm", "MatMul", "ConvTranspose"}
    assert not others, f"{others} are not counted"
    results = [node.output[0] for node in convolutions]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in results)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    blob = np.zeros((1, 3, size, size), np.float32)
    outputs = session.run(results, {session.get_inputs()[0].name: blob})
    return sum(
        output.size * math.prod(weights[node.input[1]][1:])
        for node, output in zip(convolutions, outputs, strict=True)
    )


def parameters(content: bytes) -> int:
    """How many floating-point numbers an ONNX file holds as weights."""
    tensors = onnx.load_from_string(content).graph.initializer
    return sum(math.prod(each.dims) for each in tensors if each.data_type == onnx.TensorProto.FLOAT)
