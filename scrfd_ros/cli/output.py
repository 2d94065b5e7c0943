# SPDX-License-Identifier: Apache-2.0
"""How commands print text."""

from __future__ import annotations

import logging
import sys
import textwrap

from tqdm import tqdm


def say(text: str, indent: str = "  ") -> None:
    """Print text in lines of at most 80 characters, all but the first one indented."""
    print(textwrap.fill(text, 80, subsequent_indent=indent, break_on_hyphens=False))


class LogOutput(logging.Handler):
    """Writes log lines to stderr, above a progress bar if there is one.

    `tqdm.contrib.logging` does the same, but not yet in version 4.57 of Ubuntu 22.04.
    """

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
