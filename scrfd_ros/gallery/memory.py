# SPDX-License-Identifier: Apache-2.0
"""Looks at faces in memory: the best ones are kept, and overwritten when they are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from scrfd_ros.gallery.people import Look

_TURNED = 15.0  # degrees from which a head is another pose than from the front


def keep_best(looks: Sequence[Look], count: int) -> tuple[Look, ...]:
    """The best looks at a face, spread over poses.

    While there are too many, the worst look of the most frequent pose goes, and is overwritten.
    Poses are the nine combinations of left, middle, right and up, middle, down.

    Args:
        looks: at one face.
        count: of looks to keep.
    """
    kept = list(looks)
    while len(kept) > count:
        frequent = Counter(map(_pose, kept))
        worst = min(kept, key=lambda look: (-frequent[_pose(look)], look.quality))
        kept = [look for look in kept if look is not worst]
        wipe([worst])
    return tuple(kept)


def copies(looks: Iterable[Look]) -> list[Look]:
    """Looks with arrays of their own, which stay when the others are wiped."""
    return [
        look._replace(
            embedding=look.embedding.copy(), crop=None if look.crop is None else look.crop.copy()
        )
        for look in looks
    ]


def wipe(looks: Iterable[Look]) -> None:
    """Overwrite what faces look like."""
    for look in looks:
        look.embedding[:] = 0
        if look.crop is not None:
            look.crop[:] = 0


def _pose(look: Look) -> tuple[int, int]:
    yaw, pitch = ((angle > _TURNED) - (angle < -_TURNED) for angle in (look.yaw, look.pitch))
    return yaw, pitch
