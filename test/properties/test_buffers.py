# SPDX-License-Identifier: Apache-2.0
"""The faces of an image do not depend on the images and options before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pipelines import detector_of, pipeline_of

from scrfd_ros.errors import ModelError
from scrfd_ros.faces import Faces
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.pipeline import FacePipeline, Frame
from scrfd_ros.recognition.arcface import ArcFace

Images = Callable[[str], NDArray[np.uint8]]

SIZE = (320, 320)


@dataclass(frozen=True)
class Options:
    """What can be changed between images."""

    tiles: tuple[int, int] = (1, 1)
    large_faces: bool = False
    max_faces: int = 0


OPTIONS = [
    Options(),
    Options(large_faces=True),
    Options(tiles=(2, 1)),
    Options(tiles=(1, 2), large_faces=True, max_faces=2),
]


class Falls(OnnxRuntimeNetwork):
    """A real network that fails after a set number of runs."""

    runs_left: int | None = None

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        if self.runs_left is not None:
            self.runs_left -= 1
            if self.runs_left < 0:
                self.runs_left = None
                raise ModelError("out of memory")
        return super().__call__(inputs)


@pytest.fixture(scope="module")
def make(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> Callable[[], FacePipeline]:
    """Makes pipelines that share only their networks."""
    network = Falls(detector_path("500m"))
    recognizer = OnnxRuntimeNetwork(recognizer_path("w600k_mbf"))
    return lambda: pipeline_of(detector_of(network, SIZE), ArcFace(recognizer))


@pytest.fixture(scope="module")
def images(image: Images) -> list[NDArray[np.uint8]]:
    """Of many shapes, with faces and without; the last two fill the input wholly."""
    people, man = image("t1.jpg"), image("obama.jpg")
    flat = np.full((30, 200, 3), 255, np.uint8)
    parts = [people, people[:, :600], people[100:500, 900:], man, man[::-1], flat]
    small = [cv2.resize(part, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA) for part in parts]
    square = cv2.resize(man, SIZE, interpolation=cv2.INTER_AREA)
    return [*(np.asarray(one, np.uint8) for one in small), np.asarray(square, np.uint8), ~square]


@pytest.fixture(scope="module")
def alone(make: Callable[[], FacePipeline], images: list[NDArray[np.uint8]]) -> Any:
    """The faces of an image, by a pipeline that has seen no other."""

    @cache
    def alone(number: int, options: Options) -> Faces:
        pipeline = make()
        choose(pipeline, options)
        return pipeline(images[number]).faces

    return alone


def choose(pipeline: FacePipeline, options: Options) -> None:
    detector = replace(pipeline.config.detector, **asdict(options))
    pipeline.config = replace(pipeline.config, detector=detector)


def equal(found: Faces, expected: Faces) -> None:
    for name in ("boxes", "scores", "landmarks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    # With another image, faces are in another batch, which can round differently.
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-5)


@pytest.fixture(scope="module")
def used(make: Callable[[], FacePipeline]) -> FacePipeline:
    return make()


numbers = st.integers(0, 7)
calls = st.tuples(
    st.lists(numbers, min_size=1, max_size=2),
    st.sampled_from(OPTIONS),
    st.none() | st.integers(0, 2),
)


@settings(max_examples=max(settings.default.max_examples // 15, 1))  # type: ignore[union-attr]
@given(st.lists(calls, min_size=1, max_size=3))
def test_nothing_is_left_of_the_images_before(
    used: FacePipeline,
    alone: Any,
    images: list[NDArray[np.uint8]],
    history: list[tuple[list[int], Options, int | None]],
) -> None:
    network = used.detector.network
    assert isinstance(network, Falls)
    assert len(alone(0, OPTIONS[0])) > 0
    for chosen, options, runs_left in history:
        choose(used, options)
        network.runs_left = runs_left
        frames = [Frame(images[number]) for number in chosen]
        try:
            results = used.run(frames)
        except ModelError:
            continue  # which must not affect the next image
        finally:
            network.runs_left = None
        for number, result in zip(chosen, results, strict=True):
            equal(result.faces, alone(number, options))
