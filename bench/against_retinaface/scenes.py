# SPDX-License-Identifier: Apache-2.0
"""Images in which it is known where the faces are: real faces, placed as wanted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

from against_retinaface.detectors import RETINAFACE, Detector, Image
from scrfd_ros.detection.nms import nms
from scrfd_ros.detection.views import fitted_size
from scrfd_ros.engines.agreement import SAME_FACE_IOU
from scrfd_ros.faces import FloatArray, ious
from scrfd_ros.images.files import read_image
from scrfd_ros.images.scaling import scale_by_area, scale_linear
from scrfd_ros.models.download import ensure_picture

SIZE = 640
"""Width and height of all images here, pixels: the detectors' input, so nothing is resized."""

PHOTOGRAPHS = (
    "t1.jpg",
    "solvay_conference_1927.jpg",
    "players.jpg",
    "gdp.jpg",
    "obama.jpg",
    "obama2.jpg",
    "obama3.jpg",
    "biden.jpg",
    "yaoming.jpg",
)
WITHOUT_FACES = (
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
"""Pictures of scikit-image: textures, things, a cat, writing."""

SURE = 0.5
"""Minimum score in both detectors of a face that counts as known."""

SMALLEST = 24
"""Minimum height of such a face in the photograph, pixels."""

SHARP = 64
"""Minimum height of a face that is cut out and placed elsewhere, pixels."""

AROUND = 8 / 3
"""Side of a face's surroundings, in heights of the face."""


class Photograph(NamedTuple):
    """A photograph.

    Attributes:
        name: of its file.
        image: uint8 [H, W, 3] BGR.
        boxes: float32 [N, 4], of the faces in it.
    """

    name: str
    image: Image
    boxes: FloatArray


class Scene(NamedTuple):
    """An image, uint8 [640, 640, 3] BGR, and the boxes [N, 4] of all faces in it."""

    image: Image
    boxes: FloatArray


class Square(NamedTuple):
    """A face in its surroundings, uint8 [S, S, 3] BGR, and its box [4]."""

    image: Image
    box: FloatArray


class Portrait(NamedTuple):
    """A photograph and the box [4] of one face in it."""

    image: Image
    box: FloatArray

    @property
    def height(self) -> float:
        return float(self.box[3] - self.box[1])


def photographs(detectors: Sequence[Mapping[str, Detector]]) -> list[Photograph]:
    """The photographs of the catalogue, with the faces that RetinaFace and 2.5g both find.

    A box is the mean of both, so the truth favors neither.

    Args:
        detectors: by name, for several input sizes; what they find counts together.
    """
    found = []
    for name in PHOTOGRAPHS:
        image = read_image(ensure_picture(name))
        ours, theirs = (
            _sure_boxes(image, [of_size[detector] for of_size in detectors])
            for detector in ("2.5g", RETINAFACE)
        )
        overlaps = ious(ours, theirs)
        rows, columns = np.nonzero(
            (overlaps >= SAME_FACE_IOU) & (overlaps == overlaps.max(axis=1, keepdims=True))
        )
        found.append(Photograph(name, image, (ours[rows] + theirs[columns]) / 2))
    return found


def _sure_boxes(image: Image, detectors: Sequence[Detector]) -> FloatArray:
    faces = [detector.detect(image) for detector in detectors]
    boxes = np.concatenate([each.boxes for each in faces])
    scores = np.concatenate([each.scores for each in faces])
    counts = (scores >= SURE) & (boxes[:, 3] - boxes[:, 1] >= SMALLEST)
    boxes, scores = boxes[counts], scores[counts]
    boxes = boxes[np.argsort(-scores, kind="stable")]
    return boxes[nms(boxes, SAME_FACE_IOU)]


def portraits(photographs: Sequence[Photograph]) -> list[Portrait]:
    """All faces that are large enough to be placed elsewhere."""
    faces = [Portrait(each.image, box) for each in photographs for box in each.boxes]
    return [face for face in faces if face.height >= SHARP]


def scaled_down(photograph: Photograph, scale: float) -> Scene:
    """The whole photograph, on black, at a part of the size that fills the input."""
    height, width = photograph.image.shape[:2]
    fitted = np.array(fitted_size(width, height, SIZE, SIZE))
    size = np.maximum(np.rint(fitted * scale).astype(int), 1)
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    scale_by_area(photograph.image, canvas[: size[1], : size[0]])
    return Scene(canvas, np.float32(photograph.boxes * np.tile(size / (width, height), 2)))


def surroundings(
    face: Portrait, height: float, side: int, angle: float = 0, shift: Sequence[float] = (0, 0)
) -> Square:
    """A face as high as wanted in the middle of its surroundings.

    Args:
        height: of the face's box before it is turned, pixels.
        side: of the square image, pixels.
        angle: degrees, clockwise. The box is then that of the turned ellipse in the box.
        shift: of the face to the right and down, pixels.
    """
    scale = height / face.height
    center, size = (face.box[:2] + face.box[2:]) / 2, face.box[2:] - face.box[:2]
    reach = side / scale  # enough for any angle
    limits = face.image.shape[1::-1]
    x1, y1 = np.clip(center - reach, 0, limits).astype(int)
    x2, y2 = np.clip(center + reach, 0, limits).astype(int)
    part = face.image[y1:y2, x1:x2]
    smaller = np.maximum(np.rint(np.array([x2 - x1, y2 - y1]) * scale), 1).astype(int)
    resized = np.empty((*smaller[::-1], 3), np.uint8)
    (scale_by_area if scale < 1 else scale_linear)(part, resized)
    scales = smaller / (x2 - x1, y2 - y1)
    radians = np.radians(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    middle = np.array([side, side]) / 2 + shift
    # Pixels' centers are half a pixel from the corners that coordinates count from.
    moved = middle - 0.5 - turn @ ((center - (x1, y1)) * scales - 0.5)
    image = cv2.warpAffine(
        resized,
        np.column_stack((turn, moved)),
        (side, side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    half = np.sqrt(turn**2 @ (size * scales / 2) ** 2)
    return Square(image, np.float32(np.concatenate((middle - half, middle + half))))


def enlarged(face: Portrait, part: float) -> Scene:
    """The face alone, its box this part of the image's height."""
    image, box = surroundings(face, part * SIZE, SIZE)
    return Scene(image, box[None])


def grids(
    faces: Sequence[Portrait], height: float, place: Callable[[Portrait, float, int], Square]
) -> Iterator[Scene]:
    """The faces side by side, on as few images as they need.

    Args:
        height: of each face, pixels.
        place: called with a face, the height, and the side of the square that there is for it;
            returns what to put there.
    """
    columns = max(int(SIZE / (AROUND * height)), 1)
    side = SIZE // columns
    for start in range(0, len(faces), columns**2):
        canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
        boxes = []
        for number, face in enumerate(faces[start : start + columns**2]):
            y, x = np.array(divmod(number, columns)) * side
            canvas[y : y + side, x : x + side], box = place(face, height, side)
            boxes.append(box + np.array([x, y, x, y]))
        yield Scene(canvas, np.float32(boxes))


def collages(
    faces: Sequence[Portrait], count: int, heights: tuple[float, float], rng: np.random.Generator
) -> Iterator[Scene]:
    """Faces cut out and put on pictures without faces, with soft edges.

    Args:
        count: of images.
        heights: of the faces, minimum and maximum, pixels; all sizes are as frequent on a
            logarithmic scale.
    """
    folder = Path(skimage.__file__).parent / "data"
    pictures = [_background(read_image(folder / name)) for name in WITHOUT_FACES]
    for background in itertools.islice(itertools.cycle(pictures), count):
        canvas = background[:, :: rng.choice([-1, 1])].astype(np.float32)
        taken = np.zeros((SIZE, SIZE), np.bool_)
        boxes = []
        for _ in range(12):
            face = faces[rng.integers(len(faces))]
            height = float(np.exp(rng.uniform(*np.log(heights))))
            side = int(np.ceil(AROUND * height / 2) * 2)
            y, x = rng.integers(0, max(SIZE - side, 0) + 1, 2)
            if side > SIZE or taken[y : y + side, x : x + side].any():
                continue
            taken[y : y + side, x : x + side] = True
            square, box = surroundings(face, height, side, shift=rng.uniform(-0.5, 0.5, 2))
            mask = _soft_ellipse(box, side)[..., None]
            part = canvas[y : y + side, x : x + side]
            part += mask * (square - part)
            boxes.append(box + np.array([x, y, x, y]))
        yield Scene(canvas.round().astype(np.uint8), np.float32(boxes).reshape(-1, 4))


def _background(picture: Image) -> Image:
    """The picture, continued by its mirror images: uint8 [640, 640, 3]."""
    down, across = (max(SIZE - length, 0) for length in picture.shape[:2])
    reflected = cv2.copyMakeBorder(picture, 0, down, 0, across, cv2.BORDER_REFLECT)
    return reflected[:SIZE, :SIZE]


def _soft_ellipse(box: FloatArray, side: int) -> NDArray[np.float32]:
    """1 on head and hair, 0 away from them: float32 [side, side]."""
    x, y = (box[:2] + box[2:]) / 2
    across, down = (box[2:] - box[:2]) * (0.8, 0.75)
    columns, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    distance = np.hypot((columns - x) / across, (rows - y) / down)
    return np.float32(np.clip((1 - distance) / 0.15, 0, 1))
