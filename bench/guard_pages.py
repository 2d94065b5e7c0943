# SPDX-License-Identifier: Apache-2.0
"""Does OpenCV, as this package calls it, touch memory outside of an image?

    ./run.sh setup && .venv/bin/python bench/guard_pages.py --jobs 2

Images lie between two pages that nobody may read or write, once at the end and
once at the start of the memory in between. Arrays that the package makes for
results lie so too. Child processes go through the sizes from 1 to 700 pixels in
both directions; the size at which one dies is reported, and the next goes on
behind it. Prints a Markdown table; the exit status is 1 if a process died. Slow
calls get a part of the sizes. All of it takes hours on two cores; `--every 11`
takes one of eleven sizes, and always a few special ones.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import json
import math
import mmap
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from scrfd_ros.config import SuperResolutionConfig
from scrfd_ros.detection import letterbox
from scrfd_ros.detection.views import plan_views
from scrfd_ros.faces import Faces
from scrfd_ros.images import scaling
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.encodings import ENCODINGS, LAYOUTS, bgr_from_image
from scrfd_ros.images.orientation import ROTATIONS, turn
from scrfd_ros.inference import blob
from scrfd_ros.inference.blob import BlobWriter
from scrfd_ros.inference.network import Tensor
from scrfd_ros.recognition import alignment
from scrfd_ros.recognition.alignment import CROP_SIZE, TEMPLATE, align_faces
from scrfd_ros.recognition.quality import sharpness
from scrfd_ros.recognition.super_resolution import SuperResolution

Size = tuple[int, int]
LARGEST = 700  # pixels
# Width and height: common cameras, and scales at which OpenCV had faults.
SPECIAL: tuple[Size, ...] = (
    *((1, 1), (1, 700), (700, 1), (2, 2), (640, 360), (640, 480), (700, 394)),
    *((641, 361), (641, 481), (641, 641), (642, 482), (642, 642), (643, 483), (361, 641)),
    *((161, 121), (161, 161), (320, 240), (424, 240), (481, 641), (640, 640), (642, 513)),
)
_PAGE = mmap.PAGESIZE
_PAUSE = 0.01  # seconds between two looks at the processes
_LIMIT = 60  # seconds for a call with images of one size
_libc = ctypes.CDLL(None, use_errno=True)


def guarded_memory(size: int) -> NDArray[np.uint8]:
    """Whole pages, at least `size` bytes; the pages before and after cannot be touched."""
    pages = -(-size // _PAGE)
    memory = mmap.mmap(-1, (pages + 2) * _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        place = ctypes.c_void_p(start + page * _PAGE)
        if _libc.mprotect(place, ctypes.c_size_t(_PAGE), 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    return np.frombuffer(memory, np.uint8)[_PAGE:-_PAGE]


class Guarded:
    """Makes arrays that touch an untouchable page, at their end or at their start.

    It also stands in for numpy in the modules of the package, which make arrays for results by
    `np.empty` and `np.zeros`.
    """

    def __init__(self, at_end: bool) -> None:
        self._at_end = at_end
        self._noise = guarded_memory(LARGEST * LARGEST * 8)
        self._noise[:] = np.random.default_rng(0).integers(0, 256, self._noise.size, np.uint8)

    def place(self, *shape: int) -> GuardedArray:
        """Noise, uint8. Every call returns the same memory."""
        return self._at_the_edge(self._noise, shape, np.uint8)

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike = float) -> GuardedArray:
        shape = (shape,) if isinstance(shape, int) else shape
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._at_the_edge(guarded_memory(max(size, 1)), shape, dtype)

    zeros = empty  # new memory is zero

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def _at_the_edge(
        self, memory: NDArray[np.uint8], shape: Sequence[int], dtype: DTypeLike
    ) -> GuardedArray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        part = memory[memory.size - size :] if self._at_end else memory[:size]
        array = part.view(dtype).reshape(shape).view(GuardedArray)
        array.guarded = self
        return array


class GuardedArray(np.ndarray):
    """An array whose copies are guarded too."""

    guarded: Guarded

    def copy(self, order: Any = "C") -> GuardedArray:
        copied = self.guarded.empty(self.shape, self.dtype)
        copied[...] = self
        return copied


@dataclass(frozen=True)
class Call:
    """A use of OpenCV by the package.

    Attributes:
        name: for the table.
        functions: of OpenCV that are called.
        prepare: makes the function that is called with width and height.
        one_in: of so many sizes, one is tried; more than 1 for slow calls.
    """

    name: str
    functions: tuple[str, ...]
    prepare: Callable[[Guarded], Callable[[int, int], object]]
    one_in: int = 1


def raw(encoding: str) -> Call:
    layout = LAYOUTS[encoding]
    columns, rows = layout.shared

    def prepare(guarded: Guarded) -> Callable[[int, int], object]:
        def decode(width: int, height: int) -> object:
            width, height = width + width % columns, height + height % rows
            used = width * layout.channels * layout.value_bytes
            padding = layout.value_bytes * ((width + height) // 2 % 4)  # not after the last row
            lines = layout.lines(height)
            size = (lines - 1) * (used + padding) + used
            message = SimpleNamespace(
                width=width,
                height=height,
                encoding=encoding,
                step=used + padding,
                data=guarded.place(size),
                is_bigendian=0,
            )
            return bgr_from_image(message)

        return decode

    functions = ("cvtColor",) if layout.conversion is not None else ()
    if layout.value_bytes == 2:
        functions += ("convertScaleAbs",)
    return Call(f"raw image, {encoding}", functions, prepare)


def turned(guarded: Guarded) -> Callable[[int, int], object]:
    def turn_all(width: int, height: int) -> object:
        return [turn(guarded.place(height, width, 3), rotation) for rotation in ROTATIONS]

    return turn_all


def linear(guarded: Guarded) -> Callable[[int, int], object]:
    return lambda width, height: scaling.scale_linear(
        guarded.place(height, width, 3), guarded.empty((48, 64, 3), np.uint8)
    )


def by_area(guarded: Guarded) -> Callable[[int, int], object]:
    def scale(width: int, height: int) -> None:
        for part in (2, 4, 5, 6):
            target = guarded.empty((max(height // part, 1), max(width // part, 1), 3), np.uint8)
            scaling.scale_by_area(guarded.place(height, width, 3), target)

    return scale


class NoPlanes(BlobWriter):
    """Leaves out the planes, which have a call of their own."""

    def write(self, image: NDArray[np.uint8], blob: NDArray[np.float32]) -> None:
        pass


def drawn(side: int, tiles: Size = (1, 1), large_faces: bool = False) -> Any:
    def prepare(guarded: Guarded) -> Callable[[int, int], object]:
        canvas = letterbox.Letterbox(np.empty((3, side, side), np.float32), NoPlanes(0.0, 1.0))

        def draw(width: int, height: int) -> None:
            image = guarded.place(height, width, 3)
            views = plan_views(width, height, side, side, tiles, large_faces).views
            for number in range(views[-1].canvas + 1):
                canvas.draw(image, [view for view in views if view.canvas == number])

        return draw

    return prepare


def planes(guarded: Guarded) -> Callable[[int, int], object]:
    writer = BlobWriter(127.5, 128.0)

    def write(width: int, height: int) -> None:
        target = guarded.empty((3, height, width), np.float32)
        writer.write(guarded.place(height, width, 3), target)

    return write


def landmarks(width: int, height: int, count: int) -> NDArray[np.float32]:
    """Faces of all sizes and angles, in the image and across its edges."""
    random = np.random.default_rng(width * LARGEST + height)
    scale = np.exp(random.uniform(-2.5, 1.5, (count, 1, 1)))
    angle = random.uniform(-np.pi, np.pi, count)
    turns = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - TEMPLATE.mean(axis=0)) @ np.moveaxis(turns, 2, 0) * scale
    points += random.uniform(-0.1, 1.1, (count, 1, 2)) * (width, height)
    return points.astype(np.float32)


def aligned(guarded: Guarded) -> Callable[[int, int], object]:
    return lambda width, height: align_faces(
        guarded.place(height, width, 3), landmarks(width, height, 4)
    )


def upscaled(guarded: Guarded) -> Callable[[int, int], object]:
    class Twice:
        """Stands in for a network that upscales, which is none of OpenCV's business."""

        path = Path("twice.onnx")
        inputs = (Tensor("image", (None, 3, None, None)),)
        outputs = (Tensor("larger", (None, 3, None, None)),)
        max_batch = None

        def __call__(self, arrays: Any) -> dict[str, NDArray[np.float32]]:
            return {"larger": arrays["image"].repeat(2, axis=2).repeat(2, axis=3)}

    network: Any = Twice()
    upscale = SuperResolution(network, SuperResolutionConfig(max_size=60))
    return lambda width, height: upscale.align(
        guarded.place(height, width, 3), landmarks(width, height, 2)
    )


