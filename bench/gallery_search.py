# SPDX-License-Identifier: Apache-2.0
"""How long it takes to find somebody in a gallery, of 100 to a million templates: tables and plot.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/gallery_search.py docs/gallery-search.png

Made-up people with 5 templates each. Embeddings of two people have cosines of 0 give or take 0.066,
as those of w600k_mbf have in the mean, and embeddings of one person cosines of 0.5 to 0.75. One
thread. A million templates take 2.2 GB of memory and some minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from turns import times_in_turns

sys.path.append(str(Path(__file__).resolve().parents[1] / "test"))

from clips import people_passing

from scrfd_ros.config import DetectorConfig, GalleryConfig, PipelineConfig
from scrfd_ros.evaluation.plots import new_plot, write_plot
from scrfd_ros.faces import Faces
from scrfd_ros.gallery import signs
from scrfd_ros.gallery.people import Candidate, GalleryInfo, Look, Person, Template
from scrfd_ros.gallery.search import EXACT, TemplateIndex
from scrfd_ros.gallery.sqlite import SqliteStore
from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import load_pipeline

SIZES = (100, 1000, 10_000, 100_000, 1_000_000)
EACH = 5  # templates of a person
QUESTIONS = 200  # of enrolled people, and of strangers
REACH = {1000: 0.3, 10_000: 1.0, 100_000: 15.0, 1_000_000: 5.0}  # ms

Vectors = NDArray[np.float32]


class People:
    """Made-up people, always the same."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)
        # The numbers of real embeddings depend on each other: as many as half of them matter.
        self._widths = np.exp(-np.arange(512) / 236).astype(np.float32)
        self._turn = np.linalg.qr(self._random.standard_normal((512, 512)))[0].astype(np.float32)

    def directions(self, count: int) -> Vectors:
        drawn = self._random.standard_normal((count, 512), dtype=np.float32) * self._widths
        return unit(drawn @ self._turn)

    def looks(self, directions: Vectors) -> Vectors:
        """One embedding of each person."""
        cosines = self._random.uniform(0.5, 0.75, (len(directions), 1)).astype(np.float32)
        noise = self.directions(len(directions))
        return unit(np.sqrt(cosines) * directions + np.sqrt(1 - cosines) * noise)

    def templates(self, directions: Vectors) -> list[Template]:
        people = [str(uuid.UUID(bytes=self._random.bytes(16))) for _ in directions]
        return [
            Template(str(uuid.UUID(bytes=self._random.bytes(16))), person, look, 0.9, "", 0.0)
            for _ in range(EACH)
            for person, look in zip(people, self.looks(directions), strict=True)
        ]


class Row(NamedTuple):
    """What was measured with so many templates; times in ms of one call."""

    size: int
    nearest: NDArray[np.float64]
    exact: NDArray[np.float64]
    add: float
    remove: float


def unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plot", type=Path, help="the PNG file to write")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="default: %(default)s")
    args = parser.parse_args()
    people, index = People(), TemplateIndex(512)
    known = people.directions(20)
    index.add(people.templates(known))
    rows = []
    for size in (each for each in SIZES if each <= args.largest):
        with tqdm(total=size, initial=len(index), leave=False, disable=None) as bar:
            while len(index) < size:
                directions = people.directions(min(2000, (size - len(index)) // EACH))
                index.add(people.templates(directions))
                known = np.concatenate((known, directions[:: max(1, len(directions) // 20)]))
                bar.update(size - bar.n if len(index) == size else EACH * len(directions))
        rows.append(measured(index, people, known))
        print_row(rows[-1])
        if size > EXACT:
            print_recall(index, people.looks(spread(known)), "enrolled people")
            print_recall(index, people.looks(people.directions(QUESTIONS)), "strangers")
            print_found(index, people)
    write(args.plot, rows)
    del index
    print_identify(people)
    print_start(people, min(100_000, args.largest))


def spread(known: Vectors) -> Vectors:
    return known[:: max(1, len(known) // QUESTIONS)][:QUESTIONS]


def measured(index: TemplateIndex, people: People, known: Vectors) -> Row:
    asked = people.looks(spread(known))
    turn = iter(np.tile(np.arange(len(asked)), 10_000).tolist())

    def ask(search: Callable[..., list[Candidate]]) -> object:
        return search(asked[next(turn)], 2)

    ways = {"nearest": partial(ask, index.nearest), "exact": partial(ask, index._nearest_of_all)}
    for way in ways.values():
        way()
    rounds = max(25, min(1000, 3_000_000 // len(index)))
    times = times_in_turns(ways, rounds, time.thread_time)
    added = people.templates(people.directions(10))
    adding, removing = iter(added), iter(added)
    changes = {
        "add": lambda: index.add([next(adding)]),
        "remove": lambda: index.remove([next(removing).id]),
    }
    change = times_in_turns(changes, len(added))
    return Row(
        len(index),
        1e3 * times["nearest"],
        1e3 * times["exact"],
        1e3 * float(np.median(change["add"])),
        1e3 * float(np.median(change["remove"])),
    )


def print_row(row: Row) -> None:
    if row.size == SIZES[0]:
        print("| templates | found in, ms: median | best | all compared: median | best ", end="")
        print("| one added, ms | one removed, ms |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {row.size:,} | {np.median(row.nearest):.2f} | {row.nearest.min():.2f} "
        f"| {np.median(row.exact):.2f} | {row.exact.min():.2f} "
        f"| {row.add:.2f} | {row.remove:.2f} |",
        flush=True,
    )


def print_recall(index: TemplateIndex, looks: Vectors, who: str) -> None:
    """How the nearest two people differ from those that comparing all finds."""
    first, second, wider = [], [], []
    for look in tqdm(looks, leave=False, disable=None):
        found, truth = index.nearest(look), index._nearest_of_all(look, 2)
        first.append(found[0].person_id == truth[0].person_id)
        second.append(found[1].person_id == truth[1].person_id)
        margins = [one.similarity - other.similarity for one, other in (found, truth)]
        wider.append(margins[0] - margins[1])
    print(
        f"{who}: the first is the same for {np.mean(first):.1%} of {len(looks)}, the second for "
        f"{np.mean(second):.1%}; the margin is wider by {np.mean(wider):.4f}, at most "
        f"{max(wider):.3f}",
        flush=True,
    )


def print_found(index: TemplateIndex, people: People) -> None:
    """How often the template of a certain cosine is among the rows that are compared."""
    assert index._signs is not None
    rows = np.linspace(0, len(index) - 1, QUESTIONS).astype(np.intp)
    templates = np.array([index._embedding(row) for row in rows])
    noise = people.directions(QUESTIONS)
    noise = unit(noise - (noise * templates).sum(axis=1, keepdims=True) * templates)
    print("| cosine of one template | it is among those compared |\n|---:|---:|")
    for cosine in (0.3, 0.35, 0.4, 0.45, 0.5, 0.6):
        looks = cosine * templates + (1 - cosine**2) ** 0.5 * noise
        compared = [signs.nearest(index._signs[: len(index)], look) for look in looks]
        found = [row in near for row, near in zip(rows, compared, strict=True)]
        print(f"| {cosine:.2f} | {np.mean(found):.1%} |", flush=True)


def print_identify(people: People) -> None:
    """What identification adds to an image, with a gallery of 1,000 templates."""
    with tempfile.TemporaryDirectory() as folder:
        config = PipelineConfig(
            detector=DetectorConfig(model="500m", input_size=(320, 320)),
            gallery=GalleryConfig(store=str(Path(folder, "people.db"))),
        )
        with closing(load_pipeline(config)) as pipeline:
            assert pipeline.identifier is not None
            for number, direction in enumerate(people.directions(1000 // EACH)):
                looks = people.looks(np.tile(direction, (EACH, 1)))
                pipeline.identifier.gallery.enroll(
                    f"{number}", [Look(look, 0.9, 0.0, 0.0) for look in looks], source="made up"
                )
            tracker = pipeline.new_tracker()
            faces = embedded = 0
            whole = 0.0
            identify, spent = pipeline.identifier.identify, [0.0]

            def timed(*args: Any) -> Faces:  # the stage's own time is that of the wall
                start = time.thread_time()
                found = identify(*args)
                spent[0] += 1e3 * (time.thread_time() - start)
                return found

            pipeline.identifier.identify = timed
            clip = people_passing(lambda name: read_image(ensure_picture(name)), 8.0, 10)
            for frame in tqdm(clip, total=80, leave=False, disable=None):
                result = pipeline(frame.image, tracker, frame.time)
                faces += len(result.faces)
                embedded += len(result.looks)
                whole += result.milliseconds["total"]
    print(
        f"with 1,000 templates, identification takes {spent[0] / faces:.3f} ms for each of {faces} "
        f"faces of a clip, {spent[0] / embedded:.2f} ms for each of {embedded} embedded ones, "
        f"{spent[0] / whole:.1%} of the time of all",
        flush=True,
    )


def print_start(people: People, size: int) -> None:
    """How long it takes to open a gallery in a file, and what it takes in memory."""
    info = GalleryInfo("w600k_mbf", "0" * 64, 512)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "people.db")
        store = SqliteStore(path, info)
        for number in tqdm(range(size // 1000), leave=False, disable=None):
            made = people.templates(people.directions(1000 // EACH))
            ids = dict.fromkeys(each.person_id for each in made)
            store.add([Person(each, f"{number} {each}") for each in ids], made)
        store.close()
        runs = np.array([opened(path) for _ in range(5)])
    wall, processor, grown = np.median(runs, axis=0)
    print(
        f"a file with {size:,} templates is open in {wall:.2f} s, {processor:.2f} s of the "
        f"processor (best {runs[:, 0].min():.2f} s), and takes {grown / size:.0f} bytes of memory "
        f"a template, with all of its people"
    )


def opened(path: Path) -> list[float]:
    """Seconds, of the wall and of the processor, and bytes of opening a file, in a new process."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from scrfd_ros.gallery.opening import open_gallery\n"
        "def now():\n"
        "    pages = int(Path('/proc/self/statm').read_text().split()[1])\n"
        "    return time.perf_counter(), time.process_time(), 4096 * pages\n"
        "before = now()\n"
        "gallery = open_gallery(sys.argv[1])\n"
        "print(*(after - one for after, one in zip(now(), before)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(each) for each in run.stdout.split()]


def write(path: Path, rows: list[Row]) -> None:
    axes = new_plot("Finding somebody in a gallery, one thread", "templates", "ms a face")
    sizes = [row.size for row in rows]
    axes.plot(sizes, [np.median(row.exact) for row in rows], "o-", label="all compared")
    large = [row for row in rows if row.size >= EXACT]
    if large[1:]:
        axes.plot(
            [row.size for row in large],
            [np.median(row.nearest) for row in large],
            "o--",
            label=f"those with the nearest signs, of more than {EXACT:,}",
        )
    axes.plot(list(REACH), list(REACH.values()), "k_", markersize=14, label="limit aimed at")
    axes.set(xscale="log", yscale="log")
    axes.legend()
    write_plot(path, axes)


if __name__ == "__main__":
    main()
