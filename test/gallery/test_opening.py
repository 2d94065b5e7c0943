# SPDX-License-Identifier: Apache-2.0
"""What people write for the place of a gallery."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from galleries import INFO

from scrfd_ros.errors import GalleryError
from scrfd_ros.gallery.opening import open_gallery


@pytest.mark.parametrize(
    "given", ["people.db", "./a:b=c.db", "new/people", "~/people.db", "p q.db "]
)
def test_paths(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    open_gallery(given, INFO).close()
    assert (tmp_path / given.strip().replace("~/", "")).is_file()


@pytest.mark.parametrize(
    "given",
    [
        *("", " ", "mysql://host/people", "sqlite:///people.db", "file:people.db", "https://host"),
        *("postgresql+psycopg://host/people", "postgresql:/host/people", "postgresql:people"),
        *("postgressql://host/people", "pg://host/people", "jdbc:postgresql://host/people"),
        *(
            "host=db dbname=people password=secret",
            r"C:\\people.db",
            "C:/people.db",
            "host:5432/db",
        ),
        *("localhost:5432", "user:secret@host/people"),
    ],
)
def test_what_is_neither_a_file_nor_a_server(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GalleryError, match="path of a file, or a URL") as caught:
        open_gallery(given, INFO)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_a_server_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if "scrfd_ros.gallery.postgres" in each]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(GalleryError, match=r"needs the package psycopg: pip install"):
        open_gallery("postgresql://host/people", INFO)
