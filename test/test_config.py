# SPDX-License-Identifier: Apache-2.0
"""Options are checked when a configuration is made, and errors name the option."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from scrfd_ros.config import (
    DetectorConfig,
    InputSize,
    PipelineConfig,
    from_values,
    options,
    with_values,
)
from scrfd_ros.errors import ScrfdError
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("threads", True, "True is not a whole number"),
        ("threads", 2.0, "2.0 is not a whole number"),
        ("threads", -1, "-1 is not within 0 to 256"),
        ("cuda_graph", 1, "1 is not true or false"),
        ("backend", "cuda", "'cuda' is unknown; expected one of: auto, tensorrt, onnxruntime"),
        ("backend", None, "None is not a text"),
        ("model_directory", "models", "'models' is not a Path or None"),
        ("detector.model", "3g", "'3g' is unknown; expected one of: 500m, 1g, 2.5g"),
        ("detector.score_threshold", math.nan, "nan is not within 0 to 1"),
        ("detector.score_threshold", "0.5", "'0.5' is not a number"),
        ("detector.score_threshold", True, "True is not a number"),
        ("detector.input_size", [640, 640], "[640, 640] is not a text, a whole number, or a tuple"),
        (
            "detector.input_size",
            (640, 640.0),
            "(640, 640.0) is not a text, a whole number, or a tuple",
        ),
        (
            "detector.input_size",
            (640,),
            "[640] is not auto, a longer side, or a width and a height, in",
        ),
        ("detector.input_size", (640, 650), "[640, 650] is not auto, a longer side, or"),
        ("detector.input_size", (0, 640), "[0, 640] is not auto, a longer side, or"),
        (
            "detector.input_size",
            (4096, 4128),
            "[4096, 4128] is not auto, a longer side, or a width and a height, in multiples of 32, "
            "at most 16777216 pixels in total, such as auto, 960 or [640, 480]",
        ),
        *(
            ("detector.input_size", value, f"{shown} is not auto, a longer side, or a width and a")
            for value, shown in (
                ("Auto", "'Auto'"),
                ("", "''"),
                ("640x384", "'640x384'"),
                (0, "0"),
                (-640, "-640"),
                (33, "33"),
                (10**9, "1000000000"),
                (4128, "4128"),
                ((640, 640, 3), "[640, 640, 3]"),
                ((), "[]"),
            )
        ),
        ("detector.input_size", True, "True is not a text, a whole number, or a tuple"),
        ("detector.input_size", 640.0, "640.0 is not a text, a whole number, or a tuple"),
        ("detector.tiles", (3, 9), "[3, 9] is not a number of columns and of rows, each 1 to 8"),
        ("super_resolution.max_size", 7, "7 is not within 8 to 112"),
        ("tracking.max_age", math.inf, "inf is not within 0 to 1000000"),
    ],
)
def test_refuses_values(name: str, value: Any, complaint: str) -> None:
    with pytest.raises(ScrfdError) as raised:
        from_values(PipelineConfig, {name: value})
    assert str(raised.value).startswith(f"{name}: {complaint}")


def test_takes_the_highest_image_of_wider_face() -> None:
    assert DetectorConfig(input_size=(1024, 4448)).input_size == (1024, 4448)


@pytest.mark.parametrize(
    ("value", "largest", "fits", "text"),
    [
        ("auto", (640, 640), True, "auto"),
        (960, (960, 960), True, "960"),
        ((640, 480), (640, 480), False, "640x480"),
    ],
)
def test_forms_of_input_sizes(
    value: InputSize, largest: tuple[int, int], fits: bool, text: str
) -> None:
    config = DetectorConfig(input_size=value)
    assert (config.largest_input, config.fits_images, config.input_text) == (largest, fits, text)


def test_the_description_names_the_detectors_without_landmarks() -> None:
    catalogue = load_catalogue()
    without = [name for name in catalogue.names(DETECTOR) if not catalogue.models[name].landmarks]
    description = options(PipelineConfig)["detector.model"].option.description
    assert f"{' and '.join(without)} find no landmarks" in description


def test_refuses_upscaling_without_recognition() -> None:
    values = {"super_resolution.enabled": True, "recognizer.enabled": False}
    with pytest.raises(ScrfdError, match=r"super_resolution\.enabled is true, but recognizer"):
        from_values(PipelineConfig, values)


def test_refuses_unknown_options() -> None:
    with pytest.raises(ScrfdError, match=r"there is no option detector\.score, nonsense"):
        from_values(PipelineConfig, {"nonsense": 1, "detector.score": 0.5})


def test_a_long_value_is_cut_off_in_the_error() -> None:
    with pytest.raises(ScrfdError) as raised:
        DetectorConfig(tiles=(1,) * 1000)  # type: ignore[arg-type]
    assert len(str(raised.value)) < 250


def test_values_go_to_their_groups() -> None:
    values = {
        "threads": 2,
        "model_directory": Path("models"),
        "detector.max_faces": 3,
        "detector.score_threshold": 1,
        "tracking.enabled": False,
    }
    config = from_values(PipelineConfig, values)
    assert (config.threads, config.model_directory) == (2, Path("models"))
    assert config.detector == DetectorConfig(max_faces=3, score_threshold=1)
    assert not config.tracking.enabled
    changed = with_values(config, {"detector.max_faces": 4})
    assert changed.detector == DetectorConfig(max_faces=4, score_threshold=1)
    assert changed == dataclasses.replace(config, detector=changed.detector)
    assert config.detector.max_faces == 3


@pytest.mark.parametrize("name", options(PipelineConfig))
def test_defaults_are_accepted(name: str) -> None:
    """Checks skip a default, so it is checked here."""
    option, _, default = options(PipelineConfig)[name]
    assert default is None or option.refusal(default) == ""


@pytest.mark.parametrize("name", options(PipelineConfig))
def test_descriptions_are_sentences(name: str) -> None:
    description = options(PipelineConfig)[name].option.description
    assert description[0].isupper() and description.endswith(".")
    assert "  " not in description
