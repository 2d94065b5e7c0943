# SPDX-License-Identifier: Apache-2.0
"""Boxes and landmarks are where the faces are, in images of any aspect, through every view.

Half a pixel of the network's input is what is allowed. Exact spots stand in for faces, except where
a test says that it takes real networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pipelines import detector_of
from spots import SpotNetwork, draw_spots, spot_landmarks

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import plan_views
from scrfd_ros.engines.drawn_faces import drawn_faces, drawn_landmarks
from scrfd_ros.faces import Faces
from scrfd_ros.images.compressed import bgr_from_compressed
from scrfd_ros.images.message import decode_message
from scrfd_ros.inference.load import load_network

CAMERAS = [(640, 480), (848, 480), (1280, 720), (1920, 1080), (1440, 1080), (2560, 720)]
WIDE = [(2000, 100), (1999, 133), (1301, 127), (1000, 667)]
INPUTS = [(640, 640), (640, 384), (320, 640)]
LANDSCAPE = [*CAMERAS, *WIDE]
SIZES = [*LANDSCAPE, *((height, width) for width, height in LANDSCAPE)]


def spots_along(size: tuple[int, int], count: int = 5) -> list[list[float]]:
    """Boxes in a row along the longer side, from edge to edge; not at whole pixels."""
    longer, shorter = max(size), min(size)
    side = 0.8 * min(shorter, longer / count)
    places = np.linspace(1.3, longer - side - 1.7, count)
    across = np.linspace(0.6, shorter - side - 0.9, count)
    boxes = [[x, y, x + side, y + side * 0.9] for x, y in zip(places, across, strict=True)]
    return boxes if size[0] >= size[1] else [[y1, x1, y2, x2] for x1, y1, x2, y2 in boxes]


def assert_agree(found: Faces, boxes: list[list[float]], scales: Sequence[float]) -> None:
    """Every spot is found, within half a pixel of the input."""
    expected = np.array(boxes, np.float32)
    rows = np.abs(found.boxes[:, None] - expected).max(axis=2).argmin(axis=1)
    assert set(rows) == set(range(len(boxes)))
    pixel = np.array(scales)
    assert found.landmarks is not None
    for ours, theirs in (
        (found.boxes.reshape(-1, 2, 2), expected[rows].reshape(-1, 2, 2)),
        (found.landmarks, spot_landmarks(expected)[rows]),
    ):
        assert (np.abs(ours - theirs) * pixel).max() < 0.5


@pytest.mark.parametrize("input_size", INPUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_whole_image(size: tuple[int, int], input_size: tuple[int, int]) -> None:
    boxes = spots_along(size)
    found = detector_of(SpotNetwork(), input_size, nms_threshold=1).detect(draw_spots(size, boxes))
    assert len(found) == len(boxes)
    assert_agree(found, boxes, plan_views(*size, *input_size).views[0].scales)


@pytest.mark.parametrize("input_size", [(640, 640), (320, 320)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_second_look(size: tuple[int, int], input_size: tuple[int, int]) -> None:
    width, height = size
    box = [0.1 * width, 0.1 * height, 0.92 * width, 0.95 * height]
    detector = detector_of(SpotNetwork(), input_size, nms_threshold=1, large_faces=True)
    found = detector.detect(draw_spots(size, [box]))
    assert len(found) == 2, "one in each look"
    assert_agree(found, [box], plan_views(*size, *input_size, large_faces=True).views[1].scales)


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        *((size, (3, 2)) for size in CAMERAS),
        *((size, (4, 1) if size[0] > size[1] else (1, 4)) for size in SIZES),
    ],
    ids=str,
)
def test_tiles(size: tuple[int, int], tiles: tuple[int, int]) -> None:
    whole, *others = plan_views(*size, 640, 640, tiles).views
    side = 0.9 * min(*whole.smallest, *size)
    assert side > 10, "small enough for tiles, and large enough to measure"
    step = (
        1.03 * side + 2
    )  # everywhere, so that a spot is cut off in one tile and whole in the next
    boxes = [
        [x, y, x + side, y + side]
        for y in np.arange(0.3, size[1] - side, step)
        for x in np.arange(0.4, size[0] - side, step)
    ]
    found = detector_of(SpotNetwork(), nms_threshold=1, tiles=tiles).detect(draw_spots(size, boxes))
    assert_agree(found, boxes, np.array([view.scales for view in others]).min(axis=0))


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("size", [(1920, 1080), (2561, 723), (1999, 1333), (723, 2561)], ids=str)
def test_jpegs_decoded_smaller(size: tuple[int, int], reduction: int) -> None:
    """Their sizes are rounded up, yet each of their pixels is `reduction` of the whole ones.

    So what coordinates are multiplied with is that, and not one size over the other.
    """
    boxes = spots_along(size)
    encoded = cv2.imencode(".jpg", draw_spots(size, boxes), [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
    # JPEG leaves artifacts beside the spots, which the network must not take for spots.
    side = 32 * (max(size) // reduction // 32)
    decoded = bgr_from_compressed("jpeg", encoded.tobytes(), (side, side))
    assert decoded.reduction == reduction
    image = decoded.image
    image[image <= 3] = 0
    found = decoded.enlarge(detector_of(SpotNetwork(), nms_threshold=1).detect(image))
    scales = plan_views(*image.shape[1::-1], 640, 640).views[0].scales
    assert_agree(found, boxes, np.array(scales) / reduction)


@pytest.mark.parametrize("size", [*CAMERAS, (1000, 667), (1999, 433)], ids=str)
def test_a_real_network_sees_no_drift_across_the_image(
    detector_path: Callable[[str], Path], size: tuple[int, int]
) -> None:
    """One drawn face at the left edge and at the right: what the network makes of it is the same.

    Its own error, up to a pixel here, is the same on both sides.
    """
    detector = Scrfd(load_network(detector_path("2.5g")))
    width, height = size
    scale = 0.9 * min(height, width / 3) / 256
    errors = []
    for left in (0, width - 256 * scale):
        shift = left - 30 * scale, (height - 256 * scale) / 2 - 30 * scale
        # warpAffine counts from the centers of pixels.
        matrix = np.array([[scale, 0, shift[0] + scale / 2 - 0.5], [0, scale, shift[1]]])
        matrix[1, 2] += scale / 2 - 0.5
        face = cv2.warpAffine(
            drawn_faces()[:290, :290], matrix, size, borderMode=cv2.BORDER_REPLICATE
        )
        found = detector.detect(face.astype(np.uint8))
        assert len(found) == 1 and found.landmarks is not None
        errors.append((found.landmarks[0] - drawn_landmarks()[0] * scale - shift).mean(axis=0))
    drift = np.abs(errors[1] - errors[0]) * plan_views(*size, 640, 640).views[0].scales
    assert drift.max() < 0.5


@pytest.mark.parametrize("reduction", [1, 2, 8])
@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("size", [(1999, 1333), (723, 2561)], ids=str)
def test_cameras_that_are_turned(size: tuple[int, int], rotation: int, reduction: int) -> None:
    boxes = spots_along(size)
    encoded = cv2.imencode(".jpg", draw_spots(size, boxes), [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
    side = 32 * (max(size) // reduction // 32)
    message = SimpleNamespace(format="jpeg", data=encoded.tobytes())
    decoded = decode_message(message, rotation, (side, side))
    assert decoded.reduction == reduction
    decoded.image[decoded.image <= 3] = 0
    turned = decoded.upright
    found = detector_of(SpotNetwork(), nms_threshold=1).detect(turned)
    whole = decoded.restore(decoded.enlarge(found))
    scales = plan_views(turned.shape[1], turned.shape[0], 640, 640).views[0].scales
    pixel = np.array(scales[::-1] if rotation % 180 else scales) / reduction
    expected = np.array(boxes, np.float32)
    rows = np.abs(whole.boxes[:, None] - expected).max(axis=2).argmin(axis=1)
    assert sorted(rows) == list(range(len(boxes)))
    assert (np.abs(whole.boxes - expected[rows]) * np.tile(pixel, 2)).max() < 0.5
