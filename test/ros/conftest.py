"""One rclpy context for all tests; packages of messages that may be missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from message_packages import make_importable


@pytest.fixture(scope="session", autouse=True)
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def optional_messages(request: pytest.FixtureRequest) -> dict[str, str]:
    """hri_msgs and foxglove_msgs; gives the environment in which a node finds them."""
    return make_importable(request.config.cache.mkdir("optional_messages"))


@pytest.fixture
def node_finds_optional_messages(
    optional_messages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For nodes that the test starts."""
    for name, value in optional_messages.items():
        monkeypatch.setenv(name, value)
