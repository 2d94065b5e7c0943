# SPDX-License-Identifier: Apache-2.0
"""The pipeline from image to faces, on real networks and real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx_files import scrfd_outputs, write_detector, write_graph, write_recognizer
from pipelines import detector_of, loaded, pipeline_of
from scenes import SCENES, film
from spots import SpotNetwork, draw_spots

from scrfd_ros.config import (
    DetectorConfig,
    GalleryConfig,
    PipelineConfig,
    RecognizerConfig,
    SuperResolutionConfig,
    TrackingConfig,
    with_values,
)
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import Plan
from scrfd_ros.engines.free_size import load_for_size
from scrfd_ros.errors import ImageError, ModelError, ScrfdError
from scrfd_ros.faces import Faces, Identity, IdentityState, ious
from scrfd_ros.images.decoded import DecodedImage, WholeImage
from scrfd_ros.images.message import decode_message
from scrfd_ros.images.orientation import ROTATIONS, turn
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network, Tensor
from scrfd_ros.pipeline import FacePipeline, Frame, load_pipeline
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace
from scrfd_ros.tracking.tracker import Tracker

BLACK = np.zeros((480, 640, 3), np.uint8)

ModelPath = Callable[[str], Path]
Image = Callable[[str], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def pipeline(detector_path: ModelPath, recognizer_path: ModelPath) -> FacePipeline:
    return loaded(detector_path("2.5g"), recognizer_path("w600k_mbf"))


def test_is_detection_alignment_and_recognition(
    pipeline: FacePipeline, detector_path: ModelPath, recognizer_path: ModelPath, image: Image
) -> None:
    people = image("t1.jpg")
    faces = pipeline(people).faces
    network = load_for_size(detector_path("2.5g"), None, any_size=True)
    detected = Scrfd(network).detect(people)
    np.testing.assert_array_equal(faces.boxes, detected.boxes)
    np.testing.assert_array_equal(faces.scores, detected.scores)
    assert faces.landmarks is not None and detected.landmarks is not None
    np.testing.assert_array_equal(faces.landmarks, detected.landmarks)
    embeddings, norms = ArcFace(load_network(recognizer_path("w600k_mbf"))).embed(
        align_faces(people, detected.landmarks)
    )
    assert faces.embeddings is not None and faces.embedding_norms is not None
    np.testing.assert_allclose(faces.embeddings, embeddings, atol=1e-6)
    np.testing.assert_allclose(faces.embedding_norms, norms, rtol=1e-6)
    assert pipeline.warning == ""


def test_scores_fall(pipeline: FacePipeline, image: Image) -> None:
    scores = pipeline(image("gdp.jpg")).faces.scores
    assert len(scores) > 1 and (np.diff(scores) <= 0).all()


def test_times_of_all_stages(pipeline: FacePipeline, image: Image) -> None:
    milliseconds = pipeline(image("t1.jpg")).milliseconds
    total = milliseconds.pop("total")
    assert list(milliseconds) == ["prepare", "detect", "decode", "align", "embed"]
    assert all(value > 0 for value in milliseconds.values())
    assert sum(milliseconds.values()) == pytest.approx(total)
    assert 1 < milliseconds["detect"] < 60_000, "milliseconds"


def test_nobody_there(pipeline: FacePipeline) -> None:
    faces = pipeline(BLACK).faces
    assert len(faces) == 0
    assert faces.landmarks is not None and faces.landmarks.shape == (0, 5, 2)
    assert faces.embeddings is not None and faces.embeddings.shape == (0, 512)


def test_two_pixels(pipeline: FacePipeline) -> None:
    assert len(pipeline(BLACK[:1, :2]).faces) == 0


def test_without_recognizer(detector_path: ModelPath, image: Image) -> None:
    pipeline = loaded(detector_path("500m"))
    result = pipeline(image("t1.jpg"))
    assert len(result.faces) == 6 and result.faces.landmarks is not None
    assert result.faces.embeddings is None
    assert list(result.milliseconds) == ["prepare", "detect", "decode", "total"]
    assert pipeline.warning == ""


def test_detector_without_landmarks_gives_no_embeddings_and_says_so(tmp_path: Path) -> None:
    outputs = scrfd_outputs(640, 640, landmarks=False)
    detector = write_detector(tmp_path / "scrfd_1g.onnx", outputs, (1, 3, 640, 640))
    recognizer = write_recognizer(tmp_path / "recognizer.onnx")
    pipeline = loaded(detector, recognizer, max_faces=3)
    assert pipeline.recognizer is None
    assert "scrfd_1g.onnx finds no landmarks" in pipeline.warning
    assert "no embeddings" in pipeline.warning
    faces = pipeline(BLACK).faces
    assert len(faces) == 3
    assert faces.landmarks is None and faces.embeddings is None
    # Without a recognizer there is no warning.
    assert loaded(detector).warning == ""


def test_options_reach_the_detector(detector_path: ModelPath, image: Image) -> None:
    pipeline = loaded(
        detector_path("500m"),
        input_size=(320, 224),
        score_threshold=0.8,
        nms_threshold=0.3,
        max_faces=2,
    )
    detector = pipeline.detector
    assert detector.config is pipeline.config.detector
    assert detector.config.input_size == (320, 224)
    faces = pipeline(image("t1.jpg")).faces
    assert len(faces) == 2 and faces.scores.min() >= 0.8


def test_loads_by_name(
    tmp_path: Path, detector_path: ModelPath, recognizer_path: ModelPath
) -> None:
    for path in (detector_path("500m"), recognizer_path("w600k_mbf")):
        (tmp_path / path.name).symlink_to(path)
    config = PipelineConfig(model_directory=tmp_path, detector=DetectorConfig(model="500m"))
    pipeline = load_pipeline(config)
    assert pipeline.detector.network.path == tmp_path / "scrfd_500m_bnkps.onnx"
    assert pipeline.recognizer is not None
    assert pipeline.recognizer.network.path.name == "w600k_mbf.onnx"
    assert pipeline.recognizer.network.path.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"model": "500m"}, r"scrfd_500m_bnkps\.onnx", id="detector not fetched"),
        pytest.param({"model": "w600k_mbf"}, "w600k_mbf", id="a recognizer to detect with"),
        pytest.param({"model": "yolo"}, "yolo", id="unknown detector"),
    ],
)
def test_models_that_cannot_be_had(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ScrfdError, match=message):
        detector = DetectorConfig(**options)
        load_pipeline(PipelineConfig(model_directory=tmp_path, detector=detector))


def test_recognizer_not_fetched(tmp_path: Path, detector_path: ModelPath) -> None:
    detector = DetectorConfig(engine_path=detector_path("500m"))
    with pytest.raises(ModelError, match=r"w600k_mbf\.onnx"):
        load_pipeline(PipelineConfig(model_directory=tmp_path, detector=detector))


def test_several_images_at_once_are_as_one_by_one(
    detector_path: ModelPath, recognizer_path: ModelPath, image: Image
) -> None:
    pipeline = loaded(detector_path("500m"), recognizer_path("w600k_mbf"))
    names = ("t1.jpg", "obama.jpg", "gdp.jpg")
    frames = [Frame(BLACK), *(Frame(image(name)) for name in names)]
    frames.append(Frame(image("biden.jpg"), Tracker(), 1.0))
    results = pipeline.run(frames)
    for frame, result in zip(frames, results, strict=True):
        alone = pipeline(frame.image).faces
        np.testing.assert_array_equal(result.faces.boxes, alone.boxes)
        np.testing.assert_allclose(result.faces.embeddings, alone.embeddings, atol=1e-5)
    assert [len(result.faces) for result in results] == [0, 6, 1, 5, 1]
    assert results[-1].faces.ids is not None and results[1].faces.ids is None


def test_a_batch_that_fails_and_is_repeated_one_by_one_counts_once(
    detector_path: ModelPath,
    recognizer_path: ModelPath,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in the node, so that no camera fails because of another."""
    pipeline = loaded(detector_path("500m"), recognizer_path("w600k_mbf"))
    assert pipeline.recognizer is not None
    embed = pipeline.recognizer.embed

    def fail(crops: NDArray[np.uint8]) -> NoReturn:
        raise RuntimeError("out of memory")

    results = {}
    for is_failing in (False, True):
        trackers = [Tracker(TrackingConfig(refresh_period=0.0)) for _ in range(2)]
        found = []
        for number in range(4):
            images = (image("t1.jpg"), np.roll(image("obama.jpg"), 20 * number, axis=1))
            frames = [
                Frame(image, tracker, 0.1 * number)
                for image, tracker in zip(images, trackers, strict=True)
            ]
            if is_failing and number % 2:
                monkeypatch.setattr(pipeline.recognizer, "embed", fail)
                with pytest.raises(RuntimeError):
                    pipeline.run(frames)
                monkeypatch.setattr(pipeline.recognizer, "embed", embed)
            for frame in frames:
                (result,) = pipeline.run([frame])
                found.append(result.faces)
        results[is_failing] = found, [tracker._state.tracks["velocity"] for tracker in trackers]
    (regular, speeds), (repeated, same_speeds) = results[False], results[True]
    for one, other in zip(regular, repeated, strict=True):
        np.testing.assert_array_equal(other.ids, one.ids)
        np.testing.assert_array_equal(other.embedded, one.embedded)
    for one, other in zip(speeds, same_speeds, strict=True):
        np.testing.assert_array_equal(other, one)


