# SPDX-License-Identifier: Apache-2.0
"""Fixtures: images of people, and pipelines with a new gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from portraits import write_portraits

from scrfd_ros.config import DetectorConfig, GalleryConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.gallery.identifier import Identifier
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.pipeline import FacePipeline, load_pipeline


@pytest.fixture(scope="session")
def portraits(
    tmp_path_factory: pytest.TempPathFactory, image: Callable[[str], NDArray[np.uint8]]
) -> Path:
    """A folder of images, see `write_portraits`."""
    return write_portraits(tmp_path_factory.mktemp("portraits"), image)


@pytest.fixture(scope="package")
def loaded_pipeline(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FacePipeline]:
    config = PipelineConfig(
        backend="onnxruntime",
        detector=DetectorConfig(engine_path=detector_path("500m"), large_faces=True),
        recognizer=RecognizerConfig(engine_path=recognizer_path("w600k_mbf")),
        gallery=GalleryConfig(store=str(tmp_path_factory.mktemp("gallery") / "first.db")),
    )
    pipeline = load_pipeline(config)
    yield pipeline
    pipeline.close()


@pytest.fixture
def pipeline(loaded_pipeline: FacePipeline, tmp_path: Path) -> Iterator[FacePipeline]:
    """A pipeline with an empty gallery."""
    before = loaded_pipeline.identifier
    assert before is not None
    with open_gallery(str(tmp_path / "people.db"), before.gallery.info) as gallery:
        loaded_pipeline.identifier = Identifier(gallery, before.config)
        yield loaded_pipeline
    loaded_pipeline.identifier = before
