# SPDX-License-Identifier: Apache-2.0
"""On which terms people are enrolled."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final, NamedTuple

from scrfd_ros.gallery.gallery import FOREVER

_DAY: Final = 86400.0  # seconds


class Terms(NamedTuple):
    """On which terms people are enrolled: see `scrfd_ros.gallery.choice.enroll`."""

    consent: str = ""
    expires: float | None = None
    force: bool = False


def expiry(text: str, now: float) -> float:
    """When a person is to be forgotten, seconds since the epoch.

    Args:
        text: a number of days from now, or a date, such as 2030-12-31, at whose beginning.
        now: seconds since the epoch.

    Raises:
        ValueError: it is neither, or not in the future.
    """
    try:
        then = now + _DAY * float(text)
    except ValueError:
        try:
            day = date.fromisoformat(text)
            then = datetime(day.year, day.month, day.day).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(
                f"expected a number of days, or a date such as 2030-12-31, found {text!r}"
            ) from None
    if not now < then < FOREVER:  # or NaN
        raise ValueError(f"expected a time to come, found {text!r}")
    return then
