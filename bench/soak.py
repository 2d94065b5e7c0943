# SPDX-License-Identifier: Apache-2.0
"""A long run of the real node under full load, with random faults.

    ./run.sh soak --minutes 30 --plot soak.png

Two cameras in processes of their own send 1280x720 at 30 Hz of eight people who walk past each
other, best effort, to a node with 500m at 320x320 and w600k_mbf. Every few seconds one of `FAULTS`
happens, in an order that the seed decides. The node's memory, threads and file descriptors are
recorded every second; at the end every image is accounted for.

The exit status is 1 if the node dies, stops answering, or holds more and more of something (see
`Trend`), or if images are in no count (see `Soak.finish`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from full_rate import PARAMETERS, RATE, clip
from process_usage import DESCRIPTORS, MEMORY, THREADS, usage
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from tqdm import tqdm
from vision_msgs.msg import Detection2DArray

tests = Path(__file__).resolve().parents[1] / "test"
sys.path[:0] = [str(tests), str(tests / "node")]

from camera_process import BAD, CameraProcess, read_sent  # noqa: E402
from harness import Harness, image_counts, running_face_node  # noqa: E402

from scrfd_ros.evaluation.plots import new_plot, write_plot  # noqa: E402
from scrfd_ros.files import write_text  # noqa: E402

CAMERAS = ("front", "rear")
CLIP_SECONDS = 2.0
PAUSE = (1.0, 4.0)
"""Seconds between faults, at least and at most."""
LEASE = 21.0
"""Seconds for which a killed camera still counts as present: Fast DDS's lease and one second."""
SILENCE = 15.0
"""Maximum seconds without an answer to a camera that sends; after that the run fails."""
LIMITS = {MEMORY: 0.02, THREADS: 0.02, DESCRIPTORS: 0.02}
"""Maximum growth over the second half of the run, as a fraction of the level."""
BLOCKS = 10
MIN_SECONDS = 2 * BLOCKS + 1
"""Of a run."""
JUDGED_FROM = 300
"""Minimum seconds of a run for a judgment of memory: in a shorter one an 8K image looks like a
leak."""
MAX_MEMORY = 2**20
"""KiB, in runs of any length."""
STUDENT = 2.31
"""Student's t for 95 % with `BLOCKS` - 2 degrees of freedom."""


@dataclass(frozen=True)
class Trend:
    """How something changes in the second half of a run.

    It is cut into `BLOCKS`, and a line is fitted to their minima, when little work is in progress.
    Fast DDS keeps an 8K image until the subscription ends; a leak raises the minima too.

    Attributes:
        level: the mean of the minima.
        growth: from the first to the last of them, by the line.
        uncertainty: of the growth, 95 %, by how far the minima are from the line.
        limit: of the growth.
    """

    level: float
    growth: float
    uncertainty: float
    limit: float

    @property
    def is_flat(self) -> bool:
        """Whether the growth may be within the limit."""
        return self.growth - self.uncertainty <= self.limit


