# SPDX-License-Identifier: Apache-2.0
"""Does leaving out the worst faces raise accuracy? The tables of docs/verification.md.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/quality.py OUT DIR ...

The folders hold images DIR/PERSON/IMAGE, at least two of each person. All faces are degraded in the
ways below, detected and embedded again, and compared with unchanged images of the same and of
another person. A false non-match is a cosine below the recommended threshold. OUT/quality.png has
the curves of error versus discard: the share of faces that are not matched when the worst are left
out (Grother and Tabassi, Performance of Biometric Quality Measures, IEEE PAMI 29(4), 2007).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from people import Person, find_people, one_of
from tqdm import tqdm

from scrfd_ros.config import DetectorConfig, PipelineConfig
from scrfd_ros.evaluation.plots import new_plot, write_plot
from scrfd_ros.evaluation.verification import equal_error_rate, main_face, roc
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.quality import face_quality, face_sizes, pose, sharpness

Image = NDArray[np.uint8]

THRESHOLD = 0.4
"""Minimum cosine of two faces of one person, docs/verification.md."""

SIDE = 320
"""Pixels of the square around a face; the face covers up to half of it."""

FRAME = 640
"""Pixels of the black image around the square, the detector's input: nothing is upscaled."""

TURNS = 2
"""How often each face is degraded in each way."""


def degradations(rng: np.random.Generator) -> dict[str, Callable[[Image], Image]]:
    """One random draw of each way to degrade an image of a face."""
    u = rng.uniform

    def smaller(image: Image) -> Image:
        scale = 2 ** -u(0, 4.5)
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

    def blurred(image: Image) -> Image:
        return cv2.GaussianBlur(image, (0, 0), 2 ** u(0, 3.5))

    def moved(image: Image) -> Image:
        length = int(u(5, 40))
        line = np.zeros((length, length), np.float32)
        angle = u(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        ends = (length / 2 + np.array([-reach, reach])).astype(int)
        cv2.line(line, ends[0].tolist(), ends[1].tolist(), 1)
        return cv2.filter2D(image, -1, line / max(line.sum(), 1))

    def compressed(image: Image) -> Image:
        return jpeg(image, int(u(1, 30)))

    def noisy(image: Image) -> Image:
        return noise(image, 2 ** u(3, 6.5))

    def dark(image: Image) -> Image:
        return noise(image * 2 ** -u(1, 6), u(1, 5))

    def noise(image: Image, sigma: float) -> Image:
        return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)

    def covered(image: Image) -> Image:
        image = image.copy()
        size = np.array(image.shape[1::-1])
        part = u(0.1, 0.35)
        # From one of the four sides, into the middle half, where the face is.
        low, high = np.array([[0.25, 0.25], [0.75, 0.75]])
        side = rng.integers(4)
        if side < 2:
            high[side % 2] = 0.25 + part
        else:
            low[side % 2] = 0.75 - part
        (x1, y1), (x2, y2) = (np.array([low, high]) * size).astype(int)
        image[y1:y2, x1:x2] = rng.integers(0, 256, 3)
        return image

    def turned(image: Image) -> Image:
        """Turned as if painted on an upright cylinder."""
        height, width = image.shape[:2]
        radius, angle = 0.4 * width, np.radians(u(15, 70)) * rng.choice([-1, 1])
        across = (np.arange(width) - width / 2) / radius
        around = np.arcsin(np.clip(across, -1, 1)) - angle
        source = np.where(np.abs(around) < np.pi / 2, np.sin(around), np.sign(around))
        columns = (source * radius + width / 2).astype(np.float32)
        x, y = np.meshgrid(columns, np.arange(height, dtype=np.float32))
        return cv2.remap(image, x, y, cv2.INTER_LINEAR)

    def far_away(image: Image) -> Image:
        return noise(jpeg(smaller(image), int(u(10, 60))), u(0, 15))

    return {
        "as it is": lambda image: image,
        "smaller": smaller,
        "blurred": blurred,
        "moved": moved,
        "JPEG": compressed,
        "noise": noisy,
        "dark": dark,
        "covered": covered,
        "turned": turned,
        "small, JPEG, noise": far_away,
    }


def jpeg(image: Image, quality: int) -> Image:
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def cut_out(person: Person) -> Image:
    """The square around a face, twice as large as that, at most `SIDE` pixels."""
    center, size = person.faces.centers[0], person.faces.sizes[0].max() * 2
    scale = min(SIDE / size, 1)
    side = round(size * scale)
    shift = side / 2 - scale * center
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(person.image, matrix, (side, side), flags=cv2.INTER_AREA)


class Probes(NamedTuple):
    """N degraded faces.

    Attributes:
        ways: str [N], the degradation.
        scores, landmarks, norms: results of detector and recognizer.
        crops: uint8 [N, 112, 112, 3] BGR, aligned.
        own, others: float64 [N], cosine with another image of the person, and of another person.
    """

    ways: NDArray[np.str_]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    norms: NDArray[np.float32]
    crops: Image
    own: NDArray[np.float64]
    others: NDArray[np.float64]


