# SPDX-License-Identifier: Apache-2.0
"""Fixtures: each kind of place where a gallery can be kept, PostgreSQL as a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import FAST, PostgresServer, missing


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests; one that stops it starts it again."""
    if reason := missing():
        pytest.skip(reason)
    with PostgresServer(*FAST) as server:
        yield server


@pytest.fixture
def new_database(server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Makes empty databases; returns their URLs."""
    urls: list[str] = []

    def new() -> str:
        urls.append(server.new_database())
        return urls[-1]

    yield new
    for url in urls:
        server.spare(url)


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes files or URLs where a gallery can be made."""
    if request.param == "SQLite":
        numbers = itertools.count()
        yield lambda: str(tmp_path / f"people{next(numbers)}.db")
    else:
        new_database: Callable[[], str] = request.getfixturevalue("new_database")
        yield new_database


@pytest.fixture
def place(new_place: Callable[[], str]) -> str:
    """A file or URL where a gallery can be made."""
    return new_place()
