# SPDX-License-Identifier: Apache-2.0
"""Plots as PNG files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrfd_ros.errors import ScrfdError
from scrfd_ros.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def new_plot(title: str, x_label: str, y_label: str) -> Axes:
    """Axes to draw into, 8 x 5 inches, with a light grid.

    Raises:
        ScrfdError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ScrfdError(
            f"plots need Matplotlib ({error}): pip install matplotlib, or "
            f"apt install python3-matplotlib"
        ) from error
    axes = Figure(figsize=(8, 5), layout="constrained").add_subplot()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return axes


def write_plot(path: Path, axes: Axes) -> None:
    """Write the figure that the axes belong to as PNG.

    Raises:
        ScrfdError: the file cannot be written.
    """
    image = io.BytesIO()
    figure: Any = axes.figure
    figure.savefig(image, format="png", dpi=100)
    write_bytes(path, image.getvalue())
