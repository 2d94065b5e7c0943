# SPDX-License-Identifier: Apache-2.0
"""One rclpy context for all tests; packages of messages that may be missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from message_packages import make_importable

SIMULATED_GPU = Path(__file__).parents[1] / "simulated_gpu"


@pytest.fixture(scope="session", autouse=True)
def ros() -> Iterator[None]:
    if not rclpy.ok():  # other tests may have come first
        rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def node_finds_simulated_gpu(simulated_driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For nodes that the test starts: a driver, TensorRT and pycuda of which nothing is real."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(simulated_driver), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(SIMULATED_GPU), prepend=os.pathsep)


@pytest.fixture(scope="session")
def optional_messages(request: pytest.FixtureRequest) -> dict[str, str]:
    """Packages that may be missing; gives the environment in which a node finds them."""
    return make_importable(request.config.cache.mkdir("optional_messages"))


@pytest.fixture
def node_finds_optional_messages(
    optional_messages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For nodes that the test starts."""
    for name, value in optional_messages.items():
        monkeypatch.setenv(name, value)
