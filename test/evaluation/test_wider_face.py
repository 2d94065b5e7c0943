# SPDX-License-Identifier: Apache-2.0
"""Ground truth, images and detections of WIDER FACE are read exactly, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from wider_face_files import annotated, cells, write_ground_truth, write_submission

from scrfd_ros.errors import ScrfdError
from scrfd_ros.evaluation.wider_face import (
    GROUND_TRUTH,
    AnnotatedImage,
    find_ground_truth,
    find_images,
    read_detections,
    read_ground_truth,
)
from scrfd_ros.evaluation.wider_face_ap import published_figures
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue

IMAGES = [
    annotated(
        [(1, 2, 3, 4), (5, 6, 70, 80)],
        {"easy": [], "medium": [1], "hard": [0, 1]},
        "0--Parade/0_Parade_1",
    ),
    annotated([], name="0--Parade/0_Parade_2"),
    annotated([(9, 9, 20, 20)], name="1--Handshaking/1_Handshaking_1"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_ground_truth(tmp_path, IMAGES)
    return tmp_path


def check_same(images: Sequence[AnnotatedImage]) -> None:
    assert [(each.event, each.name) for each in images] == [
        (each.event, each.name) for each in IMAGES
    ]
    for read, written in zip(images, IMAGES, strict=True):
        assert read.boxes.dtype == np.float64 and np.array_equal(read.boxes, written.boxes)
        assert read.counted.dtype == np.bool_ and np.array_equal(read.counted, written.counted)


def test_ground_truth(folder: Path) -> None:
    check_same(read_ground_truth(folder))


@pytest.mark.parametrize("place", [".", "ground_truth", "eval_tools/ground_truth"])
def test_ground_truth_is_found(tmp_path: Path, place: str) -> None:
    write_ground_truth(tmp_path / place, IMAGES)
    assert find_ground_truth(tmp_path) == tmp_path / place


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match=r"nowhere: no such folder; expected the one that holds"):
        find_ground_truth(tmp_path / "nowhere")


def test_a_part_of_the_ground_truth(folder: Path) -> None:
    (folder / "wider_easy_val.mat").unlink()
    with pytest.raises(ScrfdError, match=r"lacks wider_easy_val\.mat of the ground truth"):
        find_ground_truth(folder)


@pytest.mark.parametrize("name", GROUND_TRUTH)
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_a_file_of_the_ground_truth_that_was_cut_off(folder: Path, name: str, keep: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ScrfdError, match=f"{name}: damaged, or not of the ground truth"):
        read_ground_truth(folder)


def test_a_wrong_bit_in_the_ground_truth(folder: Path) -> None:
    random = np.random.default_rng(0)
    refused = 0
    path = folder / "wider_hard_val.mat"
    content = path.read_bytes()
    for position in random.integers(128, len(content), 60):  # a comment precedes it
        changed = bytearray(content)
        changed[position] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            check_same(read_ground_truth(folder))  # a few bits are unused
        except ScrfdError as error:
            assert "wider_hard_val.mat: damaged" in str(error)
            refused += 1
    assert refused > 50


def replace(name: str, **variables: object) -> Callable[[Path], object]:
    return lambda folder: savemat(folder / name, variables, do_compression=True)


def rows(*values: list[int]) -> object:
    """The variable gt_list for `IMAGES`."""
    first, second, third = (np.array(value, np.uint8).reshape(-1, 1) for value in values)
    return cells([cells([first, second]), cells([third])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda folder: (folder / "wider_easy_val.mat").unlink(),
            "wider_easy_val.mat: cannot read",
            id="missing",
        ),
        pytest.param(
            lambda folder: (folder / "wider_face_val.mat").write_text("event_list"),
            "wider_face_val.mat: damaged",
            id="text",
        ),
        pytest.param(
            replace("wider_hard_val.mat", gt_list=np.zeros((140_000_000, 1), np.uint8)),
            "wider_hard_val.mat: damaged, or not .* more than 134,217,728 bytes",
            id="unpacks to more than memory",
        ),
        pytest.param(
            replace("wider_hard_val.mat", other=1),
            "wider_hard_val.mat: damaged, or not .* KeyError: 'gt_list'",
            id="another variable",
        ),
        pytest.param(
            replace("wider_hard_val.mat", gt_list=np.zeros((3, 1))),
            r"wider_hard_val.mat: damaged, .* expected a column of cells, found float64 \[3, 1\]",
            id="no cells",
        ),
        pytest.param(
            replace("wider_hard_val.mat", gt_list=cells([cells([np.ones((1, 1))])])),
            "wider_hard_val.mat: has 1 images, expected 3",
            id="fewer images",
        ),
        pytest.param(
            replace("wider_easy_val.mat", gt_list=rows([3], [], [1])),
            "wider_easy_val.mat: 0--Parade/0_Parade_1 lists faces that it does not have",
            id="a third face of two",
        ),
        pytest.param(
            replace("wider_easy_val.mat", gt_list=rows([0], [], [1])),
            "wider_easy_val.mat: 0--Parade/0_Parade_1 lists faces that it does not have",
            id="a face before the first",
        ),
        pytest.param(
            lambda folder: write_ground_truth(folder, [annotated([], name="../0_Parade_1")]),
            "not an event and the name of an image",
            id="a way out of the folder",
        ),
    ],
)
def test_refuses_ground_truth(folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(folder)
    with pytest.raises(ScrfdError, match=message):
        read_ground_truth(folder)


def test_missing_images(tmp_path: Path) -> None:
    images = tmp_path / "WIDER_val" / "images"
    with pytest.raises(ScrfdError, match=r"no images; expected them in .*/images/0--Parade"):
        find_images(tmp_path, IMAGES)
    (images / "0--Parade").mkdir(parents=True)
    (images / "0--Parade" / "0_Parade_2.jpg").touch()
    with pytest.raises(ScrfdError) as caught:
        find_images(tmp_path, IMAGES)
    assert (
        "lacks 2 of the 3 images: 0--Parade/0_Parade_1.jpg, 1--Handshaking/1_Handshaking_1.jpg;"
    ) in str(caught.value)
    many = [annotated([], name=f"0--Parade/{number}") for number in range(9)]
    with pytest.raises(
        ScrfdError, match=r"lacks 9 of the 9 .*/0\.jpg, .*/1\.jpg, .*/2\.jpg, \.\.\."
    ):
        find_images(tmp_path, many)


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    """Detections of `IMAGES`: two, none and one."""
    folder = tmp_path / "detections"
    found = [[(1, 2, 3, 4, 0.25), (5, 6, 7, 8, 0.75)], [], [(9.5, 10, 11, 12, 1.0)]]
    arrays = [np.array(each, np.float64).reshape(-1, 5) for each in found]
    write_submission(folder, IMAGES, arrays)
    return folder


def test_detections(detections: Path) -> None:
    (detections / "settings.json").touch()
    (detections / "0--Parade" / ".0_Parade_1.txt.1.part").touch()
    read = read_detections(detections, IMAGES)
    assert [each.tolist() for each in read] == [
        [[1, 2, 3, 4, 0.25], [5, 6, 7, 8, 0.75]],
        [],
        [[9.5, 10, 11, 12, 1]],
    ]
    assert all(each.shape[1] == 5 for each in read)


def test_detections_of_unknown_and_of_missing_images(detections: Path) -> None:
    file = detections / "0--Parade" / "0_Parade_1.txt"
    file.rename(detections / "0--Parade" / "0_Parade_7.txt")
    with pytest.raises(ScrfdError, match=r"has detections of 1 images that .*/0_Parade_7.txt"):
        read_detections(detections, IMAGES)
    (detections / "0--Parade" / "0_Parade_7.txt").unlink()
    with pytest.raises(ScrfdError, match=r"lacks the detections of 1 images: .*/0_Parade_1.txt"):
        read_detections(detections, IMAGES)
    with pytest.raises(ScrfdError, match=r"no such folder; expected one with EVENT/NAME.txt in it"):
        read_detections(detections / "nowhere", IMAGES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 2: expected the number of detections, found ''"),
        ("name\n", r"line 2: expected the number of detections, found ''"),
        ("name\nmany\n", r"line 2: expected the number of detections, found 'many'"),
        ("name\n-1\n", r"line 2: expected the number of detections, found '-1'"),
        ("name\n2\n1 2 3 4 0.5\n", r"line 2: 2 detections, but 1 lines follow"),
        ("name\n0\n1 2 3 4 0.5\n", r"line 2: 0 detections, but 1 lines follow"),
        ("name\n2\n1 2 3 4 0.5\n1 2 3 4\n", r"line 4: expected x, y, .*, found '1 2 3 4'"),
        ("name\n1\n1 2 3 4 5 6\n", r"line 3: expected x, y, width, height and score"),
        ("name\n1\n1,2,3,4,5\n", r"line 3: expected x, y, width, height and score"),
        ("name\n1\n1 2 3 4 nan\n", r"line 3: expected x, y, width, height and score"),
        ("name\n1\n1 2 3 inf 0.5\n", r"line 3: expected x, y, width, height and score"),
        ("name\n2\n\n1 2 3 4 0.5\n", r"line 3: expected x, y, .*, found ''"),
        ("name\n1\n\udcff 2 3 4 5\n", r"not a text file"),
    ],
)
def test_malformed_detections(detections: Path, text: str, message: str) -> None:
    file = detections / "1--Handshaking" / "1_Handshaking_1.txt"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ScrfdError, match=message) as caught:
        read_detections(detections, IMAGES)
    assert str(caught.value).startswith(str(file))


def test_detections_of_windows_with_spare_lines(detections: Path) -> None:
    file = detections / "1--Handshaking" / "1_Handshaking_1.txt"
    file.write_bytes(b"name\r\n1\r\n 1  2 3 4 0.5 \r\n\r\n")
    assert read_detections(detections, IMAGES)[2].tolist() == [[1, 2, 3, 4, 0.5]]


def test_published_figures() -> None:
    assert published_figures("scrfd_10g_bnkps") == pytest.approx(
        {"easy": 0.954, "medium": 0.9401, "hard": 0.828}
    )
    for name in load_catalogue().names(DETECTOR):
        file = load_catalogue().models[name].file
        assert bool(published_figures(file.removesuffix(".onnx"))) == (name != "det_500m")
    assert published_figures("my_own") == {}
