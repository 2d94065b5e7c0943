# SPDX-License-Identifier: Apache-2.0
"""What users rely on: face_node in a process of its own, over DDS."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import FRAME_ID, TIMEOUT, Harness, image_counts, running_face_node
from numpy.typing import NDArray
from rclpy.qos import QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.messages.faces import faces_of
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue
from scrfd_ros.node.images import image_message
from scrfd_ros.pipeline import load_pipeline

Images = Callable[[str], NDArray[np.uint8]]


@pytest.fixture(scope="module", autouse=True)
def weights(detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]) -> None:
    for name in ("2.5g", "500m"):
        detector_path(name)
    recognizer_path("w600k_mbf")


@pytest.fixture(scope="module")
def active(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A node with default parameters, shared by the tests that leave it as it is."""
    with running_face_node(tmp_path_factory.mktemp("active")) as harness:
        harness.wait_until_active()
        yield harness


@pytest.fixture
def black() -> NDArray[np.uint8]:
    return np.zeros((240, 320, 3), np.uint8)


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best-effort"])
def test_cameras_of_both_reliabilities_are_answered(
    tmp_path: Path, image: Images, reliable: bool
) -> None:
    with running_face_node(tmp_path, reliable=reliable) as harness:
        harness.wait_until_active()
        detections, faces = harness.ask(image("t1.jpg"))
    assert len(detections.detections) == len(faces.faces) == 6


def test_answer_equals_the_pipeline(active: Harness, image: Images) -> None:
    detections, message = active.ask(image("t1.jpg"))
    pipeline = load_pipeline()
    expected = pipeline(image("t1.jpg")).faces
    assert pipeline.recognizer is not None
    faces = faces_of(message)
    np.testing.assert_allclose(faces.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(faces.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(faces.landmarks, expected.landmarks, atol=1e-3)
    np.testing.assert_allclose(faces.embeddings, expected.embeddings, atol=1e-5)
    np.testing.assert_allclose(faces.embedding_norms, expected.embedding_norms, rtol=1e-5)
    assert message.detector == "scrfd_2.5g_bnkps"
    assert message.detector_sha256 == pipeline.detector.network.sha256
    assert message.recognizer == "w600k_mbf"
    assert message.recognizer_sha256 == pipeline.recognizer.network.sha256
    assert [face.detection for face in message.faces] == list(detections.detections)


def test_headers_are_the_images(active: Harness, image: Images) -> None:
    detections, faces = active.ask(image("t1.jpg"))
    assert detections.header.frame_id == FRAME_ID
    assert detections.header.stamp.sec > 0
    assert faces.header == detections.header
    assert all(detection.header == detections.header for detection in detections.detections)


def test_detections_say_what_they_are(active: Harness, image: Images) -> None:
    detections, _ = active.ask(image("t1.jpg"))
    for detection in detections.detections:
        (result,) = detection.results
        assert result.hypothesis.class_id == "face"
        assert 0.85 < result.hypothesis.score < 0.92
        assert detection.bbox.size_x > 80
        assert detection.bbox.center.theta == 0
    assert any(d.bbox.center.position.x % 1 for d in detections.detections), "boxes are floats"


def test_an_image_without_faces_gets_empty_arrays(
    active: Harness, black: NDArray[np.uint8]
) -> None:
    detections, faces = active.ask(black)
    assert (len(detections.detections), len(faces.faces)) == (0, 0)


def test_topics_have_the_documented_types_and_qos(active: Harness) -> None:
    node = active.node
    for topic, kind in (
        ("detections", "vision_msgs/msg/Detection2DArray"),
        ("faces", "scrfd_ros/msg/FaceArray"),
    ):
        (publisher,) = node.get_publishers_info_by_topic(topic)
        assert publisher.topic_type == kind
        assert publisher.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
    (subscription,) = node.get_subscriptions_info_by_topic("image")
    assert subscription.topic_type == "sensor_msgs/msg/Image"
    assert subscription.qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT


def _spoiled(**changes: object) -> Image:
    message = image_message(np.zeros((240, 320, 3), np.uint8), Header())
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (_spoiled(encoding="rgb9"), "rgb9"),
        (_spoiled(height=241), "230400"),
        (_spoiled(width=0), "0"),
        (_spoiled(step=7), "step"),
        (_spoiled(height=100_000, width=100_000, step=300_000), "230400"),
    ],
    ids=["unknown encoding", "short data", "zero size", "short step", "absurd size"],
)
def test_a_bad_image_is_reported_and_the_next_good_one_served(
    tmp_path: Path, image: Images, message: Image, complaint: str
) -> None:
    with running_face_node(tmp_path, {"recognizer.enabled": False}) as harness:
        harness.wait_until_active()
        harness.publish_until(message, lambda: "image skipped" in harness.log(), "a complaint")
        line = next(line for line in harness.log().splitlines() if "image skipped" in line)
        assert complaint in line
        detections, _ = harness.ask(image("t1.jpg"))
        assert len(detections.detections) == 6


