# SPDX-License-Identifier: Apache-2.0
"""Differences from the reference implementation: prints the table of docs/accuracy.md.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/parity.py

The reference is insightface with the same files: its detector, and its alignment and recognizer on
the faces it found. Thresholds are 0.5 (score) and 0.4 (NMS). Its boxes and landmarks are corrected
for its use of one scale for both axes, see `insightface_stretch`; its embeddings are not, and are
listed separately for the images where the scales of the axes differ.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.scrfd import SCRFD
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from skimage.data import astronaut
from tqdm import tqdm

from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.engines.agreement import compare_faces, insightface_stretch, worst
from scrfd_ros.faces import Faces
from scrfd_ros.images.files import read_image
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.pipeline import load_pipeline

IMAGES = (
    "t1.jpg",
    "solvay_conference_1927.jpg",
    "obama.jpg",
    "obama2.jpg",
    "obama3.jpg",
    "biden.jpg",
    "players.jpg",
    "gdp.jpg",
    "yaoming.jpg",
    "Tom_Hanks_54745.png",
)
SETTINGS = (
    ("500m", 320),
    ("500m", 640),
    ("500m", 1280),
    ("det_500m", 320),
    ("det_500m", 640),
    ("det_500m", 1280),
    ("2.5g", 640),
)
RECOGNIZER = "w600k_mbf"


class Reference:
    """The reference implementation, with one detector and one recognizer."""

    def __init__(self, detector: Path, recognizer: Path, size: int) -> None:
        self._detector = SCRFD(str(detector))
        self._detector.prepare(-1, input_size=(size, size), det_thresh=0.5, nms_thresh=0.4)
        self._recognizer = ArcFaceONNX(str(recognizer))
        self._size = size, size

    def __call__(self, image: NDArray[np.uint8]) -> Faces:
        """Its faces with corrected x, and their embeddings with its own x."""
        found, landmarks = self._detector.detect(image)
        stretch = np.float32(insightface_stretch(image.shape[1::-1], self._size))
        boxes, corrected = found[:, :4].copy(), landmarks.copy()
        boxes[:, ::2] /= stretch
        corrected[..., 0] /= stretch
        faces = Faces(boxes, found[:, 4].copy(), corrected)
        features = [self._recognizer.get_feat(norm_crop(image, points)) for points in landmarks]
        raw = np.concatenate([np.empty((0, 512), np.float32), *features])
        norms = np.linalg.norm(raw, axis=1)
        return faces.with_embeddings(raw / norms[:, None], norms)


def main() -> None:
    warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning)
    images = [read_image(ensure_picture(name)) for name in IMAGES]
    images.append(np.ascontiguousarray(astronaut()[:, :, ::-1]))
    print(
        f"{len(images)} images, embeddings by {RECOGNIZER}\n\n| detector | input | faces "
        f"| in one only | boxes, px | landmarks, px | scores | IoU | cosine "
        f"| cosine, scales differ |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    recognizer = ensure_model(load_catalogue().find(RECOGNIZER))
    for name, size in SETTINGS:
        path = ensure_model(load_catalogue().find(name))
        reference = Reference(path, recognizer, size)
        pipeline = load_pipeline(
            PipelineConfig(
                backend="onnxruntime",
                detector=DetectorConfig(engine_path=path, input_size=(size, size)),
                recognizer=RecognizerConfig(engine_path=recognizer),
            )
        )
        figures: list[dict[str, float]] = []
        for image in tqdm(images, f"{name} at {size}", leave=False, disable=None):
            expected, found = reference(image), pipeline(image).faces
            figures.append({"faces": len(expected), **compare_faces(found, expected, 0.5).figures})
            if len(expected) == len(found) > 0:
                assert expected.landmarks is not None and found.landmarks is not None
                figures[-1]["max_box"] = np.abs(found.boxes - expected.boxes).max().item()
                moved = np.abs(found.landmarks - expected.landmarks).max().item()
                figures[-1]["max_landmark"] = moved
            if insightface_stretch(image.shape[1::-1], (size, size)) != 1:
                cosine = figures[-1].pop("min_cosine", 1.0)
                figures[-1]["min_cosine_elsewhere"] = cosine
        total = worst(figures)
        print(
            f"| {name} | {size} | {total['faces']} "
            f"| {total['missed_faces'] + total['extra_faces']} "
            f"| {total['max_box']:.5f} | {total['max_landmark']:.5f} "
            f"| {total['max_score_difference']:.1e} | {total['min_iou']:.6f} "
            f"| {total['min_cosine']:.6f} | {total['min_cosine_elsewhere']:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
