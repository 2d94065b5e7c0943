# SPDX-License-Identifier: Apache-2.0
"""Time outside the networks: scrfd_ros, insightface, and the least that the same work can take.

    ./run.sh setup && .venv/bin/python bench/outside.py

Prints a Markdown table of milliseconds of runs in turns: the median, and p10 in brackets, which a
busy machine disturbs less. The least is OpenCV's resize of the image, or its warps of the faces,
and a plain copy of as many bytes as are written of the network's input. All is measured just after
a run of a network, which leaves nothing else in the caches.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import cv2
import numpy as np
from peers.libraries import INSIGHTFACE, OURS, insightface_library, ours, own_pipeline
from peers.pictures import FULL_HD, HD, VGA, Image, six_people
from peers.timing import NetworkClock, in_turns

from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.recognition.alignment import align_faces, similarity_transforms

LEAST = "least"

Call = Callable[[], object]


def least_detection(pipeline: FacePipeline, image: Image) -> Call:
    """A run of the network, a resize, and a copy of what a detection writes of its input."""
    detector = pipeline.detector
    blob = next(detector.prepare([image])).blob
    _, _, height, width = blob.shape
    scale = min(width / image.shape[1], height / image.shape[0])
    size = int(scale * image.shape[1]), int(scale * image.shape[0])
    resized = np.empty((size[1], size[0], 3), np.uint8)
    planes = np.empty((3, size[1], size[0]), np.float32)
    source = np.zeros_like(planes)

    def run() -> None:
        detector.network({detector.network.inputs[0].name: blob})
        cv2.resize(image, size, dst=resized)
        np.copyto(planes, source)

    return run


def least_recognition(pipeline: FacePipeline, image: Image, landmarks: np.ndarray) -> Call:
    """A run of the network, warps of the faces, and a copy of its input."""
    recognizer = pipeline.recognizer
    assert recognizer is not None
    crops = align_faces(image, landmarks)
    blob = recognizer.prepare(crops)
    copied, transforms = np.empty_like(blob), similarity_transforms(landmarks)

    def run() -> None:
        recognizer.network({recognizer.network.inputs[0].name: blob[:1]})
        for crop, transform in zip(crops, transforms, strict=True):
            cv2.warpAffine(image, transform, crop.shape[:2], dst=crop)
        np.copyto(copied, blob)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=30, metavar="N", help="runs of each")
    repeat = parser.parse_args().repeat
    warnings.filterwarnings("ignore", category=FutureWarning, module="insightface")
    clock = NetworkClock()
    print("| | scrfd_ros | insightface | least | ratio |\n|---|---:|---:|---:|---:|")
    with clock.counting():
        pipeline = own_pipeline()
        sides = {OURS: ours(pipeline), INSIGHTFACE: insightface_library()}
        work: dict[str, dict[str, Call]] = {}
        for size in (VGA, HD, FULL_HD):
            image = six_people(size)
            work[f"detection, {size}"] = {
                name: lambda side=side, image=image: side.detect(image)
                for name, side in sides.items()
            } | {LEAST: least_detection(pipeline, image)}
        image = six_people(HD)
        landmarks = pipeline(image).faces.landmarks
        assert landmarks is not None
        work[f"recognition, {len(landmarks)} faces"] = {
            name: lambda side=side: side.recognize(image, landmarks) for name, side in sides.items()
        } | {LEAST: least_recognition(pipeline, image, landmarks)}
        for name, calls in work.items():
            times = in_turns(clock, calls, repeat, name)
            found = [times[side]["outside"] for side in (OURS, INSIGHTFACE, LEAST)]
            ratios = {key: found[0][key] / found[1][key] for key in found[0]}
            cells = (f"{one['median']:.2f} ({one['p10']:.2f})" for one in (*found, ratios))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
