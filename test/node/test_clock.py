# SPDX-License-Identifier: Apache-2.0
"""A missing clock is reported, a paused one is not."""

from __future__ import annotations

import pytest
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

from scrfd_ros.node.clock import ClockWatch, stamp_now


def looks(*times: int | None, publishers: int = 0) -> list[str]:
    """What is said once a second, with the given ROS times."""
    watch = ClockWatch()
    return [watch.look(100.0 + row, time, publishers) for row, time in enumerate(times)]


def test_ros_time_that_is_not_simulated() -> None:
    assert looks(*[None] * 20) == [""] * 20


def test_nobody_publishes_the_clock() -> None:
    said = looks(*[0] * 8)
    assert said[:6] == [""] * 6
    assert said[6].startswith("use_sim_time is true, but nobody publishes /clock: ")
    assert said[7] == said[6]


def test_a_clock_that_has_not_begun() -> None:
    assert looks(*[0] * 8, publishers=1)[7].startswith(
        "use_sim_time is true, but the time of /clock is still 0"
    )


@pytest.mark.parametrize("publishers", [0, 1])
def test_a_paused_clock_is_not_missing(publishers: int) -> None:
    assert looks(*[0] * 3, 10, 11, *[12] * 20, publishers=publishers) == [""] * 25


def test_paused_is_told_from_running() -> None:
    watch = ClockWatch()
    for row, (time, is_paused) in enumerate(
        [*[(7, False)] * 6, (7, True), (8, False), *[(3, False)] * 6, (3, True)]
    ):
        watch.look(float(row), time, 1)
        assert watch.is_paused == is_paused


def test_use_sim_time_may_be_switched_off() -> None:
    assert looks(*[0] * 7, None)[-1] == ""


def test_a_stamp_is_never_zero() -> None:
    node = LifecycleNode("clock_test")
    node.set_parameters([Parameter("use_sim_time", value=True)])
    try:
        assert node.get_clock().now().nanoseconds == 0
        assert stamp_now(node).sec > 0
    finally:
        node.destroy_node()
