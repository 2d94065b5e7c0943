# SPDX-License-Identifier: Apache-2.0
"""Count images that arrive with and without the Fast DDS profile, for docs/transport.md.

    ./run.sh setup                      # once
    .venv/bin/python bench/transport.py

With ROS 2 installed and sourced use `python3 bench/transport.py`. Two processes run on one machine:
a publisher of bgr8 images for ten seconds, and a subscriber that only counts. Takes six minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.node.images import image_message

SECONDS = 10
IMAGES = ((1280, 720, 10), (1280, 720, 30), (1920, 1080, 30))
"""Width, height and rate, in Hz."""

RELIABILITIES = ("best effort", "reliable")
MAX_REPEAT = 5.0  # seconds in which a reliable publisher can repeat lost messages

NONE: dict[str, str] = {}
PROFILE = {
    name: str(Path(__file__).resolve().parents[1] / "config" / "fastdds.xml")
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
}
TRANSPORTS = {
    "default": (NONE, NONE),
    "profile": (PROFILE, PROFILE),
    "profile at the publisher only": (PROFILE, NONE),
    "profile at the subscriber only": (NONE, PROFILE),
}
"""By name, additional environment variables of publisher and subscriber."""


def qos(reliability: str) -> QoSProfile:
    """QoS of publisher and subscriber, as of a usual camera."""
    policy = getattr(QoSReliabilityPolicy, reliability.upper().replace(" ", "_"))
    return QoSProfile(depth=5, reliability=policy)


def publish(width: int, height: int, rate: int, reliability: str) -> None:
    """Publish images at a rate, in Hz, once there is a subscriber."""
    node = rclpy.create_node("transport_publisher")
    publisher = node.create_publisher(Image, "image", qos(reliability))
    image = image_message(np.zeros((height, width, 3), np.uint8), Header())
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    time.sleep(1)  # the subscriber may discover it later
    start = time.monotonic()
    for index in range(rate * SECONDS):
        time.sleep(max(0.0, start + index / rate - time.monotonic()))
        image.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(image)
    publisher.wait_for_all_acked(Duration(seconds=MAX_REPEAT))
    time.sleep(1)


def subscribe(reliability: str) -> None:
    """Print the latencies, in ms, of all images until the publisher ends, as JSON."""
    node = rclpy.create_node("transport_subscriber")
    latencies: list[float] = []

    def record(image: Image) -> None:
        age = node.get_clock().now() - Time.from_msg(image.header.stamp)
        latencies.append(age.nanoseconds / 1e6)

    node.create_subscription(Image, "image", record, qos(reliability))
    while not latencies or node.count_publishers("image"):
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(latencies))


def measure(environments: tuple[dict[str, str], dict[str, str]], *arguments: str) -> list[float]:
    """Latencies, in ms, of the images that arrived; the arguments are those of `publish`."""
    clean = {name: value for name, value in os.environ.items() if name not in PROFILE}
    clean["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)  # away from others
    publisher, subscriber = (clean | environment for environment in environments)
    program = [sys.executable, __file__]
    with subprocess.Popen([*program, "publish", *arguments], env=publisher):
        command = [*program, "subscribe", arguments[-1]]
        output = subprocess.run(command, env=subscriber, stdout=subprocess.PIPE, check=True).stdout
    latencies: list[float] = json.loads(output)
    return latencies


def print_table() -> None:
    """Measure every combination."""
    print("| transport | images | reliability | arrived | latency median / p95 |")
    print("|---|---|---|---:|---:|")
    for transport, environments in TRANSPORTS.items():
        for width, height, rate in IMAGES:
            for reliability in RELIABILITIES:
                latencies = measure(environments, str(width), str(height), str(rate), reliability)
                *_, p95 = statistics.quantiles(latencies, n=20)
                print(
                    f"| {transport} | {width}x{height}, {rate} Hz | {reliability} "
                    f"| {len(latencies)} of {rate * SECONDS} "
                    f"| {statistics.median(latencies):.0f} / {p95:.0f} ms |",
                    flush=True,
                )


def main() -> None:
    """Print the table, or be one of the two processes."""
    if len(sys.argv) == 1:
        print_table()
        return
    rclpy.init()
    role, *size, reliability = sys.argv[1:]
    if role == "publish":
        width, height, rate = map(int, size)
        publish(width, height, rate, reliability)
    else:
        subscribe(reliability)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
