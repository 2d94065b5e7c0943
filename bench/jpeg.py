# SPDX-License-Identifier: Apache-2.0
"""From JPEG to faces: libraries that decode, and decoding at a smaller scale.

    ./run.sh setup && . .venv/bin/activate && pip install simplejpeg 'PyTurboJPEG<2'
    python bench/jpeg.py

Prints three Markdown tables: the time of decoding by library, all in one process, in turns; the
time of a whole clip of JPEGs with tracking, decoded at full scale and reduced, frame by frame in
turns; and what reduced decoding changes in the results, beside what a slightly lower quality of the
JPEG changes. Libraries that are not installed are left out. PyTurboJPEG needs libturbojpeg (apt
install libturbojpeg); its releases from 2.0 on need version 3 of that.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from turns import times_in_turns

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from clips import people_passing

from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.engines.agreement import SAME_FACE_IOU
from scrfd_ros.faces import Faces, ious
from scrfd_ros.images.compressed import bgr_from_compressed
from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.node.allocator import keep_freed_memory
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.recognition.alignment import align_faces

Image = NDArray[np.uint8]
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}
SAMPLINGS = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
CASES = (  # name of the size, sampling, quality
    *(("720p", "4:2:0", quality) for quality in (60, 80, 95)),
    *(("720p", sampling, 80) for sampling in ("4:2:2", "4:4:4", "gray")),
    *(("1080p", "4:2:0", quality) for quality in (60, 80, 95)),
    *(("1080p", sampling, 80) for sampling in ("4:2:2", "4:4:4", "gray")),
    ("2160p", "4:2:0", 80),
)
CROWD = "solvay_conference_1927.jpg"  # 3000x2171, 29 faces
_CUT = 160  # side of the square around a face, pixels


def photograph(size: tuple[int, int]) -> Image:
    """A crowd in proportions of 16:9."""
    image = read_image(ensure_picture(CROWD))
    rows = round(image.shape[1] * 9 / 16)
    return np.asarray(cv2.resize(image[300 : 300 + rows], size, None, 0, 0, cv2.INTER_AREA))


def jpeg(image: Image, quality: int, sampling: str = "4:2:0") -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if sampling == "gray":
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    else:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    return bytes(cv2.imencode(".jpg", image, options)[1])


def decoders() -> dict[str, Callable[[bytes], object]]:
    """Ways to decode, the first of which the others are compared with."""

    def opencv(flag: int, content: bytes) -> object:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)

    ways: dict[str, Callable[[bytes], object]] = {
        "OpenCV": partial(opencv, cv2.IMREAD_COLOR),
        "1/2": partial(opencv, cv2.IMREAD_REDUCED_COLOR_2),
        "ours": lambda content: bgr_from_compressed("jpeg", content),
        "ours, fit to 640": lambda content: bgr_from_compressed("jpeg", content, (640, 640)),
    }
    try:
        import simplejpeg
    except ImportError as error:
        print(f"without simplejpeg: {error}", file=sys.stderr)
    else:
        decode: Callable[..., object] = partial(simplejpeg.decode_jpeg, colorspace="BGR")

        def half(content: bytes) -> object:
            height, width, *_ = simplejpeg.decode_jpeg_header(content)
            return decode(content, min_height=height // 2, min_width=width // 2, min_factor=2)

        ways["simplejpeg"] = decode
        ways["simplejpeg, fast"] = partial(decode, fastdct=True, fastupsample=True)
        ways["simplejpeg 1/2"] = half
    try:
        from turbojpeg import TurboJPEG

        turbo: Any = TurboJPEG()
    except (ImportError, OSError, RuntimeError) as error:
        print(f"without PyTurboJPEG: {error}", file=sys.stderr)
    else:

        def one_face(content: bytes) -> object:
            width, height, *_ = turbo.decode_header(content)
            x, y = width // 2 // 16 * 16, height // 2 // 16 * 16
            return turbo.decode(turbo.crop(content, x, y, _CUT, _CUT))

        ways["PyTurboJPEG"] = turbo.decode
        ways["PyTurboJPEG 1/2"] = partial(turbo.decode, scaling_factor=(1, 2))
        ways["PyTurboJPEG, one face"] = one_face
    return ways


def compare_decoders(rounds: int) -> None:
    ways = decoders()
    print(f"Decoding, milliseconds of processor time, medians of {rounds} turns:\n")
    print("| image | kB | " + " | ".join(ways) + " |\n|---|---:|" + "---:|" * len(ways))
    for size, sampling, quality in tqdm(CASES, desc="decoding", leave=False, disable=None):
        content = jpeg(photograph(SIZES[size]), quality, sampling)
        functions = {name: partial(way, content) for name, way in ways.items()}
        times = times_in_turns(functions, rounds, time.thread_time)
        values = " | ".join(f"{1e3 * np.median(taken):.2f}" for taken in times.values())
        tqdm.write(f"| {size} {sampling} {quality} | {len(content) // 1000} | {values} |")


class Spent(NamedTuple):
    """What one frame of a clip took.

    Attributes:
        milliseconds: of processor time.
        decodings: 2 if the frame was decoded reduced and then whole.
    """

    milliseconds: float
    decodings: int


def clip_times(
    pipeline: FacePipeline, contents: list[bytes], rate: float
) -> dict[str, list[Spent]]:
    """What each frame of a clip took, decoded at full scale and reduced, in turns."""
    trackers = {name: pipeline.new_tracker() for name in ("whole", "reduced")}
    spent: dict[str, list[Spent]] = {name: [] for name in trackers}
    for number, content in enumerate(tqdm(contents, desc="clip", leave=False, disable=None)):
        # Who begins changes, so that nobody always finds the caches of the other.
        for name in sorted(trackers, reverse=number % 2 == 1):
            tracker = trackers[name]
            start = time.process_time()
            fit = pipeline.fit(tracker) if name == "reduced" else None
            image = bgr_from_compressed("jpeg", content, fit)
            pipeline(image, tracker, number / rate)
            milliseconds = 1e3 * (time.process_time() - start)
            is_whole = image.source is not None and "image" in vars(image.source)
            spent[name].append(Spent(milliseconds, 1 + is_whole))
    return spent


def compare_clips(seconds: float, rate: float) -> None:
    print(
        "\nA clip of eight people who pass each other, JPEG of quality 80, with tracking, from the "
        "message to faces, one thread; milliseconds of processor time, means of all frames:\n"
    )
    print("| image | recognition | looks | whole | reduced | ratio | decoded twice |")
    print("|---|---|---|---:|---:|---:|---:|")
    pipelines = {
        (recognition, looks): load_pipeline(
            PipelineConfig(
                threads=1,
                detector=DetectorConfig(full_look_period=period),
                recognizer=RecognizerConfig(enabled=recognition == "yes"),
            )
        )
        for recognition in ("yes", "no")
        for looks, period in (("full", 0.0), ("full every 0.5 s", 0.5))
    }

    def image(name: str) -> Image:
        return read_image(ensure_picture(name))

    for size in SIZES:
        frames = people_passing(image, seconds, rate, SIZES[size])
        contents = [
            jpeg(frame.image, 80)
            for frame in tqdm(frames, "drawing", round(seconds * rate), leave=False, disable=None)
        ]
        for (recognition, looks), pipeline in pipelines.items():
            spent = clip_times(pipeline, contents, rate)
            whole, reduced = (np.mean(spent[name], axis=0) for name in ("whole", "reduced"))
            print(
                f"| {size} | {recognition} | {looks} | {whole[0]:.1f} | {reduced[0]:.1f} | "
                f"{reduced[0] / whole[0]:.2f} | {100 * (reduced[1] - 1):.0f} % |"
            )


def images() -> Iterator[tuple[str, Image]]:
    for name, size in SIZES.items():
        yield f"29 faces, {name}", photograph(size)
    yield "29 faces, 1283x721", photograph((1283, 721))
    for part in (0.6, 0.5, 0.4):
        canvas = np.full((1080, 1920, 3), 110, np.uint8)
        crowd = photograph((round(part * 1920), round(part * 1080)))
        canvas[: len(crowd), : crowd.shape[1]] = crowd
        yield f"29 faces, {part} of 1080p", canvas
    yield "6 faces, 720p", read_image(ensure_picture("t1.jpg"))[:720]
    yield "1 face, 1434x2333", read_image(ensure_picture("obama3.jpg"))


def differences(pipeline: FacePipeline, image: Image, expected: Faces, faces: Faces) -> str:
    """Largest differences from the expected faces, as cells of a table.

    Embeddings are those of faces cut out of the same image, so that only the landmarks differ.
    """
    overlaps = ious(expected.boxes, faces.boxes)
    rows = overlaps.argmax(axis=1)
    same = overlaps.max(axis=1) > SAME_FACE_IOU
    rows = rows[same]
    assert pipeline.recognizer is not None
    assert expected.landmarks is not None and faces.landmarks is not None
    theirs, _ = pipeline.recognizer.embed(align_faces(image, expected.landmarks[same]))
    ours, _ = pipeline.recognizer.embed(align_faces(image, faces.landmarks[rows]))
    sizes = expected.sizes[same].max(axis=1)
    boxes = np.abs(faces.boxes[rows] - expected.boxes[same]).max(axis=1)
    marks = np.abs(faces.landmarks[rows] - expected.landmarks[same]).max(axis=(1, 2))
    scores = np.abs(faces.scores[rows] - expected.scores[same]).max()
    cosines = (theirs * ours).sum(axis=1)
    return (
        f"{len(expected)} / {same.sum()} / {len(faces)} | {boxes.max():.2f} | "
        f"{100 * (boxes / sizes).max():.2f} | {100 * (marks / sizes).max():.2f} | {scores:.3f} | "
        f"{np.median(cosines):.4f} | {cosines.min():.4f} |"
    )


def compare_results() -> None:
    print(
        "\nFaces found in reduced images, and in images of a quality of 75, compared with those in "
        "images at full scale of a quality of 80: numbers of faces, found by both, found; largest "
        "differences of boxes (pixels, and percent of the face), landmarks (percent of the face) "
        "and scores; median and smallest cosine of the embeddings, all cut out of the same image:\n"
    )
    titles = "faces | box, px | box, % | landmarks, % | score | cosine | smallest"
    print(f"| image | scale | quality | {titles} |")
    print("|---|---|---:|---|---:|---:|---:|---:|---:|---:|")
    pipeline = load_pipeline(PipelineConfig())
    for name, image in images():
        content = jpeg(image, 80)
        full = bgr_from_compressed("jpeg", content).image
        expected = pipeline.detector.detect(full)
        reduced = bgr_from_compressed("jpeg", content, pipeline.fit(pipeline.new_tracker()))
        found = reduced.enlarge(pipeline.detector.detect(reduced.image))
        coarser = pipeline.detector.detect(bgr_from_compressed("jpeg", jpeg(image, 75)).image)
        for scale, quality, faces in (
            (f"1/{reduced.reduction}", 80, found),
            ("1", 75, coarser),
        ):
            print(
                f"| {name} | {scale} | {quality} | " + differences(pipeline, full, expected, faces)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=30, help="of each decoder")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the clips")
    parser.add_argument("--rate", type=float, default=15.0, help="images per second of the clips")
    args = parser.parse_args()
    keep_freed_memory()  # as the node does
    compare_decoders(args.turns)
    compare_clips(args.seconds, args.rate)
    compare_results()


if __name__ == "__main__":
    main()
