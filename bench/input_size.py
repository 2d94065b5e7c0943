# SPDX-License-Identifier: Apache-2.0
"""Inputs that fit the image, beside square ones: faces found, boxes, time and memory.

    ./run.sh setup && .venv/bin/python bench/input_size.py

Prints Markdown tables. The images are random parts of photographs. The faces in them are those that
500m finds in the whole photograph at twice the input size, which favors neither side. Average
precision is by the protocol of WIDER FACE, with the thresholds of its published table. Times are
medians of runs in turns; memory is the peak of a process that loads the pipeline and looks at one
image. 5 minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from turns import time_ratio

from scrfd_ros.config import AUTO, AUTO_SIDE, DetectorConfig, InputSize
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.agreement import SAME_FACE_IOU
from scrfd_ros.engines.free_size import load_for_size
from scrfd_ros.evaluation.wider_face import PUBLISHED, AnnotatedImage
from scrfd_ros.evaluation.wider_face_ap import evaluate
from scrfd_ros.faces import Faces, FloatArray, ious
from scrfd_ros.images.files import read_image
from scrfd_ros.images.scaling import scale_by_area, scale_linear
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture

MODELS = ("500m", "2.5g")
PHOTOGRAPHS = (
    "t1.jpg",
    "solvay_conference_1927.jpg",
    "players.jpg",
    "gdp.jpg",
    "obama.jpg",
    "obama2.jpg",
    "obama3.jpg",
    "biden.jpg",
    "yaoming.jpg",
)
SHAPES = ((1280, 720), (1920, 1080), (640, 480), (480, 640))
SQUARE = (AUTO_SIDE, AUTO_SIDE)
SMALLEST = 24  # pixels of a photograph, height of a face that counts as known
FAR = 1.0  # heights of a face between it and the end of the image, from which it counts as far
CUT = 4  # pixels of the image; a box nearer to its edge may be that of a face that is cut off
ROUNDS = 15


def detector(name: str, input_size: InputSize) -> Scrfd:
    path = ensure_model(load_catalogue().find(name, DETECTOR))
    config = replace(PUBLISHED, input_size=input_size)
    network = load_for_size(path, config.largest_input, any_size=config.fits_images)
    return Scrfd(network, config)


def parts(
    size: tuple[int, int], count: int, finder: Scrfd, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], FloatArray, NDArray[np.bool_]]]:
    """Random parts of photographs, scaled to a size; boxes there, and which faces are whole."""
    aspect = size[0] / size[1]
    for name in PHOTOGRAPHS:
        photograph = read_image(ensure_picture(name))
        faces = finder.detect(photograph)
        boxes = faces.boxes[faces.scores >= 0.5]
        boxes = boxes[boxes[:, 3] - boxes[:, 1] >= SMALLEST]
        height, width = photograph.shape[:2]
        for _ in range(count):
            across = int(min(width, height * aspect) * rng.uniform(0.4, 1.0))
            down = max(int(across / aspect), 1)
            x, y = rng.integers(0, width - across + 1), rng.integers(0, height - down + 1)
            image = np.empty((size[1], size[0], 3), np.uint8)
            scale = scale_by_area if across > size[0] else scale_linear
            scale(photograph[y : y + down, x : x + across], image)
            inside = np.clip(boxes, (x, y, x, y), (x + across, y + down, x + across, y + down))
            here = (inside[:, 2:] > inside[:, :2]).all(axis=1)
            whole = (inside == boxes).all(axis=1)[here]
            scales = np.tile(np.array(size) / (across, down), 2)
            there = (inside[here] - (x, y, x, y)) * scales
            yield image, there.astype(np.float32), whole


def annotated(number: int, boxes: FloatArray, whole: NDArray[np.bool_]) -> AnnotatedImage:
    sides = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    return AnnotatedImage("parts", str(number), sides.astype(np.float64), np.tile(whole, (3, 1)))


def submission(faces: Faces) -> NDArray[np.float64]:
    corners = faces.boxes.astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    return np.column_stack((corners[:, :2], sides, faces.scores))


def differences(
    found: Faces, expected: Faces, size: tuple[int, int]
) -> tuple[list[float], list[float], int]:
    """Differences of boxes far from the lower or right end of the image, of others, and misses.

    In pixels of the input, for whole faces that score 0.5.
    """
    far: list[float] = []
    near: list[float] = []
    missed = 0
    scale = AUTO_SIDE / max(size)
    overlaps = ious(expected.boxes, found.boxes)
    shorter = 1 if size[1] < size[0] else 0
    for row in np.flatnonzero(expected.scores >= 0.5):
        if not len(found) or overlaps[row].max() < SAME_FACE_IOU:
            missed += 1
            continue
        box = expected.boxes[row]
        if (box[:2] < CUT).any() or (box[2:] > np.array(size) - CUT).any():
            continue
        pixels = float(np.abs(found.boxes[overlaps[row].argmax()] - box).max() * scale)
        gap = size[shorter] - box[2 + shorter]
        (far if gap >= FAR * (box[3] - box[1]) else near).append(pixels)
    return far, near, missed


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def peak(name: str, input_size: InputSize, size: tuple[int, int]) -> float:
    """Peak memory of a process that loads the pipeline and looks at one image, MiB."""
    size_text = DetectorConfig(input_size=input_size).input_text
    words = [sys.executable, __file__, "--peak", name, size_text, f"{size[0]}x{size[1]}"]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(run.stdout)


def print_peak(name: str, input_size: str, size: str) -> None:
    width, height = map(int, size.split("x"))
    image = cv2.resize(read_image(ensure_picture("t1.jpg")), (width, height))
    detector(name, AUTO if input_size == AUTO else SQUARE).detect(image.astype(np.uint8))
    status = Path("/proc/self/status").read_text()  # resource also counts the parent's memory
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=12, help="parts of each photograph")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    finder = detector("500m", (2 * AUTO_SIDE, 2 * AUTO_SIDE))
    accuracy, costs = [], []
    for name in MODELS:
        sides = {"square": detector(name, SQUARE), "auto": detector(name, AUTO)}
        for size in SHAPES:
            text = f"{size[0]}x{size[1]}"
            scenes = list(parts(size, arguments.count, finder, np.random.default_rng(0)))
            truth = [annotated(at, *scene[1:]) for at, scene in enumerate(scenes)]
            found = {
                side: [
                    each.detect(image)
                    for image, *_ in tqdm(scenes, f"{name} {text}", leave=False, disable=None)
                ]
                for side, each in sides.items()
            }
            hard = {
                side: evaluate(truth, list(map(submission, faces))).subsets["hard"]
                for side, faces in found.items()
            }
            pairs = zip(found["auto"], found["square"], strict=True)
            far, near, missed = zip(*(differences(*pair, size) for pair in pairs), strict=True)
            count = sum(len(each) for part in (far, near) for each in part) + sum(missed)
            precisions = [curve.average_precision or 0.0 for curve in hard.values()]
            accuracy.append(
                [
                    name,
                    text,
                    str(hard["auto"].faces),
                    *(f"{precision:.2%}" for precision in precisions),
                    f"{100 * (precisions[1] - precisions[0]):+.2f}",
                    f"{sum(missed)} of {count}",
                    *(
                        f"{np.median(values):.4f}, {np.quantile(values, 0.99):.3f}"
                        for values in (np.concatenate(far), np.concatenate(near))
                    ),
                ]
            )
            image = scenes[0][0]
            ratio = time_ratio(
                lambda image=image, auto=sides["auto"]: auto.detect(image),  # type: ignore[misc]
                lambda image=image, square=sides["square"]: square.detect(image),  # type: ignore[misc]
                ROUNDS,
            )
            memory = [peak(name, input_size, size) for input_size in (AUTO, SQUARE)]
            costs.append([name, text, f"{ratio:.2f}", *(f"{each:.0f} MiB" for each in memory)])
    table(
        (
            "detector",
            "image",
            "faces",
            "AP, 640x640",
            "AP, auto",
            "points",
            "missed",
            "boxes far from the end, px",
            "others, px",
        ),
        accuracy,
    )
    table(("detector", "image", "time, auto to 640x640", "memory, auto", "640x640"), costs)


if __name__ == "__main__":
    main()
