# SPDX-License-Identifier: Apache-2.0
"""Exceptions in the log: a sentence for what users can mend, a traceback for what they cannot."""

from __future__ import annotations

import traceback
from types import FrameType

from rclpy.exceptions import (
    InvalidParameterValueException,
    NameValidationException,
    ParameterException,
)
from rclpy.node import Node

from scrfd_ros.errors import ScrfdError

EXPECTED_ERRORS = (ScrfdError, OSError, ParameterException, NameValidationException)
"""Errors with causes outside this package, which users can remove."""

_LOG_PERIOD = 5.0  # seconds between repeats of an error that has been logged already


def reason_of(error: Exception) -> str:
    """What an exception says, without the wrapping that rclpy adds."""
    if isinstance(error, InvalidParameterValueException):
        # "Invalid parameter value (V) for parameter. Reason: NAME: what is wrong: NAME"
        return str(error).partition(" Reason: ")[2].rpartition(":")[0]
    return str(error) if isinstance(error, EXPECTED_ERRORS) else repr(error)


def log_error(node: Node, source: str, error: Exception) -> None:
    """Log an exception: with its traceback if it passed this package's code, once for each place.

    Args:
        source: what raised it, such as the name of a service.
    """
    place = _own_place(error)
    logger = node.get_logger()
    if place is None:  # rclpy refused a message or a request
        logger.warning(
            f"{source}: refused: {_first_line(error)}", throttle_duration_sec=_LOG_PERIOD
        )
        return
    if place not in _logged:
        _logged.add(place)
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        logger.error(
            f"{source}: an error in scrfd_ros, please report it; the node goes on:\n{text}"
        )
        return
    logger.error(f"{source}: again {error!r} in {place}", throttle_duration_sec=_LOG_PERIOD)


_logged: set[str] = set()  # places in the code, which are no more than its lines


def _own_place(error: Exception) -> str | None:
    """The innermost line of this package in the exception's traceback, if any."""
    own: FrameType | None = None
    line = 0
    for frame, number in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
        if name.startswith("scrfd_ros.") and name not in _GUARDS:
            own, line = frame, number
    return None if own is None else f"{own.f_code.co_filename}:{line}"


_GUARDS = (__name__, "scrfd_ros.node.guarded_executor")
"""Modules that every exception passes, whatever raised it."""


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:300]
