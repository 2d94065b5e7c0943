# SPDX-License-Identifier: Apache-2.0
"""Detection, recognition and both for images in memory, by size, beside the other libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from peers.libraries import INSIGHTFACE, OURS, Library
from peers.pictures import FULL_HD, HD, UHD, VGA, six_people
from peers.timing import NetworkClock, in_turns

SIZES = (VGA, HD, FULL_HD, UHD)


def measure(
    clock: NetworkClock,
    sides: Mapping[str, Library],
    repeat: int,
    sizes: Sequence[str] = SIZES,
) -> dict[str, Any]:
    """Milliseconds by task, size and library, for six people. All libraries get `HD`."""
    found: dict[str, Any] = {"detection": {}, "recognition": {}, "end_to_end": {}}
    for size in sizes:
        image = six_people(size)
        names = sides if size == HD else (OURS, INSIGHTFACE)
        compared = {name: sides[name] for name in names}
        functions = {
            "detection": {name: partial(side.detect, image) for name, side in compared.items()},
            "end_to_end": {name: partial(side.analyze, image) for name, side in compared.items()},
        }
        for name, analyze in functions["end_to_end"].items():
            assert len(analyze()) == 6, f"{name} does not find the six faces in {size}"
        if size == HD:
            landmarks = sides[OURS].analyze(image).landmarks
            functions["recognition"] = {
                name: partial(side.recognize, image, landmarks) for name, side in compared.items()
            }
        if size == UHD:
            del functions["end_to_end"]
        for task, of_sides in functions.items():
            found[task][size] = in_turns(clock, of_sides, repeat, f"{task} {size}")
    return found
