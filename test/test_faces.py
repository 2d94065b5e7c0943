# SPDX-License-Identifier: Apache-2.0
"""`Faces` refuses arrays that do not fit each other, and returns its values unchanged."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from scrfd_ros.faces import Faces, boxes_around, ious, stacked_embeddings


def arrays(count: int, **changes: Any) -> dict[str, Any]:
    """Arguments for `count` faces with everything, some of them changed."""
    random = np.random.default_rng(0)
    return {
        "boxes": random.random((count, 4), np.float32),
        "scores": random.random(count, np.float32),
        "landmarks": random.random((count, 5, 2), np.float32),
        "embeddings": random.random((count, 512), np.float32),
        "embedding_norms": random.random(count, np.float32),
        **changes,
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_takes_any_number_of_faces(count: int) -> None:
    assert len(Faces(**arrays(count))) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"boxes": np.zeros((2, 4), np.float32)},
            r"boxes must be float32 \[3, 4\], got float32 \[2, 4\]",
            id="fewer boxes than scores",
        ),
        pytest.param(
            {"boxes": np.zeros((3, 5), np.float32)},
            r"boxes must be float32 \[3, 4\], got float32 \[3, 5\]",
            id="boxes with the score in them",
        ),
        pytest.param(
            {"boxes": np.zeros((3, 4))}, r"boxes must be float32 .* got float64", id="double boxes"
        ),
        pytest.param(
            {"scores": np.zeros((3, 1), np.float32)},
            r"scores must be float32 \[any\], got float32 \[3, 1\]",
            id="scores in a column",
        ),
        pytest.param(
            {"landmarks": np.zeros((3, 10), np.float32)},
            r"landmarks must be float32 \[3, 5, 2\]",
            id="flat landmarks",
        ),
        pytest.param(
            {"landmarks": None, "embedding_norms": np.zeros((3, 1), np.float32)},
            r"embedding_norms must be float32 \[3\], got float32 \[3, 1\]",
            id="something after what is not there",
        ),
        pytest.param(
            {"embeddings": np.zeros(512, np.float32)},
            r"embeddings must be float32 \[3, any\]",
            id="one embedding for three faces",
        ),
        pytest.param(
            {"embedding_norms": np.zeros(2, np.float32)},
            r"embedding_norms must be float32 \[3\]",
            id="fewer norms",
        ),
        pytest.param({"embedding_norms": None}, "given together", id="embeddings without norms"),
        pytest.param({"embeddings": None}, "given together", id="norms without embeddings"),
    ],
)
def test_refuses_arrays_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Faces(**arrays(3, **changes))


def test_centers_and_sizes_give_the_boxes_back() -> None:
    boxes = np.array([[10, 20, 40, 100], [-5, 0, 5.5, 1]], np.float32)
    faces = Faces(boxes, np.ones(2, np.float32))
    np.testing.assert_array_equal(faces.centers, [[25, 60], [0.25, 0.5]])
    np.testing.assert_array_equal(faces.sizes, [[30, 80], [10.5, 1]])
    np.testing.assert_array_equal(boxes_around(faces.centers, faces.sizes), boxes)
    assert boxes_around(faces.centers, faces.sizes).dtype == np.float32


def test_with_embeddings_keeps_the_rest() -> None:
    everything = arrays(2)
    faces = Faces(everything["boxes"], everything["scores"], everything["landmarks"])
    embedded = faces.with_embeddings(everything["embeddings"], everything["embedding_norms"])
    for name, array in everything.items():
        assert getattr(embedded, name) is array
    assert faces.embeddings is None


def test_json_holds_every_value() -> None:
    everything = arrays(2)
    rows = json.loads(json.dumps(Faces(**everything).as_json()))
    assert [list(row) for row in rows] == [["score", "box", "landmarks", "embedding"]] * 2
    for key, name in (
        ("score", "scores"),
        ("box", "boxes"),
        ("landmarks", "landmarks"),
        ("embedding", "embeddings"),
    ):
        np.testing.assert_array_equal(
            np.array([row[key] for row in rows], np.float32), everything[name]
        )


def test_json_has_empty_lists_for_what_was_not_computed() -> None:
    everything = arrays(1)
    (row,) = Faces(everything["boxes"], everything["scores"]).as_json()
    assert row["landmarks"] == row["embedding"] == []


def test_json_begins_with_the_id_of_a_tracked_face() -> None:
    rows = Faces(**arrays(2, ids=np.array([7, 3], np.int64))).as_json()
    assert [next(iter(row)) for row in rows] == ["id", "id"]
    assert [row["id"] for row in rows] == [7, 3]


def test_json_has_no_embedding_for_a_face_that_was_not_embedded() -> None:
    one, other = Faces(**arrays(2, embedding_norms=np.array([0, 5], np.float32))).as_json()
    assert one["embedding"] == []
    assert len(other["embedding"]) == 512


def test_embeddings_are_stacked_with_zeros_where_there_is_none() -> None:
    stacked = stacked_embeddings([[], [1.0, 2.0], [], [3.0, 4.0]])
    assert stacked is not None and stacked.dtype == np.float32
    np.testing.assert_array_equal(stacked, [[0, 0], [1, 2], [0, 0], [3, 4]])
    np.testing.assert_array_equal(stacked_embeddings([[5.0], []]), [[5], [0]])


@pytest.mark.parametrize("embeddings", [[], [[]], [[], []]])
def test_nothing_to_stack(embeddings: list[list[float]]) -> None:
    assert stacked_embeddings(embeddings) is None


def test_embeddings_of_several_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="embeddings of 3 and of 2 numbers"):
        stacked_embeddings([[1.0, 2.0], [1.0, 2.0, 3.0]])


def test_iou_of_every_pair() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [3, 3, 3, 3]], np.float32)
    others = np.array([[0, 0, 10, 10], [3, 3, 3, 3]], np.float32)
    # The IoU of two boxes without an area is 0 instead of NaN.
    np.testing.assert_allclose(ious(boxes, others), [[1, 0], [1 / 3, 0], [0, 0]], rtol=1e-6)
    assert ious(boxes, others[:0]).shape == (3, 0)
