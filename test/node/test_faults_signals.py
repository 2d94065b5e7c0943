# SPDX-License-Identifier: Apache-2.0
"""A signal ends face_node at any moment: in order, with its counts and without a traceback.

bench/signals.py measures how soon.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from endings import node_at, seconds_to_end


@pytest.fixture(scope="module", autouse=True)
def weights(detector_path: Callable[[str], Path]) -> None:
    detector_path("500m")


# Active, and as soon as it can be seen, with both signals: see test_node.py.
@pytest.mark.parametrize(
    ("moment", "numbers"),
    [
        ("importing", ["SIGINT"]),
        ("importing", ["SIGTERM"]),
        ("unconfigured", ["SIGTERM"]),
        ("configuring at start", ["SIGINT"]),
        ("configuring on request", ["SIGTERM"]),
        ("inactive", ["SIGINT"]),
        ("active", ["SIGINT", "SIGINT"]),
        ("an image in hand", ["SIGTERM"]),
        ("deactivating", ["SIGTERM"]),
        ("cleaning up", ["SIGINT"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_a_signal_ends_the_node(tmp_path: Path, moment: str, numbers: list[str]) -> None:
    with node_at(moment, tmp_path) as process:
        seconds_to_end(process, [signal.Signals[name] for name in numbers])
    has_run = moment in ("active", "an image in hand", "deactivating")
    assert (" handled, " in (tmp_path / "face_node.log").read_text()) == has_run
