# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM as a call on a thread of its own."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable

_functions: list[Callable[[], object]] = []


def call_at_signal(function: Callable[[], object]) -> None:
    """Have the first SIGINT or SIGTERM call a function, and do nothing else; so does any other.

    A later call of this, from the main thread like the first, replaces the function.

    Python would raise KeyboardInterrupt between any two instructions of the main thread. In the
    middle of rclpy that leaves half an object behind, and a traceback of its destructor.
    """
    is_set_up = bool(_functions)
    _functions[:] = [function]
    if is_set_up:
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _do_nothing)
        # Python takes the handlers back when it ends, long before the process does.
        atexit.register(signal.signal, number, signal.SIG_IGN)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> None:
        os.read(reader, 1)
        _functions[0]()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _do_nothing(number: int, frame: object) -> None:
    """Python wants a handler for what goes to the file descriptor."""
