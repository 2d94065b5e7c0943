# SPDX-License-Identifier: Apache-2.0
"""The ratios and their targets, and tables that fit 80 columns and are also Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from peers.libraries import versions
from peers.nodes import FAST, SLOW
from scrfd_ros.evaluation.benchmark import machine_info

RATIOS = {
    **{
        f"{name}_vs_{peer}": (path.format("scrfd_ros"), path.format(peer))
        for peer in ("insightface", "uniface")
        for name, path in {
            "detection_outside_network": "detection/{}/outside",
            "recognition_outside_network": "recognition/{}/outside",
            "end_to_end": "end_to_end/{}/total",
        }.items()
    },
    "tracked_clip_time_vs_insightface": (
        "tracked_clip/scrfd_ros/mean",
        "tracked_clip/insightface/mean",
    ),
    "plain_node_time_vs_node": (
        f"node/plain_node/{FAST}_hz/interval",
        f"node/scrfd_ros/{FAST}_hz/interval",
    ),
    "plain_node_time_vs_node_detection_only": (
        f"node_detection_only/plain_node/{FAST}_hz/interval",
        f"node_detection_only/scrfd_ros/{FAST}_hz/interval",
    ),
    "overload_age_vs_pipeline": (
        f"node_detection_only/scrfd_ros/{FAST}_hz/age",
        f"node_detection_only/scrfd_ros/{FAST}_hz/pipeline",
    ),
    "overload_age_vs_pipeline_of_plain_node": (
        f"node_detection_only/plain_node/{FAST}_hz/age",
        f"node_detection_only/plain_node/{FAST}_hz/pipeline",
    ),
    "node_overhead_vs_plain_node": (
        f"node_detection_only/scrfd_ros/{SLOW}_hz/overhead",
        f"node_detection_only/plain_node/{SLOW}_hz/overhead",
    ),
    "peak_memory_vs_plain_node": ("node/scrfd_ros/peak_memory", "node/plain_node/peak_memory"),
    "outside_network_29_vs_6_faces": ("faces/29/scrfd_ros/outside", "faces/6/scrfd_ros/outside"),
    "outside_network_500_vs_250_faces": ("crowds/500/all", "crowds/250/all"),
}
"""Dividend and divisor: places in the medians. Ratios with a missing peer are left out.

Below 1, scrfd_ros is better than the peer; in `plain_node_time_vs_node` above 1.
"""

TARGETS = {
    "detection_outside_network_vs_insightface": "at most 0.4",
    "recognition_outside_network_vs_insightface": "at most 0.1",
    "end_to_end_vs_insightface": "at most 0.9",
    "tracked_clip_time_vs_insightface": "at most 0.33",
    "plain_node_time_vs_node": "at least 1.3",
    "overload_age_vs_pipeline": "at most 2",
    "peak_memory_vs_plain_node": "at most 1",
    "outside_network_29_vs_6_faces": "less than 4.83",
}

TIMES = {
    "detection_outside_network": ("detection/scrfd_ros/outside", "at most 3"),
    "node_overhead": (f"node/scrfd_ros/{SLOW}_hz/overhead", "at most 3"),
}
"""Times with a target in milliseconds: places in the medians."""

Results = Mapping[str, Any]


def look_up(medians: Results, path: str) -> Any:
    """The value at a place in the results, keys joined by /; None if it was not measured."""
    found: Any = medians
    for key in path.split("/"):
        found = found.get(key)
        if found is None:
            return None
    return found


def number(medians: Results, path: str) -> float | None:
    """The figure at a place in the results, or the median of a summary there."""
    found = look_up(medians, path)
    return found["median"] if isinstance(found, dict) else found


def ratios(medians: Results) -> dict[str, float]:
    """All measured ones of `RATIOS`."""
    pairs = {name: (number(medians, a), number(medians, b)) for name, (a, b) in RATIOS.items()}
    return {name: one / other for name, (one, other) in pairs.items() if one and other}


def results(medians: Results, repeat: int) -> dict[str, Any]:
    """The results of a run that ends now, for JSON."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine_info() | versions() | {"load_average": os.getloadavg()},
        "repeat": repeat,
        "ratios": ratios(medians),
        "medians": medians,
    }


