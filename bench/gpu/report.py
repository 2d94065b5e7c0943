# SPDX-License-Identifier: Apache-2.0
"""The results of a run as Markdown and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu.running import FAILED, INTERRUPTED, Row
from scrfd_ros.files import write_bytes

_STAGES = (
    *("prepare", "detect", "copy_in", "draw", "network", "candidates", "copy_out", "decode"),
    "detection",
    *("align", "embed", "total", "embed_one"),
)
_MACHINE = "machine"  # name of the step


def write(folder: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Write gpu.json and gpu.md into the folder.

    Args:
        about: the run: date, revision, goal.
    """
    content = {**about, "rows": [asdict(row) for row in rows]}
    # As a whole or not at all: the run may be ended at any time.
    write_bytes(folder / "gpu.json", f"{json.dumps(content, indent=1)}\n".encode())
    write_bytes(folder / "gpu.md", _markdown(rows, about).encode())


def summary(rows: Sequence[Row]) -> str:
    """How many steps passed, failed and were not run."""
    counts = Counter(row.outcome for row in rows)
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))


def status(rows: Sequence[Row]) -> int:
    """Exit status: 1 if a step failed or was interrupted."""
    return int(any(row.outcome == FAILED or row.reason == INTERRUPTED for row in rows))


def _markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    machine = next((row.figures for row in rows if row.name == _MACHINE), {})
    lines = ["# Results on a GPU", ""]
    lines += [f"- {name}: {value}" for name, value in {**about, **machine}.items()]
    lines += ["", f"{summary(rows).capitalize()}.", "", "| step | result | s | found |"]
    lines += ["|---|---|---:|---|"]
    for row in rows:
        figures = {} if row.name == _MACHINE else row.figures
        found = [row.reason, *(_figure(name, value) for name, value in figures.items())]
        text = "; ".join(filter(None, found)).replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row.name} | {row.outcome} | {row.seconds:.1f} | {text} |")
    timed = [row for row in rows if "milliseconds" in row.figures]
    if timed:
        lines += ["", "## Stages", "", "Median and 95th percentile, ms.", ""]
        stages = [stage for stage in _STAGES if any(_has(row, stage) for row in timed)]
        lines += [f"| step | {' | '.join(stages)} |", "|---" * (len(stages) + 1) + "|"]
        lines += [f"| {row.name} | {' | '.join(_times(row, stages))} |" for row in timed]
    return "\n".join(lines) + "\n"


def _has(row: Row, stage: str) -> bool:
    return stage in row.figures["milliseconds"]


def _times(row: Row, stages: Sequence[str]) -> list[str]:
    found = row.figures["milliseconds"]
    return [
        f"{found[stage]['median']:.2f}, {found[stage]['p95']:.2f}" if stage in found else ""
        for stage in stages
    ]


def _figure(name: str, value: Any) -> str:
    """One figure as text; empty for those of the table of stages."""
    if name == "milliseconds":
        return ""
    return (
        f"{name.replace('_', ' ')} {value:.4g}"
        if type(value) is float
        else f"{name.replace('_', ' ')} {value}"
    )
