# SPDX-License-Identifier: Apache-2.0
"""What the defaults of the gallery rest on: threshold, margin, templates, quality, size.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/gallery_defaults.py PEOPLE OUT [COUNT]

PEOPLE has images PERSON/IMAGE, such as those of Labeled Faces in the Wild. COUNT people are taken
at random, by default all, with up to 12 images each. Embeddings are kept in OUT, so that a second
run prints its tables at once. docs/identification.md has the figures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.evaluation.identification import (
    FPIRS,
    MARGINS,
    Split,
    agreed,
    joined,
    read_people,
    search,
    searched,
    split_people,
    threshold_at,
)
from scrfd_ros.evaluation.verification import main_face
from scrfd_ros.images.files import read_image
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.quality import face_quality

SPLITS = 5
MOST_IMAGES = 12
DEGRADED_PEOPLE = 700
QUALITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


class Set(NamedTuple):
    """N faces.

    Attributes:
        embeddings: float32 [N, D], rows of unit length.
        qualities: float32 [N], 0 to 1.
        people: int64 [N], whose.
        images: names of the images, relative to the folder.
    """

    embeddings: NDArray[np.float32]
    qualities: NDArray[np.float32]
    people: NDArray[np.int64]
    images: NDArray[np.str_]


def chosen_images(folder: Path, count: int | None) -> tuple[list[Path], NDArray[np.int64]]:
    """Images of people at random, in the order of these."""
    images = read_people(folder)
    rng = np.random.default_rng(0)
    paths, people = [], []
    for person in rng.permutation(len(images.names))[:count].tolist():
        rows = np.flatnonzero(images.people == person)
        for row in sorted(rng.permutation(rows)[:MOST_IMAGES].tolist()):
            paths.append(images.paths[row])
            people.append(person)
    return paths, np.array(people)


def degraded(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """An image out of focus, small, or moved, more or less."""
    kind = rng.integers(3)
    height, width = image.shape[:2]
    if kind == 0:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 4.5))
    elif kind == 1:
        small = 1 / rng.uniform(2, 8)
        image = cv2.resize(image, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        size = int(rng.integers(5, 26))
        kernel = np.zeros((size, size), np.float32)
        first, last = (int(each) for each in rng.integers(size, size=2))
        cv2.line(kernel, (0, first), (size - 1, last), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    return image


def embedded(
    pipeline: FacePipeline,
    paths: list[Path],
    people: NDArray[np.int64],
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    kept: Path,
) -> Set:
    """The main faces of images; kept in a file."""
    if not kept.exists():
        found: list[tuple[NDArray[np.float32], np.float32, np.int64, str]] = []
        for path, person in zip(tqdm(paths, kept.stem), people, strict=True):
            image = change(read_image(path))
            faces = pipeline(image).faces
            if not len(faces):
                continue
            assert faces.landmarks is not None and faces.embeddings is not None
            height, width = image.shape[:2]
            row = main_face(faces, width, height)
            one = slice(row, row + 1)
            crops = align_faces(image, faces.landmarks[one])
            quality = face_quality(faces.scores[one], faces.landmarks[one], crops)[0]
            found.append((faces.embeddings[row], quality, person, "/".join(path.parts[-2:])))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            kept, tried=len(paths), **dict(zip(Set._fields, zip(*found, strict=True), strict=True))
        )
    content = np.load(kept)
    print(f"{kept.stem}: {len(content['people'])} faces in {content['tried']} images of ", end="")
    print(f"{len(np.unique(content['people']))} people")
    return Set(*(content[name] for name in Set._fields))


def splits_of(faces: Set, templates: int) -> list[Split]:
    there = np.ones(len(faces.people), np.bool_)
    return [split_people(faces.people, there, 0.5, templates, seed) for seed in range(SPLITS)]


def print_margins(faces: Set) -> None:
    """DIR at equal FPIR by margin and looks."""
    print("\nDIR, and threshold, at an FPIR by margin")
    searches = searched(faces.embeddings, faces.people, splits_of(faces, 3))
    for looks in (1, 2, 3):
        of = agreed(searches, looks)
        for fpir in FPIRS:
            line = f"looks {looks} FPIR {fpir:5.1%}"
            for margin in MARGINS:
                scores = of.ahead(margin)
                threshold = max(threshold_at(scores[~of.mated], fpir), 0.0)
                rate = (of.right & (scores >= threshold))[of.mated].mean()
                line += f"  {margin:.2f}: {rate:.1%} {threshold:.2f}"
            print(line)
        for threshold in (0.3, 0.35, 0.4, 0.45):
            named = of.ahead(0.1) >= threshold
            print(
                f"looks {looks} threshold {threshold:.2f} margin 0.10: "
                f"FPIR {named[~of.mated].mean():.3%}, DIR {(of.right & named)[of.mated].mean():.1%}"
            )


def print_rules(faces: Set) -> None:
    """DIR by what the similarity to a person with several templates is."""
    rules: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
        "nearest": lambda cosines: cosines.max(axis=1),
        "mean": lambda cosines: cosines.mean(axis=1),
        "without the lowest quarter": lambda cosines: np.sort(cosines)[
            :, cosines.shape[1] // 4 :
        ].mean(axis=1),
        "mean of the two nearest": lambda cosines: np.sort(cosines)[:, -2:].mean(axis=1),
    }
    print("\nDIR by rule, of people with at least 2 templates")
    for templates in (3, 8):
        for name, rule in rules.items():
            print(f"{templates} templates, {name:28}", end="")
            mated, right, scores = [], [], []
            for split in splits_of(faces, templates):
                owners = faces.people[split.templates]
                enrolled = np.unique(owners)
                cosines = faces.embeddings[split.searches] @ faces.embeddings[split.templates].T
                similar = np.stack([rule(cosines[:, owners == each]) for each in enrolled], axis=1)
                own = faces.people[split.searches]
                mated.append(np.isin(own, enrolled))
                right.append(enrolled[similar.argmax(axis=1)] == own)
                scores.append(similar.max(axis=1))
            is_mated, is_right, best = map(np.concatenate, (mated, right, scores))
            for fpir in FPIRS:
                threshold = threshold_at(best[~is_mated], fpir)
                rate = (is_right & (best >= threshold))[is_mated].mean()
                print(f"  {fpir:.1%}: {rate:.2%} {threshold:.2f}", end="")
            print()


def print_sizes(faces: Set) -> None:
    """Thresholds by the number of people in the gallery, each with one template."""
    print("\npeople in the gallery, threshold for each FPIR, FPIR at thresholds")
    rows: dict[int, list[list[float]]] = {}
    for seed in range(SPLITS):
        rng = np.random.default_rng(seed)
        everybody = rng.permutation(np.unique(faces.people))
        half = len(everybody) // 2
        firsts = np.array([np.flatnonzero(faces.people == each)[0] for each in everybody[:half]])
        strangers = np.isin(faces.people, everybody[half:])
        cosines = faces.embeddings[strangers] @ faces.embeddings[firsts].T
        for size in (*(each for each in (10, 30, 100, 300, 1000) if each < half), half):
            scores = cosines[:, :size].max(axis=1).astype(np.float64)
            thresholds = [threshold_at(scores, fpir) for fpir in FPIRS]
            rates = [float((scores >= each).mean()) for each in (0.3, 0.35, 0.4)]
            rows.setdefault(size, []).append(thresholds + rates)
    for size, values in rows.items():
        mean = np.mean(values, axis=0)
        print(f"{size:6}  " + " ".join(f"{each:.3f}" for each in mean[:3]), end="   ")
        print(" ".join(f"{each:.3%}" for each in mean[3:]))


def print_qualities(faces: Set, worse: Set) -> None:
    """How degraded faces are named, by quality: mated and not, against the faces as they are."""
    print("\nquality of degraded faces: of enrolled people, named; of strangers, named")
    both = Set(*(np.concatenate(parts) for parts in zip(faces, worse, strict=True)))
    searches, qualities = [], []
    for number, split in enumerate(splits_of(faces, 3)):
        others = np.flatnonzero(~np.isin(worse.images, faces.images[split.templates]))
        wanted = Split(split.templates, len(faces.people) + others)
        searches.append(search(both.embeddings, both.people, wanted, number))
        qualities.append(worse.qualities[others])
    of, quality = joined(searches), np.concatenate(qualities)
    for low, high in pairwise(QUALITIES):
        inside = (quality >= low) & (quality < high)
        mated, strangers = inside & of.mated, inside & ~of.mated
        if not mated.any() or not strangers.any():
            continue
        low_rate, rate = ((of.scores >= each)[strangers].mean() for each in (0.35, 0.4))
        print(
            f"{low:.1f} to {high:.1f}  {mated.sum() / SPLITS:5.0f} faces "
            f"{(of.right & (of.scores >= 0.4))[mated].mean():6.1%}   "
            f"{strangers.sum() / SPLITS:5.0f} faces {rate:7.2%}, {low_rate:7.2%} from 0.35 on"
        )


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else None
    paths, people = chosen_images(folder, count)
    pipeline = load_pipeline()
    faces = embedded(pipeline, paths, people, lambda image: image, out / "faces.npz")
    some = np.isin(people, list(dict.fromkeys(people.tolist()))[:DEGRADED_PEOPLE])
    rng = np.random.default_rng(0)
    worse = embedded(
        pipeline,
        [path for path, is_there in zip(paths, some, strict=True) if is_there],
        people[some],
        lambda image: degraded(image, rng),
        out / "degraded.npz",
    )
    print_margins(faces)
    print_rules(faces)
    print_sizes(faces)
    print_qualities(faces, worse)


if __name__ == "__main__":
    main()
