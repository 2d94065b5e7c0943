# SPDX-License-Identifier: Apache-2.0
"""Clips of people with bodies who come in, walk, turn and leave, seen by a camera that can pan.

They are the same every time, and made one frame after the other. Faces are real, cut out of
photographs; all else is drawn: bodies, rooms, light, the noise of a sensor. A turned head is a
photograph made narrower, at most by half, which is not what a head in profile looks like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from clips import CAST, Frame, cut_out, hides, paste
from numpy.typing import NDArray

FACE_HEIGHT = 0.14
"""Of a person at scale 1, in heights of the frame."""

_BODY = 2.2  # shoulders, in widths of the head


class Pose(NamedTuple):
    """Where and how a person is seen.

    Attributes:
        x, y: the middle of the face, in widths and heights of the frame.
        scale: size of the face.
        turn: part of its width that a turned head loses.
        light: part of the light on the person, 1 for all.
    """

    x: float
    y: float
    scale: float = 1.0
    turn: float = 0.0
    light: float = 1.0


@dataclass(frozen=True)
class Actor:
    """A person of `CAST`, and the pose at a time in seconds; None while out of the scene."""

    face: str
    pose: Callable[[float], Pose | None]
    has_body: bool = True


@dataclass(frozen=True)
class Scene:
    """What a clip shows.

    Attributes:
        actors: later ones are in front of earlier ones.
        camera: how far the camera has turned at a time, in widths of the frame, 0 to 1.
        light: brightness of the whole image at a time, 1 as photographed.
        noise: of the sensor, standard deviation in gray levels.
    """

    actors: tuple[Actor, ...]
    camera: Callable[[float], float] = lambda time: 0.0
    light: Callable[[float], float] = lambda time: 1.0
    noise: float = 1.5


def film(
    scene: Scene,
    image: Callable[[str], NDArray[np.uint8]],
    seconds: float,
    rate: float = 30.0,
    size: tuple[int, int] = (640, 360),
) -> Iterator[Frame]:
    """The frames of a scene.

    Args:
        image: gives an image of the catalogue by its file name, as the fixture does.
        seconds: length of the clip.
        rate: frames per second.
        size: width and height of the frames, pixels.
    """
    width, height = size
    room = _room(2 * width, height)
    heads: dict[tuple[str, int], NDArray[np.float32]] = {}
    noise = np.random.default_rng(7).normal(0, 1, (height + 61, width + 61, 3)).astype(np.float32)
    for number in range(round(seconds * rate)):
        time = number / rate
        shift = scene.camera(time) * width
        move = np.array([[1, 0, -shift], [0, 1, 0]])
        canvas = cv2.warpAffine(room, move, size).astype(np.float32)
        boxes: dict[str, NDArray[np.float64]] = {}
        for actor in scene.actors:
            pose = actor.pose(time)
            if pose is None:
                continue
            face = CAST[actor.face].face
            step = round(12 * math.log2(max(pose.scale, 0.01)))  # heads of a few sizes, then scaled
            key = actor.face, step
            if key not in heads:
                heads[key] = cut_out(
                    image(face.image), face, FACE_HEIGHT * height * 2 ** (step / 12)
                )
            x, y = pose.x * width - shift, pose.y * height
            box = _draw(canvas, heads[key], pose, x, y, FACE_HEIGHT * height, actor)
            boxes = {name: seen for name, seen in boxes.items() if hides(box, seen) <= 0.5}
            boxes[actor.face] = box
        canvas *= scene.light(time)
        across, down = 37 * number % 61, 23 * number % 61
        canvas += scene.noise * noise[down : down + height, across : across + width]
        boxes = {
            name: box
            for name, box in boxes.items()
            if box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
        }
        yield Frame(time, np.clip(canvas, 0, 255).round().astype(np.uint8), boxes)


def _draw(
    canvas: NDArray[np.float32],
    head: NDArray[np.float32],
    pose: Pose,
    x: float,
    y: float,
    unit: float,
    actor: Actor,
) -> NDArray[np.float64]:
    """Draw a person, and return the box of the face."""
    tall = unit * pose.scale
    zoom = tall * 1.6 / head.shape[0]
    size = max(round(head.shape[1] * zoom * (1 - pose.turn)), 2), max(round(tall * 1.6), 2)
    seen = cv2.resize(head, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    seen[..., :3] *= pose.light
    if actor.has_body:
        _draw_body(canvas, actor.face, x, y + 0.55 * tall, tall, pose.light)
    half = np.array((size[0] / 3.2, tall / 2))
    reach = 1.6 * half
    if reach[0] + x > 0 and x - reach[0] < canvas.shape[1]:
        paste(canvas, seen, x, y)
    return np.concatenate((np.array((x, y)) - half, np.array((x, y)) + half))


def _draw_body(
    canvas: NDArray[np.float32], name: str, x: float, top: float, tall: float, light: float
) -> None:
    """Shoulders, arms that swing as the person moves, and legs, in a striped shirt."""
    half = 0.5 * _BODY * 0.75 * tall
    color = np.random.default_rng(ord(name)).uniform(40, 200, 3)
    swing = 0.3 * math.sin(4 * x / tall)
    # Corners in halves of the shoulders to the side, and in heights of the face from the top.
    legs = ((-0.8, 3), (0.8, 3), (0.6 + swing, 7), (-0.6 + swing, 7))
    shapes = [
        (((-1, 0.5), (1, 0.5), (0.8, 3), (-0.8, 3)), color),
        (((-1, 0.5), (-0.4, 0), (0.4, 0), (1, 0.5)), color),
        (legs, color / 3),
        (((-1, 0.5), (-1.3 - swing, 2.6), (-0.9 - swing, 2.6)), color * 0.8),
        (((1, 0.5), (1.3 - swing, 2.6), (0.9 - swing, 2.6)), color * 0.8),
    ]
    for corners, shade in shapes:
        points = np.array(corners) * (half, tall) + (x, top)
        points = np.round(points * 16).astype(np.int32)  # with four binary places
        cv2.fillConvexPoly(canvas, points, (shade * light).tolist(), cv2.LINE_AA, 4)


def _room(width: int, height: int) -> NDArray[np.uint8]:
    """A wall with pictures, doors and a floor, twice as wide as the frame."""
    random = np.random.default_rng(3)
    coarse = random.uniform(105, 150, (6, 24, 3)).astype(np.float32)
    room = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    room += cv2.GaussianBlur(random.normal(0, 12, room.shape).astype(np.float32), (0, 0), 1.5)
    for _ in range(40):
        x, y = random.uniform(0, width), random.uniform(0, 0.8 * height)
        w, h = random.uniform(0.02, 0.08, 2) * (width, height * 3)
        color = random.uniform(60, 190, 3).tolist()
        cv2.rectangle(room, (int(x), int(y)), (int(x + w), int(y + h)), color, -1)
    room[int(0.85 * height) :] *= 0.6
    return np.clip(room, 0, 255).astype(np.uint8)


def _across(
    start: float, seconds: float, y: float, leftward: bool, scale: float
) -> Callable[[float], Pose | None]:
    """Walks from one side of the frame to the other, from before to after it."""

    def pose(time: float) -> Pose | None:
        part = (time - start) / seconds
        if not 0 <= part <= 1:
            return None
        x = -0.15 + 1.3 * (1 - part if leftward else part)
        return Pose(x, y + 0.008 * math.sin(9 * time), scale)

    return pose


def _stands(x: float, y: float, scale: float, phase: float) -> Callable[[float], Pose | None]:
    """Stands and sways."""
    return lambda time: Pose(
        x + 0.01 * math.sin(1.3 * time + phase), y + 0.004 * math.sin(2.1 * time + phase), scale
    )


def _comes_in(
    start: float, side: float, x: float, y: float, scale: float
) -> Callable[[float], Pose | None]:
    """Enters from a side at walking speed, stays for 4 s, and leaves to the same side."""

    def pose(time: float) -> Pose | None:
        walk = 1.2
        passed = time - start
        if not 0 <= passed <= 2 * walk + 4:
            return None
        part = min(passed / walk, 1.0, (2 * walk + 4 - passed) / walk)
        return Pose(side + (x - side) * part, y + 0.006 * math.sin(8 * time), scale)

    return pose


def _turns(x: float, y: float, scale: float, phase: float) -> Callable[[float], Pose | None]:
    """Turns the head to and fro."""
    return lambda time: Pose(
        x + 0.02 * math.sin(time + phase), y, scale, 0.5 * math.sin(1.5 * time + phase) ** 2
    )


def _approaches(start: float, x: float, y: float) -> Callable[[float], Pose | None]:
    """Comes from far away, too small to be found, within 7 s."""

    def pose(time: float) -> Pose | None:
        part = (time - start) / 7
        return Pose(x, y, 0.1 + 1.4 * part**2) if 0 <= part <= 1 else None

    return pose


def _out_of_the_dark(
    start: float, x: float, y: float, scale: float
) -> Callable[[float], Pose | None]:
    """Steps out of the dark within a second, stays for 5 s, and steps back."""

    def pose(time: float) -> Pose | None:
        passed = time - start
        if not 0 <= passed <= 7:
            return None
        return Pose(x, y, scale, 0.0, min(passed, 1.0, 7 - passed))

    return pose


_STAYING = (
    Actor("a", _stands(0.2, 0.3, 1.0, 0.0)),
    Actor("b", _stands(0.75, 0.35, 0.9, 1.0)),
)

_SHORT = 0.0337  # seconds by which entrances shift against a cycle of 0.5 s or its multiples

SCENES: dict[str, Scene] = {
    "bodies": Scene((*_STAYING, Actor("d", _stands(0.45, 0.3, 1.0, 2.0)))),
    "enter": Scene(
        (
            *_STAYING,
            Actor("d", _comes_in(0.7, -0.1, 0.4, 0.3, 0.8)),
            Actor("e", _comes_in(2.0 + _SHORT, 1.1, 0.6, 0.3, 0.9)),
            Actor("f", _comes_in(7.3 + 3 * _SHORT, -0.1, 0.42, 0.32, 1.0)),
            Actor("g", _comes_in(9.1 + 5 * _SHORT, 1.1, 0.58, 0.3, 0.7)),
            Actor("h", _comes_in(4.4 + 7 * _SHORT, 1.1, 0.92, 0.3, 0.9)),
        )
    ),
    "fast": Scene(
        (
            *_STAYING,
            Actor("d", _across(1.1, 1.6, 0.25, False, 1.2)),
            Actor("e", _across(3.3 + _SHORT, 1.3, 0.3, True, 1.0)),
            Actor("f", _across(6.2 + 4 * _SHORT, 2.0, 0.3, False, 0.9)),
            Actor("g", _across(9.0 + 8 * _SHORT, 1.6, 0.3, True, 1.0)),
        )
    ),
    "turn": Scene(
        (
            Actor("a", _turns(0.2, 0.3, 1.1, 0.0)),
            Actor("b", _turns(0.5, 0.33, 1.0, 2.0)),
            Actor("d", _turns(0.8, 0.3, 0.9, 4.0)),
        )
    ),
    "cross": Scene(
        (
            Actor("a", _across(0.0, 6.0, 0.3, False, 1.0)),
            Actor("b", _across(0.3, 6.0, 0.32, True, 1.1)),
            Actor("d", _across(2.0, 5.0, 0.31, True, 0.8)),
            Actor("e", _across(4.0 + _SHORT, 5.0, 0.3, False, 0.9)),
            Actor("f", _across(5.6 + _SHORT, 6.0, 0.32, True, 1.0)),
            Actor("g", _across(7.0 + _SHORT, 4.6, 0.33, False, 1.1)),
        )
    ),
    "far": Scene(
        (
            *_STAYING,
            Actor("d", _approaches(0.5, 0.45, 0.3)),
            Actor("e", _approaches(3.3, 0.6, 0.3)),
        )
    ),
    "dark": Scene(
        (
            *_STAYING,
            Actor("d", _out_of_the_dark(0.6, 0.47, 0.3, 0.9), has_body=False),
            Actor("e", _out_of_the_dark(4.9 + _SHORT, 0.93, 0.3, 0.9), has_body=False),
        )
    ),
    "noise": Scene(
        (
            *_STAYING,
            Actor("d", _comes_in(1.2, -0.1, 0.42, 0.3, 0.8)),
            Actor("e", _comes_in(4.5 + _SHORT, 1.1, 0.58, 0.3, 0.9)),
        ),
        noise=10.0,
    ),
    "pan": Scene(
        (
            Actor("a", _stands(0.2, 0.3, 1.0, 0.0)),
            Actor("b", _stands(0.7, 0.35, 0.9, 1.0)),
            Actor("d", _stands(1.1, 0.3, 1.0, 2.0)),
            Actor("e", _stands(1.5, 0.3, 0.8, 3.0)),
            Actor("f", _stands(1.8, 0.32, 1.1, 4.0)),
        ),
        camera=lambda time: 0.5 - 0.5 * math.cos(math.pi * time / 6),
    ),
    "lights": Scene(
        (*_STAYING, Actor("d", _comes_in(3.0, -0.1, 0.45, 0.3, 0.9))),
        light=lambda time: 0.03 if 2.5 < time < 4.0 else 0.5 if 6 < time < 6.3 else 1.0,
    ),
    "empty": Scene(()),
}
"""Scenes by name, to be filmed for 12 s."""
