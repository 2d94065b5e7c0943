# SPDX-License-Identifier: Apache-2.0
"""The levels and sentences of the diagnostics for the states of a camera.

The camera and the pipeline are stand-ins with only what the status is made of.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from scrfd_ros.gallery.people import GalleryInfo
from scrfd_ros.node.config import DiagnosticsConfig
from scrfd_ros.node.counts import Counts
from scrfd_ros.node.diagnostics import camera_status, gallery_status

NETWORK = SimpleNamespace(path=Path("detector.onnx"), backend="a backend", on_gpu=False)
PIPELINE = SimpleNamespace(networks={"detector": NETWORK})
SLOW = DiagnosticsConfig(stale_after=1000.0, min_rate=1000.0)
ANY = DiagnosticsConfig(stale_after=1000.0, min_rate=0.0)
STALE = DiagnosticsConfig(stale_after=0.0, min_rate=0.0)


@pytest.fixture
def camera() -> SimpleNamespace:
    counts = Counts()
    counts.arrivals.append(time.monotonic())
    return SimpleNamespace(
        name="front",
        topic="/front/image",
        counts=counts,
        waiting_since=counts.arrivals[0],
    )


def status(camera: SimpleNamespace, limits: DiagnosticsConfig) -> tuple[bytes, str]:
    made = camera_status(camera, PIPELINE, "face_node", limits)
    return made.level, made.message


def test_all_is_well(camera: SimpleNamespace) -> None:
    assert status(camera, ANY) == (DiagnosticStatus.OK, "0.0 results a second")


def test_several_problems_are_all_told_the_worst_first(camera: SimpleNamespace) -> None:
    camera.counts.warnings["stamps"] = "stamps are zero"
    camera.counts.reason = "image skipped: broken"
    assert status(camera, SLOW) == (
        DiagnosticStatus.ERROR,
        "image skipped: broken; stamps are zero; 0.0 results a second, expected at least 1000",
    )


def test_silence_is_the_worst(camera: SimpleNamespace) -> None:
    camera.counts.warnings["stamps"] = "stamps are zero"
    level, message = status(camera, STALE)
    assert level == DiagnosticStatus.STALE
    assert message.startswith("no image for ") and message.endswith("; stamps are zero")


def test_a_problem_of_a_camera_nobody_wants_is_told(camera: SimpleNamespace) -> None:
    camera.waiting_since = None
    assert status(camera, ANY) == (DiagnosticStatus.OK, "no subscriber to results")
    camera.counts.warnings["clock"] = "no clock"
    assert status(camera, ANY) == (DiagnosticStatus.WARN, "no clock")


def test_a_camera_that_is_wanted_again_is_waited_for(camera: SimpleNamespace) -> None:
    camera.counts.arrivals[0] -= 300  # before nobody wanted it
    limits = DiagnosticsConfig(stale_after=100.0, min_rate=0.0)
    assert status(camera, limits) == (DiagnosticStatus.OK, "0.0 results a second")
    camera.waiting_since -= 101
    assert status(camera, limits)[0] == DiagnosticStatus.STALE


def test_a_gallery_whose_store_is_away_is_told_without_names() -> None:
    info = GalleryInfo("w600k_mbf", "0" * 64, 512)
    gallery: Any = SimpleNamespace(state="", person_count=3, template_count=7, info=info)
    made = gallery_status(gallery, "face_node")
    assert (made.name, made.level) == ("face_node: gallery", DiagnosticStatus.OK)
    assert made.message == "3 people"
    values = {value.key: value.value for value in made.values}
    assert (values["people"], values["templates"], values["store"]) == ("3", "7", "works")
    gallery.person_count = 1
    assert gallery_status(gallery, "face_node").message == "1 person"
    gallery.state = "no server listens there; since 10:00"
    made = gallery_status(gallery, "face_node")
    assert (made.level, made.message) == (DiagnosticStatus.WARN, gallery.state)
    assert {value.value for value in made.values} >= {"1", "7", gallery.state}
