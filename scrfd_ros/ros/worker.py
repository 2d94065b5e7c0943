"""The thread that runs the networks, so that the executor's never does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Returned = TypeVar("Returned")


class Worker(Generic[Item]):
    """One thread that takes calls in order and, of the items offered meanwhile, only the newest.

    Args:
        handle: called on the thread with an item. It must not raise.

    Attributes:
        handled: items handled since construction.
        dropped: items that a newer one replaced before they were handled.
    """

    def __init__(self, handle: Callable[[Item], None]) -> None:
        self.handled = 0
        self.dropped = 0
        self._handle = handle
        self._calls: list[Callable[[], None]] = []
        self._newest: Item | None = None
        self._stopped = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="faces", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> None:
        """Handle this item next, in place of the one that waits, if any."""
        with self._wake:
            self.dropped += self._newest is not None
            self._newest = item
            self._wake.notify()

    def call(self, function: Callable[[], Returned]) -> Returned:
        """Run a function on the thread, before any waiting item, and return or raise its result.

        Raises:
            RuntimeError: the worker has been stopped.
        """
        future: Future[Returned] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        with self._wake:
            if self._stopped:
                raise RuntimeError("the worker has been stopped")
            self._calls.append(call)
            self._wake.notify()
        return future.result()

    def forget(self) -> None:
        """Drop the waiting item and wait until the one in hand is done."""
        with self._wake:
            self._newest = None
        self.call(lambda: None)

    def stop(self) -> None:
        """End the thread once the item in hand and all calls are done."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            item: Any = None
            call = None
            with self._wake:
                self._wake.wait_for(
                    lambda: self._calls or self._newest is not None or self._stopped
                )
                if self._calls:
                    call = self._calls.pop(0)
                elif self._stopped:
                    return
                else:
                    item, self._newest = self._newest, None
            if call is not None:
                call()
            else:
                self._handle(item)
                self.handled += 1
