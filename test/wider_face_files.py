# SPDX-License-Identifier: Apache-2.0
"""Write small sets in the form of WIDER FACE: images, ground truth, detections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from scrfd_ros.evaluation.wider_face import GROUND_TRUTH, SUBSETS, AnnotatedImage


def annotated(
    boxes: Sequence[Sequence[float]],
    counted: Mapping[str, Sequence[int]] | None = None,
    name: str = "0--Event/0_Event_1",
) -> AnnotatedImage:
    """An image with faces at `boxes`.

    Args:
        counted: rows of the faces in each subset; None for all in each.
        name: event and image.
    """
    flags = np.zeros((len(SUBSETS), len(boxes)), np.bool_)
    for number, subset in enumerate(SUBSETS):
        flags[number, range(len(boxes)) if counted is None else list(counted[subset])] = True
    event, _, image = name.partition("/")
    return AnnotatedImage(event, image, np.array(boxes, np.float64).reshape(-1, 4), flags)


def write_ground_truth(folder: Path, images: Sequence[AnnotatedImage]) -> None:
    """The four .mat files of these images, in the structure of the official ones."""
    folder.mkdir(parents=True, exist_ok=True)
    events: dict[str, list[AnnotatedImage]] = {}
    for image in images:
        events.setdefault(image.event, []).append(image)
    common = {
        "event_list": cells(events),
        "file_list": cells(cells(each.name for each in own) for own in events.values()),
        "face_bbx_list": cells(
            cells(each.boxes.astype(np.int32) for each in own) for own in events.values()
        ),
    }
    savemat(folder / GROUND_TRUTH[0], common, do_compression=True)
    for number, name in enumerate(GROUND_TRUTH[1:]):
        rows = cells(
            cells(1 + np.flatnonzero(each.counted[number])[:, None] for each in own)
            for own in events.values()
        )
        savemat(folder / name, {**common, "gt_list": rows}, do_compression=True)


def cells(values: Iterable[Any]) -> NDArray[np.object_]:
    """A column of MATLAB cells."""
    values = list(values)
    column = np.empty((len(values), 1), object)
    for row, value in enumerate(values):
        column[row, 0] = value
    return column


def write_submission(
    folder: Path,
    images: Sequence[AnnotatedImage],
    detections: Sequence[NDArray[np.float64]],
) -> None:
    """Detections, x, y, width, height, score, in the submission format."""
    for image, rows in zip(images, detections, strict=True):
        path = folder / image.event / f"{image.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(" ".join(map(repr, row)) + "\n" for row in rows.tolist())
        path.write_text(f"{image.event}/{image.name}.jpg\n{len(rows)}\n{lines}")
