# SPDX-License-Identifier: Apache-2.0
"""What becomes of every image that a camera sends at full rate: answered, dropped or lost.

    ./run.sh setup && . .venv/bin/activate && AMENT_PREFIX_PATH=$PWD/.venv \\
        FASTRTPS_DEFAULT_PROFILES_FILE=$PWD/config/fastdds.xml \\
        RMW_IMPLEMENTATION=rmw_fastrtps_cpp python bench/full_rate.py --seconds 60

The real node in a process of its own, 1280x720 images at 30 Hz of eight people who walk past each
other (test/clips.py), best effort. The light 500m at 320x320, so that two cores can keep up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rclpy
from numpy.typing import NDArray
from std_msgs.msg import Header
from tqdm import tqdm

tests = Path(__file__).resolve().parents[1] / "test"
sys.path[:0] = [str(tests), str(tests / "node")]

from clips import people_passing  # noqa: E402
from harness import image_counts, running_face_node  # noqa: E402

from scrfd_ros.images.files import read_image  # noqa: E402
from scrfd_ros.models.download import ensure_picture  # noqa: E402
from scrfd_ros.node.images import image_message  # noqa: E402

RATE = 30
CLIP_SECONDS = 8.0
PARAMETERS = {"detector.model": "500m", "detector.input_size": [320, 320]}


def clip(seconds: float) -> Iterator[NDArray[np.uint8]]:
    """Images of people who pass each other, uint8 [720, 1280, 3] BGR, at `RATE`."""

    def image(name: str) -> NDArray[np.uint8]:
        return read_image(ensure_picture(name))

    for frame in people_passing(image, seconds, RATE, (1280, 720)):
        yield frame.image


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    images = [image_message(image, Header()) for image in clip(CLIP_SECONDS)]
    rclpy.init()
    with (
        tempfile.TemporaryDirectory(prefix="full_rate_") as folder,
        running_face_node(Path(folder), PARAMETERS, reliable=False) as harness,
    ):
        harness.wait_until_active()
        sent = []
        start = time.monotonic()
        for number in tqdm(range(int(seconds * RATE)), desc="images", leave=False, disable=None):
            stamp = harness.publish(images[number % len(images)]).stamp
            sent.append((stamp.sec, stamp.nanosec))
            while (left := start + (number + 1) / RATE - time.monotonic()) > 0:
                rclpy.spin_once(harness.node, timeout_sec=left)
        for _ in range(20):
            rclpy.spin_once(harness.node, timeout_sec=0.05)
        assert harness.change_state("deactivate")
        ((handled, dropped, skipped, lost),) = image_counts(harness.log())
        stamps = [(a.header.stamp.sec, a.header.stamp.nanosec) for a in harness.detections]
        ids = Counter(face.id for answer in harness.detections for face in answer.detections)
        print(f"sent {len(sent)}, answered {len(stamps)}; stamps: ", end="")
        print("those of images, in order" if _is_part(stamps, sent) else "NOT those of images")
        known = "an unknown number" if lost is None else lost
        print(f"the node: {handled} handled, {dropped} dropped, {skipped} skipped, {known} lost")
        print(f"in no count: {len(sent) - handled - dropped - skipped - (lost or 0)}")
        print(f"ids: {len(ids)}, faces of each: {', '.join(map(str, sorted(ids.values())))}")
    rclpy.shutdown()


def _is_part(part: list[tuple[int, int]], whole: list[tuple[int, int]]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


if __name__ == "__main__":
    main()