def rated(guarded: Guarded) -> Callable[[int, int], object]:
    return lambda width, height: sharpness(guarded.place(1 + width % 3, CROP_SIZE, CROP_SIZE, 3))


def marked(guarded: Guarded) -> Callable[[int, int], object]:
    def draw(width: int, height: int) -> object:
        points = landmarks(width, height, 3)
        corners = [points.min(axis=1), points.max(axis=1)]
        faces = Faces(np.hstack(corners), np.full(3, 0.5, np.float32), points)
        return draw_faces(guarded.place(height, width, 3), faces)

    return draw


def padded(guarded: Guarded) -> Callable[[int, int], object]:
    # As evaluation/wider_face.py does for images of any size.
    return lambda width, height: cv2.copyMakeBorder(
        guarded.place(height, width, 3), 0, -height % 32, 0, -width % 32, cv2.BORDER_CONSTANT
    )


def compared(guarded: Guarded) -> Callable[[int, int], object]:
    # As tracking/watch.py does with the mean colors of cells.
    def compare(width: int, height: int) -> None:
        shape = 8 + height % 57, 8 + width % 57
        colors = guarded.place(*shape, 3)
        cells, grays = (guarded.empty(size, np.float32) for size in (colors.shape, shape))
        cells[...], grays[...] = colors, colors[..., 0]
        for values in (cells, guarded.place(*shape)):
            cv2.dilate(values, np.ones((3, 3), np.uint8))
            cv2.erode(values, np.ones((3, 3), np.uint8))
        cv2.phaseCorrelate(grays, grays, cv2.createHanningWindow(shape[::-1], cv2.CV_32F))
        cv2.connectedComponentsWithStats(guarded.place(*shape))

    return compare


