# SPDX-License-Identifier: Apache-2.0
"""Change input at random: bytes of any kind, and image messages field by field."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from scrfd_ros.errors import ImageError
from scrfd_ros.images.encodings import ENCODINGS
from scrfd_ros.images.serialized import SerializedImage, parse_image

Mutate = Callable[[bytes, Random], bytes]

_NUMBERS = sorted(
    {edge + near for edge in (0, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32) for near in (-1, 0, 1)}
    | {2, 3, 4, 7, 16, 100, 1000, 100_000, 1 << 20, 0x10FFFF}
)
"""Where mistakes with sizes show."""

_TEXTS = ("", "\0", "bgr8\0", "BGR8", "8UC2", "32FC1", "64FC3", "8UC100000", "jpeg", "ä", "a" * 300)

_JSON_VALUES = (None, True, False, 0, -1, 0.5, 1e308, 10**400, [], {}, [[]], "Anna", float("nan"))
_CHARACTERS = "aZ09-=/+ \0\n\u00e9\u200d\u202e\ud800\U0001f600"

LONGEST = 1 << 17
"""Bytes of an input: longer ones find no more, and take longer."""


def byte_mutations(seeds: Sequence[bytes]) -> Mutate:
    """Change, remove, repeat and exchange bytes; insert parts of the seeds."""

    def mutate(data: bytes, random: Random) -> bytes:
        for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
            data = random.choice(_CHANGES)(data, random, random.choice(seeds))[:LONGEST]
        return data

    return mutate


def json_mutations(seeds: Sequence[bytes]) -> Mutate:
    """Change values in lines of JSON, and lines as a whole, or bytes if it no longer is JSON."""
    of_bytes = byte_mutations(seeds)

    def mutate(data: bytes, random: Random) -> bytes:
        try:
            lines = [json.loads(line) for line in data.splitlines()]
        except (ValueError, RecursionError):
            return of_bytes(random.choice((data, *seeds)), random)
        if not lines or random.random() < 0.2:
            return of_bytes(data, random)
        for _ in range(random.choice((1, 1, 1, 2))):
            row = random.randrange(len(lines))
            if random.random() < 0.1:
                lines[row:row] = [lines[random.randrange(len(lines))]]
            else:
                lines[row] = _with_another_value(lines[row], random)
        return b"\n".join(json.dumps(line).encode() for line in lines)[:LONGEST]

    return mutate


def _with_another_value(value: Any, random: Random) -> Any:
    """A JSON value of which one part is exchanged, left out, or there under another name."""
    if isinstance(value, dict | list) and value and random.random() < 0.9:
        key = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        if random.random() < 0.05:
            del copy[key]
        else:
            copy[key] = _with_another_value(value[key], random)
        return copy
    if isinstance(value, str) and value and random.random() < 0.5:
        place = random.randrange(len(value))
        return value[:place] + random.choice(_CHARACTERS) + value[place + random.randrange(2) :]
    return random.choice((*_JSON_VALUES, random.choice(_NUMBERS), random.choice(_TEXTS)))


def image_mutations(seeds: Sequence[bytes]) -> Mutate:
    """Change fields of a serialized sensor_msgs/Image, or bytes if it no longer is one."""
    of_bytes = byte_mutations(seeds)

    def mutate(data: bytes, random: Random) -> bytes:
        try:
            fields = parse_image(data)
        except ImageError:
            return of_bytes(random.choice((data, *seeds)), random)
        if random.random() < 0.2:
            return of_bytes(data, random)
        for _ in range(random.choice((1, 1, 2, 4))):
            fields = _with_another_field(fields, random)
        return serialized(fields, random.choice("<<<>"))[:LONGEST]

    return mutate


def serialized(image: SerializedImage, byte_order: str = "<") -> bytes:
    """A sensor_msgs/Image in plain CDR; numbers wrap around at the size of their fields."""
    content = bytearray(b"\0\1\0\0" if byte_order == "<" else b"\0\0\0\0")

    def number(value: int) -> None:
        content.extend(b"\0" * (-len(content) % 4))
        content.extend(struct.pack(f"{byte_order}I", value % 2**32))

    def text(value: str) -> None:
        encoded = value.encode("utf-8", "replace") + b"\0"
        number(len(encoded))
        content.extend(encoded)

    number(image.seconds)
    number(image.nanoseconds)
    text(image.frame_id)
    number(image.height)
    number(image.width)
    text(image.encoding)
    content.append(image.is_bigendian % 256)
    number(image.step)
    number(len(image.data))
    return bytes(content) + bytes(image.data)


def _with_another_field(image: SerializedImage, random: Random) -> SerializedImage:
    field = random.choice(("size", "size", "data", "data", *SerializedImage._fields))
    if field == "size":  # a consistent one
        height, width = random.choice(((1, 1), (2, 2), (4, 6), (1, 5000), (5000, 1), (33, 31)))
        step = width * random.choice((1, 2, 3, 4, 6, 8)) + random.choice((0, 0, 0, 1, 13))
        lines = random.choice((height, height * 3 // 2))
        data = memoryview(random.randbytes(lines * step))
        return image._replace(height=height, width=width, step=step, data=data)
    if field == "data":
        length = random.choice((0, 1, len(image.data) - 1, len(image.data) + 1, image.step))
        content = bytes(image.data).ljust(length % LONGEST, b"\x80")[: length % LONGEST]
        return image._replace(data=memoryview(content))
    if field == "encoding":
        return image._replace(encoding=random.choice(ENCODINGS + _TEXTS))
    if field == "frame_id":
        return image._replace(frame_id=random.choice(_TEXTS))
    if field == "is_bigendian":
        return image._replace(is_bigendian=random.choice((0, 1, 2, 255)))
    return image._replace(**{field: random.choice((*_NUMBERS, getattr(image, field) + 1))})


def _flip(data: bytes, random: Random, seed: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    flipped = bytes(byte ^ 1 << random.randrange(8) for byte in data[at : at + 1])
    return data[:at] + flipped + data[at + 1 :]


def _set(data: bytes, random: Random, seed: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return (
        data[:at] + random.choice((b"\0", b"\xff", b"\x80", random.randbytes(1))) + data[at + 1 :]
    )


def _number(data: bytes, random: Random, seed: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    layout = random.choice(("<I", ">I", "<H", ">H", "<Q"))
    size = struct.calcsize(layout)
    value = struct.pack(layout, random.choice(_NUMBERS) % 256**size)
    return data[:at] + value + data[at + size :]


def _digits(data: bytes, random: Random, seed: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return (
        data[:at] + random.choice((str(random.choice(_NUMBERS)), "9" * 5000)).encode() + data[at:]
    )


def _remove(data: bytes, random: Random, seed: bytes) -> bytes:
    begin, end = _range(data, random)
    return data[:begin] + data[end:]


def _cut(data: bytes, random: Random, seed: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _repeat(data: bytes, random: Random, seed: bytes) -> bytes:
    begin, end = _range(data, random)
    times = min(random.choice((1, 1, 2, 50, 5000)), LONGEST // max(end - begin, 1))
    return data[:end] + data[begin:end] * times + data[end:]


def _splice(data: bytes, random: Random, seed: bytes) -> bytes:
    begin, end = _range(seed, random)
    at = random.randrange(len(data) + 1)
    return data[:at] + seed[begin:end] + data[at + random.choice((0, end - begin)) :]


def _range(data: bytes, random: Random) -> tuple[int, int]:
    begin = random.randrange(len(data) + 1)
    length = random.choice((1, 2, 4, 16, len(data)))
    return begin, min(begin + random.randrange(length + 1), len(data))


_CHANGES = (_flip, _flip, _set, _set, _number, _digits, _remove, _cut, _repeat, _splice, _splice)
