# SPDX-License-Identifier: Apache-2.0
"""Fixtures: each kind of place where a gallery can be kept, PostgreSQL as a real server."""

from __future__ import annotations

from collections.abc import Iterator
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
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file or URL where a gallery can be made."""
    if request.param == "SQLite":
        return str(tmp_path / "people.db")
    server: PostgresServer = request.getfixturevalue("shared_server")
    return server.new_database()
