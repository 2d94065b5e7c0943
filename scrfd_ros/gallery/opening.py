# SPDX-License-Identifier: Apache-2.0
"""Open a gallery by its file or URL."""

from __future__ import annotations

import os
from pathlib import Path

from scrfd_ros.errors import NoGalleryError
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.people import GalleryInfo
from scrfd_ros.gallery.sqlite import SqliteStore


def open_gallery(store: str, info: GalleryInfo | None = None) -> Gallery:
    """Open a gallery, and read all of its templates into memory.

    Args:
        store: path of a file.
        info: what the gallery has to be for; it is made if it is missing. None: any gallery, which
            has to exist.

    Raises:
        NoGalleryError: it does not exist.
        GalleryError: it cannot be opened, or is for another recognizer.
    """
    gallery = Gallery(SqliteStore(Path(os.path.expanduser(store)), info))
    if info is not None:
        gallery.ensure_recognizer(info)
    return gallery


def gallery_info(store: str) -> GalleryInfo | None:
    """What a gallery is for, or None if there is none.

    Args:
        store: as for `open_gallery`.

    Raises:
        GalleryError: it cannot be opened.
    """
    try:
        with open_gallery(store) as gallery:
            return gallery.info
    except NoGalleryError:
        return None
