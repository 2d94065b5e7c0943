# SPDX-License-Identifier: Apache-2.0
"""Faults that occur on robots cost face_node only the images concerned, over real DDS."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import cv2
import numpy as np
import onnxruntime
import pytest
import rclpy
from builtin_interfaces.msg import Time
from camera_process import BURST, HUGE, CameraProcess
from diagnostic_msgs.msg import DiagnosticArray
from endings import opened_for_writing
from harness import TIMEOUT, Harness, face_node_command, image_counts, running_face_node
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.engines.open import open_network
from scrfd_ros.errors import ModelError
from scrfd_ros.files import locked_folder
from scrfd_ros.inference.network import Network
from scrfd_ros.node.counts import Counts
from scrfd_ros.node.face_node import FaceNode
from scrfd_ros.node.images import image_message
from scrfd_ros.node.lifecycle import GuardedLifecycleNode

Images = Callable[[str], NDArray[np.uint8]]

LIGHT = {"detector.model": "500m", "detector.input_size": [320, 320]}
HOUR = 3600.0


@pytest.fixture(scope="module", autouse=True)
def weights(detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]) -> None:
    detector_path("500m")
    recognizer_path("w600k_mbf")


@pytest.fixture
def small(image: Images) -> NDArray[np.uint8]:
    """Six people in 640x443."""
    return cv2.resize(image("t1.jpg"), (640, 443)).astype(np.uint8, copy=False)


@pytest.fixture(scope="module")
def active(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A node that has to come through the tests that share it."""
    with running_face_node(tmp_path_factory.mktemp("faults"), LIGHT) as harness:
        harness.wait_until_active()
        yield harness


def seconds(answer: Detection2DArray) -> float:
    return float(answer.header.stamp.sec + 1e-9 * answer.header.stamp.nanosec)


def answer_to(harness: Harness, image: NDArray[np.uint8], stamp: float) -> Detection2DArray:
    """The answer to an image with this stamp, sent until it has one: best effort may lose some."""
    message = image_message(image, Header())

    def answers() -> list[Detection2DArray]:
        return [answer for answer in harness.detections if seconds(answer) == stamp]

    due = 0.0

    def sent_and_answered() -> bool:
        nonlocal due
        if time.monotonic() > due:
            harness.publish(message, Time(sec=int(stamp), nanosec=int(stamp % 1 * 1e9)))
            due = time.monotonic() + 1
        return bool(answers())

    harness.detections.clear()
    harness.wait_for(sent_and_answered, f"the answer to the image of {stamp}")
    return answers()[0]


def ids(answer: Detection2DArray) -> set[str]:
    return {detection.id for detection in answer.detections}


def test_of_a_burst_the_newest_is_answered_and_each_image_is_counted(
    active: Harness, small: NDArray[np.uint8]
) -> None:
    active.ask(small)  # what never came is counted from the first image that came
    earlier = len(active.detections)
    message = image_message(small, Header())
    stamps = [active.publish(message).stamp for _ in range(BURST)]
    active.wait_for(lambda: active.detections[-1].header.stamp == stamps[-1], "the newest")
    answered = [answer.header.stamp for answer in active.detections[earlier:]]
    assert all(stamp in stamps for stamp in answered)
    assert active.change_state("deactivate")
    handled, dropped, skipped, lost = image_counts(active.log())[-1]
    assert (handled, skipped) == (earlier + len(answered), 0)
    assert dropped + lost == BURST - len(answered)
    assert active.change_state("activate")
    active.wait_until_active()


def ids_from(harness: Harness, image: NDArray[np.uint8], second: float) -> list[set[str]]:
    """Ids in images of four a second: enough to confirm that time goes on from another one."""
    return [ids(answer_to(harness, image, second + 0.25 * number)) for number in range(4)]


def test_images_out_of_order_are_answered_and_keep_the_ids(
    active: Harness, small: NDArray[np.uint8]
) -> None:
    first = ids_from(active, small, 1000)[-1]
    assert len(first) == 6
    for stamp in (1000.875, 1000.625, 1001.0):
        assert ids(answer_to(active, small, stamp)) == first


def test_stamps_that_jump_back_start_the_ids_anew(
    active: Harness, small: NDArray[np.uint8]
) -> None:
    before = ids_from(active, small, 9 * HOUR)[-1]
    after = ids_from(active, small, HOUR)
    assert [len(found) for found in after] == [6] * 4
    assert not after[-1] & before


