# SPDX-License-Identifier: Apache-2.0
"""Worker runs everything on one thread of its own, in order, and for each key the newest item."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from scrfd_ros.node.worker import Stopped, Worker


class Recorder:
    """A slow consumer under the test's control."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.keys: list[str] = []
        self.counts: list[int] = []
        self.threads: set[int] = set()
        self.started = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self, items: list[tuple[str, int]]) -> None:
        self.threads.add(threading.get_ident())
        self.started.release()
        self.go_on.acquire()
        self.items += [item for _, item in items]
        self.keys += [key for key, _ in items]
        self.counts.append(len(items))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def worker(recorder: Recorder) -> Iterator[Worker[str, int]]:
    worker = Worker(recorder)
    yield worker
    recorder.go_on.release(100)
    worker.stop()


def test_the_newest_of_the_waiting_items_wins(worker: Worker[str, int], recorder: Recorder) -> None:
    worker.offer("camera", 0)
    recorder.started.acquire()
    replaced = [worker.offer("camera", item) for item in range(1, 10)]
    recorder.go_on.release(2)
    worker.call(lambda: None)
    recorder.started.acquire()
    worker.discard()
    worker.finish()
    assert recorder.items == [0, 9]
    assert replaced == [False] + 8 * [True]


def test_keys_are_served_in_turns(worker: Worker[str, int], recorder: Recorder) -> None:
    worker.offer("fast", 0)
    recorder.started.acquire()
    for item in range(1, 10):
        worker.offer("fast", item)
        if item == 2:
            worker.offer("slow", item)
    for turn in range(10, 13):  # the fast one has an image ready whenever the worker is free
        recorder.go_on.release()
        recorder.started.acquire()
        worker.offer("fast", turn)
        worker.offer("slow", turn)
    assert recorder.keys == ["fast", "fast", "slow"]
    recorder.go_on.release(3)
    recorder.started.acquire()
    recorder.started.acquire()
    worker.discard()
    worker.finish()
    assert recorder.keys == ["fast", "fast", "slow", "fast", "slow", "fast"]
    assert recorder.items == [0, 9, 10, 11, 12, 12]


def test_items_that_wait_are_handled_together(worker: Worker[str, int], recorder: Recorder) -> None:
    worker.max_batch = 3
    worker.offer("front", 0)
    recorder.started.acquire()
    for item, key in enumerate(("left", "right", "front", "rear", "left"), 1):
        worker.offer(key, item)
    recorder.go_on.release(3)
    for _ in range(2):
        recorder.started.acquire()
    worker.discard()
    worker.finish()
    assert recorder.counts == [1, 3, 1]
    assert recorder.keys == ["front", "left", "right", "front", "rear"]
    assert recorder.items == [0, 5, 2, 3, 4]


def test_items_and_calls_share_one_thread_which_is_not_the_callers(
    worker: Worker[str, int], recorder: Recorder
) -> None:
    recorder.go_on.release()
    worker.offer("camera", 0)
    recorder.started.acquire()
    assert recorder.threads == {worker.call(threading.get_ident)}
    assert threading.get_ident() not in recorder.threads


def test_a_call_returns_and_raises(worker: Worker[str, int]) -> None:
    assert worker.call(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0)
    assert worker.call(lambda: "still there") == "still there"


def test_finish_waits_for_the_item_in_hand_and_the_next_is_discarded(
    worker: Worker[str, int], recorder: Recorder
) -> None:
    worker.offer("camera", 0)
    recorder.started.acquire()
    worker.offer("camera", 1)
    forgetter = threading.Thread(target=lambda: (worker.discard(), worker.finish()))
    forgetter.start()
    forgetter.join(0.1)
    assert forgetter.is_alive()
    recorder.go_on.release()
    forgetter.join()
    assert recorder.items == [0]


def test_stop_ends_the_thread_after_the_item_in_hand(recorder: Recorder) -> None:
    worker = Worker(recorder)
    worker.offer("camera", 0)
    recorder.started.acquire()
    worker.offer("camera", 1)
    threading.Timer(0.1, recorder.go_on.release).start()
    worker.stop()
    assert recorder.items == [0]


def test_a_call_before_or_after_stop_raises_and_is_not_begun(recorder: Recorder) -> None:
    worker = Worker(recorder)
    worker.offer("camera", 0)
    recorder.started.acquire()
    begun: list[int] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            worker.call(lambda: begun.append(1))
        except Stopped as error:
            raised.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    while not worker._calls:
        caller.join(0.01)
    assert not worker.stop(0)  # the item is still in hand
    caller.join(10)
    assert len(raised) == 1
    call()
    assert len(raised) == 2
    recorder.go_on.release()
    assert worker.stop()
    assert begun == []


def test_a_call_that_has_begun_is_not_waited_for_after_stop(recorder: Recorder) -> None:
    worker = Worker(recorder)
    go_on = threading.Event()
    threading.Timer(0.1, worker.stop, [0]).start()
    with pytest.raises(Stopped):
        worker.call(go_on.wait)
    assert not worker.stop(0)
    go_on.set()
    assert worker.stop()
