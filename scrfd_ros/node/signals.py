# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM call a function on a thread of its own."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable

_functions: list[Callable[[], object]] = []


def call_at_signal(function: Callable[[], object]) -> None:
    """Have the first SIGINT or SIGTERM call a function; further ones do nothing.

    To be called from the main thread. A later call replaces the function.

    By default Python raises KeyboardInterrupt between any two instructions of the main thread. In
    the middle of rclpy that leaves a half-made object behind, whose destructor prints a traceback.
    """
    is_set_up = bool(_functions)
    _functions[:] = [function]
    if is_set_up:
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _do_nothing)
        # Python restores the default handlers at exit, long before the process ends.
        atexit.register(signal.signal, number, signal.SIG_IGN)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> None:
        os.read(reader, 1)
        _functions[0]()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _do_nothing(number: int, frame: object) -> None:
    """Python writes to the wakeup descriptor only for signals that have a handler."""