def test_8k_after_vga_and_back(active: Harness, small: NDArray[np.uint8]) -> None:
    large = cv2.resize(small, HUGE[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    for image in (small, large, small):
        detections, faces = active.ask(image)
        assert len(detections.detections) == 6
        assert all(face.embedding for face in faces.faces)
        widest = max(detection.bbox.size_x for detection in detections.detections)
        assert 0.05 < widest / image.shape[1] < 0.2


def test_a_camera_that_is_killed_and_comes_back(
    active: Harness, small: NDArray[np.uint8], tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", small[None])

    def camera(name: str) -> CameraProcess:
        return CameraProcess(
            active.node.get_namespace(), tmp_path / "images.npy", tmp_path / name, 100, name
        )

    for name in ("mortal", "reborn"):
        process = camera(name)
        try:
            active.detections.clear()
            active.wait_for(
                lambda name=name: name in {a.header.frame_id for a in active.detections},
                f"answers to the {name} camera",
            )
        finally:
            process.kill()
        assert len(active.ask(small)[0].detections) == 6, "others are served meanwhile"


def test_ros_time_that_jumps_back_stops_nothing(tmp_path: Path, small: NDArray[np.uint8]) -> None:
    with running_face_node(tmp_path, LIGHT | {"use_sim_time": True}) as harness:
        clock = harness.node.create_publisher(Clock, "/clock", 10)
        reports: list[DiagnosticArray] = []
        harness.node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
        harness.wait_until_active()

        def reported(time_now: float) -> bool:
            """Publish the time, which goes on by a part of a second with each call."""
            nonlocal passed
            passed += 0.25
            clock.publish(Clock(clock=Time(sec=int(time_now + passed))))
            return any(0 <= report.header.stamp.sec - time_now < HOUR for report in reports)

        for now in (9 * HOUR, HOUR):
            passed = 0.0
            harness.wait_for(lambda now=now: reported(now), f"diagnostics at {now}")
            assert len(answer_to(harness, small, now).detections) == 6
            assert harness.state() == "active"


# A network that fails, in a node of this process


class Failing:
    """A network that raises, while it has an error to raise."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._network, name)

    def __call__(self, inputs: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        if self.error is not None:
            raise self.error
        return self._network(inputs)


def failing_network(path: Path, **options: Any) -> Failing:
    return Failing(open_network(path, **options))


def opencv_error() -> cv2.error:
    try:
        cv2.resize(np.zeros((1, 1, 3), np.uint8), (2**30, 2**30))
    except cv2.error as error:
        return error
    raise AssertionError("no such amount of memory is there")


def onnxruntime_error(path: Path) -> Exception:
    """What ONNX Runtime raises if it gets no memory: a terabyte here."""
    session = onnxruntime.InferenceSession(path)
    ones = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 3, 2**20, 2**18), (0,) * 4)
    try:
        session.run(None, {session.get_inputs()[0].name: ones})
    except Exception as error:
        return error
    raise AssertionError("no such amount of memory is there")


class InProcess:
    """A node of this process, a camera and what the node answers."""

    def __init__(self) -> None:
        self.node = FaceNode()
        self.node.set_parameters([Parameter(name, value=value) for name, value in LIGHT.items()])
        with patch("scrfd_ros.pipeline.open_network", failing_network):
            self.node.trigger_configure()
        self.node.trigger_activate()
        pipeline = self.node._pipeline
        assert pipeline is not None
        self.networks = cast("dict[str, Failing]", pipeline.networks)
        self.answers: list[Detection2DArray] = []
        self.other = rclpy.create_node("beside")
        self.camera = self.other.create_publisher(Image, "image", 1)
        self.other.create_subscription(Detection2DArray, "detections", self.answers.append, 10)
        self.executor = rclpy.executors.SingleThreadedExecutor()
        for node in (self.node, self.other):
            self.executor.add_node(node)
        self.wait_for(lambda: self.camera.get_subscription_count() == 1, "the subscription")
        self.wait_for(lambda: self.other.count_publishers("detections") == 1, "the publisher")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            self.executor.spin_once(0.05)

    @property
    def counts(self) -> Counts:
        """What the node's diagnostics tell, without the wait for them."""
        (camera,) = self.node._cameras
        return camera.counts

    def destroy(self) -> None:
        for node in (self.node, self.other):
            self.executor.remove_node(node)
            node.destroy_node()


@pytest.fixture(scope="module")
def in_process(weights: None) -> Iterator[InProcess]:
    nodes = InProcess()
    yield nodes
    nodes.destroy()


@pytest.mark.parametrize("network", ["detector", "recognizer"])
@pytest.mark.parametrize(
    "kind", ["ModelError", "MemoryError", "RuntimeError", "cv2.error", "onnxruntime"]
)
def test_a_network_that_fails_costs_one_image(
    in_process: InProcess,
    small: NDArray[np.uint8],
    detector_path: Callable[[str], Path],
    network: str,
    kind: str,
) -> None:
    error: BaseException = {
        "ModelError": lambda: ModelError("out of memory on the device"),
        "MemoryError": MemoryError,
        "RuntimeError": lambda: RuntimeError("in the middle of an image"),
        "cv2.error": opencv_error,
        "onnxruntime": lambda: onnxruntime_error(detector_path("500m")),
    }[kind]()
    failing = in_process.networks[network]
    counts = in_process.counts
    handled, failed = counts.handled, counts.failed
    message = image_message(small, Header(frame_id=kind))
    message.header.stamp.sec = 10**6 + handled
    # Every face of every image is embedded, so that the recognizer has something to do.
    (camera,) = in_process.node._cameras
    assert camera.tracker is not None
    camera.tracker.config = replace(camera.tracker.config, refresh_period=0.0)

    failing.error = error
    in_process.answers.clear()
    in_process.camera.publish(message)
    in_process.wait_for(lambda: counts.failed > failed, "a failure")
    assert "image skipped: " in counts.reason
    assert (str(error) or type(error).__name__)[:60] in counts.reason
    assert not in_process.answers

    failing.error = None
    in_process.camera.publish(message)
    in_process.wait_for(lambda: bool(in_process.answers), "the answer to the next image")
    assert len(in_process.answers[0].detections) == 6
    assert in_process.answers[0].header == message.header
    in_process.wait_for(lambda: counts.handled > handled, "its count")
    assert (counts.handled, counts.failed, counts.reason) == (handled + 1, failed + 1, "")


# Two nodes with one model folder


@pytest.mark.usefixtures("node_finds_simulated_gpu")
def test_of_two_nodes_the_second_builds_the_engine_if_the_first_is_killed_meanwhile(
    tmp_path: Path,
    small: NDArray[np.uint8],
    detector_path: Callable[[str], Path],
) -> None:
    models = tmp_path / "models"
    engines = models / "engines"
    engines.mkdir(parents=True)
    (models / detector_path("500m").name).symlink_to(detector_path("500m"))
    # Who builds reads this first, with the folder locked, and waits until it is written.
    cache = engines / "timing.cache"
    os.mkfifo(cache)
    parameters = LIGHT | {"model_directory": models, "recognizer.enabled": False}
    with subprocess.Popen(face_node_command("/first", parameters)) as first:
        held = opened_for_writing(cache)
        with running_face_node(tmp_path, parameters) as second:
            second.wait_for(lambda: "waiting for another process" in second.log(), "the lock")
            first.kill()
            first.wait()
            os.close(held)
            os.close(opened_for_writing(cache))
            second.wait_until_active()
            assert len(second.ask(small)[0].detections) == 6
            assert "500m_bnkps_320x320_sm87_tensorrt-10.3.0.engine on tensorrt" in second.log()
    assert {path.suffix for path in engines.iterdir()} == {".engine", ".json", ".cache"}


@pytest.mark.usefixtures("node_finds_simulated_gpu")
def test_images_go_on_while_an_engine_is_built_which_ends_with_the_node(
    tmp_path: Path, small: NDArray[np.uint8], detector_path: Callable[[str], Path]
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / detector_path("500m").name).symlink_to(detector_path("500m"))
    parameters = {
        "model_directory": models,
        "detector.model": "500m",
        "detector.input_size": 320,
        "recognizer.enabled": False,
    }
    with ExitStack() as held:
        with running_face_node(tmp_path, parameters) as harness:
            harness.wait_until_active()
            held.enter_context(locked_folder(models / "engines"))  # so the build waits
            for _ in range(2):
                assert len(harness.ask(small)[0].detections) == 6
            log = harness.log()
            (child,) = children(harness.process.pid)
        # The node's status and log are those of an end in order.
        assert not Path(f"/proc/{child}").exists()
    assert log.count("building an engine for an input of 320x224, once; until it is") == 1
    assert len(list((models / "engines").glob("*.engine"))) == 1


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(path.parent.name))
    return found


def test_the_node_hides_nothing_of_rclpys() -> None:
    """A list of timers of its own once took the place of the one that rclpy keeps."""
    if not rclpy.ok():
        rclpy.init()
    node, plain = FaceNode(), LifecycleNode("plain")
    own = [FaceNode, GuardedLifecycleNode]
    methods = {n for kind in own for n in vars(kind) if not n.startswith(("__", "on_"))}
    overridden = {"destroy_node", "_LifecycleNodeMixin__change_state"}
    assert methods & set(dir(LifecycleNode)) == overridden
    assigned = {
        part.attr
        for kind in own
        for part in ast.walk(ast.parse(inspect.getsource(kind)))
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
    }
    assert assigned & {*vars(plain), *dir(LifecycleNode)} == set()
    node.destroy_node()
    plain.destroy_node()
