# SPDX-License-Identifier: Apache-2.0
"""How commands print text."""

from __future__ import annotations

import textwrap


def say(text: str, indent: str = "  ") -> None:
    """Print text in lines of at most 80 characters, all but the first one indented."""
    print(textwrap.fill(text, 80, subsequent_indent=indent, break_on_hyphens=False))
