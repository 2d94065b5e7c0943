# SPDX-License-Identifier: Apache-2.0
"""Where to look in the next image: everywhere in time, and where something changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.tracking.watch import Expected, Glance, Watch

WIDTH, HEIGHT = 640, 360
PERIOD = 0.5
RATE = 30


def wall(seed: int = 0, width: int = WIDTH) -> NDArray[np.uint8]:
    """A wall with some texture."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(60, 200, (12, width // 30, 3)).astype(np.float32)
    return (
        cv2.resize(coarse, (width, HEIGHT), interpolation=cv2.INTER_CUBIC)
        .clip(0, 255)
        .astype(np.uint8)
    )


def expect(*boxes: Sequence[float], unseen: float = 0.0, is_current: bool = True) -> Expected:
    count = len(boxes)
    return Expected(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, unseen),
        np.full(count, is_current),
    )


SOMEBODY = expect((300, 100, 340, 150))


def look(
    watch: Watch,
    image: NDArray[np.uint8],
    time: float,
    expected: Expected = SOMEBODY,
    epoch: int = 0,
    period: float = PERIOD,
) -> Glance:
    found = watch.look(image, time, epoch, expected, period)
    watch.commit(found)
    return found


def holds(found: Glance, box: Sequence[float]) -> bool:
    """Whether a box is looked at as a whole."""
    return found.parts is None or any(
        part.box[0] <= box[0]
        and part.box[1] <= box[1]
        and part.box[2] >= box[2]
        and part.box[3] >= box[3]
        for part in found.parts
    )


def test_only_around_the_face_while_nothing_changes() -> None:
    watch, image = Watch(), wall()
    assert look(watch, image, 0.0).parts is None
    for number in range(1, 10):
        (part,) = look(watch, image, number / RATE).parts or ()
        assert part.box[0] < 290 and part.box[1] < 90 and part.box[2] > 350 and part.box[3] > 160
        assert part.face == 50


