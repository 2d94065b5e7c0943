# SPDX-License-Identifier: Apache-2.0
"""How a step tells that it did not pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NotRun(Exception):
    """The step cannot be tried on this machine, or without the result of another one."""


class Failure(Exception):
    """What was measured is not good enough.

    Attributes:
        figures: what was measured.
    """

    def __init__(self, reason: str, figures: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.figures = dict(figures or {})
