# SPDX-License-Identifier: Apache-2.0
"""What people in clips are called, each of them once enrolled and once a stranger.

    ./run.sh setup && .venv/bin/python bench/identity.py [--threshold 0.4] [--looks 3] ...

Prints a Markdown table. Each clip runs with everybody enrolled, with nobody, and with all but one,
each in turn; test/naming.py says by which photographs. Rows are the clips of test/scenes.py and
test/clips.py:

- strangers: times that somebody who is not enrolled came, and how many of these were called by a
  name, and were taken for somebody without being called so;
- enrolled: times that somebody who is enrolled came, how many of these were named, and how many by
  another's name, at any time;
- seconds: from when a face is found to its name, median and 90 % of those who were named;
- own name: part of the frames with faces of enrolled people in which they have their names;
- lost: how often somebody lost the name for a while, in a minute of being seen;
- ids: anonymous ids for each stranger who got any, and how many ids two people shared;
- embedded: times a face was embedded, for a second that it was seen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from clips import people_passing
from naming import Naming, Outcome, compositions
from scenes import SCENES, film

from scrfd_ros.config import GalleryConfig, options
from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import load_pipeline

PASSING = "passing"
RULE = ("threshold", "margin", "looks", "min_quality")


def row(clip: str, runs: list[tuple[frozenset[str], Outcome]], rate: float) -> str:
    """A row of the table for the runs of one clip, each with those who were enrolled."""
    everybody = [
        (name in enrolled, seen)
        for enrolled, outcome in runs
        for name, seen in outcome.people.items()
    ]
    strangers = [seen for is_enrolled, seen in everybody if not is_enrolled]
    known = [seen for is_enrolled, seen in everybody if is_enrolled]
    delays = [delay for seen in known for delay in seen.delays]
    named = [delay for delay in delays if delay is not None]
    frames = sum(seen.frames for seen in known)
    with_ids = [seen.strangers for seen in strangers if seen.strangers]
    shared = sum(
        count > 1
        for _, outcome in runs
        for count in Counter(
            each for seen in outcome.people.values() for each in seen.strangers
        ).values()
    )
    embedded = sum(outcome.embedded for _, outcome in runs)
    faces = sum(outcome.faces for _, outcome in runs)
    cells = [
        clip,
        f"{sum(len(seen.delays) for seen in strangers)}",
        f"{sum(seen.wrong > 0 for seen in strangers)}",
        f"{sum(seen.tentative_wrong > 0 for seen in strangers)}",
        f"{len(delays)}",
        f"{len(named)}",
        f"{sum(seen.wrong > 0 for seen in known)}",
        f"{np.median(named):.2f}, {np.quantile(named, 0.9):.2f}" if named else "-",
        f"{sum(seen.right for seen in known) / max(frames, 1):.1%}",
        f"{60 * rate * sum(seen.lost for seen in known) / max(frames, 1):.2f}",
        f"{np.mean([len(ids) for ids in with_ids]):.2f}, {shared}" if with_ids else "-",
        f"{rate * embedded / max(faces, 1):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [PASSING, *(name for name in SCENES if name != "empty")]
    parser.add_argument("clips", nargs="*", default=names, help=f"of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each clip")
    parser.add_argument("--rate", type=float, default=15.0, help="frames per second")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="of the frames")
    for name in RULE:
        each = options(GalleryConfig)[name]
        parser.add_argument(f"--{name}", type=each.type, default=each.default)
    args = parser.parse_args()
    config = GalleryConfig(**{name: getattr(args, name) for name in RULE})

    def image(name: str) -> np.ndarray:
        return read_image(ensure_picture(name))

    naming = Naming(load_pipeline(), image)
    print(
        "| clip | strangers | named | taken for somebody | enrolled | named | wrong | seconds "
        "| own name | lost | ids | embedded |\n|---|" + "---:|" * 11
    )
    everything: list[tuple[frozenset[str], Outcome]] = []
    for clip in args.clips:
        if clip == PASSING:
            film_of = people_passing(image, args.seconds, args.rate, tuple(args.size))
        else:
            film_of = film(SCENES[clip], image, args.seconds, args.rate, tuple(args.size))
        total = round(args.seconds * args.rate)
        frames = list(tqdm(film_of, f"{clip}: filming", total, leave=False, disable=None))
        people = {name for frame in frames for name in frame.boxes}
        runs = []
        for enrolled in tqdm(
            compositions(people).values(), f"{clip}: naming", leave=False, disable=None
        ):
            with tempfile.TemporaryDirectory() as folder:
                store = Path(folder, "people.db")
                runs.append((enrolled, naming.run(frames, enrolled, store, config)))
        print(row(clip, runs, args.rate), flush=True)
        everything += runs
    print(row("all", everything, args.rate))


if __name__ == "__main__":
    main()
