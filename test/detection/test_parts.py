# SPDX-License-Identifier: Apache-2.0
"""Parts of an image on one small input, and the faces found in them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from canvases import Canvas
from numpy.typing import NDArray
from pipelines import loaded
from spots import SpotNetwork, draw_spots

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.parts import CANVASES, PART_FACE, Part, plan_parts
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import View, plan_views
from scrfd_ros.faces import ious

WHOLE = plan_views(1280, 720, 640, 640, step=32)


def random_parts(random: np.random.Generator, count: int) -> list[Part]:
    sizes = random.uniform(10, 200, count)
    corners = random.uniform(-100, (1280, 720), (count, 2))
    return [
        Part((x, y, x + 2 * size, y + 2 * size), size)
        for (x, y), size in zip(corners.tolist(), sizes.tolist(), strict=True)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_every_part_is_seen_once_or_more_on_a_canvas_without_overlaps(seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = random_parts(random, int(random.integers(1, 9)))
    plan = plan_parts(1280, 720, parts, WHOLE)
    if plan is None:
        return
    assert plan.size in CANVASES and plan.pixels <= 0.6 * WHOLE.pixels
    for view in plan.views:
        x, y, width, height = view.target
        assert x >= 0 and x + width <= plan.size[0] and y >= 0 and y + height <= plan.size[1]
        x, y, width, height = view.source
        assert x >= 0 and x + width <= 1280 and y >= 0 and y + height <= 720
        assert max(view.scales) <= WHOLE.scale * 1.05
    for one, other in combinations(plan.views, 2):
        assert not overlap(one, other)
    for part in parts:
        x1, y1, x2, y2 = np.clip(part.box, 0, (1280, 720) * 2)
        if x2 <= x1 or y2 <= y1:
            continue
        holding = [
            view
            for view in plan.views
            if view.source[0] <= x1
            and view.source[1] <= y1
            and view.source[0] + view.source[2] >= x2
            and view.source[1] + view.source[3] >= y2
        ]
        assert holding
        # A face of the size that is expected is large enough there.
        expected = min(part.face * WHOLE.scale, PART_FACE)
        assert max(part.face * max(view.scales) for view in holding) >= 0.95 * expected


def overlap(one: View, other: View) -> bool:
    """Whether two views are less than their gap apart on the input."""
    (x1, y1, width1, height1), (x2, y2, width2, height2) = one.target, other.target
    across = min(x1 + width1, x2 + width2) - max(x1, x2) > -one.gap
    down = min(y1 + height1, y2 + height2) - max(y1, y2) > -one.gap
    return across and down


def test_the_number_of_parts_of_an_image_is_open() -> None:
    assert plan_parts(1280, 720, [], WHOLE) is None
    assert plan_parts(1280, 720, [Part((-90, 0, -10, 50))], WHOLE) is None
    assert plan_parts(1280, 720, [Part((0, 0, 1280, 720))], WHOLE) is None
    plan = plan_parts(1280, 720, [Part((0, 0, 100, 100), 40)] * 500, WHOLE)
    assert plan is not None and len(plan.views) == 1


@pytest.mark.parametrize("seed", range(10))
def test_inputs_of_networks_with_coarser_strides(seed: int) -> None:
    """Those with 10 or 15 outputs have strides up to 128."""
    parts = random_parts(np.random.default_rng(seed), 3)
    plan = plan_parts(1280, 720, parts, plan_views(1280, 720, 640, 640, step=128), 128)
    assert plan is not None
    assert plan.size[0] % 128 == plan.size[1] % 128 == 0


def test_a_large_face_is_reduced_and_a_small_one_is_not() -> None:
    large = plan_parts(1280, 720, [Part((0, 0, 600, 600), 300)], WHOLE)
    small = plan_parts(1280, 720, [Part((0, 0, 90, 90), 40)], WHOLE)
    assert large is not None and small is not None
    assert max(large.views[0].scales) == pytest.approx(PART_FACE / 300, rel=0.05)
    assert max(small.views[0].scales) == pytest.approx(0.5, rel=0.05)


def test_only_what_is_in_a_part_is_drawn() -> None:
    random = np.random.default_rng(1)
    image = random.integers(1, 256, (720, 1280, 3), np.uint8)
    plan = plan_parts(
        1280, 720, [Part((0, 0, 100, 100), 20), Part((900, 500, 1300, 800), 160)], WHOLE
    )
    assert plan is not None
    canvas = Canvas(*plan.size)
    canvas(image, [View(0, (0, 0, 1280, 720), (0, 0, *plan.size))])  # what was there before is gone
    drawn = canvas(image, plan.views)
    inside = np.zeros(plan.size[::-1], np.bool_)
    for view in plan.views:
        x, y, width, height = view.target
        inside[y : y + height, x : x + width] = True
        sx, sy, source_width, source_height = view.source
        part = image[sy : sy + source_height, sx : sx + source_width]
        means = part.mean(), drawn[y : y + height, x : x + width].mean()
        assert means[0] == pytest.approx(means[1], abs=3)
    assert drawn[inside].all() and not drawn[~inside].any()


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_exact_wherever_parts_lie(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = (random.permutation(4)[:3] * length / 4 for length in (1280, 720))
    sizes = random.uniform(40, 140, 3)
    boxes = np.stack((x, y, x + sizes, y + random.uniform(0.7, 1.2, 3) * sizes), axis=1) + 20
    spots = draw_spots((1280, 720), boxes.tolist())
    detector = Scrfd(SpotNetwork(), DetectorConfig(input_size="auto"))
    margins = random.uniform(0.2, 0.6, (3, 1)) * sizes[:, None] * (-1, -1, 1, 1)
    parts = list(map(Part, map(tuple, (boxes + margins).tolist()), sizes.tolist()))
    plan = plan_parts(1280, 720, parts, detector.plan(1280, 720))
    assert plan is not None
    (found,) = detector.detect_all([spots], plans=[plan])
    order = np.argsort(found.centers[:, 0]), np.argsort(boxes[:, 0])
    np.testing.assert_allclose(found.boxes[order[0]], boxes[order[1]], atol=0.6)


def test_images_with_and_without_parts_in_one_call() -> None:
    detector = Scrfd(SpotNetwork(), DetectorConfig(input_size="auto"))
    boxes = [[100, 100, 180, 180], [800, 400, 900, 500]]
    spots = draw_spots((1280, 720), boxes)
    plan = plan_parts(1280, 720, [Part((60, 60, 220, 220), 80)], detector.plan(1280, 720))
    found = detector.detect_all([spots, spots, spots], plans=[None, plan, None])
    assert [len(faces) for faces in found] == [2, 1, 2]
    np.testing.assert_allclose(found[1].boxes, boxes[:1], atol=0.6)


@pytest.fixture(scope="module")
def free_detector(detector_path: Callable[[str], Path]) -> Scrfd:
    return loaded(detector_path("2.5g"), input_size="auto").detector


@pytest.mark.parametrize("seed", range(3))
def test_faces_of_parts_are_those_of_the_whole_image(
    seed: int,
    free_detector: Scrfd,
    image: Callable[[str], NDArray[np.uint8]],
) -> None:
    people = image("t1.jpg")
    height, width = people.shape[:2]
    whole = free_detector.detect(people)
    random = np.random.default_rng(seed)
    sizes = whole.sizes.max(axis=1)
    lows = whole.boxes[:, :2] - random.uniform(0.3, 0.6, (len(whole), 2)) * sizes[:, None]
    highs = whole.boxes[:, 2:] + random.uniform(0.3, 0.6, (len(whole), 2)) * sizes[:, None]
    boxes = np.hstack((lows, highs))
    parts = [Part(tuple(box), size) for box, size in zip(boxes.tolist(), sizes, strict=True)]
    plan = plan_parts(width, height, parts, free_detector.plan(width, height))
    assert plan is not None and plan.pixels < 0.4 * free_detector.plan(width, height).pixels
    (found,) = free_detector.detect_all([people], plans=[plan])
    assert len(found) == len(whole)
    assert found.landmarks is not None and whole.landmarks is not None
    overlaps = ious(whole.boxes, found.boxes)
    assert overlaps.max(axis=1).min() > 0.85
    apart = np.abs(found.landmarks[overlaps.argmax(axis=1)] - whole.landmarks)
    assert (apart.mean(axis=(1, 2)) < 0.03 * sizes).all()


def test_a_face_that_a_part_cuts_is_not_reported(
    free_detector: Scrfd, image: Callable[[str], NDArray[np.uint8]]
) -> None:
    people = image("t1.jpg")
    height, width = people.shape[:2]
    (x1, y1, x2, y2), *_ = free_detector.detect(people).boxes.tolist()
    for part in (
        (x1 - 90, y1 - 90, (x1 + x2) / 2, y2 + 90),
        ((x1 + x2) / 2, y1 - 90, x2 + 90, y2 + 90),
        (x1 - 90, y1 - 90, x2 + 90, (y1 + y2) / 2),
    ):
        plan = plan_parts(width, height, [Part(part, y2 - y1)], free_detector.plan(width, height))
        (found,) = free_detector.detect_all([people], plans=[plan])
        inside = [
            box
            for box in found.boxes.tolist()
            if ious(np.array([box], np.float32), np.array([[x1, y1, x2, y2]], np.float32)) > 0.2
        ]
        assert not inside
