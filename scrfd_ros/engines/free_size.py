# SPDX-License-Identifier: Apache-2.0
"""Free height and width for detectors whose files take images of one size only.

Such files were exported, or simplified, with a fixed input. What fixes SCRFD's graph are the input,
the declared shapes, and the sizes to which the coarser features are doubled. Here these sizes
become scales, as in exports with free sizes; nothing is computed otherwise. A graph that needs more
than that is refused by its check: it fails at other sizes, or finds other faces.
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import SIZE_MULTIPLE, DetectorConfig
from scrfd_ros.detection.levels import OUTPUT_COUNTS
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.adapted import Adaptation, adapted_model, load_adapted
from scrfd_ros.engines.agreement import SCORE_THRESHOLD, compare_faces, judge
from scrfd_ros.engines.drawn_faces import BACKGROUND, drawn_faces
from scrfd_ros.errors import BackendError, ModelError, ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.images.scaling import scale_by_area
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_file import read_file
from scrfd_ros.inference.onnx_parts import (
    INPUT,
    NODE,
    OUTPUT,
    VALUE_INFO,
    graph_inputs,
    graph_of,
    input_shapes,
    node,
    read_node,
    value,
    value_name,
    value_shape,
    with_free_sizes,
    with_graph,
    with_inputs,
)
from scrfd_ros.inference.onnx_runtime import output_shapes
from scrfd_ros.inference.protobuf import Field, byte_fields, field

_HEIGHT, _WIDTH = 2, 3  # numbers of the sizes of the input, [N, 3, height, width]
_RESIZE_SIZES = 3  # number of the input of Resize that has sizes; before it come image, roi, scales
_MAX_DISTANCE = 1e-3  # pixels, between boxes at the file's own size; roundings make 6e-5 each
_FOUND = 0.4  # score from which a face counts as found that scores `SCORE_THRESHOLD` elsewhere
_LIMITS = {"missed_faces": 0, "extra_faces": 0, "min_iou": 0.9}
"""Limits of the figures at other sizes.

What lies beyond the image is black in the larger input, and zero in the padding of convolutions.
That moves boxes near the edge: IoU of at least 0.97 with 2.5g and an image of 320x128.
"""
_WIDER = 2 * SIZE_MULTIPLE
_MIN_SIDE = 96  # pixels; in smaller inputs, the drawn faces are not found

_logger = logging.getLogger(__name__)


def fixed_size(content: bytes) -> tuple[int, int] | None:
    """Width and height, pixels, if this is a detector's ONNX file that takes images of one size.

    None for all others, and for what is not an ONNX file.
    """
    try:
        shapes = input_shapes(content)
        outputs = sum(1 for _ in byte_fields(graph_of(content), OUTPUT))
    except ModelError:
        return None
    if len(shapes) != 1 or len(shapes[0]) != 4 or outputs not in OUTPUT_COUNTS:
        return None
    height, width = shapes[0][_HEIGHT], shapes[0][_WIDTH]
    return (width, height) if width and height else None


def with_free_size(content: bytes) -> bytes:
    """A detector's ONNX file with a free height and width of its input.

    Raises:
        ModelError: features are resized by other factors than whole ones; or the model does not
            run at its own size.
        ValueError: the file is malformed.
    """
    graph = graph_of(content)
    (own,) = graph_inputs(graph)
    nodes = map(read_node, byte_fields(graph, NODE))
    resized = {
        each.outputs[0]: each.inputs
        for each in nodes
        if each.kind == "Resize" and each.outputs and any(each.inputs[_RESIZE_SIZES:])
    }
    shapes = _shapes(content, own, {*resized, *(inputs[0] for inputs in resized.values())})
    scales = {
        output: _scales(shapes[inputs[0]], shapes[output]) for output, inputs in resized.items()
    }

    def change(part: Field) -> bytes | memoryview:
        if part.number == NODE:
            outputs = read_node(part.content).outputs
            if outputs and outputs[0] in scales:
                name = f"{outputs[0]} scales"
                image, roi, *_ = resized[outputs[0]]
                # A node, not an initializer, which in old files would have to be an input as well.
                constant = node("Constant", name, [], value=np.array(scales[outputs[0]]))
                return field(NODE, constant) + field(
                    NODE, with_inputs(part.content, [image, roi, name])
                )
        elif part.number == INPUT and part.content == own:
            return field(INPUT, with_free_sizes(part.content, (_HEIGHT, _WIDTH)))
        elif part.number == OUTPUT:
            rows = range(len(value_shape(part.content)) - 1)  # the columns stay
            return field(OUTPUT, with_free_sizes(part.content, rows))
        elif part.number == VALUE_INFO:
            return b""
        return part.whole

    return with_graph(content, change)


def _shapes(content: bytes, own: memoryview, names: Iterable[str]) -> Mapping[str, tuple[int, ...]]:
    """Shapes of values inside a graph with this input, by name."""
    declared = {value_name(each) for each in byte_fields(graph_of(content), OUTPUT)}
    more = b"".join(field(OUTPUT, value(name)) for name in sorted({*names} - declared))
    sizes = [size or 1 for size in value_shape(own)]
    return output_shapes(
        with_graph(content, lambda part: part.whole, more),
        {value_name(own): np.zeros(sizes, np.float32)},
    )


def _scales(before: tuple[int, ...], after: tuple[int, ...]) -> list[float]:
    """The whole factors by which a Resize enlarges."""
    if len(before) != len(after) or 0 in before or any(map(operator.mod, after, before)):
        raise ModelError(f"a Resize from {list(before)} to {list(after)}")
    return list(map(operator.truediv, after, before))


def check_free_size(free: Network, fixed: Network) -> None:
    """Compare a detector with the one it was made from, on drawn faces, at its size and two others.

    Where a letterbox leaves a part of the input black, inputs with and without that part have to
    give the same faces.

    Raises:
        ModelError: they find different faces, or none; or the free one does not run at other sizes.
    """
    height, width = fixed.inputs[0].shape[2:]
    assert width and height, "a detector of one size"
    own, lower, narrower = (width, height), _lower(height), _lower(width)
    original = Scrfd(fixed, _config(own))
    for image_size, input_size in (
        (own, own),
        ((width, lower), (width + _WIDER, lower)),
        ((narrower, height), (narrower, height + _WIDER)),
    ):
        image = _drawing(*image_size)
        expected = original.detect(image)
        if not (expected.scores >= SCORE_THRESHOLD).any():
            raise ModelError("it finds no drawn faces, by which the change could be checked")
        try:
            found = Scrfd(free, _config(input_size)).detect(image)
        except ModelError as error:
            raise ModelError(f"its graph is fixed to {width}x{height}: {error}") from error
        if input_size == own and not _same(found, expected):
            reasons: tuple[str, ...] = (f"boxes differ by more than {_MAX_DISTANCE} pixels",)
        else:
            figures = compare_faces(found, expected, SCORE_THRESHOLD, SCORE_THRESHOLD).figures
            reasons = judge(figures, _LIMITS)
        if reasons:
            sizes = "{}x{}".format(*input_size)
            raise ModelError(f"with a free size it finds other faces at {sizes}: {reasons[0]}")


def _config(input_size: tuple[int, int]) -> DetectorConfig:
    return DetectorConfig(input_size=input_size, score_threshold=_FOUND)


def _lower(side: int) -> int:
    """About 0.6 of a side of the input, on its grid, if drawn faces are found in that."""
    return min(max(side * 6 // 10 // SIZE_MULTIPLE * SIZE_MULTIPLE, _MIN_SIDE), side)


def _drawing(width: int, height: int) -> NDArray[np.uint8]:
    drawing = drawn_faces()
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    side = min(width, height, len(drawing))
    scale_by_area(drawing, image[:side, :side])
    return image


def _same(found: Faces, expected: Faces) -> bool:
    boxes = found.boxes.shape == expected.boxes.shape
    return boxes and bool(np.abs(found.boxes - expected.boxes).max(initial=0) <= _MAX_DISTANCE)


FREE_SIZE = Adaptation("free_size", 1, with_free_size, check_free_size)
"""Gives a detector's input a free height and width."""