def trend(values: Sequence[float], limit: float) -> Trend:
    """The trend of samples at equal distances.

    Args:
        values: samples of the whole run, at least 2 * `BLOCKS`.
        limit: of the growth, as a fraction of the level.
    """
    half = np.asarray(values[len(values) // 2 :], float)
    minima = np.array([block.min() for block in np.array_split(half, BLOCKS)])
    positions = np.linspace(-0.5, 0.5, BLOCKS)
    growth = float(positions @ minima / (positions @ positions))
    residuals = minima - minima.mean() - growth * positions
    variance = residuals @ residuals / (BLOCKS - 2) / (positions @ positions)
    uncertainty = float(STUDENT * np.sqrt(variance))
    level = float(minima.mean())
    return Trend(level, growth, uncertainty, limit * level)


@dataclass
class Soak:
    """One run.

    Attributes:
        harness: the node, and a client of it.
        folder: for the images and the records of the cameras.
        random: decides which fault happens when.
        faults: time and name of each, seconds since the start.
        samples: time since the start, and the node's memory, threads and descriptors.
        answered: stamps of the received answers, nanoseconds, by camera.
    """

    harness: Harness
    folder: Path
    random: random.Random
    faults: list[tuple[float, str]] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    answered: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        np.save(self.folder / "images.npy", np.stack(list(clip(CLIP_SECONDS))))
        self.cameras = {name: self._camera(name) for name in CAMERAS}
        self._answer_times: dict[str, float] = {}
        self._uncounted: dict[str, list[tuple[int, int]]] = {name: [] for name in CAMERAS}
        self._unheard: list[tuple[int, int]] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        for name in CAMERAS:
            self._listen(name)
        self.harness.wait_for(lambda: len(self._answer_times) == len(CAMERAS), "answers to all")
        for name in CAMERAS:
            self._uncounted[name].append((0, time.time_ns()))
        self._unheard.append((0, time.time_ns()))
        self.start = time.monotonic()

    def _camera(self, name: str) -> CameraProcess:
        return CameraProcess(
            f"{self.harness.node.get_namespace()}/{name}",
            self.folder / "images.npy",
            self._sent(name),
            RATE,
            name,
        )

    def _sent(self, name: str) -> Path:
        return self.folder / f"{name}.sent"

    def _listen(self, name: str) -> None:
        self.answered[name] = []

        def take(answer: Detection2DArray) -> None:
            stamp = answer.header.stamp
            self.answered[name].append(stamp.sec * 10**9 + stamp.nanosec)
            self._answer_times[name] = time.monotonic()

        self.harness.node.create_subscription(
            Detection2DArray, f"{name}/detections", take, QoSProfile(depth=1000)
        )

    def run(self, seconds: float) -> None:
        """Cause faults for a time."""
        kinds = list(FAULTS)
        next_fault, next_sample = 5.0, 0.0
        with tqdm(total=round(seconds), desc="seconds", leave=False, disable=None) as bar:
            while (now := time.monotonic() - self.start) < seconds:
                self.harness.wait_for(lambda: True, "")  # fails if the node has died
                rclpy.spin_once(self.harness.node, timeout_sec=0.05)
                for due, action in [item for item in self._later if item[0] <= now]:
                    self._later.remove((due, action))
                    action()
                if now >= next_sample:
                    held = usage(self.harness.process.pid)
                    self.samples.append({"seconds": now, **held})
                    next_sample += 1
                    bar.update(round(now) - bar.n)
                    self._check_answers()
                if now >= next_fault:
                    if not kinds:
                        kinds = list(FAULTS)
                    kind = kinds.pop(self.random.randrange(len(kinds)))
                    self.faults.append((now, kind))
                    FAULTS[kind](self)
                    next_fault = time.monotonic() - self.start + self.random.uniform(*PAUSE)

    def _check_answers(self) -> None:
        now = time.monotonic()
        for name, camera in self.cameras.items():
            age = now - self._answer_times[name]
            assert age < SILENCE or not camera.is_running, f"{name}: no answer for {age:.1f} s"

    def _after(self, action: Callable[[], None]) -> None:
        """Do something a random time later."""
        due = time.monotonic() - self.start + self.random.uniform(*PAUSE)
        self._later.append((due, action))

    def _tell(self, word: str) -> None:
        name = self.random.choice(CAMERAS)
        if self.cameras[name].is_running:
            self.cameras[name].say(word)

    # Faults

    def bad_message(self) -> None:
        self._tell(self.random.choice(list(BAD)))

    def huge_image(self) -> None:
        self._tell("huge")

    def burst(self) -> None:
        self._tell("burst")

    def disorder(self) -> None:
        self._tell("disorder")

    def time_back(self) -> None:
        camera = self.cameras[self.random.choice(CAMERAS)]
        if camera.is_running:
            camera.say("back")
            self._after(lambda: camera.say("forth") if camera.is_running else None)

    def camera_killed(self) -> None:
        name = self.random.choice(CAMERAS)
        if not self.cameras[name].is_running:
            return
        self.cameras[name].kill()
        self._ignore(name, time.time_ns(), LEASE)

        def return_() -> None:
            self.cameras[name] = self._camera(name)
            self._answer_times[name] = time.monotonic() + 5  # it has to start

        self._after(return_)

    def subscriber_leaves(self) -> None:
        node, name = self.harness.node, self.random.choice(CAMERAS)
        guests = [
            node.create_subscription(Image, f"{name}/overlay", lambda image: None, 1),
            node.create_subscription(Detection2DArray, f"{name}/detections", lambda _: None, 10),
        ]
        self._after(lambda: [node.destroy_subscription(guest) for guest in guests] and None)

    def parameters(self) -> None:
        name, value, accepted = self.random.choice(
            [
                ("detector.score_threshold", self.random.uniform(0.3, 0.9), True),
                ("detector.max_faces", self.random.randrange(20), True),
                ("detector.large_faces", self.random.random() < 0.5, True),
                ("recognizer.min_quality", self.random.uniform(0, 0.5), True),
                ("detector.score_threshold", 7.0, False),
                ("detector.model", "11g", False),
                ("cameras", ["a b"], False),
            ]
        )
        assert self.harness.set_parameter(name, value)[0] == accepted

    def deactivate(self) -> None:
        self._through("deactivate", "activate")

    def cleanup(self) -> None:
        self._through("deactivate", "cleanup", "configure", "activate")

    def _through(self, *transitions: str) -> None:
        begin = time.time_ns()
        for transition in transitions:
            assert self.harness.change_state(transition), transition
        for name in CAMERAS:
            self._ignore(name, begin, 0)
            self._answer_times[name] = time.monotonic()
        running = [name for name in CAMERAS if self.cameras[name].is_running]
        since = time.monotonic()
        self.harness.wait_for(
            lambda: all(self._answer_times[name] > since for name in running), "answers again"
        )
        for name in CAMERAS:
            self._uncounted[name][-1] = (begin, time.time_ns())
        self._unheard.append((begin, time.time_ns()))

    def _ignore(self, name: str, begin: int, seconds: float) -> None:
        self._uncounted[name].append((begin - 10**9 // RATE, begin + round(1e9 * seconds)))

    # The end

    def finish(self) -> dict[str, dict[str, int]]:
        """Stop the cameras and the node's work.

        The node does not count images sent while it was not active, nor images lost while a killed
        camera is still known to Fast DDS: until its lease ends, the topic seems to have two
        cameras, and losses are not counted. The last image before a deactivate may be in no count.
        The first answers after a configure are not received before their publisher is discovered.

        Returns:
            What became of the images, by camera.
        """
        for camera in self.cameras.values():
            camera.kill()
        self._spin(1)
        assert self.harness.change_state("deactivate")
        self._spin(1)
        return {name: self._account(name) for name in CAMERAS}

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.harness.wait_for(lambda: time.monotonic() > end, "the end")

    def _account(self, name: str) -> dict[str, int]:
        counts = image_counts(self.harness.log(), name)
        handled, dropped, refused, lost = (
            sum(number or 0 for number in column) for column in zip(*counts, strict=True)
        )
        stamps, times = read_sent(self._sent(name)).T

        def sent_within(periods: list[tuple[int, int]]) -> int:
            inside = np.zeros(len(times), bool)
            for begin, end in periods:
                inside |= (begin <= times) & (times <= end)
            return int(inside.sum())

        return {
            "sent": len(times),
            "answered": handled,
            "dropped": dropped,
            "refused": refused,
            "lost": lost,
            "in no count": len(times) - handled - dropped - refused - lost,
            "sent while not all is counted": sent_within(self._uncounted[name]),
            "answers that came": len(self.answered[name]),
            "sent while not all is heard": sent_within(self._unheard),
            "to images not sent": len(set(self.answered[name]) - set(stamps.tolist())),
        }


def wrong_counts(name: str, images: dict[str, int]) -> list[str]:
    """A sentence for each contradiction in the counts of a camera's images."""
    failures = []
    if not 0 <= images["in no count"] <= images["sent while not all is counted"]:
        failures.append(f"{name}: {images['in no count']} images in no count")
    missing = images["answered"] - images["answers that came"]
    if not 0 <= missing <= images["sent while not all is heard"] or images["to images not sent"]:
        failures.append(f"{name}: answers are missing, or too many")
    return failures


FAULTS: dict[str, Callable[[Soak], None]] = {
    "bad message": Soak.bad_message,
    "8K image": Soak.huge_image,
    "burst of 50": Soak.burst,
    "out of order": Soak.disorder,
    "time back": Soak.time_back,
    "camera killed": Soak.camera_killed,
    "subscribers leave": Soak.subscriber_leaves,
    "parameter": Soak.parameters,
    "deactivate": Soak.deactivate,
    "cleanup": Soak.cleanup,
}


def write_curves(
    path: Path, samples: list[dict[str, float]], faults: list[tuple[float, str]]
) -> None:
    """Plot memory, threads and descriptors over time, and the faults below them."""
    first = new_plot("face_node under load and faults", "minutes", "")
    figure: Any = first.figure
    figure.set_size_inches(8, 8)
    rows = figure.add_gridspec(4, 1, height_ratios=[2, 1, 1, 2])
    first.set_subplotspec(rows[3])
    first.set(title="")
    kinds = list(FAULTS)
    for number, kind in enumerate(kinds):
        times = [seconds / 60 for seconds, what in faults if what == kind]
        first.plot(times, [number] * len(times), "|", markersize=9)
    first.set_yticks(range(len(kinds)), kinds)
    minutes = [sample["seconds"] / 60 for sample in samples]
    for row, (name, label, scale) in enumerate(
        [
            (MEMORY, "memory, MiB", 1 / 1024),
            (THREADS, "threads", 1),
            (DESCRIPTORS, "descriptors", 1),
        ]
    ):
        axes = figure.add_subplot(rows[row], sharex=first)
        axes.plot(minutes, [scale * sample[name] for sample in samples], linewidth=1)
        axes.set(ylabel=label, ylim=(0, 1.15 * scale * max(sample[name] for sample in samples)))
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=False)
    write_plot(path, first)


def run(folder: Path, seconds: float, seed: int) -> tuple[Soak, dict[str, dict[str, int]]]:
    """One run, and what became of its images by camera."""
    parameters = PARAMETERS | {"cameras": list(CAMERAS)}
    with running_face_node(folder, parameters, reliable=False) as harness:
        soak = Soak(harness, folder, random.Random(seed))
        try:
            soak.run(seconds)
            return soak, soak.finish()
        finally:
            for camera in soak.cameras.values():
                camera.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3, help="default 3, at least 0.35")
    parser.add_argument("--seed", type=int, default=0, help="decides which faults happen when")
    parser.add_argument("--json", type=Path, help="write all samples and figures to this file")
    parser.add_argument("--plot", type=Path, help="write the curves to this PNG file")
    options = parser.parse_args()
    if 60 * options.minutes < MIN_SECONDS:
        parser.error(f"--minutes {options.minutes:g}: expected at least {MIN_SECONDS / 60:g}")
    print(f"{options.minutes:g} minutes, seed {options.seed}", flush=True)
    rclpy.init(args=[])
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        try:
            soak, images = run(Path(folder), 60 * options.minutes, options.seed)
        except AssertionError as error:  # of the harness: the node died, or does not answer
            print(f"failed: {error}")
            return 1
    rclpy.shutdown()
    failures: list[str] = []
    print(f"{len(soak.faults)} faults")
    for kind, count in Counter(kind for _, kind in soak.faults).items():
        print(f"  {kind}: {count}")
    for name, figures in images.items():
        print(f"{name}: " + ", ".join(f"{count} {what}" for what, count in figures.items()))
        failures += wrong_counts(name, figures)
    trends = {
        name: trend([sample[name] for sample in soak.samples], limit)
        for name, limit in LIMITS.items()
    }
    for name, found in trends.items():
        print(
            f"{name}: {found.level:.0f}, growth over the second half {found.growth:+.1f} "
            f"± {found.uncertainty:.1f}, limit {found.limit:.1f}"
        )
        is_judged = name != MEMORY or 60 * options.minutes >= JUDGED_FROM
        if is_judged and not found.is_flat:
            failures.append(f"{name}: not flat")
    peak = max(sample[MEMORY] for sample in soak.samples)
    print(f"peak {MEMORY}: {peak:.0f}, limit {MAX_MEMORY}")
    if peak > MAX_MEMORY:
        failures.append(f"{MEMORY}: {peak:.0f}")
    if options.plot:
        write_curves(options.plot, soak.samples, soak.faults)
    if options.json:
        report = {
            "seed": options.seed,
            "faults": soak.faults,
            "images": images,
            "trends": {name: asdict(found) for name, found in trends.items()},
            "samples": soak.samples,
        }
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
