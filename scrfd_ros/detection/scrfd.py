"""SCRFD: from a picture to boxes, scores and landmarks.

Sample and Computation Redistribution for Efficient Face Detection, Guo et al., ICLR 2022,
https://arxiv.org/abs/2105.04714. The network's head predicts, for two anchors at every location of
three grids, a score, the distances to the box's four sides and, in some models, the offsets of five
landmarks, in units of the grid's stride.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.blob import BlobWriter
from scrfd_ros.detection.letterbox import Letterbox
from scrfd_ros.detection.nms import nms
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import LANDMARK_NAMES, Faces, FloatArray
from scrfd_ros.networks.network import Network

PIXEL_MEAN = 127.5
PIXEL_SCALE = 128.0
SIZE_MULTIPLE = 32
"""Input width and height must be multiples of the coarsest stride."""

_STRIDES_AND_ANCHORS = {3: ((8, 16, 32), 2), 5: ((8, 16, 32, 64, 128), 1)}
OUTPUT_COUNTS = (6, 9, 10, 15)
"""So many outputs tell an SCRFD network from others."""

_KIND_OF_WIDTH = {1: "score", 4: "box", 2 * len(LANDMARK_NAMES): "landmark"}


@dataclass(frozen=True)
class Level:
    """The outputs of one stride: its grid and the names of its tensors."""

    stride: int
    anchors: int
    columns: int
    score: str
    box: str
    landmark: str | None


def recognise_outputs(
    shapes: Mapping[str, tuple[int, ...]], width: int, height: int
) -> list[Level]:
    """Find out which output is which, by shape: the rows tell the stride, the columns the kind.

    Names and order differ between exports and between back ends, shapes do not.

    Args:
        shapes: shape of each output for one picture: [rows, columns] or [1, rows, columns].
        width, height: input size of the network in pixels.

    Raises:
        ModelError: these are not the outputs of an SCRFD network.
    """
    kinds: dict[str, dict[int, str]] = {kind: {} for kind in _KIND_OF_WIDTH.values()}
    for name, shape in shapes.items():
        kind = _KIND_OF_WIDTH.get(shape[-1]) if len(shape) in (2, 3) else None
        rows = int(np.prod(shape[:-1]))
        if kind is None or rows in kinds[kind]:
            raise ModelError(_unrecognised(shapes, width, height, f"cannot place output {name!r}"))
        kinds[kind][rows] = name
    scores, boxes, landmarks = kinds["score"], kinds["box"], kinds["landmark"]
    if len(scores) not in _STRIDES_AND_ANCHORS:
        raise ModelError(_unrecognised(shapes, width, height, f"{len(scores)} score outputs"))
    strides, anchors = _STRIDES_AND_ANCHORS[len(scores)]
    levels = []
    for stride in strides:
        columns = width // stride
        rows = columns * (height // stride) * anchors
        if rows not in scores or rows not in boxes or (landmarks and rows not in landmarks):
            reason = f"stride {stride} needs outputs of {rows} rows"
            raise ModelError(_unrecognised(shapes, width, height, reason))
        levels.append(
            Level(stride, anchors, columns, scores[rows], boxes[rows], landmarks.get(rows))
        )
    if len(boxes) != len(levels) or len(landmarks) not in (0, len(levels)):
        raise ModelError(_unrecognised(shapes, width, height, "outputs left over"))
    return levels


def _unrecognised(
    shapes: Mapping[str, tuple[int | None, ...]], width: int, height: int, reason: str
) -> str:
    found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return (
        f"the outputs are not those of an SCRFD network at {width}x{height}: {reason}. Expected 6 "
        f"or 9 outputs (10 or 15 with five strides) of 1, 4 and 10 columns; found {found}"
    )


class Scrfd:
    """An SCRFD network as a face detector. Keeps buffers between calls: use one per thread.

    Args:
        network: one input [1, 3, H, W] float32, the outputs of `recognise_outputs`.
        input_size: width and height, in pixels, that pictures are letterboxed to; multiples of 32.
        score_threshold: faces that score less are dropped, 0 to 1.
        nms_threshold: IoU above which the lower of two boxes is dropped, 0 to 1.
        max_faces: keep at most so many, the best scores first; 0 for all.

    `score_threshold`, `nms_threshold` and `max_faces` may be changed between calls; `blob`, float32
    [1, 3, H, W], is the network's input as `prepare` left it.

    Raises:
        ModelError: the network is not an SCRFD network, or does not take this input size.
    """

    def __init__(
        self,
        network: Network,
        input_size: tuple[int, int] = (640, 640),
        score_threshold: float = 0.5,
        nms_threshold: float = 0.4,
        max_faces: int = 0,
    ) -> None:
        self.network = network
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_faces = max_faces
        width, height = self.input_size = input_size
        self._check_input(width, height)
        self._letterbox = Letterbox(width, height)
        self.blob = np.empty((1, 3, height, width), np.float32)
        self._writer = BlobWriter(
            *((0.0, 1.0) if network.normalizes_input else (PIXEL_MEAN, PIXEL_SCALE))
        )
        # Declared shapes can be symbolic or wrong; what comes out of a first run is neither.
        self.prepare(np.zeros((height, width, 3), np.uint8))
        shapes = {name: output.shape for name, output in self.infer().items()}
        try:
            self.levels = recognise_outputs(shapes, width, height)
        except ModelError as error:
            raise ModelError(f"{network.path}: {error}") from None

    @property
    def has_landmarks(self) -> bool:
        """Whether this network finds landmarks, which recognition needs."""
        return self.levels[0].landmark is not None

    def _check_input(self, width: int, height: int) -> None:
        if width < SIZE_MULTIPLE or height < SIZE_MULTIPLE or width % 32 or height % 32:
            raise ModelError(
                f"detector input size {width}x{height}: width and height must be multiples of "
                f"{SIZE_MULTIPLE}, such as 640x640"
            )
        inputs = self.network.inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, None):
            found = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in inputs)
            raise ModelError(
                f"{self.network.path}: an SCRFD network has one input [1, 3, height, width]; "
                f"found {found}"
            )
        # Before the sizes, so that a recogniser given by mistake is called what it is.
        if len(self.network.outputs) not in OUTPUT_COUNTS:
            declared = {tensor.name: tensor.shape for tensor in self.network.outputs}
            reason = _unrecognised(declared, width, height, f"their number is {len(declared)}")
            raise ModelError(f"{self.network.path}: {reason}")
        batch, _, fixed_height, fixed_width = inputs[0].shape
        if batch not in (1, None):
            raise ModelError(
                f"{self.network.path}: takes {batch} pictures at once; expected a batch of 1 or any"
            )
        if fixed_height not in (height, None) or fixed_width not in (width, None):
            raise ModelError(
                f"{self.network.path}: takes pictures of {fixed_width}x{fixed_height} only, not "
                f"{width}x{height}; set the detector's input size to "
                f"[{fixed_width}, {fixed_height}]"
            )

    def detect(self, picture: NDArray[np.uint8]) -> Faces:
        """Faces of a picture, uint8 [H, W, 3] BGR, in its own pixels."""
        scale = self.prepare(picture)
        return self.decode(self.infer(), scale)

    def prepare(self, picture: NDArray[np.uint8]) -> float:
        """Letterbox and normalise a picture, uint8 [H, W, 3] BGR; returns the letterbox scale."""
        canvas, scale = self._letterbox(picture)
        self._writer.write(canvas, self.blob[0])
        return scale

    def infer(self) -> dict[str, NDArray[np.float32]]:
        """Run the network on the picture prepared last."""
        return self.network({self.network.inputs[0].name: self.blob})

    def decode(self, outputs: Mapping[str, NDArray[np.float32]], scale: float) -> Faces:
        """Faces from the network's outputs, in pixels of the picture that was scaled by `scale`."""
        scores: list[FloatArray] = []
        boxes: list[FloatArray] = []
        landmarks: list[FloatArray] = []
        for level in self.levels:
            all_scores = outputs[level.score].reshape(-1)
            rows = np.flatnonzero(all_scores >= self.score_threshold)
            scores.append(all_scores[rows])
            # Locations run row by row, with the anchors of one location next to each other.
            y, x = np.divmod(rows // level.anchors, level.columns)
            centre = (np.stack((x, y), axis=1) * level.stride).astype(np.float32)
            sides = outputs[level.box].reshape(-1, 4)[rows] * level.stride
            boxes.append(np.hstack((centre - sides[:, :2], centre + sides[:, 2:])))
            if level.landmark is not None:
                offsets = outputs[level.landmark].reshape(-1, len(LANDMARK_NAMES), 2)[rows]
                landmarks.append(centre[:, None] + offsets * level.stride)
        score = np.concatenate(scores)
        order = np.argsort(-score, kind="stable")
        box = np.concatenate(boxes)[order] / np.float32(scale)
        kept = nms(box, self.nms_threshold, self.max_faces or None)
        order = order[kept]
        return Faces(
            boxes=box[kept],
            scores=score[order],
            landmarks=(np.concatenate(landmarks)[order] / np.float32(scale) if landmarks else None),
        )