def blurred(photograph: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image with this part of it blurred."""
    x1, y1, x2, y2 = box.astype(int)
    result = photograph.copy()
    result[y1:y2, x1:x2] = cv2.GaussianBlur(result[y1:y2, x1:x2], (0, 0), 5)
    return result


def choosing(pipeline: FacePipeline, min_quality: float) -> FacePipeline:
    """The same pipeline, which embeds only faces of this quality."""
    config = replace(pipeline.config, recognizer=RecognizerConfig(min_quality=min_quality))
    return FacePipeline(config, pipeline.detector, pipeline.recognizer)


def test_hopeless_faces_are_not_embedded(pipeline: FacePipeline, image: Image) -> None:
    people = image("t1.jpg")
    sharp = pipeline(people).faces
    spoilt = blurred(people, sharp.boxes[2])
    expected = pipeline(spoilt).faces
    choosy = choosing(pipeline, 0.4)
    faces = choosy(spoilt).faces
    assert faces.embeddings is not None and faces.embedded.sum() == len(faces) - 1
    row = np.abs(faces.boxes - sharp.boxes[2]).sum(axis=1).argmin()
    assert not faces.embedded[row] and not faces.embeddings[row].any()
    np.testing.assert_allclose(
        faces.embeddings[faces.embedded], expected.embeddings[faces.embedded], atol=1e-5
    )
    assert faces.as_json()[row]["embedding"] == []
    choosy = choosing(pipeline, 1.0)
    none = choosy(spoilt).faces
    assert len(none) == len(faces) and not none.embedded.any()


def test_a_tracked_face_is_embedded_as_soon_as_it_is_useful(
    pipeline: FacePipeline, image: Image
) -> None:
    people = image("t1.jpg")
    sharp = pipeline(people).faces
    spoilt = blurred(people, sharp.boxes[0])
    choosy = choosing(pipeline, 0.4)
    tracker = Tracker()
    counts, ids = [], []
    for number, shown in enumerate((spoilt, spoilt, people, spoilt)):
        faces = choosy(shown, tracker, number / 30).faces
        counts.append(int(faces.embedded.sum()))
        assert faces.ids is not None
        ids.append(sorted(faces.ids.tolist()))
    assert counts == [5, 5, 6, 6]
    assert ids == [[1, 2, 3, 4, 5, 6]] * 4


class Reduced:
    """A JPEG of an image, decoded at half of its scale."""

    def __init__(self, image: NDArray[np.uint8], rotation: int = 0, quality: int = 95) -> None:
        sent = turn(image, -rotation % 360)
        content = cv2.imencode(".jpg", sent, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        message = SimpleNamespace(format="jpeg", data=content)
        self.full = decode_message(message, rotation)
        self.decoded = decode_message(message, rotation, (image.shape[1] // 2, image.shape[0] // 2))
        assert self.decoded.reduction == 2 and self.decoded.source is not None
        self.source = self.decoded.source

    @property
    def is_whole_decoded(self) -> bool:
        return "image" in vars(self.source)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_faces_are_found_in_a_reduced_image_and_cut_out_of_the_whole(
    pipeline: FacePipeline, image: Image, rotation: int
) -> None:
    people = image("t1.jpg")
    tracker, reference = Tracker(), Tracker()
    for number in range(3):
        reduced = Reduced(people, rotation)
        assert pipeline.fit(tracker) == (640, 640)
        expected = pipeline(reduced.full, reference, number / 30).faces
        found = pipeline(reduced.decoded, tracker, number / 30).faces
        assert reduced.is_whole_decoded == (number == 0), "only for new faces"
        assert found.landmarks is not None and expected.landmarks is not None
        assert found.embeddings is not None and expected.embeddings is not None
        np.testing.assert_array_equal(found.ids, expected.ids)
        assert np.abs(found.boxes - expected.boxes).max() < 0.5
        errors = found.landmarks - expected.landmarks
        assert np.abs(errors).max() < 0.5
        assert np.abs(found.scores - expected.scores).max() < 0.005
        assert (found.embeddings * expected.embeddings).sum(axis=1).min() > 0.998


def test_an_image_is_decoded_whole_at_once_if_faces_still_wait(
    pipeline: FacePipeline, image: Image
) -> None:
    people = image("t1.jpg")
    tracker, choosy = Tracker(), choosing(pipeline, 1.0)
    assert choosy.fit(tracker) == (640, 640)
    assert not choosy(people, tracker, 0.0).faces.embedded.any()
    assert choosy.fit(tracker) is None
    assert pipeline(people, tracker, 0.1).faces.embedded.all()
    assert choosy.fit(tracker) == (640, 640)
    assert len(choosy(people, tracker, 0.2).faces) == 6 and not tracker.has_waiting_faces
    choosy(np.zeros_like(people), tracker, 0.3)
    assert not tracker.has_waiting_faces


def test_a_whole_image_that_cannot_be_decoded_changes_no_tracker(
    pipeline: FacePipeline, image: Image
) -> None:
    def refuse() -> NDArray[np.uint8]:
        raise ImageError("it is damaged")

    people = image("t1.jpg")
    tracker = Tracker()
    broken = DecodedImage(cv2.resize(people, (640, 443)), 2, source=WholeImage((1280, 886), refuse))
    for _ in range(2):
        with pytest.raises(ImageError, match="it is damaged"):
            pipeline(broken, tracker, 1.0)
    found = pipeline(people, tracker, 0.5).faces
    assert found.ids is not None and found.embedded.all() and sorted(found.ids) == [*range(1, 7)]
    assert pipeline(broken, tracker, 1.0).faces.embedded.all(), "no face is due"


def test_small_faces_are_upscaled(
    tmp_path: Path, detector_path: ModelPath, recognizer_path: ModelPath, image: Image
) -> None:
    # Repetition of pixels instead of Real-ESRGAN, which takes a second for a face.
    nodes = [helper.make_node("Resize", ["input.1", "", "factors"], ["output"], mode="nearest")]
    factors = {"factors": np.array([1, 1, 4, 4], np.float32)}
    shape = ("N", 3, "height", "width")
    upscaler = write_graph(tmp_path / "x4.onnx", nodes, shape, {"output": shape}, factors)
    small = cv2.resize(image("t1.jpg"), None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    results = [
        load_pipeline(
            PipelineConfig(
                detector=DetectorConfig(engine_path=detector_path("2.5g")),
                recognizer=RecognizerConfig(engine_path=recognizer_path("w600k_mbf")),
                super_resolution=SuperResolutionConfig(
                    enabled=enabled, engine_path=upscaler, max_size=64, max_faces=3
                ),
            )
        )(small.astype(np.uint8)).faces
        for enabled in (False, True)
    ]
    without, with_it = (faces.embeddings for faces in results)
    assert without is not None and with_it is not None
    cosines = (without * with_it).sum(axis=1)
    np.testing.assert_allclose(cosines[3:], 1, atol=1e-4)  # only the first three were upscaled
    assert (cosines[:3] < 0.9999).all() and (cosines > 0.8).all()


class Fails:
    """Wraps a network and fails on demand."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.fails: Callable[[int], bool] = lambda batch: False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        (array,) = inputs.values()
        if self.fails(len(array)):
            raise ModelError("out of memory")
        return self._network(inputs)


@pytest.mark.parametrize("stage", ["detector", "recognizer"])
def test_images_that_failed_together_are_tracked_once_when_they_are_given_one_by_one(
    detector_path: ModelPath, recognizer_path: ModelPath, image: Image, stage: str
) -> None:
    detector = Fails(load_network(detector_path("500m")))
    recognizer = Fails(load_network(recognizer_path("w600k_mbf")))
    pipeline = pipeline_of(Scrfd(detector), ArcFace(recognizer))
    people, man = image("t1.jpg"), image("obama.jpg")
    undisturbed = Tracker(), Tracker()
    trackers = Tracker(), Tracker()
    for number in range(4):
        time = number / 10
        # They change places once, so that the images that fail have new faces.
        shown = (man, people) if number == 1 else (people[:, 40 * number :], man)
        alone = [
            pipeline(image, tracker, time).faces
            for image, tracker in zip(shown, undisturbed, strict=True)
        ]
        frames = [
            Frame(image, tracker, time) for image, tracker in zip(shown, trackers, strict=True)
        ]
        before = [copy(vars(tracker)) for tracker in trackers]
        network = detector if stage == "detector" else recognizer
        # One camera at a time, the detector runs as often as there are images.
        runs: list[int] = []

        def last(batch: int, runs: list[int] = runs) -> bool:
            runs.append(batch)
            return stage == "recognizer" or len(runs) == 2

        network.fails = last
        is_due = True
        try:
            found = pipeline.run(frames)
            is_due = False  # nothing was to be embedded
        except ModelError:
            for tracker, state in zip(trackers, before, strict=True):
                for name, value in state.items():
                    assert getattr(tracker, name) is value, name
        network.fails = lambda batch: False
        if is_due:
            found = [pipeline.run([frame])[0] for frame in frames]
        assert is_due or number > 1
        for result, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(result.faces.ids, expected.ids)
            np.testing.assert_allclose(result.faces.embeddings, expected.embeddings, atol=1e-5)


def test_no_images_no_results(pipeline: FacePipeline) -> None:
    assert pipeline.run([]) == []


def test_other_values_than_frames_are_refused(pipeline: FacePipeline) -> None:
    for other in (BLACK, None, (BLACK, None, 0.0)):
        with pytest.raises(ValueError, match=r"expected a Frame\(image, tracker, time\), got "):
            pipeline.run([other])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="expected a Frame"):
        pipeline.run(BLACK)  # type: ignore[arg-type]


