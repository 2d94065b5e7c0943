"""From an image to faces: the one way that node, command line and tests all take."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines import open_network
from scrfd_ros.faces import Faces
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, installed_model
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

if TYPE_CHECKING:  # SciPy takes long to load, and only those who track need it
    from scrfd_ros.tracking import Tracker


class Result(NamedTuple):
    """What `FacePipeline` finds in one picture.

    Attributes:
        faces: in pixels of the picture, best score first.
        milliseconds: wall time by stage: prepare (letterbox and normalise), detect (network),
            decode (with NMS), track where there is a tracker, align, embed (network), and total.
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

    def __call__(
        self, picture: NDArray[np.uint8], tracker: Tracker | None = None, time: float = 0.0
    ) -> Result:
        """Faces of a picture.

        Args:
            picture: uint8 [H, W, 3] BGR.
            tracker: gives the faces ids, and chooses those to embed; the others have the embedding
                of their track. One for each camera. None: no ids, and all faces are embedded.
            time: when the picture was taken, seconds; for the tracker.
        """
        milliseconds: dict[str, float] = {}
        start = last = perf_counter()

        def done(stage: str) -> None:
            nonlocal last
            now = perf_counter()
            milliseconds[stage] = milliseconds.get(stage, 0.0) + 1e3 * (now - last)
            last = now

        scale = self.detector.prepare(picture)
        done("prepare")
        outputs = self.detector.infer()
        done("detect")
        faces = self.detector.decode(outputs, scale)
        done("decode")
        rows = np.arange(len(faces))
        if tracker is not None:
            faces, rows = tracker.update(faces, time)
            done("track")
        if self.recognizer is not None and faces.landmarks is not None:
            crops = align_faces(picture, faces.landmarks[rows])
            done("align")
            embeddings, norms = self.recognizer.embed(crops)
            done("embed")
            if tracker is None:
                faces = faces.with_embeddings(embeddings, norms)
            else:
                faces = tracker.learn(faces, rows, embeddings, norms)
                done("track")
        milliseconds["total"] = 1e3 * (last - start)
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
