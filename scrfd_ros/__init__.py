# SPDX-License-Identifier: Apache-2.0
"""Find faces in images and tell people apart: SCRFD detection and ArcFace recognition for ROS 2.

What is documented here is public; everything else is internal and may change. `scrfd models`
downloads the models.

Example:
    from scrfd_ros import DetectorConfig, PipelineConfig, load_pipeline, read_image

    config = PipelineConfig(detector=DetectorConfig(score_threshold=0.6))
    pipeline = load_pipeline(config)
    tracker = pipeline.new_tracker()  # one per camera
    for seconds, path in enumerate(["first.jpg", "second.jpg"]):
        faces = pipeline(read_image(path), tracker, seconds).faces
        print(path)
        for face_id, box, score in zip(faces.ids, faces.boxes, faces.scores):
            print(face_id, box, score)  # box: x1, y1, x2, y2, pixels
        similarity = faces.embeddings @ faces.embeddings.T  # one person: 0.40 or more
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scrfd_ros.config import (
        DetectorConfig,
        GalleryConfig,
        PipelineConfig,
        RecognizerConfig,
        SuperResolutionConfig,
        TrackingConfig,
    )
    from scrfd_ros.errors import ScrfdError
    from scrfd_ros.faces import Faces, Identity, IdentityState
    from scrfd_ros.gallery.gallery import Gallery
    from scrfd_ros.gallery.opening import open_gallery
    from scrfd_ros.gallery.people import Look
    from scrfd_ros.images.files import read_image
    from scrfd_ros.pipeline import FacePipeline, Frame, Result, load_pipeline

__all__ = [
    "DetectorConfig",
    "FacePipeline",
    "Faces",
    "Frame",
    "Gallery",
    "GalleryConfig",
    "Identity",
    "IdentityState",
    "Look",
    "PipelineConfig",
    "RecognizerConfig",
    "Result",
    "ScrfdError",
    "SuperResolutionConfig",
    "TrackingConfig",
    "load_pipeline",
    "open_gallery",
    "read_image",
]

_MODULES = {
    "DetectorConfig": "scrfd_ros.config",
    "FacePipeline": "scrfd_ros.pipeline",
    "Faces": "scrfd_ros.faces",
    "Frame": "scrfd_ros.pipeline",
    "Gallery": "scrfd_ros.gallery.gallery",
    "GalleryConfig": "scrfd_ros.config",
    "Identity": "scrfd_ros.faces",
    "IdentityState": "scrfd_ros.faces",
    "Look": "scrfd_ros.gallery.people",
    "PipelineConfig": "scrfd_ros.config",
    "RecognizerConfig": "scrfd_ros.config",
    "Result": "scrfd_ros.pipeline",
    "ScrfdError": "scrfd_ros.errors",
    "SuperResolutionConfig": "scrfd_ros.config",
    "TrackingConfig": "scrfd_ros.config",
    "load_pipeline": "scrfd_ros.pipeline",
    "open_gallery": "scrfd_ros.gallery.opening",
    "read_image": "scrfd_ros.images.files",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the messages are in this package too, and need none of this.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
