# SPDX-License-Identifier: Apache-2.0
"""The thread that runs the networks; the executor's thread never does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Returned = TypeVar("Returned")


class Stopped(BaseException):
    """The worker has been stopped. Not an Exception: rclpy would see a failed transition."""


class Worker(Generic[Key, Item]):
    """One thread that runs calls in order and handles, for each key, the newest offered item.

    Keys are served in the order in which they began to wait: a key with frequent offers does not
    get more turns than others, and a key without offers delays nobody.

    Args:
        handle: called on the thread with at least one pair of key and item. It must not raise.

    Attributes:
        max_batch: maximum number of waiting items, of different keys, that are handled together.
        is_stopped: whether `stop` has been called.
    """

    def __init__(self, handle: Callable[[list[tuple[Key, Item]]], None]) -> None:
        self.max_batch = 1
        self._handle = handle
        self._calls: list[Callable[[], None]] = []
        self._waiting: dict[Key, Item] = {}
        self.is_stopped = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="faces", daemon=True)
        self._thread.start()

    def offer(self, key: Key, item: Item) -> bool:
        """Handle this item next under its key; returns whether it replaced a waiting one."""
        with self._wake:
            replaced = key in self._waiting
            self._waiting[key] = item  # a waiting key keeps its place
            self._wake.notify_all()
        # Hand over the interpreter: otherwise the thread would begin 0.6 ms later if the caller has
        # more to do.
        time.sleep(0)
        return replaced

    def call(self, function: Callable[[], Returned]) -> Returned:
        """Run a function on the thread, before any waiting item, and return or raise its result.

        Raises:
            Stopped: the worker was stopped before or while the function ran.
        """
        future: Future[Returned] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        with self._wake:
            self._calls.append(call)
            self._wake.notify_all()
            self._wake.wait_for(lambda: future.done() or self.is_stopped)
        if not future.done():
            raise Stopped
        return future.result()

    def discard(self) -> list[Key]:
        """Drop the waiting items; returns their keys."""
        with self._wake:
            keys = list(self._waiting)
            self._waiting.clear()
        return keys

    def finish(self) -> None:
        """Wait until the items in hand are handled.

        Raises:
            Stopped: see `call`.
        """
        self.call(lambda: None)

    def stop(self, seconds: float | None = None) -> bool:
        """End the thread after the item or call in hand, and every wait for a call immediately.

        Args:
            seconds: maximum wait for the thread; None for no limit.

        Returns:
            Whether the thread has ended.
        """
        with self._wake:
            self.is_stopped = True
            self._wake.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            call = None
            items: list[tuple[Key, Item]] = []
            with self._wake:
                self._wake.wait_for(lambda: self._calls or self._waiting or self.is_stopped)
                if self.is_stopped:
                    return
                if self._calls:
                    call = self._calls.pop(0)
                else:
                    keys = list(self._waiting)[: self.max_batch]
                    items = [(key, self._waiting.pop(key)) for key in keys]
            if call is not None:
                call()
                with self._wake:
                    self._wake.notify_all()
            else:
                self._handle(items)