def written(guarded: Guarded) -> Callable[[int, int], object]:
    # As images/files.py does.
    return lambda width, height: [
        cv2.imencode(suffix, guarded.place(height, width, 3)) for suffix in (".jpg", ".png")
    ]


def compressed(suffix: str) -> Any:
    # As images/decoding.py does, which takes only bytes.
    flags = (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_REDUCED_COLOR_4)

    def prepare(guarded: Guarded) -> Callable[[int, int], object]:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)  # the decoders report the missing end

        def decode(width: int, height: int) -> None:
            content = cv2.imencode(suffix, guarded.place(height, width, 3))[1].ravel()
            for size in (len(content), len(content) * 2 // 3, len(content) - 2):
                data = guarded.empty(size, np.uint8)
                data[:] = content[:size]
                for flag in flags:
                    with suppress(cv2.error):
                        cv2.imdecode(data, flag)

        return decode

    return prepare


CALLS = (
    *map(raw, ENCODINGS),
    Call("turned", ("rotate",), turned),
    Call("scaled to 64x48", ("resize",), linear, 2),
    Call("scaled by area", ("resize",), by_area, 2),
    Call("letterbox at 640", ("resize",), drawn(640), 2),
    Call("letterbox at 160 and second look", ("resize",), drawn(160, large_faces=True)),
    Call("letterbox at 160, 3x2 tiles", ("resize",), drawn(160, (3, 2)), 2),
    Call("planes of the input", ("split", "LUT"), planes, 2),
    Call("aligned", ("warpAffine",), aligned, 2),
    Call("windows to upscale", ("warpAffine", "invertAffineTransform"), upscaled, 20),
    Call("quality", ("cvtColor", "blur", "meanStdDev"), rated, 200),
    Call("faces drawn", ("rectangle", "circle", "putText"), marked, 5),
    Call("padded to 32", ("copyMakeBorder",), padded, 2),
    Call(
        "changes found",
        (
            "dilate",
            "erode",
            "phaseCorrelate",
            "createHanningWindow",
            "connectedComponentsWithStats",
        ),
        compared,
        5,
    ),
    Call("written as JPEG and PNG", ("imencode",), written, 50),
    Call("read from JPEG", ("imdecode",), compressed(".jpg"), 50),
    Call("read from PNG", ("imdecode",), compressed(".png"), 50),
)


class Sizes(Sequence[Size]):
    """Width and height of the images for a call: the special ones, and one of `every` others."""

    def __init__(self, call: Call, every: int) -> None:
        step = call.one_in * every
        while math.gcd(step, LARGEST) > 1:  # so that it meets every width and every height
            step += 1
        self._numbers = range(step // 2, LARGEST * LARGEST, step)

    def __len__(self) -> int:
        return len(SPECIAL) + len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        if place < len(SPECIAL):
            return SPECIAL[place]
        height, width = divmod(self._numbers[place - len(SPECIAL)], LARGEST)
        return width + 1, height + 1


@dataclass
class Trial:
    """A call with images at one edge of their memory: a child process goes through the sizes."""

    call: Call
    at_end: bool
    sizes: Sizes
    died: list[Size] = field(default_factory=list)
    child: int = 0

    def __post_init__(self) -> None:
        self._next = np.frombuffer(mmap.mmap(-1, 8), np.int64)  # shared with the child

    @property
    def tried(self) -> int:
        return int(self._next[0])

    @property
    def _last(self) -> Size:
        return self.sizes[self.tried - 1]

    def start(self) -> None:
        sys.stdout.flush()
        self.child = os.fork()
        if self.child == 0:
            try:
                self._go_on()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)

    def _go_on(self) -> None:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LIMIT)  # also to prepare
        guarded = Guarded(self.at_end)
        with ExitStack() as stack:
            for module in (letterbox, blob, alignment, scaling):
                stack.enter_context(patch.object(module, "np", guarded))
            function = self.call.prepare(guarded)
            while self.tried < len(self.sizes):
                number = self.tried
                self._next[0] = number + 1
                signal.alarm(_LIMIT)
                function(*self.sizes[number])

    def has_ended(self) -> bool:
        """Whether all sizes were tried. Starts another process if one died.

        Raises:
            RuntimeError: the process failed in another way.
        """
        pid, status = os.waitpid(self.child, os.WNOHANG)
        if pid == 0:
            return False
        code = os.waitstatus_to_exitcode(status)
        if code > 0:
            raise RuntimeError(f"{self.call.name}: failed at {shown(self._last)}")
        if code == 0:
            return True
        if -code not in (signal.SIGSEGV, signal.SIGBUS):
            where = f"at {shown(self._last)}" if self.tried else "before the first size"
            raise RuntimeError(f"{self.call.name}: ended by {signal.Signals(-code).name} {where}")
        self.died.append(self._last)
        self.start()
        return False


