# SPDX-License-Identifier: Apache-2.0
"""The program face_node. A signal ends it in order from the first moment on."""

from __future__ import annotations

import os
import sys

from scrfd_ros.node.parent import end_with_parent
from scrfd_ros.node.signals import call_at_signal


def main() -> int:
    """Run the node; returns the exit status. A signal also ends the imports, about a second."""
    call_at_signal(lambda: os._exit(0))
    if not end_with_parent():
        return 0
    from scrfd_ros.node.process import run

    return run(sys.argv[1:])
