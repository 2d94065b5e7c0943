# SPDX-License-Identifier: Apache-2.0
"""How commands print text."""

from __future__ import annotations

import logging
import sys
import textwrap
import unicodedata
from pathlib import Path

from tqdm import tqdm


def say(text: str, indent: str = "  ") -> None:
    """Print text in lines of at most 80 characters, all but the first one indented."""
    print(textwrap.fill(text, 80, subsequent_indent=indent, break_on_hyphens=False))


def count_of_people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"


def count_of_templates(number: int) -> str:
    return "1 template" if number == 1 else f"{number} templates"


def fitted(text: str, width: int) -> str:
    """A text in a column of a table: filled with blanks, or cut, to this many places.

    Chinese and others' characters take two places, and accents of their own none.
    """
    if _width(text) > width:
        while _width(text) > width - 3:
            text = text[:-1]
        text += "..."
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )


def tell_new_folder(file: Path) -> None:
    """Say on stderr if the folder of a result is not there yet: its name may be misspelled."""
    if not file.parent.exists():
        print(f"scrfd: {file.parent} is a new folder", file=sys.stderr)


class LogOutput(logging.Handler):
    """Writes log lines to stderr, above a progress bar if there is one.

    tqdm has one of its own, but not yet in version 4.57 of Ubuntu 22.04.
    """

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
