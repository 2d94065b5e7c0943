"""From an image to faces: the one way that node, command line and tests all take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines import open_network
from scrfd_ros.faces import Faces
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, installed_model
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace


class Result(NamedTuple):
    """What `FacePipeline` finds in one picture.

    Attributes:
        faces: in pixels of the picture, best score first.
        milliseconds: wall time by stage: prepare (letterbox and normalise), detect (network),
            decode (with NMS), align, embed (network), and total.
    """

    faces: Faces
    milliseconds: dict[str, float]


class FacePipeline:
    """Detects faces, and embeds them where there is a recogniser and the detector gives landmarks.

    Keeps buffers between calls: use one per thread.
    """

    def __init__(self, detector: Scrfd, recognizer: ArcFace | None = None) -> None:
        self.detector = detector
        self.recognizer = recognizer if detector.has_landmarks else None
        self.warning = ""
        if recognizer is not None and not detector.has_landmarks:
            self.warning = (
                f"{detector.network.path.name} finds no landmarks, without which faces cannot be "
                f"aligned: no embeddings are computed. Use a detector with landmarks (500m, 2.5g, "
                f"10g), or switch the recogniser off"
            )

    def __call__(self, picture: NDArray[np.uint8]) -> Result:
        """Faces of a picture, uint8 [H, W, 3] BGR."""
        times = [time.perf_counter()]
        scale = self.detector.prepare(picture)
        times.append(time.perf_counter())
        outputs = self.detector.infer()
        times.append(time.perf_counter())
        faces = self.detector.decode(outputs, scale)
        times.append(time.perf_counter())
        if self.recognizer is not None and faces.landmarks is not None:
            crops = align_faces(picture, faces.landmarks)
            times.append(time.perf_counter())
            faces = faces.with_embeddings(*self.recognizer.embed(crops))
            times.append(time.perf_counter())
        stages = ("prepare", "detect", "decode", "align", "embed")
        milliseconds = {
            stage: 1e3 * (end - start)
            for stage, start, end in zip(stages, times, times[1:], strict=False)
        }
        milliseconds["total"] = 1e3 * (times[-1] - times[0])
        return Result(faces, milliseconds)


def load_pipeline(
    *,
    detector: str = "2.5g",
    recognizer: str | None = "w600k_mbf",
    detector_path: Path | None = None,
    recognizer_path: Path | None = None,
    model_directory: Path | None = None,
    backend: str = "auto",
    cuda_graph: bool = False,
    input_size: tuple[int, int] = (640, 640),
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    max_faces: int = 0,
) -> FacePipeline:
    """Load the networks and run each once, so that the first picture is as quick as the next.

    Args:
        detector, recognizer: names in the catalogue; None for no recogniser.
        detector_path, recognizer_path: model files, which win over the names.
        model_directory: where models of the catalogue lie; None for the default.
        backend, cuda_graph: see `scrfd_ros.engines.open_network`.
        input_size, score_threshold, nms_threshold, max_faces: see `Scrfd`.

    Raises:
        ModelError: a model is unknown, missing, damaged or of another kind.
    """
    detector_path = detector_path or installed_model(detector, DETECTOR, model_directory)
    network = open_network(detector_path, backend, input_size=input_size, cuda_graph=cuda_graph)
    faces = Scrfd(network, input_size, score_threshold, nms_threshold, max_faces)
    if recognizer_path is None and recognizer is not None:
        recognizer_path = installed_model(recognizer, RECOGNIZER, model_directory)
    if recognizer_path is None:
        return FacePipeline(faces)
    network = open_network(recognizer_path, backend, cuda_graph=cuda_graph)
    return FacePipeline(faces, ArcFace(network))
