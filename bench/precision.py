# SPDX-License-Identifier: Apache-2.0
"""The cost of FP16 and INT8 in agreement and time: prints the table of docs/accuracy.md.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/precision.py

Needs no GPU: the converted ONNX files run on the processor, which keeps some of the values of FP16
in single precision. The time is that of the network on this processor, as a multiple of the FP32
file's, measured in turns; it says nothing about a GPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from turns import time_ratio

from scrfd_ros.engines.agreement import compare_detectors, compare_recognizers
from scrfd_ros.engines.convert import Settings, crops_of, kind_of, typed_model
from scrfd_ros.images.files import read_image
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture

MODELS = ("500m", "2.5g", "det_500m", "w600k_mbf")
CALIBRATION = ("gdp.jpg", "obama2.jpg", "obama3.jpg")
IMAGES = (
    "t1.jpg",
    "solvay_conference_1927.jpg",
    "obama.jpg",
    "biden.jpg",
    "yaoming.jpg",
    "players.jpg",
)
COLUMNS = {
    "missed_faces": "missed",
    "extra_faces": "extra",
    "min_iou": "smallest IoU",
    "max_score_difference": "largest difference of scores",
    "max_landmark_distance": "of landmarks, of the face's size",
    "min_cosine": "smallest cosine",
}
ROUNDS = 30


def run_time_ratio(candidate: Network, reference: Network) -> float:
    """Median time of a run of the candidate over that of the reference."""
    (tensor,) = reference.inputs
    _, _, height, width = tensor.shape
    blob = np.random.default_rng(0).standard_normal((1, 3, height or 640, width or 640))
    inputs = {tensor.name: blob.astype(np.float32)}
    return time_ratio(lambda: candidate(inputs), lambda: reference(inputs), ROUNDS)


def main() -> None:
    images = [read_image(ensure_picture(name)) for name in IMAGES]
    print("| model | precision | faces |", " | ".join(COLUMNS.values()), "| time |")
    print("|---|---|" + "---:|" * (2 + len(COLUMNS)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image in CALIBRATION:
            (folder / image).symlink_to(ensure_picture(image))
        for model in MODELS:
            reference = OnnxRuntimeNetwork(ensure_model(load_catalogue().find(model)))
            for precision in ("fp16", "int8"):
                settings = Settings(precision, calibration=folder)
                path = folder / f"{model}.{precision}.onnx"
                path.write_bytes(typed_model(reference, settings, precision, fp16_inside=True))
                candidate = OnnxRuntimeNetwork(path)
                if kind_of(reference) == DETECTOR:
                    agreement = compare_detectors(candidate, reference, images)
                else:
                    agreement = compare_recognizers(
                        candidate, reference, crops_of(images, reference.path.parent)
                    )
                cells = [agreement.figures.get(column) for column in COLUMNS]
                words = ["" if cell is None else f"{cell:.5g}" for cell in cells]
                words.append(f"{run_time_ratio(candidate, reference):.2f}")
                faces = f"{agreement.figures['faces']:g}"
                print("|", " | ".join((model, precision, faces, *words)), "|", flush=True)


if __name__ == "__main__":
    main()
