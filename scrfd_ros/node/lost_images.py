# SPDX-License-Identifier: Apache-2.0
"""Lost messages, from the sequence numbers that publishers give to their messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Set

_MAX_HEADS = 16
_SWITCHES = 4


class PublisherNumbers:
    """Counts the lost messages of a topic.

    Each publisher numbers its messages, but a message does not name its publisher. It is ascribed
    to the publisher with the nearest smaller last number. The count never exceeds the number of
    lost messages; with several publishers it can be lower.

    Attributes:
        switches: arrival times, seconds, of the last messages that continue another publisher's
            numbers than the message before; the first message of a publisher does not count.
    """

    def __init__(self) -> None:
        self.switches: deque[float] = deque(maxlen=_SWITCHES)
        self._heads: list[int] = []  # each publisher's last number
        self._known: set[Hashable] = set()
        self._current = 0

    def missing(self, number: int, now: float, publishers: Callable[[], Set[Hashable]]) -> int:
        """The number of messages that are missing before this one.

        Args:
            number: of the message, from its publisher.
            now: seconds, rising.
            publishers: returns identifiers of the topic's present publishers; called only at a gap.
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
        """Whether messages of several publishers arrived in turns in the last seconds."""
        return len(self.switches) == _SWITCHES and now - self.switches[0] <= seconds

    def _is_the_first_of_another(self, publishers: Set[Hashable]) -> bool:
        new = publishers - self._known
        if new:
            self._known.add(next(iter(new)))
        return bool(new)
