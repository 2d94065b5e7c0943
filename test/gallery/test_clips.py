# SPDX-License-Identifier: Apache-2.0
"""Real faces that pass each other: who is enrolled gets a name soon, who is not gets none.

A sample of what bench/identity.py measures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from clips import people_passing
from naming import Naming
from numpy.typing import NDArray
from pipelines import loaded

from scrfd_ros.config import GalleryConfig


def test_people_who_pass_are_named_and_strangers_are_not(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    pipeline = loaded(detector_path("500m"), recognizer_path("w600k_mbf"), input_size="auto")
    naming = Naming(pipeline, image)
    frames = list(people_passing(image, 3.0, rate=10))
    outcome = naming.run(frames, set("abdfh"), tmp_path / "people.db", GalleryConfig())
    assert outcome.people.keys() == set("abcdefgh")
    assert not any(seen.wrong for seen in outcome.people.values())
    for name in "abdfh":
        (delay, *_) = outcome.people[name].delays
        assert delay is not None and delay < 1, name
    strangers = [outcome.people[name].strangers for name in "ceg"]
    assert [len(ids) for ids in strangers] == [1, 1, 1]
    assert len(set.union(*strangers)) == 3
    assert outcome.embedded < 8 * (5 + 3 + 3)  # of 230 faces: five looks each, more in overlaps
