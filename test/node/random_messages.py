# SPDX-License-Identifier: Apache-2.0
"""Messages of any type with random content, for what has to answer or refuse everything."""

from __future__ import annotations

import random
import re
from importlib import import_module
from typing import Any

import numpy as np
from rosidl_parser import definition

MEGABYTE = 1_000_000
UNKNOWN_TYPE = 99


class RandomMessages:
    """Messages of any type whose fields are at their edges, or something that the node knows."""

    def __init__(self, seed: int, names: list[str]) -> None:
        self._random = random.Random(seed)
        self._names = names

    def use(self, names: list[str]) -> None:
        """Take the known strings from these names from now on."""
        self._names = names

    def message(self, kind: Any) -> Any:
        message = kind()
        fields = message.get_fields_and_field_types()
        for name, slot in zip(fields, kind.SLOT_TYPES, strict=True):
            setattr(message, name, self._value(slot))
        return message

    def choice(self, options: Any) -> Any:
        return self._random.choice(options)

    def _value(self, slot: Any) -> Any:
        if isinstance(slot, definition.Array):
            return [self._value(slot.value_type) for _ in range(slot.size)]
        if isinstance(slot, definition.AbstractNestedType):
            length = self._random.choice([0, 1, 1, 1, 2, 2, 3, 50])
            return [self._value(slot.value_type) for _ in range(length)]
        if isinstance(slot, definition.NamespacedType):
            return self.message(getattr(import_module(".".join(slot.namespaces)), slot.name))
        if isinstance(slot, definition.AbstractGenericString):
            return self._string()
        return self._number(slot.typename)

    def _string(self) -> str:
        if self._random.random() < 0.002:
            return self._random.choice("a.é/") * MEGABYTE
        edges = ["", " ", ".", "..", "/", "a.b.c.", "\0", "\n", "{}", "%s%n", "üñ\U0001f600", "~"]
        return self._random.choice(self._names if self._random.random() < 0.7 else edges)

    def _number(self, kind: str) -> Any:
        if kind == "boolean":
            return self._random.random() < 0.5
        if kind in ("float", "double"):
            edges = [0.0, -0.0, 0.5, 1.0, -1.0, 1e30, np.nan, np.inf, -np.inf, 1e-30]
            return float(self._random.choice(edges))
        if kind == "octet":
            return bytes([self._random.randrange(256)])
        bits = int(re.sub(r"\D", "", kind) or 8)
        low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)),) * 2
        high = high if kind.startswith("u") else 2 ** (bits - 1) - 1
        edges = [low, high, low + 1, high // 2, UNKNOWN_TYPE, *range(10)]
        return self._random.choice(edges)