def make_probes(pipeline: FacePipeline, people: list[Person]) -> tuple[Probes, dict[str, int]]:
    """All faces degraded, and by degradation how many the detector no longer finds."""
    rng = np.random.default_rng(1)
    missed = {way: 0 for way in degradations(rng)}
    rows = []
    for number, person in enumerate(tqdm(people, "degrading", leave=False, disable=None)):
        rest = people[number + 1 :] + people[:number]
        same = next(each for each in rest if each.name == person.name)
        image = cut_out(person)
        for way, degrade in (item for _ in range(TURNS) for item in degradations(rng).items()):
            worse = degrade(image)
            frame = np.zeros((FRAME, FRAME, 3), np.uint8)
            y, x = (FRAME - np.array(worse.shape[:2])) // 2
            frame[y : y + worse.shape[0], x : x + worse.shape[1]] = worse
            found = pipeline(frame).faces
            if not len(found):
                missed[way] += 1
                continue
            face = one_of(found, main_face(found, FRAME, FRAME))
            strangers = [each for each in rest if each.name != person.name]
            cosines = [
                float(face.embeddings[0] @ each.faces.embeddings[0])
                for each in (same, strangers[rng.integers(len(strangers))])
            ]
            crop = align_faces(frame, face.landmarks)[0]
            norm = face.embedding_norms[0]
            rows.append((way, face.scores[0], face.landmarks[0], norm, crop, *cosines))
    return Probes(*(np.array(column) for column in zip(*rows, strict=True))), missed


def error_left(quality: NDArray[np.float64], missed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """False non-match rate of the remaining faces when the 0, 1, 2, ... worst are left out."""
    errors = missed[np.argsort(quality, kind="stable")][::-1].cumsum()[::-1]
    return errors / np.arange(len(errors), 0, -1)


def main() -> None:
    out, *folders = (Path(argument) for argument in sys.argv[1:])
    people = find_people(
        load_pipeline(PipelineConfig(detector=DetectorConfig(large_faces=True))), folders
    )
    names = [person.name for person in people]
    people = [person for person in people if names.count(person.name) > 1]
    probes, lost = make_probes(load_pipeline(), people)
    missed = probes.own < THRESHOLD
    count = len({person.name for person in people})
    print(f"{len(people)} faces of {count} people, {len(missed)} degraded and found")

    print("\n| degraded | found | no longer found | FNMR |\n|---|---:|---:|---:|")
    for way, count in lost.items():
        own = probes.ways == way
        print(f"| {way} | {own.sum()} | {count} | {missed[own].mean():.1%} |")

    figure = face_quality(probes.scores, probes.landmarks, probes.crops)
    laplacian = [
        cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var()
        for crop in probes.crops
    ]
    qualities = {
        "size": face_sizes(probes.landmarks),
        "pose": -np.abs(pose(probes.landmarks)[:, :2]).max(axis=1),
        "variance of the Laplacian": np.array(laplacian),
        "sharpness": sharpness(probes.crops),
        "detector's score": probes.scores,
        "face_quality": figure,
        "quality, with pose": figure * np.cos(np.radians(pose(probes.landmarks)[:, 0])),
        "norm of the embedding": probes.norms,
        "quality x norm": figure * probes.norms,
        "best possible": probes.own,
    }
    parts = (0.05, 0.1, 0.2, 0.3)
    print(f"\n| FNMR without the worst, by | {' | '.join(f'{part:.0%}' for part in parts)} |")
    print("|---|" + "---:|" * len(parts))
    print("| chance |", " | ".join(f"{missed.mean():.1%}" for _ in parts), "|")
    axes = new_plot("Degraded on purpose", "share of the faces left out", "false non-match rate")
    axes.axhline(missed.mean(), color="gray", linestyle=":", label="chance")
    for name, quality in qualities.items():
        curve = error_left(quality, missed)
        cells = [f"{curve[int(part * len(curve))]:.1%}" for part in parts]
        print(f"| {name} | {' | '.join(cells)} |")
        width = 3 if name == "face_quality" else 1
        axes.plot(np.arange(len(curve)) / len(curve), curve, label=name, linewidth=width)
    axes.set(xlim=(0, 0.5), ylim=(0, 1.4 * missed.mean()))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    write_plot(out / "quality.png", axes)

    print(
        "\n| minimum quality | left out | of those not degraded | FNMR | FNMR of those left out "
        "| equal error rate |\n|---|---:|---:|---:|---:|---:|"
    )
    good = probes.ways == "as it is"
    for minimum in (0, 0.3, 0.4, 0.5, 0.6, 0.7):
        kept = figure >= minimum
        scores = np.concatenate((probes.own[kept], probes.others[kept]))
        curve = roc(scores, np.arange(len(scores)) < kept.sum())
        rejected = f"{missed[~kept].mean():.1%}" if not kept.all() else "-"
        print(
            f"| {minimum} | {1 - kept.mean():.1%} | {1 - kept[good].mean():.1%} | "
            f"{missed[kept].mean():.1%} | {rejected} | {equal_error_rate(curve):.1%} |"
        )


if __name__ == "__main__":
    main()
