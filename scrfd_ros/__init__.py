# SPDX-License-Identifier: Apache-2.0
"""Faces in camera images: SCRFD detection and ArcFace recognition for ROS 2.

What a library user needs is here; everything else is internal and may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scrfd_ros.config import (
        DetectorConfig,
        PipelineConfig,
        RecognizerConfig,
        SuperResolutionConfig,
        TrackingConfig,
    )
    from scrfd_ros.errors import ScrfdError
    from scrfd_ros.faces import Faces
    from scrfd_ros.images.files import read_image
    from scrfd_ros.pipeline import FacePipeline, load_pipeline

__all__ = [
    "DetectorConfig",
    "FacePipeline",
    "Faces",
    "PipelineConfig",
    "RecognizerConfig",
    "ScrfdError",
    "SuperResolutionConfig",
    "TrackingConfig",
    "load_pipeline",
    "read_image",
]

_MODULES = {
    "DetectorConfig": "scrfd_ros.config",
    "FacePipeline": "scrfd_ros.pipeline",
    "Faces": "scrfd_ros.faces",
    "PipelineConfig": "scrfd_ros.config",
    "RecognizerConfig": "scrfd_ros.config",
    "ScrfdError": "scrfd_ros.errors",
    "SuperResolutionConfig": "scrfd_ros.config",
    "TrackingConfig": "scrfd_ros.config",
    "load_pipeline": "scrfd_ros.pipeline",
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
