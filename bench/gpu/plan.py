# SPDX-License-Identifier: Apache-2.0
"""The steps, in the order of what a short time on a GPU has to settle."""

from __future__ import annotations

from gpu.running import Step
from scrfd_ros.models.catalogue import (
    DETECTOR,
    RECOGNIZER,
    default_model_directory,
    file_state,
    load_catalogue,
)

GOAL = 1.3
"""A frame may take this many times as long as its engine alone."""

_DETECTOR, _RECOGNIZER = _FIRST = ("2.5g", "w600k_mbf")
_FOR_CAMERAS = "500m"  # the published 2.5g takes one image at a time
_WITHOUT_FILES = ("1g", "10g", "34g", "r50", "r100")
_FILES_OF_SHAPES = {"r50": "w600k_r50", "r100": "glintr100"}
_ROUNDS = 100, 90.0  # of the node's lifecycle, and seconds for them
_BUILD = 240.0  # seconds
_FAULTS = {
    "engine of another version": "of_another_version",
    "truncated engine": "truncated",
    "truncated engine without metadata": "truncated_without_metadata",
    "other first bytes without metadata": "other_head_without_metadata",
    "shape that the engine does not take": "wrong_shape",
    "full memory": "memory_full",
    "damaged timing cache": "bad_timing_cache",
    "no visible device": "no_device",
}


def all_steps() -> list[Step]:
    """All steps, with the detectors and recognizers whose files are here.

    Of the published models that are not, networks of the same layers are built.
    """
    detectors, recognizers = _here(DETECTOR), _here(RECOGNIZER)
    names = [*detectors, *recognizers]
    others = [name for name in names if name not in _FIRST]
    shapes = [name for name in _WITHOUT_FILES if _FILES_OF_SHAPES.get(name, name) not in names]
    return [
        Step("machine", "machine.describe", is_needed=True),
        *(_engine(name, "fp16") for name in _FIRST),
        *_on_engines("fp16"),
        Step("node over DDS", "node.over_dds", _FIRST, needs_ros=True),
        Step("node at camera rates", "node.at_camera_rates", _FIRST, needs_ros=True),
        Step("lifecycle", "node.lifecycle", (*_FIRST, *_ROUNDS), needs_ros=True),
        Step("memory", "times.memory", _FIRST),
        Step("engine for cameras", "engines.build_batches", (_FOR_CAMERAS,), _BUILD),
        Step("cameras as one batch", "agreement.cameras", (_FOR_CAMERAS,)),
        Step("engine for 16:9", "engines.build_for_wide", (_DETECTOR,), _BUILD),
        *(Step(f"fault: {name}", f"faults.{function}") for name, function in _FAULTS.items()),
        *(_engine(name, "fp16") for name in others),
        *(_times(name, "fp16") for name in detectors if name in others),
        *(_engine(name, "fp32") for name in (*_FIRST, *others)),
        *_on_engines("fp32"),
        *(_engine(name, "int8") for name in (*_FIRST, *others)),
        *_on_engines("int8"),
        *(Step(f"layers of {name}", "engines.build_of_shape", (name,), _BUILD) for name in shapes),
        Step("tests", "suite.run", limit=_BUILD),
    ]


def _here(kind: str) -> list[str]:
    """Names of the models whose files are here."""
    catalogue, directory = load_catalogue(), default_model_directory()
    return [
        name
        for name in catalogue.names(kind)
        if file_state(catalogue.models[name], directory / catalogue.models[name].file)
        not in ("missing", "corrupt")
    ]


def _engine(name: str, precision: str) -> Step:
    return Step(f"engine {name} {precision}", "engines.build", (name, precision), _BUILD)


def _times(detector: str, precision: str) -> Step:
    return Step(f"times {detector} {precision}", "times.stages", (detector, None, precision, True))


def _on_engines(precision: str) -> list[Step]:
    """What shows that the engines of the first models find the same faces, and how fast."""
    return [
        Step(f"agreement {precision}", "agreement.with_onnx_runtime", (*_FIRST, precision)),
        *(
            Step(
                f"times {_DETECTOR} + {_RECOGNIZER} {precision}{', CUDA graph' if graph else ''}",
                "times.stages",
                (*_FIRST, precision, graph),
            )
            for graph in (True, False)
        ),
    ]
