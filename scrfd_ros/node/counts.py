# SPDX-License-Identifier: Apache-2.0
"""What has become of a camera's images: counts, rates and problems, for log and diagnostics."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

_RATE_SAMPLES = 30
_DAMAGE_PERIOD = 10.0  # seconds for which the diagnostics report a damaged image


@dataclass
class Counts:
    """What has become of a camera's images since the node was activated.

    The methods may be called from any thread. All times are seconds of the monotonic clock.

    Attributes:
        received, handled, dropped, failed: images; a newer image replaces a dropped one.
        lost: images that the camera sent and that did not arrive; None while unknown: before the
            first image, and where the ROS middleware does not number messages.
        damaged: images that were used although their data is damaged.
        arrivals, outputs: times of the last images.
        milliseconds: by stage, of the last image.
        reason: why the last image failed; empty if it did not.
        last_reason: why the last image that failed did, whatever came after it.
        busy_since: time since which there has been an image that waits or is in hand, and none was
            finished.
        damaged_until: time until which the last damaged image is reported.
        silence: why no images arrive, as far as known; empty if they arrive.
        warnings: current problems for the diagnostics, one sentence by subject, such as "stamps".

    A received image that is not in handled, dropped or failed is waiting or in hand.
    """

    received: int = 0
    handled: int = 0
    dropped: int = 0
    failed: int = 0
    lost: int | None = None
    damaged: int = 0
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_SAMPLES))
    outputs: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_SAMPLES))
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    silence: str = ""
    last_reason: str = ""
    busy_since: float = 0.0
    damaged_until: float = 0.0
    warnings: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    @property
    def in_hand(self) -> int:
        """Images that are waiting or being handled."""
        return self.received - self.handled - self.dropped - self.failed

    def receive(self, now: float, missing: int | None) -> None:
        """Count an image that arrived.

        Args:
            missing: images that should have arrived before it; None if unknown.
        """
        with self._lock:
            if not self.in_hand:
                self.busy_since = now
            self.received += 1
            if missing is not None:
                self.lost = (self.lost or 0) + missing
            self.arrivals.append(now)

    def drop(self) -> None:
        """Count an image that is not handled."""
        with self._lock:
            self.dropped += 1

    def finish(self, now: float, milliseconds: Mapping[str, float]) -> None:
        """Count an image whose results are published.

        Args:
            milliseconds: by stage.
        """
        with self._lock:
            self.reason = ""
            self.handled += 1
            self.busy_since = now
            self.outputs.append(now)
            self.milliseconds = milliseconds
            if now > self.damaged_until:
                self.warnings.pop("damage", None)

    def damage(self, now: float, sentence: str) -> None:
        """Count a finished image as damaged, and warn of it for some seconds."""
        with self._lock:
            self.damaged += 1
            self.damaged_until = now + _DAMAGE_PERIOD
            self.warnings["damage"] = (
                f"{self.damaged} of {self.handled} images damaged, the last: {sentence}"
            )

    def fail(self, now: float, reason: str) -> None:
        """Count an image that cannot be handled."""
        with self._lock:
            self.reason = self.last_reason = reason
            self.busy_since = now
            self.failed += 1

    def warn(self, subject: str, sentence: str) -> None:
        """Report a problem in the diagnostics, or, with an empty sentence, no longer."""
        with self._lock:
            if sentence:
                self.warnings[subject] = sentence
            else:
                self.warnings.pop(subject, None)

    def snapshot(self) -> Counts:
        """A copy that no other thread changes."""
        with self._lock:
            return replace(
                self,
                arrivals=self.arrivals.copy(),
                outputs=self.outputs.copy(),
                warnings=self.warnings.copy(),
            )

    def __str__(self) -> str:
        lost = "an unknown number" if self.lost is None else self.lost
        text = (
            f"{self.handled} handled, {self.dropped} dropped for newer ones, "
            f"{self.failed} skipped, {lost} lost on the way"
        )
        if self.damaged:
            text += f", {self.damaged} damaged"
        if self.in_hand:
            text += f", {self.in_hand} not finished"
        return text
