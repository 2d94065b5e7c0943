# SPDX-License-Identifier: Apache-2.0
"""Open a gallery by its file or URL."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scrfd_ros.errors import GalleryError
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.people import GalleryInfo
from scrfd_ros.gallery.sqlite import SqliteStore
from scrfd_ros.gallery.store import Store


def open_gallery(store: str, info: GalleryInfo | None = None, *, waits: bool = False) -> Gallery:
    """Open a gallery, and read all of its templates into memory.

    Args:
        store: path of a file, in which ~ is the user's folder; or
            postgresql://USER@HOST:PORT/DATABASE.
        info: what the gallery has to be for; it is made if it is missing. None: any gallery, which
            has to exist.
        waits: if its server cannot be reached, open the gallery without people; `Gallery.state`
            says so, and `Gallery.follow` takes them over when the server is there.

    Raises:
        NoGalleryError: it does not exist.
        GalleryAwayError: its server cannot be reached.
        GalleryError: it cannot be opened, or is for another recognizer.
    """
    gallery = Gallery(open_store(store.strip(), info, waits=waits))
    if info is not None:
        try:
            gallery.ensure_recognizer(info)
        except GalleryError:
            gallery.close()
            raise
    return gallery


def open_store(store: str, info: GalleryInfo | None, *, waits: bool = False) -> Store:
    """Open only the place where a gallery is kept. As `open_gallery`."""
    if re.match("postgres(ql)?://", store):
        try:
            from scrfd_ros.gallery.postgres import PostgresStore
        except ImportError as error:
            raise GalleryError(
                "a gallery on a PostgreSQL server needs the package psycopg: "
                "pip install 'psycopg[binary]>=3.1'"
            ) from error
        return PostgresStore(store, info, waits=waits)
    # Other URLs, paths of Windows and libpq's "host=..." would silently become files.
    if not store or re.match(r"\w[\w+.-]*[:=]", store):
        raise GalleryError(
            "a gallery is the path of a file, or a URL postgresql://USER@HOST:PORT/DATABASE; write "
            "./ before the name of a file that has a colon or an equals sign"
        )
    return SqliteStore(Path(os.path.expanduser(store)), info)
