# SPDX-License-Identifier: Apache-2.0
"""Several cameras, compressed images, overlay, laziness and diagnostics, over real DDS."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import Harness, running_face_node
from numpy.typing import NDArray
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from scrfd_ros.images.encodings import bgr_from_image
from scrfd_ros.node.images import image_message

Images = Callable[[str], NDArray[np.uint8]]

LIGHT = {"detector.model": "500m", "detector.input_size": [320, 320], "recognizer.enabled": False}
SENSOR = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
ENOUGH = 10  # answers to a camera
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


class Wire:
    """Publishers and what subscriptions got, beside a running node."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.got: dict[str, list[Any]] = {}

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> list[Any]:
        self.got[topic] = []
        self.harness.node.create_subscription(kind, topic, self.got[topic].append, qos)
        return self.got[topic]

    def camera(self, kind: type, topic: str) -> Callable[[Any], None]:
        """A publisher that the node has found."""
        publisher = self.harness.node.create_publisher(kind, topic, SENSOR)
        self.harness.wait_for(lambda: publisher.get_subscription_count() == 1, topic)
        return publisher.publish

    def send_until(
        self,
        send: Callable[[Any], None],
        message: Any,
        topic: str,
        condition: Callable[[Any], bool] = lambda _: True,
    ) -> Any:
        """Publish again and again, as a camera does: best effort may lose the first messages."""
        due = 0.0

        def sent_and_answered() -> bool:
            nonlocal due
            if time.monotonic() > due:
                send(message)
                due = time.monotonic() + 0.5
            return any(map(condition, self.got[topic]))

        self.harness.wait_for(sent_and_answered, topic)
        return next(filter(condition, self.got[topic]))

    def wait_for(self, topic: str, condition: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first message on a topic that fulfils a condition."""
        self.harness.wait_for(lambda: any(map(condition, self.got[topic])), topic)
        return next(filter(condition, self.got[topic]))


@contextmanager
def node(folder: Path, arguments: Sequence[str] = (), **parameters: object) -> Iterator[Wire]:
    with running_face_node(folder, LIGHT | parameters, arguments=arguments) as harness:
        yield Wire(harness)


@pytest.fixture(autouse=True)
def weights(detector_path: Callable[[str], Path]) -> None:
    detector_path("500m")


def message(image: NDArray[np.uint8], frame_id: str, seconds: int) -> Image:
    header = Header(frame_id=frame_id)
    header.stamp.sec = seconds
    return image_message(image, header)


def test_every_live_camera_gets_its_share(tmp_path: Path, image: Images) -> None:
    names = ["front", "rear", "left", "dead"]
    with node(tmp_path, cameras=str(names)) as wire:
        results = {name: wire.listen(Detection2DArray, f"{name}/detections") for name in names}
        send = {name: wire.camera(Image, f"{name}/image") for name in names}
        small = cv2.resize(image("t1.jpg"), (640, 443))
        images = {name: message(small, name, 1) for name in names}
        turn = 0
        while min(len(results[name]) for name in ("front", "rear", "left")) <= ENOUGH:
            turn += 1
            assert turn < 3000, {name: len(messages) for name, messages in results.items()}
            for name in ("front", "front", "rear", "left"):  # one at twice the rate, one dead
                images[name].header.stamp.sec = turn
                send[name](images[name])
                wire.harness.wait_for(lambda: True, "a turn")
            next_turn = time.monotonic() + 0.02
            wire.harness.wait_for(lambda due=next_turn: time.monotonic() > due, "the next turn")
        counts = {name: len(messages) for name, messages in results.items()}
    assert counts.pop("dead") == 0
    # A share each: how many images come in between, DDS and the machine's load decide.
    assert max(counts.values()) < 5 * min(counts.values())
    for name in counts:
        assert {detections.header.frame_id for detections in results[name]} == {name}
        assert all(len(detections.detections) == 6 for detections in results[name])


def test_ids_stay_and_are_the_cameras_own(tmp_path: Path, image: Images) -> None:
    with node(tmp_path, cameras="[a, b]") as wire:
        for name in ("a", "b"):
            wire.listen(Detection2DArray, f"{name}/detections")
            send = wire.camera(Image, f"{name}/image")
            for number in (1, 2):
                wire.send_until(
                    send,
                    message(image("t1.jpg"), name, number),
                    f"{name}/detections",
                    lambda m, n=number: m.header.stamp.sec == n,
                )
            answers = wire.got[f"{name}/detections"]
            first, second = answers[0].detections, answers[-1].detections
            assert sorted(int(detection.id) for detection in first) == [1, 2, 3, 4, 5, 6]
            assert [detection.id for detection in first] == [detection.id for detection in second]


def test_no_ids_without_tracking(tmp_path: Path, image: Images) -> None:
    with node(tmp_path, **{"tracking.enabled": False}) as wire:
        wire.harness.wait_until_active()
        detections, _ = wire.harness.ask(image("t1.jpg"))
    assert {detection.id for detection in detections.detections} == {""}


def test_compressed_images_of_a_remapped_camera(tmp_path: Path) -> None:
    black = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1]
    remapping = ["-r", "image:=camera/image_raw"]
    with node(tmp_path, remapping, image_transport="compressed") as wire:
        wire.listen(Detection2DArray, "detections")
        send = wire.camera(CompressedImage, "camera/image_raw/compressed")
        wire.send_until(send, CompressedImage(format="jpeg", data=black.tobytes()), "detections")


@pytest.mark.parametrize("suffix", [".jpg", ".png"], ids=["jpeg", "png"])
def test_compressed_images(suffix: str, tmp_path: Path, image: Images) -> None:
    with node(tmp_path, image_transport="compressed") as wire:
        wire.listen(Detection2DArray, "detections")
        send = wire.camera(CompressedImage, "image/compressed")
        _, content = cv2.imencode(suffix, image("t1.jpg"))
        compressed = CompressedImage(format=suffix[1:], data=content.tobytes())
        compressed.header.stamp.sec = 7
        detections = wire.send_until(send, compressed, "detections")
    assert detections.header == compressed.header
    assert len(detections.detections) == 6
    xs = sorted(detection.bbox.center.position.x for detection in detections.detections)
    # In pixels of the whole image, 1280 wide, although it was decoded at half of that.
    np.testing.assert_allclose(xs, [113.7, 320.1, 519.4, 795.8, 959.0, 1178.6], atol=12)


def test_jpegs_that_are_not_searched_as_a_whole_each_time(tmp_path: Path, image: Images) -> None:
    """The period takes effect at once. Boxes of parts differ a little from those of the whole."""
    options = {"detector.input_size": "auto", "image_transport": "compressed"}
    _, content = cv2.imencode(".jpg", image("t1.jpg"))
    boxes: list[list[list[float]]] = []
    with node(tmp_path, **options) as wire:
        wire.listen(Detection2DArray, "detections")
        send = wire.camera(CompressedImage, "image/compressed")
        for number, period in enumerate((0.0, 1000.0, 1000.0, 0.0), 1):
            assert wire.harness.set_parameter("detector.full_look_period", period) == (True, "")
            compressed = CompressedImage(format="jpeg", data=content.tobytes())
            compressed.header.stamp.sec = number
            answer = wire.send_until(
                send, compressed, "detections", lambda m, n=number: m.header.stamp.sec == n
            )
            found = sorted(answer.detections, key=lambda each: int(each.id))
            assert [each.id for each in found] == list("123456")
            boxes.append([[each.bbox.center.position.x, each.bbox.size_x] for each in found])
    whole, first, part, again = map(np.array, boxes)
    np.testing.assert_array_equal(first, whole)
    np.testing.assert_array_equal(again, whole)
    assert 0 < np.abs(part - whole).max() < 12, "it was searched as a whole"


def test_a_damaged_image_is_said_and_the_next_is_answered(tmp_path: Path) -> None:
    with node(tmp_path, image_transport="compressed") as wire:
        wire.listen(Detection2DArray, "detections")
        wire.listen(DiagnosticArray, "/diagnostics")
        send = wire.camera(CompressedImage, "image/compressed")
        broken = CompressedImage(format="jpeg", data=b"no image")
        (status,) = wire.send_until(
            send, broken, "/diagnostics", lambda m: m.status[0].level == DiagnosticStatus.ERROR
        ).status
        assert "image skipped: image compressed as 'jpeg', 8 bytes" in status.message
        black = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1]
        whole = CompressedImage(format="jpeg", data=black.tobytes())
        wire.send_until(send, whole, "detections")


def test_a_camera_on_its_side(tmp_path: Path, image: Images) -> None:
    """One of two cameras lies: its results are in pixels of the image that it sent."""
    upright = image("t1.jpg")
    sent = np.ascontiguousarray(np.rot90(upright))  # heads point to the left
    parameters = {"cameras": "[front, side]", "rotation": "[0, 90]"}
    with node(tmp_path, **parameters) as wire:
        for name in ("front", "side"):
            wire.listen(Detection2DArray, f"{name}/detections")
        wire.listen(Image, "side/overlay", SENSOR)
        front, side = (wire.camera(Image, f"{name}/image") for name in ("front", "side"))
        expected = wire.send_until(front, message(upright, "front", 1), "front/detections")
        found = wire.send_until(side, message(sent, "side", 1), "side/detections")
        drawn = bgr_from_image(wire.send_until(side, message(sent, "side", 2), "side/overlay"))
    assert len(found.detections) == len(expected.detections) == 6
    for one, other in zip(found.detections, expected.detections, strict=True):
        center, straight = one.bbox.center.position, other.bbox.center.position
        assert center.x == pytest.approx(straight.y, abs=1e-3)
        assert center.y == pytest.approx(1280 - straight.x, abs=1e-3)
        assert one.bbox.size_x == pytest.approx(other.bbox.size_y, abs=1e-3)
        assert one.bbox.size_y == pytest.approx(other.bbox.size_x, abs=1e-3)
    assert drawn.shape == sent.shape
    box = found.detections[0].bbox
    around = (drawn != sent).any(axis=2)[
        round(box.center.position.y - box.size_y / 2) - 2 :, round(box.center.position.x)
    ]
    assert around[:4].any(), "the upper edge of a face in the image as sent"


def test_rotations_that_do_not_fit(tmp_path: Path) -> None:
    with node(tmp_path) as wire:
        for values in ([45], [-90], [0, 360]):
            accepted, reason = wire.harness.set_parameter("rotation", values)
            assert not accepted and "one of 0, 90, 180, 270" in reason
        assert wire.harness.set_parameter("rotation", [90, 180]) == (True, "")
        wire.harness.wait_until_active()
        assert wire.harness.change_state("deactivate") and wire.harness.change_state("cleanup")
        assert not wire.harness.change_state("configure")
        assert "rotation has 2 values for 1 cameras; expected one for all" in wire.harness.log()


def test_a_truncated_image_is_used_and_told(tmp_path: Path, image: Images) -> None:
    content = cv2.imencode(".jpg", image("t1.jpg"))[1].tobytes()
    with node(tmp_path, image_transport="compressed") as wire:
        wire.listen(Detection2DArray, "detections")
        wire.listen(DiagnosticArray, "/diagnostics")
        send = wire.camera(CompressedImage, "image/compressed")
        cut = CompressedImage(format="jpeg", data=content[: len(content) * 9 // 10])
        (status,) = wire.send_until(
            send, cut, "/diagnostics", lambda m: "is cut short" in m.status[0].message
        ).status
        assert status.level == DiagnosticStatus.WARN
        assert "rows are missing; check the camera's cable" in status.message
        values = {item.key: item.value for item in status.values}
        assert values["damaged"] == values["handled"] != "0" and values["failed"] == "0"
        assert len(wire.got["detections"][-1].detections) == 6
        log = wire.harness.log()
        assert "image/compressed: used, but image compressed as 'jpeg'" in log
        assert "Corrupt JPEG" not in log, "libjpeg does not write by itself"


def test_overlay_is_the_image_with_the_faces(tmp_path: Path, image: Images) -> None:
    with node(tmp_path) as wire:
        wire.listen(Image, "overlay", SENSOR)
        send = wire.camera(Image, "image")
        overlay = wire.send_until(send, message(image("t1.jpg"), "camera", 3), "overlay")
    drawn = bgr_from_image(overlay)
    assert drawn.shape == image("t1.jpg").shape
    changed = (drawn != image("t1.jpg")).any(axis=2)
    assert 0.001 < changed.mean() < 0.2
    box = changed[330:490, 740:850]
    assert box.any(), "a face is framed"


def test_lazy_node_takes_images_in_only_for_somebody(tmp_path: Path) -> None:
    with running_face_node(tmp_path, LIGHT | {"lazy": True}) as harness:
        harness.wait_until_active()  # the harness subscribes to results
        for subscription in list(harness.node.subscriptions):
            harness.node.destroy_subscription(subscription)
        harness.wait_for(
            lambda: harness.node.count_subscribers("image") == 0, "the end of the subscription"
        )
        harness.node.create_subscription(Detection2DArray, "detections", print, 10)
        harness.wait_for(lambda: harness.node.count_subscribers("image") == 1, "a subscription")


def test_diagnostics_of_a_camera_that_falls_silent(tmp_path: Path, image: Images) -> None:
    with node(tmp_path, **{"diagnostics.stale_after": 1.0}) as wire:
        wire.listen(DiagnosticArray, "/diagnostics")
        publish = wire.camera(Image, "image")

        def send(image: Image) -> None:
            image.header.stamp = wire.harness.node.get_clock().now().to_msg()
            publish(image)

        def status(level: bytes) -> DiagnosticStatus:
            wire.got["/diagnostics"].clear()
            return wire.wait_for("/diagnostics", lambda m: m.status[0].level == level).status[0]

        assert status(DiagnosticStatus.STALE).message == "no image yet"
        for _ in range(2):  # and it comes back by itself
            wire.got["/diagnostics"].clear()
            (found,) = wire.send_until(
                send,
                message(image("t1.jpg"), "camera", 1),
                "/diagnostics",
                lambda m: m.status[0].level == DiagnosticStatus.OK,
            ).status
            assert found.hardware_id.endswith("/image")
            values = {item.key: item.value for item in found.values}
            assert values["handled"] and float(values["detect, ms"]) > 0
            assert values["detector"] == "scrfd_500m_bnkps.onnx on onnxruntime CPU"
            assert status(DiagnosticStatus.STALE).message.startswith("no image for ")


def test_latched_information_is_there_for_who_comes_late(tmp_path: Path) -> None:
    with node(tmp_path) as wire:
        wire.harness.wait_until_active()
        wire.listen(VisionInfo, "vision_info", LATCHED)
        wire.listen(LabelInfo, "label_info", LATCHED)
        assert wire.wait_for("vision_info").method == "scrfd_500m_bnkps (onnxruntime CPU)"
        labels = wire.wait_for("label_info")
        assert [label.class_name for label in labels.class_map] == ["face"]


def test_incompatible_publisher_is_said(tmp_path: Path) -> None:
    folder = f"/{tmp_path.name.replace('-', '_')}"
    override = {f"qos_overrides.{folder}/image.subscription.reliability": "reliable"}
    with node(tmp_path, **override) as wire:
        wire.harness.node.create_publisher(Image, "image", SENSOR)
        wire.listen(DiagnosticArray, "/diagnostics")
        expected = (
            f"the QoS of {folder}/harness (best_effort, volatile) is incompatible with the node's "
            f"(reliable, volatile): start the node with the parameter qos_overrides.{folder}/image."
            f"subscription.reliability set to best_effort"
        )
        wire.harness.wait_for(lambda: expected in wire.harness.log(), "a warning")
        wire.wait_for("/diagnostics", lambda m: expected in m.status[0].message)
    assert "UNKNOWN" not in wire.harness.log()


def test_names_of_cameras(tmp_path: Path) -> None:
    with node(tmp_path) as wire:
        for names in (["front", "front"], ["front camera"], ["front", ""], ["/front"]):
            accepted, reason = wire.harness.set_parameter("cameras", names)
            assert not accepted and "is not a list of different names" in reason
        for names in (["front", "robot/rear"], [""]):
            assert wire.harness.set_parameter("cameras", names) == (True, "")


@pytest.mark.usefixtures("node_finds_simulated_gpu")
def test_cameras_share_a_batch_on_a_gpu(
    tmp_path: Path,
    image: Images,
    detector_path: Callable[[str], Path],
) -> None:
    # The GPU is simulated: the batch and the answers are real, what it gains cannot be seen.
    shutil.copy(detector_path("500m"), tmp_path)
    names = ["front", "rear", "left"]
    with node(tmp_path, model_directory=tmp_path, cameras=names) as wire:
        images = dict(zip(names, ("t1.jpg", "obama.jpg", "gdp.jpg"), strict=True))
        for name, faces in zip(names, (6, 1, 3), strict=True):
            answers = wire.listen(Detection2DArray, f"{name}/detections")
            message = image_message(image(images[name]), Header(frame_id=name))
            send = wire.camera(Image, f"{name}/image")
            wire.send_until(send, message, f"{name}/detections")
            assert {len(answer.detections) for answer in answers} == {faces}
            assert {answer.header.frame_id for answer in answers} == {name}
        wire.listen(DiagnosticArray, "/diagnostics")
        values = {
            value.key: value.value for value in wire.wait_for("/diagnostics").status[0].values
        }
        used, of, total, *_ = values["device memory"].split()
        assert 3072 < int(used) < 3400 and (of, total) == ("of", "8192"), "ours too"
    (engine,) = (tmp_path / "engines").glob("*.engine")
    assert engine.name == "scrfd_500m_bnkps_320x320_b3_sm87_tensorrt-10.3.0.engine"


def test_tiles_are_cut_out_of_the_whole_compressed_image(tmp_path: Path, image: Images) -> None:
    parameters = {"image_transport": "compressed", "detector.tiles": [3, 2]}
    known, data = cv2.imencode(".jpg", image("solvay_conference_1927.jpg"))
    assert known
    with node(tmp_path, **parameters) as wire:
        wire.listen(Detection2DArray, "detections")
        send = wire.camera(CompressedImage, "image/compressed")
        wire.send_until(send, CompressedImage(format="jpeg", data=data.tobytes()), "detections")
        assert len(wire.got["detections"][0].detections) == 29


def test_label_info_has_the_threshold_of_the_parameter(tmp_path: Path) -> None:
    with node(tmp_path, **{"detector.score_threshold": 0.75}) as wire:
        wire.listen(LabelInfo, "label_info", LATCHED)
        assert wire.wait_for("label_info").threshold == 0.75
