# SPDX-License-Identifier: Apache-2.0
"""A process that a launch file has started ends when launch does, whatever ended that."""

from __future__ import annotations

import ctypes
import os
import signal

PARENT = "SCRFD_ROS_PARENT"
"""Environment variable: number of the process that is not to be outlived."""

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> bool:
    """Have the system send SIGTERM when the parent ends, if `PARENT` names it.

    launch leaves its processes behind where it is killed, where it gets SIGTERM, and where an
    exception comes while it starts things: a node that nobody sees, whose results mix with
    those of the one that is started next.

    Returns:
        False if the parent has ended already.
    """
    name = os.environ.pop(PARENT, "")  # not for processes that this one starts
    if not name.isdecimal():
        return True
    if os.getppid() == int(name):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        return os.getppid() == int(name)  # it may have ended before the system was asked
    # It has ended, or a debugger, a terminal or the like is between the two.
    return os.path.exists(f"/proc/{name}")
