# SPDX-License-Identifier: Apache-2.0
"""An error with one message, request or call is logged, and the executor goes on.

Real rclpy, with nodes in this process whose callbacks raise. A message type of None stands in for
messages that rclpy cannot take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.timer import Timer
from std_msgs.msg import Header

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node import error_reports
from scrfd_ros.node.guarded_executor import GuardedExecutor, guard_services

TIMEOUT = 30.0  # seconds


class Told(list[str]):
    """A logger that remembers."""

    def warning(self, text: str, **_: object) -> None:
        self.append(f"warning: {text}")

    def error(self, text: str, **_: object) -> None:
        self.append(f"error: {text}")


class Talkative(Node):
    def __init__(self) -> None:
        super().__init__("talkative")
        self.told = Told()

    def get_logger(self) -> Any:
        return self.told


@pytest.fixture
def node() -> Iterator[Talkative]:
    node = Talkative()
    yield node
    node.destroy_node()


@pytest.fixture
def spin(node: Talkative) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Spins until a condition holds."""
    executor = GuardedExecutor()
    executor.add_node(node)

    def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < end
            executor.spin_once(0.1)

    yield until
    executor.shutdown()


def own_error(*_: object) -> None:
    """Raises in a line that is taken for one of this package."""
    function = {}
    exec("def raising(): raise ValueError('ours')", {"__name__": "scrfd_ros.x"}, function)
    function["raising"]()


def ticks(node: Talkative) -> tuple[list[int], Timer]:
    """What shows that the node still does its work."""
    seen: list[int] = []
    return seen, node.create_timer(0.01, lambda: seen.append(1))


def test_timer_and_subscription_that_raise(node: Talkative, spin: Any) -> None:
    publisher = node.create_publisher(Header, "guarded", 10)
    node.create_subscription(Header, "guarded", lambda message: {}["missing"], 10)
    node.create_timer(0.01, own_error)
    timer = node.create_timer(0.01, lambda: publisher.publish(Header()))
    spin(lambda: any("/guarded: refused: 'missing'" in text for text in node.told))
    spin(lambda: any("again ValueError('ours')" in text for text in node.told))
    assert timer
    reports = [text for text in node.told if "Traceback" in text]
    assert len(reports) == 1
    assert "ValueError: ours" in reports[0]


def test_a_message_that_cannot_be_taken_does_not_lock_the_node(node: Talkative, spin: Any) -> None:
    publisher = node.create_publisher(Header, "guarded", 10)
    subscription = node.create_subscription(Header, "guarded", lambda message: None, 10)
    subscription.msg_type = None
    spin(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(Header())
    spin(lambda: any("/guarded: refused" in text for text in node.told))
    seen, _ = ticks(node)
    spin(lambda: bool(seen))


@pytest.mark.parametrize("wrong", ["raises", "no response"])
def test_a_service_that_fails(node: Talkative, spin: Any, wrong: str) -> None:
    def callback(request: Any, response: Any) -> Any:
        if wrong == "raises":
            raise ScrfdError("cannot tell")
        return None

    service = node.create_service(GetState, "guarded_state", callback)
    guard_services(node)
    client = node.create_client(GetState, "guarded_state")
    spin(client.service_is_ready)
    future = client.call_async(GetState.Request())
    spin(lambda: any("guarded_state: refused" in text for text in node.told))
    if wrong == "raises":  # the client gets an empty response and does not wait for ever
        spin(future.done)
        assert future.result() == GetState.Response()
    seen, _ = ticks(node)
    spin(lambda: bool(seen))
    assert service


def test_errors_of_this_package_have_a_place_and_others_do_not() -> None:
    with pytest.raises(ValueError, match="ours") as ours:
        own_error()
    with pytest.raises(KeyError) as other:
        {}["missing"]
    assert error_reports._own_place(ours.value) == "<string>:1"
    assert error_reports._own_place(other.value) is None


@pytest.mark.parametrize("fails", ["take", "execute"])
def test_the_executor_of_humble(
    node: Talkative, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A stand-in for it: there, what was taken is given to another function, and may be None."""

    def handler(_: Any, entity: Any, node: Node, take: Any, execute: Any) -> Any:
        return execute(entity, take(entity))

    def take(entity: Any) -> str | None:
        return {}["cannot take"] if fails == "take" else None

    async def execute(entity: Any, taken: str | None) -> None:
        raise KeyError("cannot execute")

    monkeypatch.setattr(SingleThreadedExecutor, "_make_handler", handler)
    executor = GuardedExecutor()
    with pytest.raises(StopIteration):  # the coroutine has come to its end
        executor._make_handler(node, node, take, execute).send(None)
    executor.shutdown()
    assert node.told == [f"warning: Talkative: refused: 'cannot {fails}'"]
