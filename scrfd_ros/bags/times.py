# SPDX-License-Identifier: Apache-2.0
"""Times in bags, as numbers and as text."""

from __future__ import annotations

from scrfd_ros.messages.cdr import Stamp


def nanoseconds(stamp: Stamp) -> int:
    """A builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec * 10**9 + stamp.nanosec)


def seconds(nanoseconds: int) -> str:
    """A time as ROS tools write it, seconds with nine decimals."""
    whole, rest = divmod(abs(nanoseconds), 10**9)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{rest:09}"
