# SPDX-License-Identifier: Apache-2.0
"""Decompress data up to its first damage, and up to a maximum size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final, Protocol

from scrfd_ros.errors import ScrfdError

try:  # required by the package rosbags
    import lz4.frame

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
except ImportError as error:
    raise ScrfdError(
        f"compressed bags are read with packages that rosbags requires, and one of them cannot be "
        f"imported ({error}): pip install --upgrade rosbags"
    ) from error

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""The first bytes of data compressed with zstd. No CDR message begins with them."""

_INPUT: Final = 1 << 14
_OUTPUT: Final = 1 << 20


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


def decompressed(data: bytes, compression: str, max_bytes: int) -> tuple[bytes, str]:
    """Decompress any number of frames of "lz4" or "zstd".

    Memory is allocated for the actual content, not for the size that the data claims.

    Returns:
        The content up to the first damage or `max_bytes`, and a phrase that says what is wrong; ""
        if nothing is.
    """
    content = bytearray()
    pieces = (data[begin : begin + _INPUT] for begin in range(0, len(data), _INPUT))
    try:
        for part in decompressed_parts(pieces, compression):
            content += part
            if len(content) > max_bytes:
                return bytes(content[:max_bytes]), f"more than {max_bytes} bytes, decompressed"
    except ValueError as error:
        return bytes(content), str(error)
    return bytes(content), ""


def decompressed_parts(pieces: Iterator[bytes], compression: str) -> Iterator[bytes]:
    """Decompress a stream.

    Raises:
        ValueError: the stream is damaged or cut short, or the compression is unknown.
    """
    decompressor: _Decompressor | None = None
    for piece in pieces:
        while piece:
            if decompressor is None:
                decompressor = _decompressor(compression)
            try:
                part = decompressor.decompress(piece, max_length=_OUTPUT)
                while part:
                    yield part
                    if decompressor.eof or decompressor.needs_input:
                        break
                    part = decompressor.decompress(b"", max_length=_OUTPUT)
                piece = b""
                if decompressor.eof:
                    piece, decompressor = bytes(decompressor.unused_data or b""), None
            except (RuntimeError, EOFError, zstd.ZstdError) as error:
                raise ValueError(f"damaged {compression} data: {error}") from error
    if decompressor is not None:
        raise ValueError(f"{compression} data that is cut short")


def _decompressor(compression: str) -> _Decompressor:
    if compression == "zstd":
        return zstd.ZstdDecompressor()
    if compression == "lz4":
        decompressor: _Decompressor = lz4.frame.LZ4FrameDecompressor()
        return decompressor
    raise ValueError(f"compression {compression!r}; expected lz4 or zstd")
