# SPDX-License-Identifier: Apache-2.0
"""Ends a process that a launch file has started when launch ends, for whatever reason."""

from __future__ import annotations

import ctypes
import os
import signal

PARENT = "SCRFD_ROS_PARENT"
"""Environment variable: id of the process that this one must not outlive."""

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> bool:
    """Have the system send SIGTERM when the parent ends, if `PARENT` names it.

    launch leaves its processes running if it is killed, gets SIGTERM, or raises an exception while
    it starts. The results of such a node would mix with those of the node that is started next.

    Returns:
        False if the parent has ended already.
    """
    name = os.environ.pop(PARENT, "")  # not for this process's own children
    if not name.isdecimal():
        return True
    if os.getppid() == int(name):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        return os.getppid() == int(name)  # it may have ended before the call
    # The parent has ended, or a debugger, a terminal or the like is between the two processes.
    return os.path.exists(f"/proc/{name}")
