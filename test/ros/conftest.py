"""One rclpy context for all tests, in a DDS domain of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

LARGEST_SAFE_DOMAIN = 101  # above it, ports collide with those Linux gives to clients


@pytest.fixture(scope="session", autouse=True)
def ros() -> Iterator[None]:
    import rclpy

    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % LARGEST_SAFE_DOMAIN)
    rclpy.init()
    yield
    rclpy.try_shutdown()