@pytest.mark.parametrize("period", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("rate", [7.0, 15.0, 29.97, 60.0])
def test_everywhere_once_in_a_period(period: float, rate: float) -> None:
    """Whenever somebody comes, the next look everywhere is at most a period later."""
    watch, image = Watch(), wall()
    times = [number / rate for number in range(round(4 * rate))]
    whole = [time for time in times if look(watch, image, time, period=period).parts is None]
    for before, time in pairwise(whole):
        first_unseen = before + 1 / rate
        assert time - first_unseen <= period + 1e-9
        assert time - before >= period - 1e-9


def test_everywhere_if_nobody_is_tracked() -> None:
    watch, image = Watch(), wall()
    for number in range(5):
        assert look(watch, image, number / RATE, expect()).parts is None
        lost = expect((0, 0, 50, 50), unseen=0.3, is_current=False)
        assert look(watch, image, number / RATE, lost).parts is None


def test_everywhere_in_a_new_epoch_and_an_image_of_another_shape() -> None:
    watch, image = Watch(), wall()
    look(watch, image, 0.0)
    assert look(watch, image, 0.1).parts
    assert look(watch, image, 0.0, epoch=1).parts is None
    assert look(watch, image[:, :480], 0.1, epoch=1).parts is None
    assert look(watch, image[:, :480], 0.2, epoch=1).parts


def test_what_was_not_committed_is_forgotten() -> None:
    watch, image = Watch(), wall()
    look(watch, image, 0.0)
    assert watch.look(image, 10.0, 0, SOMEBODY, PERIOD).parts is None
    assert watch.look(image, 0.1, 0, SOMEBODY, PERIOD).parts
    changed = image.copy()
    changed[200:260, 500:560] = 255 - changed[200:260, 500:560]
    for _ in range(2):
        assert holds(watch.look(changed, 0.2, 0, SOMEBODY, PERIOD), (500, 200, 560, 260))
    found = look(watch, changed, 0.2)
    assert not holds(watch.look(changed, 0.3, 0, SOMEBODY, PERIOD), (500, 200, 560, 260))
    watch.commit(found.everywhere())
    assert watch.look(changed, 0.2 + PERIOD - 0.01, 0, SOMEBODY, PERIOD).parts


@pytest.mark.parametrize("seed", range(12))
def test_whoever_comes_in_is_looked_at(seed: int) -> None:
    """A face-sized thing of another color appears at any place and time."""
    random = np.random.default_rng(seed)
    watch, image = Watch(), wall(seed)
    noise = random.normal(0, 5, (HEIGHT, WIDTH, 3))
    look(watch, image, 0.0)
    comes = int(random.integers(1, 12))
    side = int(random.integers(24, 80))
    x, y = int(random.integers(0, 200)), int(random.integers(0, HEIGHT - side))
    for number in range(1, comes + 1):
        now = image.astype(np.float64)
        if number == comes:
            now[y : y + side, x : x + side] = 255 - now[y : y + side, x : x + side].mean(
                axis=(0, 1)
            )
        now += np.roll(noise, 17 * number, axis=1)
        found = look(watch, now.clip(0, 255).astype(np.uint8), number / RATE)
        assert found.parts is not None
        if number < comes:
            assert len(found.parts) == 1
    assert holds(found, (x, y, x + side, y + side))


def test_a_body_below_a_face_is_nobody_new() -> None:
    watch, image = Watch(), wall()
    look(watch, image, 0.0)
    for number in range(1, 10):
        now = image.copy()
        now[150:, 280 + 3 * number : 360 + 3 * number] = 20 * number
        face = expect((300 + 3 * number, 100, 340 + 3 * number, 150))
        assert len(look(watch, now, number / RATE, face).parts or ()) == 1


@pytest.mark.parametrize("gain", [0.6, 0.9, 1.2])
def test_another_light_is_nobody_new(gain: float) -> None:
    watch, image = Watch(), wall()
    look(watch, image, 0.0)
    now = np.clip(image * gain, 0, 255).astype(np.uint8)
    assert len(look(watch, now, 0.1).parts or ()) == 1


@pytest.mark.parametrize("step", [-12, -5, 5, 12])
def test_where_the_camera_turns_to_is_looked_at(step: int) -> None:
    """What comes into the image is looked at until it is wholly there; what was there is not."""
    wide = wall(5, 3 * WIDTH)
    wide = cv2.add(wide, np.random.default_rng(5).integers(0, 40, wide.shape, np.uint8))
    watch = Watch()
    looked = np.zeros(3 * WIDTH)
    for number in range(12):
        start = WIDTH + step * number
        found = look(watch, np.ascontiguousarray(wide[:, start : start + WIDTH]), number / RATE)
        parts = (
            ((0, 0, WIDTH, HEIGHT),) if found.parts is None else [p.box for p in found.parts[1:]]
        )
        assert (found.parts is None) == (number == 0)
        for x1, y1, x2, y2 in parts:
            if y1 <= 0 and y2 >= HEIGHT:
                looked[start + round(x1) : start + round(x2)] += 1
    came = slice(WIDTH + 11 * step, WIDTH) if step < 0 else slice(2 * WIDTH, 2 * WIDTH + 11 * step)
    inner = looked[came][30:] if step < 0 else looked[came][:-30]  # a few cells are no turn
    assert inner.min() >= 1
    assert looked[2 * WIDTH - 400 if step < 0 else WIDTH + 400] == 1


def test_a_face_that_was_lost_is_looked_for_farther_away_and_coarser() -> None:
    watch, image = Watch(), wall()
    seen, lost = (300, 100, 340, 150), (100, 100, 140, 150)
    both = Expected(
        np.array((seen, lost), np.float32), np.array((0.03, 1.0)), np.array((True, False))
    )
    look(watch, image, 0.0, both)
    first, second = look(watch, image, 0.1, both).parts or ()
    assert second.box[2] - second.box[0] > 1.3 * (first.box[2] - first.box[0])
    assert second.face > 1.2 * first.face


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (7, 5), (64, 64)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    watch = Watch()
    image = np.zeros((*size, 3), np.uint8)
    look(watch, image, 0.0)
    for number in range(1, 4):
        assert look(watch, image + 200 * (number % 2), number / RATE).parts
