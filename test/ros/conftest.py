"""One rclpy context for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy


@pytest.fixture(scope="session", autouse=True)
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()
