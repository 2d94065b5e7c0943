# SPDX-License-Identifier: Apache-2.0
"""The real node on engines: over DDS, and through its lifecycle again and again."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rclpy
from harness import running_face_node
from lifecycle import usage_over_rounds, usage_without_garbage
from peers.observed_node import Feeder, Side, use_own_domain
from process_usage import DESCRIPTORS, MEMORY, THREADS

from gpu.engines import engine, photograph, pipeline
from gpu.outcomes import Failure
from scrfd_ros.engines.agreement import LIMITS, SCORE_THRESHOLD, compare_faces, judge
from scrfd_ros.inference.cuda import device_memory
from scrfd_ros.messages.faces import faces_of

_RATES = (30, 100)  # Hz
_SECONDS = 3.0  # at each rate
_DEVICE = "device memory, KiB"
_LARGEST_GROWTH = {THREADS: 0, DESCRIPTORS: 0, MEMORY: 64 << 10, _DEVICE: 16 << 10}


def over_dds(folder: Path, detector: str, recognizer: str) -> dict[str, Any]:
    """Ask a node for the faces of an image, and compare them with those of the pipeline."""
    parameters = _parameters(folder, detector, recognizer)
    expected = pipeline(engine(folder, detector), engine(folder, recognizer))(photograph()).faces
    use_own_domain()
    rclpy.init()
    with (
        TemporaryDirectory(prefix="gpu_") as logs,
        running_face_node(Path(logs), parameters) as node,
    ):
        node.wait_until_active()
        _, answer = node.ask(photograph())
        figures = compare_faces(faces_of(answer), expected, SCORE_THRESHOLD).figures
    rclpy.shutdown()
    figures["faces"] = len(answer.faces)
    failures = judge(figures, LIMITS["fp16"])
    if failures:
        raise Failure("; ".join(failures), figures)
    return {**figures, "networks": f"{answer.detector}, {answer.recognizer}"}


def at_camera_rates(folder: Path, detector: str, recognizer: str) -> dict[str, Any]:
    """Send a node a clip of 1280x720, more images than a camera gives, and record its times."""
    feeder = Feeder()
    try:
        with Side(feeder, "face_node", _parameters(folder, detector, recognizer)) as side:
            side.wait_until_ready()
            for rate in _RATES:
                side.feed(rate, _SECONDS)
            record = side.stop()
    finally:
        feeder.close()
    figures: dict[str, Any] = {"peak memory of the process, MiB": round(record.peak_memory)}
    for rate in _RATES:
        found = record.at(rate)
        figures |= {
            f"answers per second at {rate} Hz": round(1e3 / found["interval"]["median"], 1),
            f"pipeline at {rate} Hz, ms": round(found["pipeline"]["median"], 2),
            f"in the node besides at {rate} Hz, ms": round(found["overhead"]["median"], 2),
        }
    return figures


def lifecycle(
    folder: Path, detector: str, recognizer: str, rounds: int, seconds: float
) -> dict[str, Any]:
    """Configure, activate, deactivate and clean up a node again and again."""

    def measured() -> dict[str, int]:
        return {**usage_without_garbage(), _DEVICE: device_memory()[0] >> 10}

    parameters = _parameters(folder, detector, recognizer)
    before, after, done = usage_over_rounds(rounds, parameters, measured, seconds)
    growth = {name: after[name] - before[name] for name in after}
    figures = {"rounds": done, **{f"growth of {name}": value for name, value in growth.items()}}
    if not done:
        raise Failure(f"the rounds that are not counted took {seconds:.0f} s", figures)
    too_much = [name for name, largest in _LARGEST_GROWTH.items() if growth[name] > largest]
    if too_much:
        raise Failure(f"grew: {', '.join(too_much)}", figures)
    return figures


def _parameters(folder: Path, detector: str, recognizer: str) -> dict[str, object]:
    return {
        "backend": "tensorrt",
        "detector.engine_path": str(engine(folder, detector)),
        "recognizer.engine_path": str(engine(folder, recognizer)),
    }
