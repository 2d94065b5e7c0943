# SPDX-License-Identifier: Apache-2.0
"""From an image to faces: the one way, which node, command line and tests share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image, described
from scrfd_ros.config import UPSCALER, PipelineConfig
from scrfd_ros.detection.parts import plan_parts
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.search import MAX_BATCH
from scrfd_ros.detection.views import Plan
from scrfd_ros.engines.model_check import check_detector, check_recognizer
from scrfd_ros.engines.open import engines_of_sizes, open_network
from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces, FloatArray
from scrfd_ros.gallery.identifier import Identifier
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import GalleryInfo, Look
from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.inference.cores import usable_cores
from scrfd_ros.inference.engine_file import model_sha256
from scrfd_ros.inference.network import Network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, SUPER_RESOLUTION, installed_model
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace
from scrfd_ros.recognition.quality import face_quality, pose
from scrfd_ros.recognition.super_resolution import SuperResolution, window_size
from scrfd_ros.tracking.tracker import TrackedFaces, Tracker
from scrfd_ros.tracking.watch import Glance

_logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """An image to find faces in.

    Attributes:
        image: uint8 [H, W, 3] BGR, or a decoded message. If that is reduced, faces are found in it
            as it is, and cut out of the whole image, which is decoded only if there are any to cut.
        tracker: that of the image's camera. It gives the faces ids and chooses which to embed; the
            others get the embedding of their track. None: no ids, and every face is embedded.
        time, epoch: when the image was taken, for the tracker; `FrameClock` derives them.
    """

    image: NDArray[np.uint8] | DecodedImage
    tracker: Tracker | None = None
    time: float = 0.0
    epoch: int = 0


class Result(NamedTuple):
    """What `FacePipeline` finds in one image.

    Attributes:
        faces: in pixels of the image, upright and at full scale; best score first.
        milliseconds: wall time by stage: prepare (letterbox and normalize), detect (network),
            decode (with NMS), track (with a tracker), align (with a recognizer; includes decoding
            the whole of a reduced image) and embed, identify (with a gallery), total.
        looks: with a gallery, looks at the faces that were embedded in this image, by row, without
            those that another face covers.
    """

    faces: Faces
    milliseconds: dict[str, float]
    looks: Mapping[int, Look]


class FacePipeline:
    """Detects faces, and embeds them if there is a recognizer and the detector finds landmarks.

    Keeps buffers between calls: use one for each thread.

    Args:
        config: the options. Its parts `detector` and `super_resolution` are set on the objects of
            these names, `gallery` on the identifier.
        detector: finds the faces.
        recognizer: embeds them; None for no embeddings.
        super_resolution: upscales small faces before they are embedded; None for none.
        identifier: tells who they are; None for no identities.

    Attributes:
        detector, recognizer, super_resolution, identifier: as given; recognizer is None if the
            detector finds no landmarks.
        warning: a sentence if there is a recognizer that cannot be used; otherwise empty.

    Raises:
        ValueError: the config has another input size than the detector, or another maximum size
            than the super-resolution.
    """

    def __init__(
        self,
        config: PipelineConfig,
        detector: Scrfd,
        recognizer: ArcFace | None = None,
        super_resolution: SuperResolution | None = None,
        identifier: Identifier | None = None,
    ) -> None:
        self.detector = detector
        self.super_resolution = super_resolution
        self.identifier = identifier
        self._was_told = False
        self.config = config
        self.recognizer = recognizer if detector.has_landmarks else None
        self.warning = ""
        if recognizer is not None and not detector.has_landmarks:
            self.warning = (
                f"{detector.network.path.name} finds no landmarks, which faces are aligned by: no "
                f"embeddings are computed. Use a detector with landmarks, such as "
                f"{PipelineConfig().detector.model}, or switch the recognizer off"
            )

    @property
    def networks(self) -> dict[str, Network]:
        """The networks by what they do: detector, and recognizer if faces are embedded."""
        networks = {"detector": self.detector.network}
        if self.recognizer is not None:
            networks["recognizer"] = self.recognizer.network
        return networks

    def fit(self, tracker: Tracker | None = None) -> tuple[int, int] | None:
        """Width and height, pixels, to which an image may be reduced while it is decoded.

        None if it will be needed at full scale: tiles are cut out of it, or faces, of which without
        a tracker all are embedded, and with one those of the image before that still wait.

        Args:
            tracker: that of the image's camera.
        """
        if self._config.detector.tiles != (1, 1):
            return None
        if self.recognizer is not None and (tracker is None or tracker.has_waiting_faces):
            return None
        return self.detector.largest_input

    @property
    def config(self) -> PipelineConfig:
        """The options of the next call. May be replaced between calls.

        The networks stay as they were loaded: a change of an option that is not live, such as
        detector.model, has no effect.

        Raises:
            ValueError: it is set to one with another input size, or another maximum size of faces
                to upscale.
        """
        return self._config

    @config.setter
    def config(self, config: PipelineConfig) -> None:
        self.detector.config = config.detector
        if self.super_resolution is not None:
            self.super_resolution.config = config.super_resolution
        if self.identifier is not None:
            self.identifier.config = config.gallery
        self._config = config
        if config.detector.full_look_period:
            self._tell_if_all_is_searched()

    def close(self) -> None:
        """Close the gallery, if there is one, and forget faces. Images can no longer be passed."""
        if self.identifier is not None:
            self.identifier.forget_all()
            self.identifier.gallery.close()

    def new_tracker(self) -> Tracker | None:
        """A tracker for one camera, or None if faces are not tracked."""
        if not self._config.tracking.enabled:
            return None
        return Tracker(self._config.tracking)

    def __call__(
        self,
        image: NDArray[np.uint8] | DecodedImage,
        tracker: Tracker | None = None,
        time: float = 0.0,
        epoch: int = 0,
    ) -> Result:
        """The faces of an image.

        Args:
            image, tracker, time, epoch: see `Frame`.

        Raises:
            ValueError: the image is another array, or the time goes back, see `Tracker.match`.
            ImageError: the image is reduced, and the whole cannot be decoded.
            ModelError: a network fails.
        """
        return self.run([Frame(image, tracker, time, epoch)])[0]

    def run(self, frames: Sequence[Frame]) -> list[Result]:
        """The faces of images of several cameras, in as few runs of the networks as these allow.

        The times in the results are those of all images together. If it fails, the trackers do not
        change: the images can be passed again, all of them or one by one.

        Args:
            frames: at most one for each tracker.

        Raises:
            ValueError: a frame is not a `Frame`, an image is another array, two frames have the
                same tracker, or a time goes back, see `Tracker.match`.
            ImageError: an image is reduced, and the whole cannot be decoded.
            ModelError: a network fails.
        """
        if not len(frames):
            return []
        for frame in frames:
            if not isinstance(frame, Frame):
                raise ValueError(f"expected a Frame(image, tracker, time), got {described(frame)}")
        trackers = [frame.tracker for frame in frames if frame.tracker is not None]
        if len({id(tracker) for tracker in trackers}) < len(trackers):
            raise ValueError(
                "two frames have the same tracker: pass the images of a camera one by one"
            )
        milliseconds: dict[str, float] = {}
        start = last = perf_counter()

        def done(stage: str) -> None:
            nonlocal last
            now = perf_counter()
            milliseconds[stage] = milliseconds.get(stage, 0.0) + 1e3 * (now - last)
            last = now

        images = [_decoded(frame.image) for frame in frames]
        glances, matched = self._matched(frames, images, done)
        looks: list[dict[int, Look]] = [{} for _ in frames]
        if self.recognizer is not None:
            matched, looks = self._embedded(self.recognizer, images, matched, done)
        for frame, glance, of_frame in zip(frames, glances, matched, strict=True):
            if not isinstance(of_frame, _UntrackedFaces):
                assert frame.tracker is not None
                frame.tracker.commit(of_frame)
                if glance is not None:
                    frame.tracker.watch.commit(glance)
        found = [of_frame.faces for of_frame in matched]
        if self.identifier is not None:
            identify = self.identifier.identify
            found = list(map(identify, found, looks, (frame.tracker for frame in frames)))
            done("identify")
        milliseconds["total"] = 1e3 * (last - start)
        return [Result(faces, milliseconds, of_f) for faces, of_f in zip(found, looks, strict=True)]

    def _matched(
        self,
        frames: Sequence[Frame],
        images: Sequence[DecodedImage],
        done: Callable[[str], None],
    ) -> tuple[list[Glance | None], list[TrackedFaces | _UntrackedFaces]]:
        """Where each image was looked at, and its faces with ids.

        If a face is missed where it was expected, the whole image is looked at after all.
        """
        uprights = [checked_image(image.upright) for image in images]
        glances: list[Glance | None] = []
        plans: list[Plan | None] = []
        for frame, image, upright in zip(frames, images, uprights, strict=True):
            glance, plan = self._glance(frame, upright, image.reduction)
            glances.append(glance)
            plans.append(plan)
        if any(glances):
            done("track")
        found = self.detector.detect_all(uprights, done, plans if any(plans) else None)
        matched = list(map(_with_ids, frames, images, found))
        missed = [row for row, plan in enumerate(plans) if plan and matched[row].has_missed]
        if any(frame.tracker for frame in frames):
            done("track")
        if missed:
            again = self.detector.detect_all([uprights[row] for row in missed], done)
            for row, faces in zip(missed, again, strict=True):
                matched[row] = _with_ids(frames[row], images[row], faces)
                glance = glances[row]
                assert glance is not None
                glances[row] = glance.everywhere()
            done("track")
        return glances, matched

    def _glance(
        self, frame: Frame, image: NDArray[np.uint8], reduction: int
    ) -> tuple[Glance | None, Plan | None]:
        """Where to look in an image, and how; None: everywhere, as without a tracker."""
        tracker, period = frame.tracker, self._config.detector.full_look_period
        if tracker is None or not period or not self._takes_parts:
            return None, None
        expected = tracker.expected(frame.time, frame.epoch).reduced(reduction)
        glance = tracker.watch.look(image, frame.time, frame.epoch, expected, period)
        if glance.parts is None:
            return glance, None
        height, width = image.shape[:2]
        whole, step = self.detector.plan(width, height), self.detector.levels[-1].stride
        plan = plan_parts(width, height, glance.parts, whole, step)
        return (glance, plan) if plan is not None else (glance.everywhere(), None)

    @property
    def _takes_parts(self) -> bool:
        """Whether the detector can search parts. A GPU prepares itself for each size of input."""
        return self.detector.takes_all_sizes and not self.detector.network.on_gpu

    def _tell_if_all_is_searched(self) -> None:
        """Log once why whole images are searched although they need not be."""
        network, has_tracking = self.detector.network, self._config.tracking.enabled
        if self._was_told or (has_tracking and self._takes_parts):
            return
        self._was_told = True
        if not has_tracking:
            reason = "faces are not tracked; set tracking.enabled to true"
        elif network.on_gpu:
            reason = (
                f"parts take inputs of many sizes, and {network.backend} prepares itself for each, "
                f"which takes long; use ONNX Runtime or OpenVINO on a processor"
            )
        else:
            reason = f"parts take inputs of many sizes, and {network.path} takes one"
            if not self._config.detector.fits_images:
                reason += "; set detector.input_size to auto"
        _logger.warning(
            "detector.full_look_period has no effect, every image is searched as a whole: %s",
            reason,
        )

    def _embedded(
        self,
        recognizer: ArcFace,
        images: Sequence[DecodedImage],
        matched: Sequence[TrackedFaces | _UntrackedFaces],
        done: Callable[[str], None],
    ) -> tuple[list[TrackedFaces | _UntrackedFaces], list[dict[int, Look]]]:
        """The faces with embeddings of those that are due, computed together, and looks at them."""
        aligned = [
            self._align(image, of_image.faces, of_image.rows)
            for image, of_image in zip(images, matched, strict=True)
        ]
        done("align")
        embeddings, norms = recognizer.embed(np.concatenate([each.crops for each in aligned]))
        done("embed")
        ends = np.cumsum([len(each.rows) for each in aligned])[:-1]
        parts = zip(np.split(embeddings, ends), np.split(norms, ends), strict=True)
        learned, looks = [], []
        for of_image, crops, (vectors, lengths) in zip(matched, aligned, parts, strict=True):
            # Half precision overflows without an error. Such a face has no embedding.
            sound = np.isfinite(lengths)
            faces = of_image.learn(crops.rows[sound], vectors[sound], lengths[sound])
            learned.append(faces)
            is_look = sound & (lengths > 0) & faces.certain[crops.rows]
            looks.append(self._looks(crops, vectors, is_look, of_image))
            if not isinstance(of_image, _UntrackedFaces):
                done("track")
        return learned, looks

    def _align(self, decoded: DecodedImage, faces: Faces, rows: NDArray[np.intp]) -> _AlignedFaces:
        """The faces that are good enough to embed, aligned."""
        assert faces.landmarks is not None
        image = decoded.upright_whole if len(rows) else decoded.image
        crops = align_faces(image, faces.landmarks[rows])
        quality = None
        min_quality = self._config.recognizer.min_quality
        if min_quality > 0 or self.identifier is not None:
            quality = face_quality(faces.scores[rows], faces.landmarks[rows], crops)
            enough = quality >= min_quality
            rows, crops, quality = rows[enough], crops[enough], quality[enough]
        if self.super_resolution is not None:  # after the quality, which its detail would spoil
            crops = self.super_resolution.align(image, faces.landmarks[rows])
        return _AlignedFaces(rows, crops, quality)

    def _looks(
        self,
        aligned: _AlignedFaces,
        embeddings: FloatArray,
        chosen: NDArray[np.bool_],
        of_image: TrackedFaces | _UntrackedFaces,
    ) -> dict[int, Look]:
        """Looks for the identifier, by the row of the face.

        Args:
            aligned, embeddings: faces of an image.
            chosen: bool, those of them to return.
        """
        if self.identifier is None:
            return {}
        assert aligned.quality is not None and of_image.faces.landmarks is not None
        poses = pose(of_image.faces.landmarks[aligned.rows]).tolist()
        return {
            aligned.rows[each].item(): Look(
                embeddings[each],
                aligned.quality[each].item(),
                yaw=poses[each][0],
                pitch=poses[each][1],
                crop=aligned.crops[each] if self._config.gallery.keep_images else None,
            )
            for each in np.flatnonzero(chosen)
        }


class _AlignedFaces(NamedTuple):
    """Faces of one image, aligned: their rows, the crops, and the quality if it was asked for."""

    rows: NDArray[np.intp]
    crops: NDArray[np.uint8]
    quality: NDArray[np.float32] | None


def _decoded(image: NDArray[np.uint8] | DecodedImage) -> DecodedImage:
    return image if isinstance(image, DecodedImage) else DecodedImage(image)


def _with_ids(frame: Frame, image: DecodedImage, reduced: Faces) -> TrackedFaces | _UntrackedFaces:
    """Faces of an image, which can be reduced, in pixels of the whole, with ids."""
    faces = image.enlarge(reduced)
    if frame.tracker is None:
        return _UntrackedFaces(faces)
    return frame.tracker.match(faces, frame.time, frame.epoch)


class _UntrackedFaces(NamedTuple):
    """The faces of an image without a tracker, in the form of `TrackedFaces`."""

    faces: Faces

    @property
    def has_missed(self) -> bool:
        return False

    @property
    def rows(self) -> NDArray[np.intp]:
        return np.arange(len(self.faces))

    @property
    def certain(self) -> NDArray[np.bool_]:
        return np.ones(len(self.faces), np.bool_)

    def learn(
        self, rows: NDArray[np.intp], embeddings: FloatArray, norms: FloatArray
    ) -> _UntrackedFaces:
        """The faces with embeddings of these rows, and zeros for the others."""
        if len(rows) < len(self.faces):
            whole = np.zeros((len(self.faces), embeddings.shape[1]), np.float32)
            lengths = np.zeros(len(self.faces), np.float32)
            whole[rows], lengths[rows] = embeddings, norms
            embeddings, norms = whole, lengths
        return _UntrackedFaces(self.faces.with_embeddings(embeddings, norms))


def load_pipeline(
    config: PipelineConfig = PipelineConfig(), *, max_images: int = 1, is_live: bool = False
) -> FacePipeline:
    """Load the networks, check them on a drawing, and return the pipeline.

    The check also warms the networks up. The number of OpenCV's threads is set for the whole
    process.

    Args:
        config: the options.
        max_images: maximum number of images passed to `FacePipeline.run` at once. Engines are built
            to take them as one batch, if the model can.
        is_live: do not wait for engines that images of a further size need: they are built beside
            the images, which go onto the largest input meanwhile. And keep up with what other
            processes change in the gallery.

    Raises:
        TypeError: `config` is no PipelineConfig.
        ModelError: a model is missing, damaged or of another kind, or its outputs cannot be right,
            see `scrfd_ros.engines.model_check`.
        GalleryError: the gallery cannot be opened, or is for another recognizer.
        ScrfdError: there is a gallery, but the detector finds no landmarks to recognize faces by.
    """
    if not isinstance(config, PipelineConfig):
        raise TypeError(f"config must be a PipelineConfig, got {described(config)}")
    threads = config.threads or usable_cores()
    reason = "as set" if config.threads else "the cores that this process may use"
    _logger.info("%d threads for the networks and for OpenCV: %s", threads, reason)
    cv2.setNumThreads(threads)
    open_model = partial(
        open_network, backend=config.backend, cuda_graph=config.cuda_graph, threads=threads
    )
    detector = _load_detector(config, open_model, max_images, is_live)
    recognizer = _load_recognizer(config, open_model) if config.recognizer.enabled else None
    upscaling = config.super_resolution.enabled
    super_resolution = _load_super_resolution(config, open_model) if upscaling else None
    identifier = None
    if config.gallery.store:
        identifier = _open_identifier(config, detector, recognizer, is_live)
    return FacePipeline(config, detector, recognizer, super_resolution, identifier)


def _load_detector(
    config: PipelineConfig, open_model: Callable[..., Network], max_images: int, is_live: bool
) -> Scrfd:
    options = config.detector
    path = options.engine_path or installed_model(options.model, DETECTOR, config.model_directory)
    views = 1 if options.tiles == (1, 1) else 1 + math.prod(options.tiles)
    batch = min(max_images * views, MAX_BATCH)
    network = open_model(
        path, input_size=options.largest_input, any_size=options.fits_images, batch=batch
    )
    sized = None
    if options.fits_images:
        sized = engines_of_sizes(
            network, path, batch=batch, cuda_graph=config.cuda_graph, is_live=is_live
        )
    detector = Scrfd(network, options, sized)
    _warn(check_detector(detector))
    return detector


def _load_recognizer(config: PipelineConfig, open_model: Callable[..., Network]) -> ArcFace:
    recognizer = ArcFace(open_model(_recognizer_path(config)))
    _warn(check_recognizer(recognizer))
    return recognizer


def _recognizer_path(config: PipelineConfig) -> Path:
    options = config.recognizer
    return options.engine_path or installed_model(options.model, RECOGNIZER, config.model_directory)


def _open_identifier(
    config: PipelineConfig, detector: Scrfd, recognizer: ArcFace | None, is_live: bool
) -> Identifier:
    assert recognizer is not None  # the config checks it
    if not detector.has_landmarks:
        raise ScrfdError(
            f"gallery.store is set, but {detector.network.path.name} finds no landmarks, which "
            f"faces are aligned by to be recognized. Use a detector with landmarks, such as "
            f"{PipelineConfig().detector.model}, or set gallery.store to empty"
        )
    path = _recognizer_path(config)
    info = GalleryInfo(path.stem, model_sha256(path), recognizer.dimensions)
    # A robot that starts before its server is there has faces, and later names.
    gallery = open_gallery(config.gallery.store, info, waits=is_live)
    if is_live:
        gallery.follow()
    return Identifier(gallery, config.gallery)


def _load_super_resolution(
    config: PipelineConfig, open_model: Callable[..., Network]
) -> SuperResolution:
    options = config.super_resolution
    path = options.engine_path or installed_model(
        UPSCALER, SUPER_RESOLUTION, config.model_directory
    )
    side = window_size(options.max_size)
    batch = min(options.max_faces, MAX_BATCH)
    return SuperResolution(open_model(path, input_size=(side, side), batch=batch), options)


def _warn(doubt: str) -> None:
    if doubt:
        _logger.warning("%s", doubt)
