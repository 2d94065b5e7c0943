# SPDX-License-Identifier: Apache-2.0
"""People are enrolled from bags, by track."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bag_files import Entry, raw, text, write_bag
from numpy.typing import NDArray
from portraits import small

from scrfd_ros.enrollment.bags import is_bag, tracks_in
from scrfd_ros.errors import ScrfdError
from scrfd_ros.pipeline import FacePipeline

Image = NDArray[np.uint8]

START = 1_700_000_000_000_000_000
TOPIC = "/camera/image_raw"


def clip(images: list[Image], period: float = 0.25, topic: str = TOPIC) -> list[Entry]:
    return [raw(topic, START + round(n * period * 1e9), each) for n, each in enumerate(images)]


def test_looks_at_each_track_with_its_times(
    pipeline: FacePipeline, image: Callable[[str], Image], tmp_path: Path
) -> None:
    biden, obama = small(image("biden.jpg")), small(image("obama.jpg"))
    nobody = np.full_like(biden, 90)
    images = [biden] * 5 + [nobody] * 12 + [obama] * 3
    bag = write_bag(tmp_path / "bag", [*clip(images), text("/rosout", START)])
    first, second = tracks_in(bag, pipeline)
    assert (first.start, first.end) == (0, 1)
    assert (second.start, second.end) == (4.25, 4.75)
    assert len(first.looks) == 5 and {each.source for each in first.looks} == {"bag"}
    qualities = [each.quality for each in first.looks]
    assert qualities == sorted(qualities, reverse=True)
    assert first.looks[0].embedding @ second.looks[0].embedding < 0.3


def test_bags_that_cannot_be_used(
    pipeline: FacePipeline, image: Callable[[str], Image], tmp_path: Path
) -> None:
    biden = small(image("biden.jpg"))
    bag = write_bag(tmp_path / "bag", clip([biden]) + clip([biden], topic="/rear/image_raw"))
    with pytest.raises(ScrfdError, match=f"several topics; choose one by --topic: {TOPIC}, /rear"):
        tracks_in(bag, pipeline)
    assert len(tracks_in(bag, pipeline, TOPIC)) == 1
    with pytest.raises(ScrfdError, match="/front"):
        tracks_in(bag, pipeline, "/front")
    bag = write_bag(tmp_path / "empty", clip([np.full_like(biden, 90)]))
    assert tracks_in(bag, pipeline) == []


def test_bags_are_told_from_folders_of_images(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [text("/rosout", START)])
    assert is_bag(bag) and is_bag(next(bag.glob("*.db3"))) and is_bag(Path("nothing.mcap"))
    assert not is_bag(tmp_path) and not is_bag(Path("image.png"))
