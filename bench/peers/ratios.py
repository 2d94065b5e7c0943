# SPDX-License-Identifier: Apache-2.0
"""What is compared with whom, and what is wanted: the rows of the first table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from peers.libraries import IN_PARTS, INSIGHTFACE, ON_OPENVINO, OURS, UNIFACE
from peers.nodes import CAMERAS, FAST, PLAIN, SLOW
from peers.pictures import FULL_HD, HD, VGA

Results = Mapping[str, Any]


class Ratio(NamedTuple):
    """A figure of ours over that of another.

    Attributes:
        what: the figure.
        to: whose is the divisor.
        dividend, divisor: places in the medians, see `look_up`.
        at_most, at_least: what is wanted, if anything.
    """

    what: str
    to: str
    dividend: str
    divisor: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def name(self) -> str:
        return f"{self.what}, to {self.to}"

    @property
    def wanted(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else ""

    def is_met(self, value: float) -> bool:
        if self.at_most is not None:
            return value <= self.at_most
        return self.at_least is None or value >= self.at_least

    def of(self, medians: Results) -> float | None:
        """The ratio; None if one of its sides was not measured."""
        one, other = number(medians, self.dividend), number(medians, self.divisor)
        return one / other if one and other else None


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


def _to(peer: str, what: str, path: str, ours: str = OURS, **wanted: float) -> Ratio:
    """The figure at a place that has {} for the side: ours to that of a peer."""
    return Ratio(what, peer, path.format(ours), path.format(peer), **wanted)


_NODE, _DETECTING = (f"{what}/{{}}/{FAST}_hz" for what in ("node", "node_detection_only"))

RATIOS = [
    _to(INSIGHTFACE, f"detection, {VGA}", f"detection/{VGA}/{{}}/total"),
    _to(INSIGHTFACE, f"detection, {HD}", f"detection/{HD}/{{}}/total", at_most=0.62),
    _to(INSIGHTFACE, f"detection, {FULL_HD}", f"detection/{FULL_HD}/{{}}/total"),
    _to(UNIFACE, f"detection, {HD}", f"detection/{HD}/{{}}/total"),
    _to(INSIGHTFACE, f"end to end, {VGA}", f"end_to_end/{VGA}/{{}}/total"),
    _to(INSIGHTFACE, f"end to end, {HD}", f"end_to_end/{HD}/{{}}/total", at_most=0.42),
    _to(INSIGHTFACE, f"end to end, {FULL_HD}", f"end_to_end/{FULL_HD}/{{}}/total"),
    _to(UNIFACE, f"end to end, {HD}", f"end_to_end/{HD}/{{}}/total"),
    _to(INSIGHTFACE, f"detection, {HD}, OpenVINO", f"detection/{HD}/{{}}/total", ON_OPENVINO),
    _to(
        INSIGHTFACE,
        f"end to end, {HD}, OpenVINO",
        f"end_to_end/{HD}/{{}}/total",
        ON_OPENVINO,
        at_most=0.33,
    ),
    _to(INSIGHTFACE, f"tracked clip, {HD}", "video/{}/mean", at_most=0.33),
    _to(INSIGHTFACE, f"clip in parts, {HD}", "video/{}/mean", IN_PARTS, at_most=0.1),
    _to(INSIGHTFACE, f"JPEG: detection, {HD}", f"compressed/detection/{HD}/{{}}/total"),
    _to(INSIGHTFACE, f"JPEG: detection, {FULL_HD}", f"compressed/detection/{FULL_HD}/{{}}/total"),
    _to(INSIGHTFACE, f"JPEG: end to end, {HD}", f"compressed/end_to_end/{HD}/{{}}/total"),
    _to(INSIGHTFACE, f"JPEG: end to end, {FULL_HD}", f"compressed/end_to_end/{FULL_HD}/{{}}/total"),
    _to(INSIGHTFACE, f"JPEG: tracked clip, {FULL_HD}", "compressed_video/{}/mean"),
    _to(INSIGHTFACE, "outside network: detection", f"detection/{HD}/{{}}/outside", at_most=0.4),
    _to(INSIGHTFACE, "outside network: recognition", f"recognition/{HD}/{{}}/outside", at_most=0.2),
    _to(UNIFACE, "outside network: detection", f"detection/{HD}/{{}}/outside"),
    _to(UNIFACE, "outside network: recognition", f"recognition/{HD}/{{}}/outside"),
    _to(INSIGHTFACE, "new process: first face", "cold_start/{}/first_face", at_most=1),
    _to(INSIGHTFACE, "new process: processor time", "cold_start/{}/processor"),
    _to(INSIGHTFACE, "new process: peak memory", "cold_start/{}/peak_memory"),
    _to(PLAIN, "node: throughput", f"{_NODE}/throughput", at_least=1.3),
    _to(PLAIN, "node: age of results", f"{_NODE}/age"),
    _to(PLAIN, "node: peak memory", "node/{}/peak_memory", at_most=0.9),
    _to(PLAIN, "detecting node: throughput", f"{_DETECTING}/throughput", at_least=1),
    _to(PLAIN, "detecting node: age of results", f"{_DETECTING}/age", at_most=0.5),
    Ratio(
        "detecting node: age of results",
        "pipeline",
        f"{_DETECTING}/age".format(OURS),
        f"{_DETECTING}/pipeline".format(OURS),
        at_most=2,
    ),
    _to(
        PLAIN,
        f"detecting node: overhead, {SLOW} Hz",
        f"node_detection_only/{{}}/{SLOW}_hz/overhead",
    ),
    *(
        _to(PLAIN, f"cameras, {count}: {what}", f"cameras/{count}/{{}}/{key}")
        for count in CAMERAS
        for what, key in (("throughput", "throughput"), ("age of results", "age"))
    ),
    Ratio(
        "outside network: 29 faces",
        "6 faces",
        f"faces/29/{OURS}/outside",
        f"faces/6/{OURS}/outside",
        at_most=4.83,
    ),
    Ratio("outside network: 500 faces", "250 faces", "crowds/500/all", "crowds/250/all"),
]
"""Of times and memory below 1 is better, of throughputs above 1."""
