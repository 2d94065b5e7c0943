# SPDX-License-Identifier: Apache-2.0
"""Faces found on engines are those that ONNX Runtime finds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gpu.engines import engine, model, photograph, pictures, pipeline
from gpu.outcomes import Failure
from scrfd_ros.engines.agreement import LIMITS, SCORE_THRESHOLD, compare_faces, judge, worst
from scrfd_ros.engines.drawn_faces import drawn_faces
from scrfd_ros.evaluation.comparison import compare_pipelines
from scrfd_ros.images.files import read_image
from scrfd_ros.pipeline import FacePipeline, Frame

_CAMERAS = 8
_REPEAT = 5


def with_onnx_runtime(
    folder: Path, detector: str, recognizer: str, precision: str
) -> dict[str, Any]:
    """Compare detection and recognition of all pictures that are here, and of a drawing."""
    engines = [engine(folder, name, (precision,)) for name in (detector, recognizer)]
    candidate = pipeline(*engines)
    reference = pipeline(model(detector), model(recognizer), backend="onnxruntime")
    images = [("drawing", drawn_faces())]
    images += [(name, read_image(path)) for name, path in pictures().items()]
    report = compare_pipelines(reference, candidate, images, LIMITS[precision])
    figures = {"images": len(images)}
    figures |= {name: figure.value for name, figure in report.figures.items()}
    if report.failures:
        raise Failure(f"{'; '.join(report.failures)} ({', '.join(report.different)})", figures)
    return figures


def cameras(folder: Path, name: str) -> dict[str, Any]:
    """Compare the images of several cameras, run as one batch, with each alone; and their times."""
    found = pipeline(engine(folder, f"{name}-batch"), None)
    images = [cv2.convertScaleAbs(photograph(), alpha=0.6 + 0.1 * n) for n in range(_CAMERAS)]
    frames = [Frame(image) for image in images]
    together = [result.faces for result in found.run(frames)]
    differences = [
        compare_faces(faces, found(image).faces, SCORE_THRESHOLD).figures
        for image, faces in zip(images, together, strict=True)
    ]
    figures = {"faces": sum(map(len, together)), **worst(differences)}
    failures = judge(figures, LIMITS["fp16"])
    batch, one = _milliseconds(found, frames), _milliseconds(found, frames[:1])
    figures |= {
        "cameras": _CAMERAS,
        "together, ms": round(batch, 2),
        "one alone, ms": round(one, 2),
        "time of each, together to alone": round(batch / one / _CAMERAS, 3),
    }
    if failures:
        raise Failure("; ".join(failures), figures)
    return figures


def _milliseconds(found: FacePipeline, frames: Sequence[Frame]) -> float:
    """Median time of a run."""
    times = []
    for _ in range(_REPEAT):
        start = time.perf_counter()
        found.run(frames)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))
