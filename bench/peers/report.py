# SPDX-License-Identifier: Apache-2.0
"""The results as tables that fit 80 columns and are also Markdown."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from peers.libraries import versions
from peers.nodes import FAST, SLOW
from peers.ratios import RATIOS, Results
from scrfd_ros.evaluation.benchmark import machine_info

_WIDTH = 80
_NODES = {"node": "with recognition", "node_detection_only": "without recognition"}


def results(medians: Results, repeat: int, missing: Sequence[str]) -> dict[str, Any]:
    """The results of a run that ends now, for JSON.

    Args:
        missing: what was not measured, and why.
    """
    ratios = {row.name: row.of(medians) for row in RATIOS}
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine_info() | versions() | {"load_average": os.getloadavg()},
        "repeat": repeat,
        "ratios": {name: ratio for name, ratio in ratios.items() if ratio is not None},
        "not_measured": list(missing),
        "medians": medians,
    }


def print_report(found: Results) -> None:
    _print_machine(found)
    _print_ratios(found)
    medians = found["medians"]
    _print_libraries(medians)
    _print_nodes(medians)
    _print_growth(medians)


def _print_machine(found: Results) -> None:
    machine = found["machine"]
    tools = ("python", "numpy", "opencv", "onnxruntime", "insightface", "uniface")
    load = ", ".join(f"{one:.1f}" for one in machine["load_average"])
    for text in (
        f"{machine['processor']}, {machine['processors']} processors, {machine['system']}",
        ", ".join(f"{name} {machine[name] or '-'}" for name in tools),
        f"{found['date']}; load of the last 1, 5 and 15 minutes: {load}",
    ):
        print(textwrap.fill(text, _WIDTH))


def _print_ratios(found: Results) -> None:
    rows = []
    for row in RATIOS:
        value = found["ratios"].get(row.name)
        cell = "-" if value is None else f"{value:.2f}"
        met = ""
        if row.wanted and value is not None:  # judged as it is printed
            met = "yes" if row.is_met(float(cell)) else "no"
        rows.append((row.what, row.to, cell, row.wanted, met))
    title = "scrfd_ros to others: less is better, of throughput more"
    _print_table(title, ("", "to", "ratio", "wanted", "met"), rows)
    if found["not_measured"]:
        print("\nNot measured (-)\n")
        for reason in found["not_measured"]:
            print(textwrap.fill(f"- {reason}", _WIDTH, subsequent_indent="  "))


def _print_libraries(medians: Results) -> None:
    title = "Images in memory, six people, ms; median (p10-p90)"
    rows = [
        (task.replace("_", " "), size, side, _spread(times["total"]), _spread(times["outside"]))
        for task in ("detection", "recognition", "end_to_end")
        for size, sides in medians[task].items()
        for side, times in sides.items()
    ]
    _print_table(title, ("", "", "", "total", "outside network"), rows)
    _print_table(
        "Clip of eight people with tracking, ms for each frame",
        ("", "", "mean", "median (p10-p90)", "outside network"),
        [
            (what, side, _short(times["mean"]), _spread(times["total"]), _spread(times["outside"]))
            for what, key in (("1280x720", "video"), ("1920x1080 JPEG", "compressed_video"))
            for side, times in medians[key].items()
        ],
    )
    _print_table(
        "From a message with a JPEG to the faces of six people, ms",
        ("", "", *medians["compressed"]["detection"]["1280x720"]),
        [
            (task.replace("_", " "), size, *(_spread(times["total"]) for times in sides.values()))
            for task, sizes in medians["compressed"].items()
            for size, sides in sizes.items()
        ],
    )
    _print_table(
        "A new process, until it has the faces of six people",
        ("", "first face, ms", "processor, ms", "peak, MiB"),
        [
            (side, *(_spread(times[key]) for key in ("first_face", "processor", "peak_memory")))
            for side, times in medians["cold_start"].items()
        ],
    )


def _print_nodes(medians: Results) -> None:
    for what, title in _NODES.items():
        _print_table(
            f"Nodes {title}, 1280x720, eight people, ms",
            ("", "Hz", "/s", "age", "pipeline", "overhead"),
            [
                (
                    side,
                    f"{rate}",
                    _short(times[f"{rate}_hz"]["throughput"]["median"]),
                    _spread(times[f"{rate}_hz"]["age"]),
                    _short(times[f"{rate}_hz"]["pipeline"]["median"]),
                    _spread(times[f"{rate}_hz"]["overhead"]),
                )
                for side, times in medians[what].items()
                for rate in (SLOW, FAST)
            ],
        )
    _print_table(
        "Peak memory of the nodes, MiB",
        ("", *medians["node"]),
        [
            (label, *(f"{figures['peak_memory']:.0f}" for figures in medians[what].values()))
            for what, label in _NODES.items()
        ],
    )
    _print_table(
        f"Cameras that send {FAST} images/s together, with recognition",
        ("", "", "results/s", "age, ms", "peak, MiB"),
        [
            (
                count,
                side,
                _short(camera["throughput"]["median"]),
                _spread(camera["age"]),
                f"{camera['peak_memory']:.0f}",
            )
            for count, sides in medians["cameras"].items()
            for side, camera in sides.items()
        ],
    )


def _print_growth(medians: Results) -> None:
    _print_table(
        "Our stages outside the networks, ms: six people, all embedded",
        ("", "median (p10-p90)"),
        [(name, _spread(at)) for name, at in medians["stages"].items()],
    )
    _print_table(
        "Faces in 1280x1280, detected and embedded, ms outside the networks",
        ("", *medians["faces"]["0"]),
        [
            (count, *(_spread(times["outside"]) for times in sides.values()))
            for count, sides in medians["faces"].items()
        ],
    )
    stages = ("decode", "track", "message")
    _print_table(
        "Crowds, ms: decode, track, and message with its serialization",
        ("", *stages),
        [
            (count, *(_spread(times[name]) for name in stages))
            for count, times in medians["crowds"].items()
        ],
    )


def _spread(found: Mapping[str, float]) -> str:
    return f"{_short(found['median'])} ({_short(found['p10'])}-{_short(found['p90'])})"


def _short(value: float) -> str:
    """The value with three digits."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * max(width, 1) for width in widths])
    print(f"\n{title}\n")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |")
