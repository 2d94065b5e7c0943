# SPDX-License-Identifier: Apache-2.0
"""A signal calls a function on another thread and does not interrupt the main thread."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, signal, threading, time
from scrfd_ros.node.signals import call_at_signal

calls = []
came = threading.Event()

def note():
    calls.append(threading.current_thread().name)
    came.set()

call_at_signal(lambda: os._exit(1))
call_at_signal(note)  # instead of the first
rounds = 0
for number in NUMBERS:
    os.kill(os.getpid(), number)
    for _ in range(100_000):  # where an exception would come
        rounds += 1
assert came.wait(10)
time.sleep(0.1)
print(calls, rounds)
"""


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM, signal.SIGINT]],
    ids=["SIGINT", "SIGTERM", "several"],
)
def test_a_signal_calls_the_last_function_once(numbers: list[signal.Signals]) -> None:
    program = PROGRAM.replace("NUMBERS", str([int(number) for number in numbers]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"['signals'] {100_000 * len(numbers)}\n"


def test_signals_while_python_ends_do_not_change_the_status() -> None:
    program = """
import ctypes
from scrfd_ros.node.signals import call_at_signal

libc = ctypes.CDLL(None)
libc.on_exit(libc.getchar, None)  # the process waits for its input when Python is gone
call_at_signal(lambda: None)
print("ended", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ended\n"
        for _ in range(50):
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
    assert process.returncode == 0


def test_a_signal_is_answered_while_the_main_thread_is_in_foreign_code() -> None:
    program = """
import ctypes, os, signal, threading
from scrfd_ros.node.signals import call_at_signal

call_at_signal(lambda: os._exit(3))
threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
mutex = ctypes.create_string_buffer(64)
for _ in range(2):  # the second waits for ever
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 3
