# SPDX-License-Identifier: Apache-2.0
"""How often the same problem is logged."""

from __future__ import annotations

from scrfd_ros.node.reminders import Reminders


def test_reminders() -> None:
    reminders = Reminders()
    times = {now for now in range(200) if reminders.is_due("a", "the same", now)}
    assert times == {0, 60, 120, 180}
    assert reminders.is_due("b", "the same", 0), "another subject"
    assert not reminders.is_due("b", "other", 4.9)
    assert reminders.is_due("b", "other", 5), "what is new is told earlier"
