# SPDX-License-Identifier: Apache-2.0
"""The plot of docs/retinaface.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from against_retinaface.detectors import RETINAFACE
from scrfd_ros.evaluation.plots import write_plot

Curve = tuple["Sequence[float] | NDArray[np.float64]", "Sequence[float] | NDArray[np.float64]"]
"""x and y of the points."""

STYLES = {
    RETINAFACE: {"color": "#D55E00", "marker": "s", "linewidth": 2},
    "500m": {"color": "#56B4E9", "marker": "^", "linewidth": 3.5},
    "2.5g": {"color": "#000000", "marker": "o", "linewidth": 1.3},
}
"""Colors that also the color-blind can tell apart (Okabe and Ito, Color Universal Design), and
widths that show a curve below another."""


def write_curves(
    path: Path,
    *,
    usual: Mapping[str, Curve],
    equal: Mapping[str, Curve],
    precisions: Mapping[str, Curve],
    turned: Mapping[str, Curve],
    large: Mapping[str, Curve],
) -> None:
    """Draw the four panels.

    Args:
        path: of the PNG file.
        usual, equal: share found over the height of faces, at the usual thresholds and at those
            for equal precision, by detector; also below.
        precisions: precision over recall.
        turned: share found over the angle, degrees.
        large: share found over the height of faces, as a part of the image.
    """
    figure = Figure(figsize=(10, 8), layout="constrained")
    (heights, collages), (angles, parts) = figure.subplots(2, 2)
    _draw(heights, equal, ms=4)
    _draw(heights, usual, ms=0, linestyle=":")
    heights.plot([], [], color="gray", linestyle=":", label="at the usual threshold")
    heights.set(title="Photographs scaled down", xlabel="height of the face, pixels of the input")
    heights.set(xscale="log", xticks=(ticks := (6, 8, 12, 16, 24, 32, 48, 96)), xlim=(5, 140))
    heights.set_xticklabels(map(str, ticks))
    heights.minorticks_off()
    heights.legend(loc="lower right")
    _draw(collages, precisions, ms=0)
    collages.set(
        title="Collages", xlabel="share found", ylabel="precision", ylim=(0.8, 1.005), xlim=(0, 0.8)
    )
    collages.set_yticks((0.8, 0.85, 0.9, 0.95, 1))
    collages.xaxis.set_major_formatter(PercentFormatter(1, 0))
    _draw(angles, turned, ms=4)
    angles.set(title="Turned faces", xlabel="degrees", xticks=range(0, 181, 30))
    _draw(parts, large, ms=4)
    parts.set(title="Faces that fill the image", xlabel="height of the face, part of the image")
    parts.xaxis.set_major_formatter(PercentFormatter(1, 0))
    for axes in (heights, angles, parts):
        axes.set(ylabel="share found", ylim=(-0.02, 1.02))
    for axes in (heights, collages, angles, parts):
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.grid(alpha=0.3)
    write_plot(path, heights)


def _draw(axes: Any, curves: Mapping[str, Curve], **style: Any) -> None:
    for name, (x, y) in curves.items():
        label = name if "linestyle" not in style else None
        axes.plot(x, y, label=label, **STYLES[name], **style)
