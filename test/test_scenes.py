# SPDX-License-Identifier: Apache-2.0
"""The clips are the same every time, and people are where they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pipelines import loaded
from scenes import SCENES, film

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.faces import ious

Image = Callable[[str], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def detector(detector_path: Callable[[str], Path]) -> Scrfd:
    return loaded(detector_path("500m"), input_size="auto").detector


@pytest.mark.parametrize("name", ["bodies", "enter", "fast", "turn", "cross", "noise", "pan"])
def test_people_are_where_the_clip_says(name: str, image: Image, detector: Scrfd) -> None:
    found = total = 0
    for frame in film(SCENES[name], image, 12, rate=1):
        faces = detector.detect(frame.image)
        boxes = np.array(list(frame.boxes.values()), np.float32).reshape(-1, 4)
        found += int((ious(boxes, faces.boxes).max(axis=1, initial=0) > 0.4).sum())
        total += len(boxes)
    assert total >= 12 and found >= 0.85 * total


def test_a_clip_is_the_same_every_time(image: Image) -> None:
    once, again = (list(film(SCENES["enter"], image, 3, rate=2)) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.boxes.keys() == other.boxes.keys()


def test_nobody_is_in_the_empty_room_and_in_the_dark(image: Image, detector: Scrfd) -> None:
    for frame in film(SCENES["empty"], image, 2, rate=1):
        assert not len(detector.detect(frame.image))
    frames = [frame for frame in film(SCENES["lights"], image, 4, rate=1) if frame.time == 3]
    assert not any(len(detector.detect(frame.image)) for frame in frames)