def takes_any_size(path: Path) -> bool:
    """Whether a detector's ONNX file takes any input size, perhaps changed; if not, it is logged.

    Raises:
        ModelError: it cannot be read.
    """
    own = fixed_size(read_file(path))
    if own is None:
        return True
    try:
        adapted_model(path, FREE_SIZE)
    except ScrfdError as error:
        _log_own_size(path, *own, str(error))
        return False
    return True


def load_for_size(
    path: Path,
    input_size: tuple[int, int] | None,
    backend: str | None = None,
    *,
    any_size: bool = False,
    threads: int = 0,
) -> Network:
    """Load an ONNX file; a detector of one other size only is changed, and then takes any.

    Args:
        path: the file.
        input_size: width and height, pixels, that a detector has to take; None for its own.
        backend, threads: see `load_network`.
        any_size: change it even if it takes this size. Where that is impossible, it is loaded as it
            is, which is logged once.

    Raises:
        BackendError: the backend's library or device is missing on this machine.
        ModelError: the file cannot be used, or it cannot be changed to take this size.
    """
    own = fixed_size(read_file(path)) if any_size or input_size is not None else None
    if own is None or (own == input_size and not any_size):
        return load_network(path, backend, threads=threads)
    try:
        return load_adapted(path, FREE_SIZE, backend, threads=threads)
    except BackendError:
        raise
    except ScrfdError as error:
        width, height = own
        if not any_size:
            assert input_size is not None
            raise ModelError(
                f"{path}: takes images of {width}x{height} only, not "
                f"{input_size[0]}x{input_size[1]}; set the detector's input size to "
                f"[{width}, {height}]. It cannot be given a free size: {error}"
            ) from error
        _log_own_size(path, width, height, str(error))
    return load_network(path, backend, threads=threads)


@functools.cache  # once for all loads
def _log_own_size(path: Path, width: int, height: int, reason: str) -> None:
    _logger.warning(
        "%s: every image is scaled to its own size, %dx%d, as it cannot be given a free one: %s",
        path,
        width,
        height,
        reason,
    )
