# SPDX-License-Identifier: Apache-2.0
"""Sends a real image through the real node over DDS; checks and draws the answer."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.config import DetectorConfig, RecognizerConfig
from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.files import write_text
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.files import read_image, write_image
from scrfd_ros.messages.faces import faces_of
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.msg import FaceArray
from scrfd_ros.node.images import image_message
from scrfd_ros.recognition.similarity import nearest_others
from scrfd_ros.tracking.tracker import SAME_PERSON

NAMESPACE = f"scrfd_demo_{os.getpid()}"  # so that no other node on the network answers
MODELS = (DetectorConfig.model, RecognizerConfig.model)
IMAGE = "t1.jpg"
PEOPLE = 6
FRAMES = 20
START_TIMEOUT = 60.0  # seconds for the node to load its networks and to be discovered
ANSWER_TIMEOUT = 3.0  # seconds, after which the image is sent again
TRIES = 10


class Camera(Node):
    """Publishes one image again and again, and waits for each answer."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        super().__init__("camera", namespace=NAMESPACE)
        self._image = image
        self._images = self.create_publisher(Image, "image", QoSProfile(depth=1))
        self._answers: dict[type, Detection2DArray | FaceArray] = {}
        for kind, topic in ((Detection2DArray, "detections"), (FaceArray, "faces")):
            self.create_subscription(kind, topic, self._take, QoSProfile(depth=10))

    def _take(self, message: Detection2DArray | FaceArray) -> None:
        self._answers[type(message)] = message

    def connected(self) -> bool:
        """Whether the node subscribes to the images and publishes both results."""
        return self._images.get_subscription_count() > 0 and all(
            self.count_publishers(topic) for topic in ("detections", "faces")
        )

    def ask(self) -> tuple[Detection2DArray, FaceArray, float]:
        """Publish the image; returns both answers and the milliseconds until both were there.

        Raises:
            ScrfdError: there was no answer in `TRIES` tries.
        """
        for _ in range(TRIES):
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id="demo_camera")
            start = time.monotonic()
            self._images.publish(image_message(self._image, header))
            while time.monotonic() < start + ANSWER_TIMEOUT:
                rclpy.spin_once(self, timeout_sec=0.1)
                detections = self._answers.get(Detection2DArray)
                faces = self._answers.get(FaceArray)
                if detections and faces and detections.header == faces.header == header:
                    return detections, faces, 1e3 * (time.monotonic() - start)
        raise ScrfdError(
            f"the node did not answer {TRIES} images within {ANSWER_TIMEOUT:.0f} s each"
        )


def check(detections: Detection2DArray, message: FaceArray) -> None:
    """Check that the two answers agree with each other and with what is known of the image.

    Raises:
        ScrfdError: they do not; names every difference.
    """
    problems = []
    if len(detections.detections) != PEOPLE:
        problems.append(f"{len(detections.detections)} faces, expected {PEOPLE}")
    if [face.detection for face in message.faces] != list(detections.detections):
        problems.append("detections and faces differ")
    if any(detection.header != detections.header for detection in detections.detections):
        problems.append("a detection does not carry the image's header")
    if any(len(face.landmarks) != 5 or not face.embedding for face in message.faces):
        problems.append("a face lacks landmarks or an embedding")
    if not problems:
        embeddings = faces_of(message).embeddings
        assert embeddings is not None
        if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
            problems.append("an embedding is not of length 1")
        if nearest_others(embeddings)[1].max() > SAME_PERSON:
            problems.append("two people look the same")
    if problems:
        raise ScrfdError(f"the node's answer is wrong: {'; '.join(problems)}")


def report(faces: Faces, latencies: list[float]) -> None:
    """Print the faces and how long an image took, in 80 columns."""
    assert faces.embeddings is not None and faces.ids is not None
    others, cosines = nearest_others(faces.embeddings)
    print("\nface  score        x1      y1      x2      y2   most like  cosine")
    for row, box in enumerate(faces.boxes):
        corners = "".join(f"{value:8.1f}" for value in box)
        print(
            f"{f'#{faces.ids[row]}':>4}  {faces.scores[row]:5.3f}  {corners}"
            f"   {f'#{faces.ids[others[row]]}':<9}  {cosines[row]:6.2f}"
        )
    print(
        f"\n{len(faces)} people, all different: no cosine is over {SAME_PERSON}.\n"
        f"Image published to faces received: median {np.median(latencies):.0f} ms, "
        f"slowest {max(latencies):.0f} ms of {len(latencies)}."
    )


def use_transport_profile() -> None:
    """Have Fast DDS use the package's profile in this process and its children.

    Without it, most images of this size get lost. A profile that the user has set stays.
    """
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # old and new
    if not any(os.environ.get(name) for name in names):
        profile = Path(get_package_share_directory("scrfd_ros"), "config", "fastdds.xml")
        os.environ.update(dict.fromkeys(names, str(profile)))


def run(output: Path, verbose: bool = False) -> None:
    """Run the demonstration; writes demo.png and demo.json into the folder `output`.

    Args:
        verbose: show the node's log.
    """
    for name in MODELS:
        ensure_model(load_catalogue().find(name))
    image = read_image(ensure_picture(IMAGE))
    print(
        f"Looking for the people in {IMAGE} with face_node ({' and '.join(MODELS)}) ...",
        flush=True,
    )
    executable = Path(get_package_prefix("scrfd_ros"), "lib", "scrfd_ros", "face_node")
    command = [str(executable), "--ros-args", "-r", f"__ns:=/{NAMESPACE}"]
    if not verbose:
        command += ["--log-level", "warn"]
    # In a session of its own it does not get the terminal's SIGINT; this program ends it.
    process = subprocess.Popen(command, start_new_session=True)
    camera = Camera(image)
    try:
        end = time.monotonic() + START_TIMEOUT
        while not camera.connected():
            if process.poll() is not None:
                raise ScrfdError(f"face_node ended with status {process.returncode}; see above")
            if time.monotonic() > end:
                raise ScrfdError(f"face_node was not ready within {START_TIMEOUT:.0f} s; see above")
            rclpy.spin_once(camera, timeout_sec=0.1)
        latencies = []
        for _ in range(FRAMES):
            detections, message, latency = camera.ask()
            check(detections, message)
            latencies.append(latency)
    finally:
        camera.destroy_node()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    faces = faces_of(message)
    report(faces, latencies)
    write_image(output / "demo.png", draw_faces(image, faces))
    values = {
        "image": {"width": image.shape[1], "height": image.shape[0]},
        "detector": message.detector,
        "recognizer": message.recognizer,
        "latency_milliseconds": latencies,
        "faces": faces.as_json(),
    }
    write_text(output / "demo.json", json.dumps(values) + "\n")
    print(f"Image and numbers are in {output}/demo.png and {output}/demo.json.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Find the people in an image through the real node: the image is published "
        "to face_node again and again, its answers are checked, and drawn into output/demo.png.",
        epilog="Exit status: 0 all is right; 1 it is not, with the reason; 2 an argument is "
        "unknown; 130 interrupted.",
    )
    parser.add_argument("--verbose", action="store_true", help="show what face_node logs")
    return parser


def main() -> int:
    """Run the demonstration in ./output; returns the exit status."""
    args = _parser().parse_args(remove_ros_args(sys.argv)[1:])
    use_transport_profile()
    rclpy.init()
    try:
        run(Path("output"), args.verbose)
    except ScrfdError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
