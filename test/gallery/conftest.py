# SPDX-License-Identifier: Apache-2.0
"""Fixtures: each kind of place where a gallery can be kept, PostgreSQL as a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import FAST, PostgresServer, missing


@pytest.fixture(scope="session")
def shared_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests that do not stop it."""
    if reason := missing():
        pytest.skip(reason)
    with PostgresServer(*FAST) as server:
        yield server


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes files or URLs where a gallery can be made."""
    if request.param == "PostgreSQL":
        server: PostgresServer = request.getfixturevalue("shared_server")
        return server.new_database
    numbers = itertools.count()
    return lambda: str(tmp_path / f"people{next(numbers)}.db")


@pytest.fixture
def place(new_place: Callable[[], str]) -> str:
    """A file or URL where a gallery can be made."""
    return new_place()
