# SPDX-License-Identifier: Apache-2.0
"""What is found in clips if not every image is searched as a whole, and in how much less time.

    ./run.sh setup && .venv/bin/python bench/video.py [--json video.json] [--plot docs/video.png]

Prints a Markdown table: for each period how many times the frame rate of whole images, the recall
of the faces that are found in whole images, and for how many seconds one of these was missed at
most. The clips are those of test/scenes.py and test/clips.py: real faces on drawn bodies. Each
frame is searched as a whole and with each period, in turns, with recognition, and each with a
tracker of its own. The first of the ids and of the changes are those of whole images. Rates are by
time on the processor, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from clips import Frame, people_passing
from scenes import SCENES, film

from scrfd_ros.config import PipelineConfig, with_values
from scrfd_ros.engines.agreement import SAME_FACE_IOU
from scrfd_ros.evaluation.plots import new_plot, write_plot
from scrfd_ros.faces import Faces, ious
from scrfd_ros.files import write_text
from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.tracking.tracker import Tracker

RATE = 30
PERIODS = (0.1, 0.2, 0.3, 0.5, 1.0)
PASSING = "passing"


@dataclass
class Found:
    """What one pipeline found in a clip, and how long it took.

    Attributes:
        milliseconds, processor: of each frame, wall time and time on the processor.
        faces: found in whole images.
        missed, others: how many of these were not found, and how many others were.
        longest: seconds for which one of these faces was missed without interruption.
        ids, changes: ids given, and how often that of a person changed.
    """

    milliseconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    faces: int = 0
    missed: int = 0
    others: int = 0
    longest: float = 0.0
    ids: int = 0
    changes: int = 0


class Run:
    """One pipeline's way through a clip."""

    def __init__(self, period: float) -> None:
        self.period = period
        self.tracker = Tracker()
        self.found = Found()
        self._missed: Counter[int] = Counter()
        self._last: dict[str, int] = {}

    def take(self, pipeline: FacePipeline, config: PipelineConfig, frame: Frame) -> Faces:
        pipeline.config = with_values(config, {"detector.full_look_period": self.period})
        wall, processor = time.perf_counter(), time.process_time()
        faces = pipeline(frame.image, self.tracker, frame.time).faces
        self.found.milliseconds.append(1e3 * (time.perf_counter() - wall))
        self.found.processor.append(1e3 * (time.process_time() - processor))
        return faces

    def compare(self, faces: Faces, whole: Faces, frame: Frame) -> None:
        assert faces.ids is not None and whole.ids is not None
        overlaps = ious(whole.boxes, faces.boxes)
        seen = overlaps.max(axis=1, initial=0) >= SAME_FACE_IOU
        found = self.found
        found.faces += len(whole)
        found.missed += int((~seen).sum())
        found.others += int((overlaps.max(axis=0, initial=0) < SAME_FACE_IOU).sum())
        for number, is_seen in zip(whole.ids.tolist(), seen, strict=True):
            self._missed[number] = 0 if is_seen else self._missed[number] + 1
            found.longest = max(found.longest, self._missed[number] / RATE)
        found.ids = max(found.ids, int(faces.ids.max(initial=0)))
        for name, box in frame.boxes.items():
            fits = ious(box[None].astype(np.float32), faces.boxes)[0]
            if fits.max(initial=0) >= SAME_FACE_IOU:
                number = int(faces.ids[fits.argmax()])
                found.changes += self._last.setdefault(name, number) != number
                self._last[name] = number


@functools.cache
def photograph(name: str) -> NDArray[np.uint8]:
    return read_image(ensure_picture(name))


def clip(name: str, seconds: float, size: tuple[int, int]) -> Iterator[Frame]:
    if name == PASSING:
        return people_passing(photograph, seconds, RATE, size)
    return film(SCENES[name], photograph, seconds, RATE, size)


def measure(
    pipeline: FacePipeline, frames: Iterator[Frame], periods: list[float]
) -> dict[float, Found]:
    """What is found in a clip, by period; 0 is every image as a whole."""
    config = pipeline.config
    runs = [Run(period) for period in (0.0, *periods)]
    for frame in frames:
        faces = [run.take(pipeline, config, frame) for run in runs]
        for run, those in zip(runs, faces, strict=True):
            run.compare(those, faces[0], frame)
    return {run.period: run.found for run in runs}


def rate_ratio(found: dict[float, Found], period: float) -> float:
    """How many times the frame rate of whole images, by the time on the processor."""
    return float(np.sum(found[0.0].processor) / np.sum(found[period].processor))


def recall(found: Found) -> float:
    return 1 - found.missed / max(found.faces, 1)


def row(name: str, found: dict[float, Found]) -> str:
    cells = [
        f"{rate_ratio(found, period):.2f} {recall(each):.4f} {each.longest:.2f}"
        for period, each in found.items()
        if period
    ]
    ids = "/".join(f"{each.ids}" for each in found.values())
    changes = "/".join(f"{each.changes}" for each in found.values())
    return f"| {name} | {found[0.0].faces} | {' | '.join(cells)} | {ids} | {changes} |"


def draw(path: Path, found: dict[str, dict[float, Found]]) -> None:
    """Frame rate over recall, a line for each clip."""
    axes = new_plot(
        "Frame rate over recall, by seconds between looks at the whole image",
        "recall of the faces that are found in whole images",
        "frame rate, times that of whole images",
    )
    seen = {name: those for name, those in found.items() if those[0.0].faces}
    for number, (name, those) in enumerate(seen.items()):
        periods = [period for period in those if period]
        x = [recall(those[period]) for period in periods]
        y = [rate_ratio(those, period) for period in periods]
        style = "--" if number >= 10 else "-"  # the colors repeat
        axes.plot(x, y, style, marker="o", markersize=4, label=name)
        for period, *place in zip(periods, x, y, strict=True):
            axes.annotate(f"{period:g}", place, fontsize=6)
    axes.axvline(0.99, color="gray", linestyle=":")
    axes.axhline(2.5, color="gray", linestyle=":")
    axes.legend(fontsize=8)
    write_plot(path, axes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", nargs="*", default=[*SCENES, PASSING], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=12, help="of each clip")
    parser.add_argument("--periods", type=float, nargs="*", default=PERIODS, metavar="SECONDS")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="of the frames")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--plot", type=Path, help="write a plot to this file")
    args = parser.parse_args()
    periods = " | ".join(f"{period:g} s" for period in args.periods)
    print(f"| clip | faces | {periods} | ids | changes of ids |")
    print("|---|---:|" + "---:|" * (len(args.periods) + 3))
    pipeline = load_pipeline()
    found: dict[str, dict[float, Found]] = {}
    for name in args.clips:
        frames = tqdm(
            clip(name, args.seconds, tuple(args.size)),
            name,
            round(args.seconds * RATE),
            leave=False,
            disable=None,
        )
        found[name] = measure(pipeline, frames, args.periods)
        print(row(name, found[name]), flush=True)
        if args.json:  # after each clip, so that an interruption loses nothing
            values = {
                clip_name: {str(period): asdict(each) for period, each in those.items()}
                for clip_name, those in found.items()
            }
            write_text(args.json, json.dumps(values))
    if args.plot:
        draw(args.plot, found)


if __name__ == "__main__":
    main()
