# SPDX-License-Identifier: Apache-2.0
"""The node's clocks: a steady one for timers, ROS time for stamps."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""For timers: it runs without /clock, and never jumps."""

_SYSTEM = Clock(clock_type=ClockType.SYSTEM_TIME)
_PATIENCE = 5.0  # seconds that the time of /clock may stand still


def stamp_now(node: Node) -> Time:
    """The ROS time; the system's time as long as ROS time is 0, which means that it is unknown."""
    now = node.get_clock().now()
    return (now if now.nanoseconds else _SYSTEM.now()).to_msg()


class ClockWatch:
    """Watches the time of /clock, for nodes with use_sim_time.

    Attributes:
        is_paused: the time is known and has stood still for some seconds.
    """

    def __init__(self) -> None:
        self.is_paused = False
        self._time: int | None = None
        self._since = 0.0

    def look(self, now: float, time: int | None, publishers: int) -> str:
        """What is wrong with the clock, in a sentence; empty if nothing is, or if it is paused.

        Args:
            now: monotonic seconds.
            time: ROS time, nanoseconds; None if it is not simulated.
            publishers: number of publishers of /clock.
        """
        if time is None or time != self._time:
            self._time, self._since = time, now
        stands_still = now - self._since > _PATIENCE
        self.is_paused = stands_still and time != 0
        if not stands_still or time != 0:
            return ""
        if not publishers:
            return (
                "use_sim_time is true, but nobody publishes /clock: start the simulation, play the "
                "bag with --clock, or set use_sim_time to false"
            )
        return "use_sim_time is true, but the time of /clock is still 0: is the simulation paused?"