def run(trials: list[Trial], jobs: int) -> None:
    """Go through all trials, `jobs` at a time."""
    total = sum(len(trial.sizes) for trial in trials)
    waiting, running = trials[::-1], list[Trial]()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # here, as a child would wait for threads that it does not have
    try:
        with tqdm(total=total, unit="size", ncols=80, smoothing=0.02) as bar:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(waiting.pop())
                    running[-1].start()
                    bar.set_description(f"{running[-1].call.name:.20}")
                time.sleep(_PAUSE)
                running = [trial for trial in running if not trial.has_ended()]
                bar.update(sum(trial.tried for trial in trials) - bar.n)
    finally:
        for trial in running:  # after an error
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(trial.child, signal.SIGKILL)
                os.waitpid(trial.child, 0)
        cv2.setNumThreads(threads)


def table(trials: list[Trial]) -> Iterator[str]:
    """Lines of Markdown, one row for each call."""
    yield "| call | of OpenCV | sizes | at the end | at the start |"
    yield "|---|---|---|---|---|"
    calls: dict[str, dict[bool, Trial]] = {}
    for trial in trials:
        calls.setdefault(trial.call.name, {})[trial.at_end] = trial
    for name, edges in calls.items():
        functions = ", ".join(edges[True].call.functions) or "none"
        results = " | ".join(found(edges[at_end].died) for at_end in (True, False))
        yield f"| {name} | {functions} | {len(edges[True].sizes)} | {results} |"


def shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def found(died: list[Size]) -> str:
    if not died:
        return "clean"
    some = ", ".join(map(shown, died[:4]))
    return f"{len(died)} died: {some}{', ...' if len(died) > 4 else ''}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one of so many sizes")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time")
    parser.add_argument("--only", default="", metavar="TEXT", help="calls whose names contain it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    options = parser.parse_args(arguments)
    calls = [call for call in CALLS if options.only in call.name]
    trials = [
        Trial(call, at_end, Sizes(call, options.every))
        for call in calls
        for at_end in (True, False)
    ]
    start = time.monotonic()
    run(trials, options.jobs)
    seconds = time.monotonic() - start
    print(f"OpenCV {cv2.__version__}, {platform.machine()}, {seconds:.0f} s\n")
    print("\n".join(table(trials)))
    if options.json:
        rows = [
            {
                "call": trial.call.name,
                "edge": "end" if trial.at_end else "start",
                "sizes": len(trial.sizes),
                "died": trial.died,
            }
            for trial in trials
        ]
        result = {"opencv": cv2.__version__, "machine": platform.machine(), "rows": rows}
        options.json.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return int(any(trial.died for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