class Overflows(Fails):
    """Returns for the second face of each batch what half precision yields when it overflows."""

    value: float | None = None

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        outputs = {name: array.copy() for name, array in super().__call__(inputs).items()}
        for array in outputs.values():
            if self.value is not None:
                array[1:2, :9] = self.value
        return outputs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tracked", [False, True])
def test_an_embedding_that_is_not_finite_is_none(
    tmp_path: Path, detector_path: ModelPath, image: Image, value: float, tracked: bool
) -> None:
    network = Overflows(load_network(write_recognizer(tmp_path / "recognizer.onnx")))
    recognizer = ArcFace(network)
    network.value = value
    pipeline = pipeline_of(Scrfd(load_network(detector_path("500m"))), recognizer)
    with np.errstate(invalid="ignore"):
        faces = pipeline(image("t1.jpg"), Tracker() if tracked else None).faces
    assert faces.embeddings is not None and faces.embedding_norms is not None
    assert np.isfinite(faces.embeddings).all() and np.isfinite(faces.embedding_norms).all()
    assert 0 < faces.embedded.sum() < len(faces) == 6
    assert not faces.embeddings[~faces.embedded].any()


def test_another_config_takes_effect_with_the_next_image(
    detector_path: ModelPath, image: Image
) -> None:
    pipeline = loaded(detector_path("500m"))
    pipeline.config = with_values(pipeline.config, {"detector.max_faces": 2})
    assert pipeline.detector.config is pipeline.config.detector
    assert len(pipeline(image("t1.jpg")).faces) == 2
    with pytest.raises(ValueError, match=r"input_size is auto and cannot change to 320x320"):
        pipeline.config = with_values(pipeline.config, {"detector.input_size": (320, 320)})
    assert len(pipeline(image("t1.jpg")).faces) == 2


