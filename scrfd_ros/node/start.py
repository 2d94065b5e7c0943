# SPDX-License-Identifier: Apache-2.0
"""Starts the node such that a signal ends it in order from the first moment on."""

from __future__ import annotations

import os

from scrfd_ros.node.parent import end_with_parent
from scrfd_ros.node.signals import call_at_signal


def main() -> int:
    """Run `face_node.main`. A signal cuts the imports before it, about a second, short."""
    call_at_signal(lambda: os._exit(0))
    if not end_with_parent():
        return 0
    from scrfd_ros.node import face_node

    return face_node.main()
