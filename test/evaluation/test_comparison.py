# SPDX-License-Identifier: Apache-2.0
"""Differences between two set-ups are measured, located, and judged by the limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_files import jpeg, raw, text, write_bag
from numpy.typing import NDArray
from onnx_files import scrfd_outputs, write_detector, write_recognizer
from pipelines import loaded

from scrfd_ros.engines.agreement import LIMITS
from scrfd_ros.errors import ImageError, ModelError, ScrfdError
from scrfd_ros.evaluation.comparison import (
    compare_pipelines,
    compare_recognizers,
    open_images,
)
from scrfd_ros.images.files import read_image, write_image
from scrfd_ros.inference.load import load_network
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.recognition.arcface import ArcFace

Image = NDArray[np.uint8]
ModelPath = Callable[[str], Path]

BLACK = np.zeros((60, 80, 3), np.uint8)
LIMIT = LIMITS["fp32"]


@pytest.fixture(scope="module")
def people(image: Callable[[str], Image]) -> Image:
    """Two people."""
    return np.ascontiguousarray(image("t1.jpg")[:, :420])


@pytest.fixture
def load(detector_path: ModelPath, recognizer_path: ModelPath) -> Callable[..., FacePipeline]:
    def load(size: int = 640, recognizer: bool = False, score: float = 0.5) -> FacePipeline:
        return loaded(
            detector_path("500m"),
            recognizer_path("w600k_mbf") if recognizer else None,
            backend="onnxruntime",
            input_size=(size, size),
            score_threshold=score,
        )

    return load


def test_the_same_is_the_same(load: Callable[..., FacePipeline], people: Image) -> None:
    images = [("people.jpg", people), ("nobody.jpg", BLACK)]
    report = compare_pipelines(load(recognizer=True), load(recognizer=True), images, LIMIT)
    assert report.failures == report.different == ()
    values = {name: figure.value for name, figure in report.figures.items()}
    assert values.pop("min_cosine") == pytest.approx(1, abs=1e-6)
    assert values == {
        "faces": 2,
        "missed_faces": 0,
        "extra_faces": 0,
        "min_iou": 1,
        "max_score_difference": 0,
        "max_landmark_distance": 0,
    }
    assert report.images["nobody.jpg"] == {"missed_faces": 0, "extra_faces": 0, "faces": 0}


def test_another_input_size_is_measured_face_by_face(
    load: Callable[..., FacePipeline], people: Image, tmp_path: Path
) -> None:
    large, small = load(640, True), load(320, True)
    expected, found = large(people).faces, small(people).faces
    order = [
        int(np.abs(found.centers - center).sum(axis=1).argmin()) for center in expected.centers
    ]
    assert sorted(order) == [0, 1]
    images = [("nobody.jpg", BLACK), ("a/people.png", people)]
    report = compare_pipelines(large, small, images, LIMIT, tmp_path)
    assert report.different == ("a/people.png",)
    assert expected.embeddings is not None and found.embeddings is not None
    cosines = (expected.embeddings * found.embeddings[order]).sum(axis=1)
    figure = report.figures["min_cosine"]
    assert figure.value == pytest.approx(cosines.min(), abs=1e-5)
    assert figure.median == pytest.approx(np.median(cosines), abs=1e-5)
    assert (figure.limit, figure.within, figure.is_minimum) == (0.998, False, True)
    assert figure.image == "a/people.png"
    score = report.figures["max_score_difference"]
    assert score.value == pytest.approx(np.abs(expected.scores - found.scores[order]).max())
    assert any(sentence.startswith("min cosine: 0.9") for sentence in report.failures)
    # Only images with differences are drawn.
    assert [path.name for path in tmp_path.rglob("*.*")] == ["people.png"]
    drawn = read_image(tmp_path / "a" / "people.png")
    assert drawn.shape == (people.shape[0], 2 * people.shape[1], 3)


def test_faces_of_one_side_are_drawn_red(
    load: Callable[..., FacePipeline], people: Image, tmp_path: Path
) -> None:
    nearly = load()
    detector = replace(nearly.config.detector, max_faces=1)
    nearly.config = replace(nearly.config, detector=detector)
    report = compare_pipelines(load(), nearly, [("people.png", people)], LIMIT, tmp_path)
    assert report.figures["missed_faces"].value == 1
    assert report.figures["missed_faces"].image == "people.png"
    drawn = read_image(tmp_path / "people.png")
    left, right = np.split((drawn == (40, 40, 230)).all(axis=2), 2, axis=1)
    assert left.any() and not right.any()
    # In the other direction there is one too many.
    report = compare_pipelines(nearly, load(), [("people.png", people)], LIMIT)
    assert report.figures["extra_faces"].value == 1


def test_a_face_on_the_threshold_does_not_count(
    load: Callable[..., FacePipeline], people: Image
) -> None:
    lowest = load()(people).faces.scores.min().item()
    for threshold, faces in ((lowest - 0.001, 2), (lowest + 0.001, 1)):
        report = compare_pipelines(
            load(score=threshold), load(score=threshold), [("x.jpg", people)], LIMIT
        )
        assert report.failures == ()
        assert report.figures["faces"].value == faces


def test_other_limits(load: Callable[..., FacePipeline], people: Image) -> None:
    lax = {**LIMIT, "min_iou": 0.5, "max_score_difference": 0.3, "max_landmark_distance": 1}
    report = compare_pipelines(load(640), load(320), [("x.jpg", people)], lax)
    assert report.failures == ()
    assert report.figures["min_iou"].limit == 0.5


def test_nobody_to_compare_is_not_within(load: Callable[..., FacePipeline]) -> None:
    report = compare_pipelines(load(), load(), [("x.jpg", BLACK)], LIMIT)
    assert report.failures == ("faces: 0, expected at least 1",)


def test_landmarks_of_one_side_only_are_infinitely_far(
    load: Callable[..., FacePipeline], tmp_path: Path
) -> None:
    pipelines = []
    for landmarks in (True, False):
        outputs = scrfd_outputs(64, 64, landmarks=landmarks)
        path = write_detector(tmp_path / f"{landmarks}.onnx", outputs)
        pipelines.append(loaded(path, backend="onnxruntime", input_size=(64, 64)))
    report = compare_pipelines(*pipelines, [("x.jpg", BLACK)], LIMIT)
    assert "max landmark distance: inf, expected at most 0.01" in report.failures
    content = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert content["figures"]["max_landmark_distance"]["value"] is None
    assert content["figures"]["min_iou"]["value"] == 1
    assert content["within_limits"] is False


def test_recognizers(
    load: Callable[..., FacePipeline], recognizer_path: ModelPath, people: Image, tmp_path: Path
) -> None:
    arcface = ArcFace(load_network(recognizer_path("w600k_mbf")))
    images = [("people.jpg", people), ("nobody.jpg", BLACK)]
    report = compare_recognizers(arcface, arcface, load(), images, LIMIT)
    assert report.failures == ()
    assert report.figures["faces"].value == 2
    assert report.figures["min_cosine"].value == pytest.approx(1, abs=1e-5)
    other = ArcFace(load_network(write_recognizer(tmp_path / "other.onnx")))
    report = compare_recognizers(arcface, other, load(), images, LIMIT)
    assert report.different == ("people.jpg",)
    assert abs(report.figures["min_cosine"].value) < 0.3


def test_embeddings_of_other_models_are_not_compared(
    load: Callable[..., FacePipeline], recognizer_path: ModelPath, people: Image, tmp_path: Path
) -> None:
    arcface = ArcFace(load_network(recognizer_path("w600k_mbf")))
    other = ArcFace(load_network(write_recognizer(tmp_path / "other.onnx", dimensions=128)))
    with pytest.raises(ModelError, match=r"w600k_mbf and other \(128 values\) are different mo"):
        compare_recognizers(arcface, other, load(), [("x.jpg", people)], LIMIT)


def test_images_of_a_folder(people: Image, tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "below/c.jpeg", "below/d.webp"):
        write_image(tmp_path / name, people[: 10 + len(name)])
    (tmp_path / "notes.txt").write_text("no image")
    found = dict(open_images(tmp_path))
    assert list(found) == ["a.JPG", "b.png", "below/c.jpeg", "below/d.webp"]
    np.testing.assert_array_equal(found["b.png"], people[:15])
    assert [name for name, _ in open_images(tmp_path / "b.png")] == ["b.png"]


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_images_of_a_bag(
    people: Image, tmp_path: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [
        raw("/a/image", 10**9, people),
        text("/b", 10**9),
        jpeg("/c/image/compressed", 2 * 10**9, people),
        jpeg("/c/image/compressed", 3 * 10**9, people, keep=0.1),
        jpeg("/c/image/compressed", 4 * 10**9, people, keep=0.9),
    ]
    bag = write_bag(tmp_path / "bag", entries, storage)
    (raw_name, raw_image), (jpeg_name, jpeg_image), (cut_name, _) = open_images(bag)
    assert raw_name.startswith("a/image/1.") and raw_name.endswith(".jpg")
    assert jpeg_name.startswith("c/image/compressed/2.")
    np.testing.assert_array_equal(raw_image, people)
    decoded = cv2.imdecode(cv2.imencode(".jpg", people)[1], cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(jpeg_image, decoded)
    assert "c/image/compressed/3." in caplog.text and "image skipped" in caplog.text
    assert f"{cut_name}: used, but image compressed as" in caplog.text
    assert (
        len(list(open_images(next(bag.glob("*.db3" if storage == "sqlite3" else "*.mcap"))))) == 3
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda path: path / "x.png", ImageError, "x.png: cannot read", id="missing"),
        pytest.param(lambda path: path, ScrfdError, "no images in it", id="empty folder"),
        pytest.param(
            lambda path: write_bag(path / "bag", [text("/b", 1)]),
            ScrfdError,
            "there are no images",
            id="bag of text",
        ),
    ],
)
def test_input_without_images(
    make: Callable[[Path], Path], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        list(open_images(make(tmp_path)))