def test_a_tracker_has_the_options_of_the_pipeline(detector_path: ModelPath) -> None:
    detector = Scrfd(load_network(detector_path("500m")))
    tracking = TrackingConfig(max_age=7.0)
    tracker = FacePipeline(PipelineConfig(tracking=tracking), detector).new_tracker()
    assert tracker is not None and tracker.config == tracking
    none = PipelineConfig(tracking=TrackingConfig(enabled=False))
    assert FacePipeline(none, detector).new_tracker() is None


def test_a_tracker_is_for_one_image_at_a_time(detector_path: ModelPath, image: Image) -> None:
    pipeline = loaded(detector_path("500m"))
    tracker = Tracker()
    frame = Frame(image("t1.jpg"), tracker, 1.0)
    with pytest.raises(ValueError, match="two frames have the same tracker: pass"):
        pipeline.run([frame, Frame(BLACK), frame])
    (result,) = pipeline.run([frame])
    assert result.faces.ids is not None and sorted(result.faces.ids) == [1, 2, 3, 4, 5, 6]


def test_an_image_may_be_decoded_smaller_unless_something_is_cut_out_of_it(
    recognizer_path: ModelPath,
) -> None:
    detector = detector_of(SpotNetwork(), (640, 480))
    assert pipeline_of(detector).fit() == (640, 480)
    assert pipeline_of(detector_of(SpotNetwork(), tiles=(2, 1))).fit() is None
    network = SpotNetwork()
    network.inputs = (Tensor("input.1", (1, 3, 960, 1280)),)
    assert pipeline_of(Scrfd(network)).fit() == (1280, 960), "with auto, its own"
    recognizer = ArcFace(load_network(recognizer_path("w600k_mbf")))
    assert pipeline_of(detector, recognizer).fit() is None
    assert pipeline_of(detector, recognizer).fit(Tracker()) == (640, 480)


