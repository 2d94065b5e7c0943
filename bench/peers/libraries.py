# SPDX-License-Identifier: Apache-2.0
"""The compared libraries, each called as by its users, with the same ONNX files.

All take their own number of threads: one for each core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from insightface.app import FaceAnalysis
from insightface.app.common import Face
from numpy.typing import NDArray

from peers.pictures import Image
from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.errors import BackendError
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.recognition.alignment import align_faces

try:
    import uniface.detection.scrfd
    import uniface.recognition.arcface
    from uniface import FaceAnalyzer
except ImportError:
    uniface = None

OURS, INSIGHTFACE, UNIFACE = "scrfd_ros", "insightface", "uniface"
ON_OPENVINO = "on OpenVINO"
"""scrfd_ros again, with its other backend."""

IN_PARTS = "in parts"
"""scrfd_ros again, with detector.full_look_period."""

INPUT_SIZE = (640, 640)


class Library(NamedTuple):
    """The functions of a library on an image.

    Attributes:
        detect: finds faces.
        recognize: embeds the faces with these landmarks, float32 [N, 5, 2].
        analyze: finds faces and embeds them; returns a collection with one item for each face.
    """

    detect: Callable[[Image], Any]
    recognize: Callable[[Image, NDArray[np.float32]], Any]
    analyze: Callable[[Image], Any]


def libraries(pipeline: FacePipeline) -> tuple[dict[str, Library], list[str]]:
    """The installed libraries by name, and why others are missing; the pipeline is ours."""
    sides, missing = {OURS: ours(pipeline), INSIGHTFACE: insightface_library()}, []
    try:
        sides[ON_OPENVINO] = ours(own_pipeline(backend="openvino"))
    except BackendError as error:
        missing.append(f"{ON_OPENVINO}: {error}")
    if uniface is not None:
        sides[UNIFACE] = uniface_library()
    else:
        missing.append(
            f"{UNIFACE}: not installed; it needs Python 3.11 or later, and "
            f"./run.sh bench --peers installs it there"
        )
    return sides, missing


def detector_path() -> Path:
    return ensure_model(load_catalogue().find("2.5g", DETECTOR))


def recognizer_path() -> Path:
    return ensure_model(load_catalogue().find("w600k_mbf", RECOGNIZER))


def own_pipeline(recognize: bool = True, backend: str = "onnxruntime") -> FacePipeline:
    return load_pipeline(
        PipelineConfig(
            backend=backend,
            detector=DetectorConfig(engine_path=detector_path()),
            recognizer=RecognizerConfig(enabled=recognize, engine_path=recognizer_path()),
        )
    )


def ours(pipeline: FacePipeline) -> Library:
    recognizer = pipeline.recognizer
    assert recognizer is not None
    return Library(
        pipeline.detector.detect,
        lambda image, landmarks: recognizer.embed(align_faces(image, landmarks)),
        lambda image: pipeline(image).faces,
    )


def link_models(folder: Path) -> None:
    """Link the networks into a folder, as insightface needs them."""
    for path in (detector_path(), recognizer_path()):
        (folder / path.name).symlink_to(path.resolve())


def insightface_library() -> Library:
    with tempfile.TemporaryDirectory() as folder:
        link_models(Path(folder))
        analysis = FaceAnalysis(folder)
        # By default it processes each image twice, also at 128x128.
        analysis.prepare(ctx_id=-1, det_size=INPUT_SIZE)
        analysis.get(np.zeros((64, 64, 3), np.uint8))  # loads a copy for this size of input
    arcface = analysis.models["recognition"]
    return Library(
        analysis.det_model.detect,
        lambda image, landmarks: [arcface.get(image, Face(kps=points)) for points in landmarks],
        analysis.get,
    )


def uniface_library() -> Library:
    scrfd, arcface = uniface.detection.scrfd, uniface.recognition.arcface

    class Scrfd(scrfd.SCRFD):  # type: ignore[misc, name-defined]
        """It expects outputs without an axis for the batch; its own networks have none."""

        def inference(self, input_tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            return [
                output.reshape(-1, output.shape[-1]) for output in super().inference(input_tensor)
            ]

    # It accepts networks by name only.
    with patch.object(scrfd, "verify_model_weights", lambda _: str(detector_path())):
        detector = Scrfd(input_size=INPUT_SIZE)
    with patch.object(arcface, "verify_model_weights", lambda _: str(recognizer_path())):
        recognizer = arcface.ArcFace()
    return Library(
        detector.detect,
        lambda image, landmarks: [
            recognizer.get_normalized_embedding(image, points) for points in landmarks
        ],
        FaceAnalyzer(detector=detector, recognizer=recognizer).analyze,
    )


def versions() -> dict[str, str | None]:
    import insightface

    return {
        "insightface": insightface.__version__,
        "uniface": uniface.__version__ if uniface is not None else None,
    }