def test_complaints_about_bad_images_are_throttled(active: Harness) -> None:
    bad = _spoiled(encoding="rgb9")
    start = time.monotonic()
    active.publish_until(bad, lambda: "rgb9" in active.log(), "a complaint")
    for _ in range(20):
        active.publish(bad)
        active.state()  # the node takes each image in before the next is published
    active.ask(np.zeros((240, 320, 3), np.uint8))
    assert active.log().count("image skipped") <= 1 + (time.monotonic() - start) / 5


def _catalogue_file() -> str:
    return load_catalogue().find("2.5g", DETECTOR).file


@pytest.mark.parametrize("content", [None, b"not a model"], ids=["missing", "wrong checksum"])
def test_configure_fails_cleanly_without_its_model_and_can_be_retried(
    tmp_path: Path, image: Images, content: bytes | None, detector_path: Callable[[str], Path]
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    target = folder / _catalogue_file()
    if content is not None:
        target.write_bytes(content)
    parameters = {"model_directory": str(folder), "recognizer.enabled": False}
    with running_face_node(tmp_path, parameters) as harness:
        harness.wait_for(lambda: "cannot configure" in harness.log(), "a complaint")
        assert harness.state() == "unconfigured"
        assert str(target) in harness.log()
        assert not harness.change_state("configure")
        target.unlink(missing_ok=True)
        target.symlink_to(detector_path("2.5g"))
        assert harness.change_state("configure")
        assert harness.change_state("activate")
        harness.wait_until_active()
        assert len(harness.ask(image("t1.jpg"))[0].detections) == 6


@pytest.mark.parametrize("kind", ["text", "recognizer"])
def test_an_engine_path_that_is_no_detector_is_named(
    tmp_path: Path, kind: str, recognizer_path: Callable[[str], Path]
) -> None:
    path = tmp_path / "holiday.onnx"
    if kind == "text":
        path.write_text("dear diary")
    else:
        path.symlink_to(recognizer_path("w600k_mbf"))
    with running_face_node(tmp_path, {"detector.engine_path": str(path)}) as harness:
        harness.wait_for(lambda: "cannot configure" in harness.log(), "a complaint")
        assert str(path) in harness.log()
        assert harness.state() == "unconfigured"


def test_upscaling_without_a_recognizer_is_refused(tmp_path: Path) -> None:
    parameters = {"recognizer.enabled": False, "super_resolution.enabled": True}
    with running_face_node(tmp_path, parameters) as harness:
        harness.wait_for(lambda: "cannot configure" in harness.log(), "a complaint")
        assert "super_resolution.enabled is true, but recognizer.enabled is false" in harness.log()
        assert harness.state() == "unconfigured"


def test_configure_never_fails_without_a_word(tmp_path: Path) -> None:
    parameters = {"model_directory": "/" + 300 * "x", "recognizer.enabled": False}
    with running_face_node(tmp_path, parameters) as harness:
        harness.wait_for(lambda: "cannot configure" in harness.log(), "a complaint")
        assert harness.state() == "unconfigured"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("moment", ["starting", "active"])
def test_signals_end_the_node_cleanly(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    with running_face_node(tmp_path) as harness:
        if moment == "active":
            harness.wait_until_active()
        else:
            name = ("face_node", harness.node.get_namespace())
            nodes = harness.node.get_node_names_and_namespaces
            harness.wait_for(lambda: name in nodes(), "the node")
        harness.process.send_signal(number)
        assert harness.process.wait(timeout=TIMEOUT) == 0


def test_transitions_in_and_out_of_order(tmp_path: Path, image: Images) -> None:
    with running_face_node(tmp_path, {"autostart": False}) as harness:
        assert harness.state() == "unconfigured"
        for _ in range(2):
            assert not harness.change_state("activate")
            assert harness.change_state("configure")
            assert not harness.change_state("configure")
            assert harness.change_state("activate")
            harness.wait_until_active()
            assert len(harness.ask(image("t1.jpg"))[1].faces) == 6
            assert not harness.change_state("cleanup")
            assert harness.change_state("deactivate")
            assert harness.change_state("cleanup")
        assert harness.state() == "unconfigured"


def test_thresholds_change_while_running(tmp_path: Path, image: Images) -> None:
    with running_face_node(tmp_path, {"recognizer.enabled": False}) as harness:
        harness.wait_until_active()
        assert len(harness.ask(image("t1.jpg"))[0].detections) == 6
        assert harness.set_parameter("detector.max_faces", 2) == (True, "")
        detections, faces = harness.ask(image("t1.jpg"))
        assert len(detections.detections) == 2
        assert faces.recognizer == faces.recognizer_sha256 == ""
        assert not any(face.embedding for face in faces.faces)
        assert harness.set_parameter("detector.score_threshold", 0.99) == (True, "")
        assert len(harness.ask(image("t1.jpg"))[0].detections) == 0


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("detector.score_threshold", 1.5, "range"),
        ("detector.nms_threshold", -0.1, "range"),
        ("detector.max_faces", -1, "range"),
        ("detector.model", "11g", "2.5g"),
        ("recognizer.model", "facenet", "w600k_mbf"),
        ("backend", "abacus", "onnxruntime"),
        ("detector.input_size", [640], "multiples of 32"),
        ("detector.input_size", [640, 641], "multiples of 32"),
        ("detector.input_size", 640.0, "expected: auto, a longer side"),
        ("autostart", False, "read-only"),
    ],
)
def test_an_invalid_parameter_is_refused_with_the_reason(
    active: Harness, name: str, value: object, reason: str
) -> None:
    before = active.get_parameter(name)
    successful, why = active.set_parameter(name, value)
    assert not successful
    assert reason in why
    assert active.get_parameter(name) == before


