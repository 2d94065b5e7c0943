# SPDX-License-Identifier: Apache-2.0
"""Mutated files and messages are read or refused; see fuzz/.

A short and repeatable part of `./run.sh fuzz`, with all its earlier findings.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
FUZZ = ROOT / "fuzz"
FINDINGS = ROOT / "test" / "fuzz_findings"

RUNS = {
    "image": 800,
    "compressed": 2000,
    "onnx": 1000,
    "network": 150,
    "engine": 800,
    "catalogue": 100,
    "pin": 500,
    "zip": 800,
    "gallery-export": 500,
    "gallery-file": 40,
    "pairs": 500,
    "mat": 300,
    "bag": 400,
    "bag-message": 800,
    "parameter": 200,
    "parameter-file": 25,
}
"""How often each target is executed: some tenths of a second."""

MESSAGES = int(os.environ.get("FUZZ_MESSAGES", 30))
"""How many mutated messages the node gets; docs/reliability.md has figures of more."""


def fuzz(*arguments: object, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the fuzzer in a process of its own, after other code if there is some."""
    start = f"import runpy; runpy.run_path({str(FUZZ)!r}, run_name='__main__')"
    command = [sys.executable, FUZZ] if not code else [sys.executable, "-c", code + start]
    return subprocess.run(
        [*map(str, (*command, *arguments))], capture_output=True, text=True, errors="replace"
    )


@pytest.mark.parametrize("target", RUNS)
def test_mutated_input_is_read_or_refused(target: str, tmp_path: Path) -> None:
    if target.startswith("parameter"):
        pytest.importorskip("rclpy")
    done = fuzz(target, "--runs", RUNS[target], "--unguided", "--corpus", tmp_path)
    assert done.returncode == 0, done.stderr[-5000:]
    found = re.search(r"([\d,]+) executions.*?([\d,]+) read, ([\d,]+) refused", done.stdout)
    assert found, done.stdout
    executions, read, _ = (int(number.replace(",", "")) for number in found.groups())
    assert executions == RUNS[target]
    assert read > 0, "nothing was good enough to be read: the mutations are too rough"


def test_every_target_is_run_and_every_finding_belongs_to_one() -> None:
    listed = re.findall(r"^  ([a-z-]+) +", fuzz("--help").stdout.split("targets:")[1], re.M)
    assert listed == list(RUNS)
    assert {path.name for path in FINDINGS.iterdir()} <= RUNS.keys()


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        pytest.param("1 / 0", "ZeroDivisionError", id="another error"),
        pytest.param("bytearray(300 << 20)", "took 30. MiB for a moment", id="memory"),
        pytest.param("__import__('os').abort()", "Fatal Python error: Aborted", id="crash"),
    ],
)
def test_mistakes_are_found_and_their_input_is_kept(
    mistake: str, words: str, tmp_path: Path
) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(FUZZ)!r})\n"
        f"import targets\n"
        f"targets.TARGETS['image'] = targets.Target(\n"
        f"    '', lambda: [b'good', b'bad'], lambda _: lambda data: data == b'bad' and {mistake}\n"
        f")\n"
    )
    done = fuzz("image", "--unguided", "--corpus", tmp_path, code=code)
    assert re.search(words, done.stderr), done.stderr
    if done.returncode == -signal.SIGABRT:
        kept = (tmp_path / "image.last").read_bytes()
        assert kept[8 : 8 + int.from_bytes(kept[:8], "little")] == b"bad"
    else:
        assert done.returncode == 1
        (path,) = tmp_path.glob("image-failure-*")
        assert path.read_bytes() == b"bad"
        assert str(path) in done.stdout


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_node_answers_every_good_image_after_a_mutated_one(
    transport: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
) -> None:
    """Over DDS, also with bytes that are not a message: ROS itself reads compressed images."""
    rclpy = pytest.importorskip("rclpy")
    monkeypatch.syspath_prepend(str(FUZZ))
    import cv2
    from harness import running_face_node
    from mutations import byte_mutations
    from rclpy.qos import QoSProfile
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CompressedImage
    from std_msgs.msg import Header
    from targets import TARGETS
    from vision_msgs.msg import Detection2DArray

    from scrfd_ros.node.images import image_message

    small = np.ascontiguousarray(image("t1.jpg")[::2, ::2])
    good = image_message(small, Header())
    seeds = TARGETS["image"].seeds()
    mutate = TARGETS["image"].mutations(seeds)
    if transport == "compressed":
        good = CompressedImage(format="jpeg", data=cv2.imencode(".jpg", small)[1].tobytes())
        parts = (seed.partition(b"\0") for seed in TARGETS["compressed"].seeds())
        seeds = [
            serialize_message(CompressedImage(format=name.decode(), data=data))
            for name, _, data in parts
        ]
        mutate = byte_mutations(seeds)
    random = Random(0)
    model = detector_path("500m")
    if not rclpy.ok():
        rclpy.init()
    parameters = {
        "image_transport": transport,
        "detector.engine_path": model,
        "recognizer.enabled": "false",
        "backend": "onnxruntime",
    }
    with running_face_node(tmp_path, parameters) as harness:
        topic = {"raw": "image", "compressed": "image/compressed"}[transport]
        camera = harness.node.create_publisher(type(good), topic, QoSProfile(depth=5))
        harness.wait_for(
            lambda: (
                camera.get_subscription_count() == 1
                and harness.node.count_publishers("detections") == 1
            ),
            "an active node",
        )

        def answers() -> list[Detection2DArray]:
            return [found for found in harness.detections if found.header == good.header]

        def publish() -> None:
            good.header = Header(stamp=harness.node.get_clock().now().to_msg())
            harness.detections.clear()
            camera.publish(good)

        while not answers():  # messages are lost until the node has discovered the camera
            publish()
            rclpy.spin_once(harness.node, timeout_sec=1)
        for number in range(MESSAGES):
            mutated = mutate(random.choice(seeds), random)
            (tmp_path / "last").write_bytes(mutated)
            camera.publish(mutated)
            harness.state()  # wait until the node has it, or the next one would replace it
            publish()
            harness.wait_for(lambda: bool(answers()), f"an answer after {number + 1} messages")
            assert len(answers()[0].detections) == 6, number
    log = (tmp_path / "face_node.log").read_text()
    counts = re.search(r"(\d+) handled, (\d+) dropped for newer ones, (\d+) skipped", log)
    assert counts and int(counts[3]) > 0
    print(f"{transport}: {MESSAGES} mutated messages: {counts[0]}")