def print_report(found: Results) -> None:
    machine, medians = found["machine"], found["medians"]
    print(f"{machine['processor']}, {machine['processors']} processors, {machine['system']}")
    tools = ("python", "numpy", "opencv", "onnxruntime", "insightface", "uniface")
    print(", ".join(f"{name} {machine[name] or '-'}" for name in tools))
    load = ", ".join(f"{one:.1f}" for one in machine["load_average"])
    print(f"{found['date']}; load of the last 1, 5 and 15 minutes: {load}\n")
    _table(
        ("ratio", "measured", "wanted"),
        [(name, f"{value:.2f}", TARGETS.get(name, "")) for name, value in found["ratios"].items()],
    )
    print()
    _table(
        ("ms", "measured", "wanted"),
        [(name, _spread(look_up(medians, path)), wanted) for name, (path, wanted) in TIMES.items()],
    )
    print("\nLibraries, ms: 1280x886, six people; clip: 1280x720, eight people, mean")
    rows = []
    for what in ("detection", "recognition", "end_to_end", "tracked_clip"):
        for side, times in medians[what].items():
            total = f"{times['mean']:.1f}" if "mean" in times else _spread(times["total"])
            rows.append((what.replace("_", " "), side, total, _spread(times["outside"])))
    _table(("", "", "total", "outside the network"), rows)
    print("\nNodes, 1280x720, eight people, ms")
    rows = []
    for what in ("node", "node_detection_only"):
        for side, times in medians[what].items():
            for rate in (SLOW, FAST):
                at = times[f"{rate}_hz"]
                cells = [_spread(at[name]) for name in ("interval", "age", "pipeline", "overhead")]
                rows.append((f"{side}{', det.' if what != 'node' else ''}", f"{rate}", *cells))
    _table(("", "Hz", "interval", "age", "pipeline", "overhead"), rows)
    print("\nPeak memory of the nodes, MiB")
    _table(
        ("", "scrfd_ros", "plain node"),
        [
            (label, *(f"{medians[what][side]['peak_memory']:.0f}" for side in medians[what]))
            for what, label in (("node", "with recognition"), ("node_detection_only", "without"))
        ],
    )
    print("\nOur stages outside the networks, ms: six people, all embedded")
    _table(
        ("", "median and p10 to p90"),
        [(name, _spread(at)) for name, at in medians["stages"].items()],
    )
    for what, title in (
        ("faces", "Outside the networks, ms, by faces in 1280x1280, detected and embedded"),
        ("resolution", "Outside the network, ms, by resolution, detection only"),
    ):
        print(f"\n{title}")
        _table(
            ("", "scrfd_ros", "insightface"),
            [
                (level, *(_spread(side["outside"]) for side in sides.values()))
                for level, sides in medians[what].items()
            ],
        )
    print("\nMany faces, ms: decode, track, and message with its serialization")
    _table(
        ("", "decode", "track", "message"),
        [
            (level, *(_spread(times[name]) for name in ("decode", "track", "message")))
            for level, times in medians["crowds"].items()
        ],
    )
    print(f"\nCameras that send {FAST} images/s together, with recognition")
    _table(
        ("", "results/s", "age, ms", "peak, MiB"),
        [
            (
                level,
                f"{camera['results_per_second']:.1f}",
                _spread(camera["age"]),
                f"{camera['peak_memory']:.0f}",
            )
            for level, camera in medians["cameras"].items()
        ],
    )


def _spread(found: Mapping[str, float]) -> str:
    return f"{_short(found['median'])} ({_short(found['p10'])}-{_short(found['p90'])})"


def _short(value: float) -> str:
    """The value with three digits."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    for row in table:
        first, *rest = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join([first, *rest])} |")
