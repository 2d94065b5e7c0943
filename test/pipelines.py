# SPDX-License-Identifier: Apache-2.0
"""Detectors and pipelines with a few options of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.inference.network import Network
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.recognition.arcface import ArcFace


def detector_of(network: Network, size: tuple[int, int] = (640, 640), **options: Any) -> Scrfd:
    """A detector with this input size and these options."""
    return Scrfd(network, DetectorConfig(input_size=size, **options))


def pipeline_of(detector: Scrfd, recognizer: ArcFace | None = None) -> FacePipeline:
    """A pipeline of parts that are there."""
    return FacePipeline(PipelineConfig(detector=detector.config), detector, recognizer)


def loaded(
    detector: Path, recognizer: Path | None = None, backend: str = "auto", **options: Any
) -> FacePipeline:
    """A pipeline of these model files, with these options of the detector."""
    return load_pipeline(
        PipelineConfig(
            backend=backend,
            detector=DetectorConfig(engine_path=detector, **options),
            recognizer=RecognizerConfig(enabled=recognizer is not None, engine_path=recognizer),
        )
    )
