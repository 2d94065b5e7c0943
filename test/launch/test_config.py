# SPDX-License-Identifier: Apache-2.0
"""The RViz layout shows the overlay, and Cyclone DDS accepts its profile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CONFIG = Path(__file__).parents[2] / "config"


def test_layout_shows_the_overlay_in_its_dock() -> None:
    layout = yaml.safe_load((CONFIG / "faces.rviz").read_text("utf-8"))
    (display,) = layout["Visualization Manager"]["Displays"]
    assert display["Class"] == "rviz_default_plugins/Image"
    assert display["Enabled"] is True
    assert display["Topic"]["Value"] == "/overlay"
    state = bytes.fromhex(layout["Window Geometry"]["QMainWindow State"])
    for name in (display["Name"], *(panel["Name"] for panel in layout["Panels"])):
        assert name.encode("utf-16-be") in state


def test_cyclone_accepts_its_profile() -> None:
    pytest.importorskip("cyclonedds", reason="it has no wheel for aarch64")
    subprocess.run(
        [sys.executable, "-c", "from cyclonedds.domain import DomainParticipant as D; D(0)"],
        env=os.environ | {"CYCLONEDDS_URI": f"file://{CONFIG / 'cyclonedds.xml'}"},
        check=True,
    )
