# SPDX-License-Identifier: Apache-2.0
"""Messages that did not come, from the numbers that publishers give theirs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Set

_MAX_HEADS = 16
_SWITCHES = 4


class PublisherNumbers:
    """Counts the messages of a topic that did not come.

    Each publisher numbers its messages, but a message does not tell whose it is. It is taken to be
    of the publisher whose last number is the next smaller one. Thus what is counted is never more
    than what was lost; with several publishers it can be less.

    Attributes:
        switches: when the last messages came that continue another publisher's numbers than the
            message before, seconds; a publisher that begins is none.
    """

    def __init__(self) -> None:
        self.switches: deque[float] = deque(maxlen=_SWITCHES)
        self._heads: list[int] = []  # of each publisher the last number
        self._known: set[Hashable] = set()
        self._current = 0

    def missing(self, number: int, now: float, publishers: Callable[[], Set[Hashable]]) -> int:
        """How many messages are missing before this one.

        Args:
            number: that its publisher has given it.
            now: seconds, rising.
            publishers: returns what identifies those that the topic has now; called when there is
                a gap only.
        """
        older = [row for row, head in enumerate(self._heads) if head < number]
        if older:
            row = max(older, key=self._heads.__getitem__)
            gap = number - self._heads[row] - 1
            if gap == 0 or not self._is_the_first_of_another(publishers()):
                self._heads[row] = number
                if row != self._current:
                    self._current = row
                    self.switches.append(now)
                return gap
        else:
            self._is_the_first_of_another(publishers())
        if len(self._heads) == _MAX_HEADS:
            del self._heads[0]
        self._heads.append(number)
        self._current = len(self._heads) - 1
        return 0

    def is_mixed(self, now: float, seconds: float) -> bool:
        """Whether messages of several publishers came in turns in the last seconds."""
        return len(self.switches) == _SWITCHES and now - self.switches[0] <= seconds

    def _is_the_first_of_another(self, publishers: Set[Hashable]) -> bool:
        new = publishers - self._known
        if new:
            self._known.add(next(iter(new)))
        return bool(new)
