# SPDX-License-Identifier: Apache-2.0
"""How often the same problem is logged."""

from __future__ import annotations

_BETWEEN_DIFFERENT = 5.0  # seconds between two sentences about one subject
_AGAIN = 60.0  # seconds after which the same sentence is logged again


class Reminders:
    """Decides which sentences are due in the log: new ones, and after a while the same again.

    Args:
        again: seconds after which the same sentence is due again.
    """

    def __init__(self, again: float = _AGAIN) -> None:
        self._again = again
        self._told: dict[str, tuple[str, float]] = {}

    def is_due(self, subject: str, sentence: str, now: float) -> bool:
        """Whether to log a sentence about a subject at this time, seconds, rising."""
        told, when = self._told.get(subject, ("", float("-inf")))
        if now - when < (self._again if sentence == told else _BETWEEN_DIFFERENT):
            return False
        self._told[subject] = sentence, now
        return True
