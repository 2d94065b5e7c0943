"""Fixtures: real weights and real pictures, fetched once and verified by checksum.

And the surroundings of every ROS 2 program that a test starts: a DDS domain of its own, and the
transport that large images need.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.files import read_picture
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture

LARGEST_SAFE_DOMAIN = 101  # above it, ports collide with those Linux gives to clients

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % LARGEST_SAFE_DOMAIN)
for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
    os.environ[name] = str(Path(__file__).parents[1] / "config" / "fastdds.xml")


@pytest.fixture(scope="session")
def detector_path() -> Callable[[str], Path]:
    """Path of a real detector by its name in the catalogue."""
    return lambda name: ensure_model(load_catalogue().find(name, DETECTOR))


@pytest.fixture(scope="session")
def recognizer_path() -> Callable[[str], Path]:
    """Path of a real recogniser by its name in the catalogue."""
    return lambda name: ensure_model(load_catalogue().find(name, RECOGNIZER))


@pytest.fixture(scope="session")
def picture() -> Callable[[str], NDArray[np.uint8]]:
    """A real picture by its file name, uint8 [H, W, 3] BGR."""
    return lambda name: read_picture(ensure_picture(name))


@pytest.fixture(scope="session")
def det_500m_path(detector_path: Callable[[str], Path]) -> Path:
    """A real export with numbers for output names and outputs of rank 2."""
    return detector_path("det_500m")
