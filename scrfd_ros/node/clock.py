# SPDX-License-Identifier: Apache-2.0
"""The clocks of the node: what it does by itself goes by a steady one, whatever ROS time does."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""For timers and throttling: it runs without /clock, and never jumps."""

_SYSTEM = Clock(clock_type=ClockType.SYSTEM_TIME)
_PATIENCE = 5.0  # seconds that the time of /clock may stand still


def stamp_now(node: Node) -> Time:
    """The ROS time; that of the system as long as /clock has told none, as 0 means no time."""
    now = node.get_clock().now()
    return (now if now.nanoseconds else _SYSTEM.now()).to_msg()


class ClockWatch:
    """Watches the time of /clock, for nodes with use_sim_time.

    Attributes:
        is_paused: there is a time, but it has stood still for some seconds.
    """

    def __init__(self) -> None:
        self.is_paused = False
        self._time: int | None = None
        self._since = 0.0

    def look(self, now: float, time: int | None, publishers: int) -> str:
        """Returns what is wrong with the clock, or nothing; a paused one is not wrong.

        Args:
            now: monotonic seconds.
            time: ROS time, nanoseconds; None if it is not simulated.
            publishers: of /clock.
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