def test_other_configurations_are_refused() -> None:
    with pytest.raises(TypeError, match="config must be a PipelineConfig, got str"):
        load_pipeline("2.5g")  # type: ignore[arg-type]


def test_a_clip_that_is_not_searched_as_a_whole_each_time(
    detector_path: ModelPath, image: Image
) -> None:
    """People who come in, 500m: nearly all faces are found, on a part of the pixels."""
    pipeline = loaded(detector_path("500m"), input_size="auto")
    searched: list[int] = []
    detect_all = pipeline.detector.detect_all

    def counted(
        images: Sequence[NDArray[np.uint8]],
        done: Callable[[str], None],
        plans: Sequence[Plan | None] | None = None,
    ) -> list[Faces]:
        for row, each in enumerate(images):
            plan = plans[row] if plans else None
            searched.append((plan or pipeline.detector.plan(*each.shape[1::-1])).pixels)
        return detect_all(images, done, plans)

    pipeline.detector.detect_all = counted  # type: ignore[method-assign]
    frames = list(film(SCENES["enter"], image, 2.5, rate=20))
    found: dict[float, list[Faces]] = {}
    pixels: dict[float, int] = {}
    for period in (0.0, 0.5):
        pipeline.config = with_values(pipeline.config, {"detector.full_look_period": period})
        tracker = pipeline.new_tracker()
        searched.clear()
        results = [pipeline(frame.image, tracker, frame.time) for frame in frames]
        found[period] = [result.faces for result in results]
        pixels[period] = sum(searched)
        assert {"prepare", "detect", "decode", "track", "total"} == set(results[-1].milliseconds)
    pairs = list(zip(found[0.0], found[0.5], strict=True))
    seen = [ious(whole.boxes, faces.boxes).max(axis=1, initial=0) >= 0.5 for whole, faces in pairs]
    assert np.concatenate(seen).mean() > 0.97
    assert max(len(whole) for whole, _ in pairs) > len(pairs[0][0]) > 0, "nobody comes in"
    assert pixels[0.5] < pixels[0.0] / 2.5


