# SPDX-License-Identifier: Apache-2.0
"""From an image to faces: the one way that node, command line and tests all take."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image, described
from scrfd_ros.detection.scrfd import MAX_BATCH, Scrfd
from scrfd_ros.engines.model_check import check_detector, check_recognizer
from scrfd_ros.engines.open import open_network
from scrfd_ros.faces import Faces, FloatArray
from scrfd_ros.inference.cores import usable_cores
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, SUPER_RESOLUTION, installed_model
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace
from scrfd_ros.recognition.quality import face_quality
from scrfd_ros.recognition.super_resolution import SuperResolution, window_size

if TYPE_CHECKING:  # SciPy takes long to load, and only those who track need it
    from scrfd_ros.tracking.tracker import Tracker


_logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """An image to find faces in.

    Attributes:
        image: uint8 [H, W, 3] BGR.
        tracker: gives the faces ids, and chooses those to embed; the others have the embedding
            of their track. One for each camera. None: no ids, and all faces are embedded.
        time, epoch: when the image was taken, for the tracker, as a `FrameClock` tells it.
    """

    image: NDArray[np.uint8]
    tracker: Tracker | None = None
    time: float = 0.0
    epoch: int = 0


class Result(NamedTuple):
    """What `FacePipeline` finds in one image.

    Attributes:
        faces: in pixels of the image, best score first.
        milliseconds: wall time by stage: prepare (letterbox and normalize), detect (network),
            decode (with NMS), track where there is a tracker, align, embed (network), and total.
    """

    faces: Faces
    milliseconds: dict[str, float]


class FacePipeline:
    """Detects faces, and embeds them where there is a recognizer and the detector gives landmarks.

    Keeps buffers between calls: use one per thread.

    Args:
        detector, recognizer: None for no embeddings.
        enlarger: enlarges small faces before they are embedded.
        min_quality: faces less `face_quality` are not embedded; may be changed between calls.
    """

    def __init__(
        self,
        detector: Scrfd,
        recognizer: ArcFace | None = None,
        enlarger: SuperResolution | None = None,
        min_quality: float = 0.0,
    ) -> None:
        self.detector = detector
        self.enlarger = enlarger
        self.min_quality = min_quality
        self.recognizer = recognizer if detector.has_landmarks else None
        self.warning = ""
        if recognizer is not None and not detector.has_landmarks:
            self.warning = (
                f"{detector.network.path.name} finds no landmarks, without which faces cannot be "
                f"aligned: no embeddings are computed. Use a detector with landmarks (500m, 2.5g, "
                f"10g), or switch the recognizer off"
            )

    @property
    def fit(self) -> tuple[int, int] | None:
        """Width and height, pixels, that whole images are fitted into, for `decode_message`.

        None if faces or tiles are cut out of the image, which is then needed at full scale.
        """
        if self.recognizer is not None or self.detector.tiles != (1, 1):
            return None
        return self.detector.input_size

    def __call__(
        self,
        image: NDArray[np.uint8],
        tracker: Tracker | None = None,
        time: float = 0.0,
        epoch: int = 0,
    ) -> Result:
        """Faces of an image; for the arguments see `Frame`."""
        return self.run([Frame(image, tracker, time, epoch)])[0]

    def run(self, frames: Sequence[Frame]) -> list[Result]:
        """Faces of images of several cameras, in as few runs of the networks as these allow.

        The times in the results are those of all images together. Where this fails, the trackers
        are as they were before: the images can be given again, all of them or one by one.

        Raises:
            ValueError: what is given is no `Frame`, or its image another array.
            ModelError: a network fails.
        """
        if not len(frames):
            return []
        for frame in frames:
            if not isinstance(frame, Frame):
                raise ValueError(
                    f"frames must be of Frame(image, tracker, time), got {described(frame)}"
                )
        before = [(tracker, copy(tracker)) for _, tracker, *_ in frames if tracker is not None]
        try:
            return self._run(frames)
        except BaseException:
            for tracker, state in reversed(before):
                tracker.go_back(state)
            raise

    def _run(self, frames: Sequence[Frame]) -> list[Result]:
        milliseconds: dict[str, float] = {}
        start = last = perf_counter()

        def done(stage: str) -> None:
            nonlocal last
            now = perf_counter()
            milliseconds[stage] = milliseconds.get(stage, 0.0) + 1e3 * (now - last)
            last = now

        frames = [frame._replace(image=checked_image(frame.image, "image")) for frame in frames]
        found = self.detector.detect_all([frame.image for frame in frames], done)
        rows = [np.arange(len(faces)) for faces in found]
        for number, (_, tracker, time, epoch) in enumerate(frames):
            if tracker is not None:
                found[number], rows[number] = tracker.update(found[number], time, epoch)
                done("track")
        if self.recognizer is not None:
            crops = []
            for number, (frame, faces) in enumerate(zip(frames, found, strict=True)):
                rows[number], aligned = self._align(frame.image, faces, rows[number])
                crops.append(aligned)
            done("align")
            embeddings, norms = self.recognizer.embed(np.concatenate(crops))
            done("embed")
            ends = np.cumsum([len(chosen) for chosen in rows])[:-1]
            parts = zip(np.split(embeddings, ends), np.split(norms, ends), strict=True)
            for number, (vectors, lengths) in enumerate(parts):
                # Half precision overflows, and says nothing: such a face has no embedding.
                sound = np.isfinite(lengths)
                part = rows[number][sound], vectors[sound], lengths[sound]
                tracker = frames[number].tracker
                if tracker is None:
                    found[number] = _with_embeddings(found[number], *part)
                else:
                    found[number] = tracker.learn(found[number], *part)
                    done("track")
        milliseconds["total"] = 1e3 * (last - start)
        return [Result(faces, milliseconds) for faces in found]

    def _align(
        self, image: NDArray[np.uint8], faces: Faces, rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """Those of the rows that are worth to be embedded, and their aligned faces."""
        assert faces.landmarks is not None
        crops = align_faces(image, faces.landmarks[rows])
        if self.min_quality > 0:
            quality = face_quality(faces.scores[rows], faces.landmarks[rows], crops)
            enough = quality >= self.min_quality
            rows, crops = rows[enough], crops[enough]
        if self.enlarger is not None:  # not before: it draws detail that is not there
            crops = self.enlarger.align(image, faces.landmarks[rows])
        return rows, crops


def _with_embeddings(
    faces: Faces, rows: NDArray[np.intp], embeddings: FloatArray, norms: FloatArray
) -> Faces:
    """The faces with embeddings of these rows, and zeros for the others."""
    if len(rows) < len(faces):
        whole = np.zeros((len(faces), embeddings.shape[1]), np.float32)
        lengths = np.zeros(len(faces), np.float32)
        whole[rows], lengths[rows] = embeddings, norms
        embeddings, norms = whole, lengths
    return faces.with_embeddings(embeddings, norms)


def load_pipeline(
    *,
    detector: str = "2.5g",
    recognizer: str | None = "w600k_mbf",
    detector_path: Path | None = None,
    recognizer_path: Path | None = None,
    model_directory: Path | None = None,
    backend: str = "auto",
    cuda_graph: bool = False,
    threads: int = 0,
    input_size: tuple[int, int] = (640, 640),
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    max_faces: int = 0,
    tiles: tuple[int, int] = (1, 1),
    large_faces: bool = False,
    images: int = 1,
    min_quality: float = 0.0,
    enlarge: bool = False,
    enlarger_path: Path | None = None,
    enlarger_max_size: float = 32,
    enlarger_max_faces: int = 4,
) -> FacePipeline:
    """Load the networks and run each once or twice: they are checked, and the first image is
    as quick as the next.

    Args:
        detector, recognizer: names in the catalogue; None for no recognizer.
        detector_path, recognizer_path: model files, which win over the names.
        model_directory: where models of the catalogue lie; None for the default.
        backend, cuda_graph: see `scrfd_ros.engines.open.open_network`.
        threads: on the processor, for ONNX Runtime and for OpenCV, which has one number for the
            whole process; 0 for as many as there are cores that this process may use, see
            `usable_cores`.
        input_size, score_threshold, nms_threshold, max_faces, tiles, large_faces: see `Scrfd`.
        images: so many come at once; an engine is built to take them as one batch, if the model
            can.
        min_quality: see `FacePipeline`.
        enlarge: enlarge small faces before they are embedded.
        enlarger_path: the model file for that; None for Real-ESRGAN of the catalogue.
        enlarger_max_size, enlarger_max_faces: see `SuperResolution`.

    Raises:
        ModelError: a model is unknown, missing, damaged, of another kind, or gives what cannot be
            right, see `scrfd_ros.engines.model_check`.
    """
    detector_path = detector_path or installed_model(detector, DETECTOR, model_directory)
    reason = "as set" if threads else "the cores that this process may use"
    threads = threads or usable_cores()
    _logger.info("%d threads for ONNX Runtime and for OpenCV: %s", threads, reason)
    cv2.setNumThreads(threads)
    inputs = images * (1 if tiles == (1, 1) else 1 + math.prod(tiles))
    network = open_network(
        detector_path,
        backend,
        input_size=input_size,
        batch=min(inputs, MAX_BATCH),
        cuda_graph=cuda_graph,
        threads=threads,
    )
    faces = Scrfd(
        network, input_size, score_threshold, nms_threshold, max_faces, tiles, large_faces
    )
    _warn(check_detector(faces))
    if recognizer_path is None and recognizer is not None:
        recognizer_path = installed_model(recognizer, RECOGNIZER, model_directory)
    if recognizer_path is None:
        return FacePipeline(faces)
    network = open_network(recognizer_path, backend, cuda_graph=cuda_graph, threads=threads)
    enlarger = None
    if enlarge:
        enlarger_path = enlarger_path or installed_model(
            "realesrgan_x4plus", SUPER_RESOLUTION, model_directory
        )
        side = window_size(enlarger_max_size)
        enlarging = open_network(
            enlarger_path,
            backend,
            input_size=(side, side),
            batch=enlarger_max_faces,
            cuda_graph=cuda_graph,
            threads=threads,
        )
        enlarger = SuperResolution(enlarging, enlarger_max_size, enlarger_max_faces)
    embedder = ArcFace(network)
    _warn(check_recognizer(embedder))
    return FacePipeline(faces, embedder, enlarger, min_quality)


def _warn(doubt: str) -> None:
    if doubt:
        _logger.warning("%s", doubt)