def _time(header: Header) -> tuple[int, int]:
    return header.stamp.sec, header.stamp.nanosec


SLOW = {
    "detector.model": "500m",
    "detector.input_size": [4096, 4096],
    "recognizer.enabled": False,
}
"""A network that works on one image for a good part of a second."""


def test_services_answer_while_a_frame_is_being_worked_on(tmp_path: Path, image: Images) -> None:
    with running_face_node(tmp_path, SLOW) as harness:
        harness.wait_until_active()
        harness.ask(image("t1.jpg"))
        answered = len(harness.detections)
        harness.publish(image_message(image("t1.jpg"), Header()))
        for _ in range(5):  # the image has arrived long before the last of them
            harness.state()
        assert len(harness.detections) == answered
        harness.wait_for(lambda: len(harness.detections) > answered, "the answer")


def test_the_newest_image_wins(tmp_path: Path, image: Images) -> None:
    with running_face_node(tmp_path, SLOW) as harness:
        harness.wait_until_active()
        harness.ask(image("t1.jpg"))
        answered = len(harness.detections)
        message = image_message(image("t1.jpg"), Header())
        for _ in range(10):
            last = harness.publish(message)
            harness.state()  # the node takes each image in before the next is published
        harness.publish_until(
            message, lambda: _time(harness.detections[-1].header) >= _time(last), "the last answer"
        )
        assert len(harness.detections) - answered < 10
        assert harness.change_state("deactivate")
        ((handled, dropped, _, _),) = image_counts(harness.log())
        harness.wait_for(lambda: handled == len(harness.detections), "all answers")
        assert dropped > 0


@pytest.mark.usefixtures("node_finds_simulated_gpu")
def test_tensorrt_is_taken_where_there_is_a_gpu(
    tmp_path: Path,
    image: Images,
    detector_path: Callable[[str], Path],
) -> None:
    shutil.copy(detector_path("500m"), tmp_path)
    parameters = {
        "model_directory": tmp_path,
        "detector.model": "500m",
        "detector.input_size": [640, 640],
        "recognizer.enabled": False,
        "cuda_graph": True,
    }
    for _ in range(2):
        with running_face_node(tmp_path, parameters) as harness:
            harness.wait_until_active()
            detections, faces = harness.ask(image("t1.jpg"))
            log = harness.log()
        assert len(detections.detections) == 6
        assert faces.detector == "scrfd_500m_bnkps"
        assert faces.detector_sha256 == load_catalogue().find("500m").sha256
        assert "scrfd_500m_bnkps_640x640_sm87_tensorrt-10.3.0.engine on tensorrt 10.3" in log
    assert "taking the engine" in log and "building" not in log, "the second time it is there"


def test_log_tells_why_it_is_onnx_runtime(active: Harness) -> None:
    if "onnxruntime" not in active.log():
        pytest.skip("this machine runs TensorRT")
    assert "networks run on ONNX Runtime: " in active.log()