def test_a_failed_run_does_not_count_as_a_look(detector_path: ModelPath, image: Image) -> None:
    pipeline = loaded(detector_path("500m"), input_size="auto", full_look_period=0.5)
    tracker = pipeline.new_tracker()
    assert tracker is not None
    people = image("t1.jpg")
    first = pipeline(people, tracker, 0.0).faces
    network = pipeline.detector.network
    looked = tracker.watch.look(people, 0.6, 0, tracker.expected(0.6), 0.5)
    assert looked.parts is None

    def fail(*_: Any) -> NoReturn:
        raise ModelError("it fails")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "__call__", fail)
        with pytest.raises(ModelError, match="it fails"):
            pipeline(people, tracker, 0.6)
    assert tracker.watch.look(people, 0.6, 0, tracker.expected(0.6), 0.5).parts is None
    again = pipeline(people, tracker, 0.6).faces
    np.testing.assert_array_equal(again.boxes, first.boxes)
    assert tracker.watch.look(people, 0.7, 0, tracker.expected(0.7), 0.5).parts


def test_a_face_that_is_missed_is_looked_for_in_the_whole_image(
    detector_path: ModelPath, image: Image
) -> None:
    """Everybody jumps to another place, where nothing would be looked at, and is still found."""
    pipeline = loaded(detector_path("500m"), input_size="auto", full_look_period=100.0)
    tracker, people = pipeline.new_tracker(), image("t1.jpg")
    first = pipeline(people, tracker, 0.0).faces
    assert len(pipeline(people, tracker, 0.1).faces) == len(first)
    moved = np.roll(people, people.shape[1] // 3, axis=1)
    expected = pipeline.detector.detect(moved)
    np.testing.assert_array_equal(pipeline(moved, tracker, 0.2).faces.boxes, expected.boxes)


def test_cameras_with_and_without_a_tracker_in_one_run(
    detector_path: ModelPath, image: Image
) -> None:
    pipeline = loaded(detector_path("500m"), input_size="auto", full_look_period=1.0)
    tracker, other = pipeline.new_tracker(), pipeline.new_tracker()
    people, one = image("t1.jpg"), image("biden.jpg")
    whole = pipeline.run([Frame(people), Frame(one)])
    for number in range(3):
        time = number / 10
        frames = [Frame(people, tracker, time), Frame(one, other, time), Frame(people)]
        found = [result.faces for result in pipeline.run(frames)]
        assert [len(faces) for faces in found] == [len(whole[n].faces) for n in (0, 1, 0)]
        assert ious(found[0].boxes, whole[0].faces.boxes).max(axis=1).min() > 0.8
        np.testing.assert_array_equal(found[2].boxes, whole[0].faces.boxes)


def test_no_looks_at_parts_with_a_network_of_one_size(
    detector_path: ModelPath, image: Image, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = loaded(detector_path("2.5g"), input_size=(640, 640), full_look_period=0.5)
    pipeline.config = pipeline.config
    assert caplog.text.count("full_look_period has no effect") == 1
    assert "scrfd_2.5g_bnkps.onnx takes one; set detector.input_size to auto" in caplog.text
    tracker, people = pipeline.new_tracker(), image("t1.jpg")
    whole = pipeline(people, tracker, 0.0).faces
    np.testing.assert_array_equal(pipeline(people, tracker, 0.1).faces.boxes, whole.boxes)


def test_auto_is_not_advised_where_it_is_set(caplog: pytest.LogCaptureFixture) -> None:
    network = SpotNetwork()
    network.inputs = (Tensor("input.1", (1, 3, 640, 640)),)
    pipeline = pipeline_of(Scrfd(network))
    pipeline.config = with_values(pipeline.config, {"detector.full_look_period": 0.5})
    assert caplog.text.strip().endswith(f"many sizes, and {network.path} takes one")


def test_no_looks_at_parts_on_a_gpu(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(Scrfd(SpotNetwork(on_gpu=True)))
    spots = draw_spots((1280, 720), [[100, 100, 180, 180], [800, 400, 900, 500]])
    pipeline.config = with_values(pipeline.config, {"detector.full_look_period": 0.5})
    assert caplog.text.count("use ONNX Runtime or OpenVINO on a processor") == 1
    tracker = pipeline.new_tracker()
    for number in range(2):
        assert len(pipeline(spots, tracker, number / 10).faces) == 2
    assert (
        tracker is not None
        and tracker.watch.look(spots, 0.2, 0, tracker.expected(0.2), 0.5).parts is None
    ), "it was watched"


def test_no_looks_at_parts_without_tracking(
    detector_path: ModelPath, image: Image, caplog: pytest.LogCaptureFixture
) -> None:
    """It is live, so it is told, and does not stop the images."""
    pipeline = loaded(detector_path("500m"), input_size="auto")
    assert not caplog.text
    options = {"tracking.enabled": False, "detector.full_look_period": 0.5}
    pipeline.config = with_values(pipeline.config, options)
    pipeline.config = with_values(pipeline.config, options)
    assert caplog.text.count("faces are not tracked; set tracking.enabled to true") == 1
    assert pipeline.new_tracker() is None
    assert len(pipeline(image("t1.jpg")).faces) == 6


def test_people_of_a_gallery_are_named(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    detector = DetectorConfig(engine_path=detector_path("500m"))
    recognizer = RecognizerConfig(engine_path=recognizer_path("w600k_mbf"))
    gallery = GalleryConfig(store=str(tmp_path / "people.db"), keep_images=True)
    pipeline = load_pipeline(
        PipelineConfig(detector=detector, recognizer=recognizer, gallery=gallery)
    )
    assert pipeline.identifier is not None
    result = pipeline(image("obama.jpg"))
    assert result.faces.identities == (Identity(),) and "identify" in result.milliseconds
    (look,) = result.looks.values()
    assert look.quality > 0.7 and abs(look.yaw) < 30 and look.crop is not None
    person = pipeline.identifier.gallery.enroll("Barack", [look], source="obama.jpg")
    (face,) = pipeline(image("obama2.jpg")).faces.as_json()
    assert face["person"] == "Barack" and face["person_id"] == person.id
    assert face["state"] == "known" and face["similarity"] >= 0.6  # type: ignore[operator]
    group = pipeline(image("t1.jpg"))
    assert group.faces.identities is not None and len(group.looks) == 6
    assert {each.state for each in group.faces.identities} == {IdentityState.UNKNOWN}
    tracker = pipeline.new_tracker()
    results = [pipeline(image("obama3.jpg"), tracker, number / 10) for number in range(6)]
    names = [face["person"] for result in results for face in result.faces.as_json()]
    assert names == [None, None, None, None, "Barack", "Barack"]  # looks at 0, 0.2 and 0.4 s
    pipeline.close()


def test_a_gallery_needs_landmarks(tmp_path: Path) -> None:
    outputs = scrfd_outputs(640, 640, landmarks=False)
    detector = write_detector(tmp_path / "scrfd_1g.onnx", outputs, (1, 3, 640, 640))
    config = PipelineConfig(
        detector=DetectorConfig(engine_path=detector),
        recognizer=RecognizerConfig(engine_path=write_recognizer(tmp_path / "recognizer.onnx")),
        gallery=GalleryConfig(store=str(tmp_path / "people.db")),
    )
    with pytest.raises(ScrfdError, match=r"gallery\.store is set, but .* finds no landmarks"):
        load_pipeline(config)
