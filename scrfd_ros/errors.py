# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can act on: the message says what, where, what was expected, what to do."""

from __future__ import annotations


class ScrfdError(Exception):
    """Base class of all errors this package raises on purpose."""


class ModelError(ScrfdError):
    """A model file or its network cannot be used."""


class BackendError(ModelError):
    """What a backend needs is missing on this machine, such as a CUDA device."""


class ImageError(ScrfdError):
    """An image or an image message cannot be used."""


class MessageError(ScrfdError):
    """A message is damaged or contradicts itself."""


class DownloadError(ScrfdError):
    """A model file could not be fetched or is not the expected one."""


class GalleryError(ScrfdError):
    """A gallery of people cannot be used, or refuses what was asked of it."""


class GalleryAwayError(GalleryError):
    """The server that keeps a gallery cannot be reached, which may pass by itself."""


class NoGalleryError(GalleryError):
    """There is no gallery of people at this place."""
