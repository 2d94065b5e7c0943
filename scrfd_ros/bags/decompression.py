# SPDX-License-Identifier: Apache-2.0
"""Decompress what others wrote, as far as it is whole, and never more than a given size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final, Protocol

from scrfd_ros.errors import ScrfdError

try:  # what the package rosbags brings along
    import lz4.frame

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
except ImportError as error:
    raise ScrfdError(
        f"compressed bags are read with what the Python package rosbags brings along, and that "
        f"cannot be imported ({error}): pip install --upgrade rosbags"
    ) from error

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""The first bytes of anything compressed with zstd. No CDR message begins like this."""

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
    """Decompress "lz4" or "zstd", any number of frames.

    Memory is taken for what comes out, not for what the data claims to hold.

    Returns:
        The content up to the first damage, and what is wrong from there on; "" if nothing is.
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
        ValueError: it is damaged, cut short, or compressed in a way that is not known.
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
