# SPDX-License-Identifier: Apache-2.0
"""Ids that stay with faces from image to image, and which faces need a new embedding.

The packages supervision, trackers and norfair need Matplotlib, PyAV or a certain numpy, and count
images, whereas here stamps give seconds.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import TrackingConfig
from scrfd_ros.faces import Faces, FloatArray, boxes_around
from scrfd_ros.recognition.alignment import CROP_SIZE
from scrfd_ros.tracking.assignment import best_pairs
from scrfd_ros.tracking.watch import Expected, Watch

SAME_PERSON = 0.4
"""Cosine from which a face can take the id of another track.

With w600k_mbf, one of 2850 pairs of faces in the pictures of the catalogue is above it, though none
should be of one person. Three photographs of one person have 0.65 to 0.72.
"""

OTHER_PERSON = 0.2
"""Cosine below which a face loses the id of its track, if that is in doubt, and from which it can
take the id of a track nearby. 4 % of those pairs are above it."""

_REACH, _SPEED, _FARTHEST = 0.5, 8.0, 2.0
"""How far a face may be from its forecast, in face sizes: the first number, plus the second for
each second that it was not seen (walking past a camera), at most the third."""

_SURE_REACH = 0.5
"""Face sizes; a match farther from its forecast is in doubt."""

_BESIDE = 1.0
"""Face sizes. A face that is back so near to where another one is expected puts it in doubt."""

_SURE_TIME = 0.25
"""Seconds. After a longer miss a match is in doubt. A face in doubt is embedded again after this
time at the earliest, so that a flickering overlap costs little."""

_EAGER_PERIOD = 0.2 - 1e-6
"""Seconds after which an eager face is embedded again; stamps are rounded."""

_OVERLAP = 0.1
"""Part of the smaller box from which faces hide each other and can be mixed up."""

_VELOCITY_TIME = 0.1  # seconds that velocity is averaged over
_SHORTEST_STEP = 1e-6  # seconds; two images can be of one time
_LONGEST_FORECAST = 1.0  # seconds; by then people have stopped or turned
_GROWTH = 1.5  # times the size at which a face was embedded: a better view, up to the crop's size
_GOLDEN_RATIO = 0.6180339887
_MAX_TRACKS = 1000  # with missed ones, so that a flood of false detections does not slow it down

_TRACK = np.dtype(
    [
        # Where it was seen last: pixels, pixels per second, seconds.
        ("center", np.float64, 2),
        ("velocity", np.float64, 2),
        ("size", np.float64, 2),
        ("seen", np.float64),
        # Whether another face overlapped it then, so that box and view are not reliable.
        ("covered", np.bool_),
        # Whether it may have been mixed up with another, and whether its last embedding matched no
        # track.
        ("doubtful", np.bool_),
        ("unmatched", np.bool_),
        # Who it is. Known: it has an embedding of a view that no other face covered.
        ("id", np.int64),
        ("embedding", np.object_),
        ("norm", np.float32),
        ("embedded_time", np.float64),
        ("embedded_size", np.float64),
        ("known", np.bool_),
    ]
)
_IDENTITY = ("id", "embedding", "norm", "embedded_time", "embedded_size", "known")

_Tracks = NDArray[np.void]
_Rows = NDArray[np.intp]
_Flags = NDArray[np.bool_]


class _State(NamedTuple):
    """What is known after an image. Its arrays are never changed."""

    tracks: _Tracks = np.zeros(0, _TRACK)
    next_id: int = 1
    time: float = -np.inf
    epoch: int = 0
    is_waiting: bool = False


class Tracker:
    """Follows the faces of one camera.

    A face is matched with the track whose forecast at constant velocity is nearest. If that can be
    wrong (faces overlapped, a long miss, a jump), the next embedding decides: two tracks that were
    mixed up exchange their ids, a person who is back gets the old id, a stranger gets a new one.
    Without embeddings the nearest track counts. Ids are 1, 2, 3 ...; none is used twice.

    For each image, `match` its faces, pass embeddings to `TrackedFaces.learn` if there are any, and
    `commit` the result. Until then the tracker does not change.

    Args:
        config: may be replaced between images.

    Attributes:
        watch: where to look in the next image.
        eager: ids of faces that are to be embedded again soon, every 0.2 s.
    """

    def __init__(self, config: TrackingConfig = TrackingConfig()) -> None:
        self.config = config
        self.watch = Watch()
        self.eager: frozenset[int] = frozenset()
        self._state = _State()

    @property
    def has_waiting_faces(self) -> bool:
        """Whether faces of the last image were due, were not embedded, and so are due again."""
        return self._state.is_waiting

    @property
    def ids(self) -> frozenset[int]:
        """Of all faces that are followed, also of those that the last image missed."""
        return frozenset(self._state.tracks["id"].tolist())

    @property
    def doubtful(self) -> frozenset[int]:
        """Ids of faces that may have been mixed up with others; the next embedding tells."""
        tracks = self._state.tracks
        return frozenset(tracks["id"][tracks["doubtful"]].tolist())

    def expected(self, time: float, epoch: int = 0) -> Expected:
        """Where the faces are expected in the next image, taken at this time."""
        before = self._state
        tracks = before.tracks[:0] if epoch != before.epoch else before.tracks
        unseen = time - tracks["seen"]
        kept = unseen <= self.config.max_age
        tracks, unseen = tracks[kept], unseen[kept]
        boxes = boxes_around(_forecast(tracks, time), tracks["size"])
        return Expected(boxes, unseen, tracks["seen"] == before.time)

    def match(self, faces: Faces, time: float, epoch: int = 0) -> TrackedFaces:
        """Match the faces of the next image with those before.

        Args:
            faces: of one image.
            time: when it was taken, seconds; not before the last committed image of the same epoch.
            epoch: if it differs from that of the last committed image, all tracks are forgotten.
                `FrameClock` derives time and epoch from the stamps of cameras and bags.

        Raises:
            ValueError: the time is not finite, or goes back within an epoch.
        """
        before = self._state
        is_anew = epoch != before.epoch
        if not np.isfinite(time) or (time < before.time and not is_anew):
            raise ValueError(
                f"time must be finite and must not go back, got {time} after {before.time}; "
                f"FrameClock derives such times from stamps"
            )
        return TrackedFaces(faces, before, self.config, self.eager, time, epoch)

    def commit(self, tracked: TrackedFaces) -> None:
        """Make these faces the last ones, which the next image is matched with.

        Raises:
            ValueError: another image has been committed since they were matched, or they were
                matched by another tracker.
        """
        if tracked._before is not self._state:
            raise ValueError(
                "these faces were matched by another tracker, or before another image was "
                "committed: match them again"
            )
        self._state = tracked._after


class TrackedFaces:
    """The faces of one image with the ids of their tracks: what `Tracker.match` returns.

    Attributes:
        faces: with ids.
        rows: intp [M], the faces to embed: new, in doubt, much larger than when last embedded, or
            not embedded for the refresh period.
        has_missed: a face of the image before is not among these.
    """

    faces: Faces
    rows: _Rows
    has_missed: bool

    def __init__(
        self,
        faces: Faces,
        before: _State,
        config: TrackingConfig,
        eager: frozenset[int],
        time: float,
        epoch: int,
    ) -> None:
        self._before = before
        self._time = time
        self._epoch = epoch
        self._next_id = before.next_id
        tracks = before.tracks[:0] if epoch != before.epoch else before.tracks
        tracks = tracks[time - tracks["seen"] <= config.max_age]
        newest = np.argsort(-tracks["seen"], kind="stable")[:_MAX_TRACKS]
        self._tracks: _Tracks = tracks[newest]
        overdue = before.time - self._tracks["seen"]  # at the last image; 0 unless missed there
        self._tracks["doubtful"] |= (overdue > 0) & (time - self._tracks["seen"] > _SURE_TIME)
        self._match(faces, overdue)
        self._find_overlaps()
        self.faces = replace(faces, ids=self._tracks["id"][self._slots])
        self.rows = self._due(config.refresh_period, eager)
        self._is_waiting = len(self.rows) > 0

    @property
    def certain(self) -> _Flags:
        """Whether an embedding of a face is certainly one of its id, bool [N].

        It is not while another face covers it, nor if it is the first that does not match the
        embedding of its track.
        """
        tracks = self._tracks[self._slots]
        certain: _Flags = ~tracks["covered"] & ~(tracks["unmatched"] & tracks["known"])
        return certain

    @property
    def _after(self) -> _State:
        return _State(self._tracks, self._next_id, self._time, self._epoch, self._is_waiting)

    def learn(self, rows: _Rows, embeddings: FloatArray, norms: FloatArray) -> TrackedFaces:
        """The same faces after some of them were embedded. This value does not change.

        Args:
            rows: intp [M], those of `rows` that were embedded. The others are due again in the next
                image.
            embeddings, norms: float32 [M, D] and [M], as `ArcFace.embed` returns them.

        Returns:
            The faces with the newest embedding of each, zeros for those never embedded. Their ids
            can differ from those before.
        """
        learned = copy(self)
        learned._tracks = self._tracks.copy()
        learned._learn(rows, embeddings, norms)
        learned._is_waiting = len(rows) < len(self.rows)
        return learned

    def _learn(self, rows: _Rows, embeddings: FloatArray, norms: FloatArray) -> None:
        faces = self.faces
        unmatched = self._identify(faces, rows, embeddings)
        tracks, slots = self._tracks, self._slots[rows]
        tracks["embedded_time"][slots] = self._time
        tracks["unmatched"][slots] = unmatched
        tracks["doubtful"][slots] = tracks["covered"][slots] | unmatched
        better = ~(unmatched & tracks["known"][slots])
        learned = slots[better]
        tracks["known"][learned] = ~tracks["doubtful"][learned]
        tracks["norm"][learned] = norms[better]
        tracks["embedded_size"][learned] = _scale(tracks["size"][learned])
        for slot, embedding in zip(learned, embeddings[better], strict=True):
            tracks["embedding"][slot] = embedding.copy()  # not a view that keeps all of them
        of_faces = tracks[self._slots]
        newest = np.zeros((len(faces), embeddings.shape[1]), np.float32)
        for row in np.flatnonzero(np.isfinite(of_faces["embedded_time"])):
            newest[row] = of_faces["embedding"][row]
        self.faces = replace(faces, ids=of_faces["id"]).with_embeddings(newest, of_faces["norm"])

    def _match(self, faces: Faces, overdue: NDArray[np.float64]) -> None:
        """Find the track of each face, or start one, and move it to where the face is."""
        tracks = self._tracks
        missed = self._time - tracks["seen"]
        scales, track_scales = _scale(faces.sizes), _scale(tracks["size"])
        apart = self._apart(faces)
        distances = apart + np.abs(np.log(scales)[:, None] - np.log(track_scales))
        near = distances <= np.minimum(_REACH + _SPEED * missed, _FARTHEST)
        # Of two tracks equally near, the one seen later wins. No match is values 0.
        values = np.where(near, 1 + _FARTHEST - distances - np.minimum(overdue, 1), 0)
        rows, slots = best_pairs(values)
        self.has_missed = bool((overdue[slots] == 0).sum() < (overdue == 0).sum())

        missed = missed[slots]
        tracks["doubtful"][slots] |= apart[rows, slots] > _SURE_REACH
        # Who comes out from behind another face may be either of the two.
        (back,) = np.nonzero(overdue[slots] > 0)
        tracks["doubtful"][slots] |= (apart[rows[back]][:, slots] < _BESIDE).any(axis=0)
        moved = faces.centers[rows] - tracks["center"][slots]
        velocity = moved / np.maximum(missed, _SHORTEST_STEP)[:, None]
        weight = (1 - np.exp(-missed / _VELOCITY_TIME)) * ~tracks["covered"][slots]
        tracks["velocity"][slots] += weight[:, None] * (velocity - tracks["velocity"][slots])

        new = np.setdiff1d(np.arange(len(faces)), rows)
        new = new[_left_to_right(faces, new)]
        self._slots = np.empty(len(faces), np.intp)
        self._slots[rows] = slots
        self._slots[new] = len(tracks) + np.arange(len(new))
        started = np.zeros(len(new), _TRACK)
        started["embedded_time"] = -np.inf
        started["id"] = self._new_ids(len(new))
        self._tracks = tracks = np.concatenate((tracks, started))
        tracks["center"][self._slots] = faces.centers
        tracks["size"][self._slots] = faces.sizes
        tracks["seen"][self._slots] = self._time

    def _find_overlaps(self) -> None:
        """Mark the faces that overlap each other as covered, and doubt all tracks they overlap."""
        corners = boxes_around(self._forecast(), self._tracks["size"]).T.reshape(2, 2, -1)
        (low, high), areas = corners, (corners[1] - corners[0]).prod(axis=0)
        faces = corners[..., self._slots, None]
        sides = np.minimum(faces[1], high[:, None]) - np.maximum(faces[0], low[:, None])
        smaller = np.minimum(areas[self._slots, None], areas)
        overlaps = np.maximum(sides, 0).prod(axis=0) > _OVERLAP * smaller
        overlaps[np.arange(len(self._slots)), self._slots] = False
        self._tracks["covered"][self._slots] = overlaps[:, self._slots].any(axis=1)
        self._tracks["doubtful"] |= overlaps.any(axis=0)

    def _due(self, refresh_period: float, eager: frozenset[int]) -> _Rows:
        """Rows of the faces to embed."""
        tracks = self._tracks[self._slots]
        age = self._time - tracks["embedded_time"]
        # Ids differ in their refresh period, so that a group is not refreshed in one image.
        stale = age > refresh_period * (1 - tracks["id"] * _GOLDEN_RATIO % 1 / 2)
        coarse = tracks["embedded_size"] < CROP_SIZE
        grown = coarse & (_scale(tracks["size"]) > _GROWTH * tracks["embedded_size"])
        doubtful = tracks["doubtful"] & (age >= _SURE_TIME)
        first = np.isinf(age)
        due = stale | grown | doubtful
        if eager:
            due |= np.isin(tracks["id"], list(eager)) & (age >= _EAGER_PERIOD)
        return np.flatnonzero(first | (~tracks["covered"] & due))

    def _identify(self, faces: Faces, rows: _Rows, embeddings: FloatArray) -> _Flags:
        """Give faces that are new or in doubt, and not covered, the ids that they look like.

        Returns:
            bool [M], the faces whose embedding matches no track, for the first time. They are to be
            embedded again: a face gets another id only after two such embeddings, since the first
            view can be a bad one.
        """
        tracks = self._tracks
        is_open = (~tracks["known"] | tracks["doubtful"]) & ~tracks["covered"]
        chosen = np.flatnonzero(is_open[self._slots[rows]])
        chosen = chosen[_left_to_right(faces, rows[chosen])]
        slots = self._slots[rows[chosen]]
        unmatched = np.zeros(len(rows), np.bool_)
        missed = np.ones(len(tracks), np.bool_)
        missed[self._slots] = False
        (owners,) = np.nonzero(tracks["known"] & (missed | tracks["doubtful"]))
        if not len(slots) or not len(owners):
            return unmatched
        cosines = embeddings[chosen] @ np.array(tracks["embedding"][owners].tolist()).T
        own = slots[:, None] == owners
        apart = self._apart(faces)[rows[chosen]][:, owners]
        fits = cosines >= np.where(apart < _FARTHEST, OTHER_PERSON, SAME_PERSON)
        kept = own & (cosines >= SAME_PERSON)
        # A face that matches its own track keeps it.
        values = np.where(fits, cosines + 2 * kept, 0)
        ids, own_ids = tracks["id"][owners], tracks["id"][slots]
        strangers = np.ones(len(slots), np.bool_)
        for row, column in zip(*best_pairs(values), strict=True):
            slot, other = slots[row], np.flatnonzero(tracks["id"] == ids[column])[0]
            # A track whose face is not among these must get an embedding in exchange.
            fair = tracks["known"][slot] or missed[other] or other in slots
            if fair:
                strangers[row] = False
                self._exchange(slot, other)
        strangers &= tracks["id"][slots] == own_ids  # else they got a new id in an exchange
        is_second = tracks["unmatched"][slots]
        unmatched[chosen] = strangers & ~is_second
        self._separate(slots[strangers & is_second & tracks["known"][slots]])
        return unmatched

    def _exchange(self, one: int, other: int) -> None:
        """Exchange the identities of two tracks that were mixed up."""
        for name in _IDENTITY:
            self._tracks[name][[one, other]] = self._tracks[name][[other, one]]

    def _separate(self, slots: _Rows) -> None:
        """Give the faces on these tracks new ids: they are other people. The tracks are missed."""
        gone = self._tracks[slots]
        gone["seen"] -= _SURE_TIME  # so that the faces match the new tracks, not these
        gone["unmatched"] = False
        self._tracks["id"][slots] = self._new_ids(len(slots))
        self._tracks = np.concatenate((self._tracks, gone))

    def _new_ids(self, count: int) -> NDArray[np.int64]:
        self._next_id += count
        return np.arange(self._next_id - count, self._next_id, dtype=np.int64)

    def _apart(self, faces: Faces) -> NDArray[np.float64]:
        """Distances from faces to where tracks are expected, in mean sizes of both, [N, T]."""
        distances = np.hypot(*(faces.centers.T[:, :, None] - self._forecast().T[:, None]))
        sizes = _scale(faces.sizes)[:, None] + _scale(self._tracks["size"])
        apart: NDArray[np.float64] = 2 * distances / sizes
        return apart

    def _forecast(self) -> NDArray[np.float64]:
        """Where the middle of each track is by now, float64 [T, 2]."""
        return _forecast(self._tracks, self._time)


def _forecast(tracks: _Tracks, time: float) -> NDArray[np.float64]:
    """Where the middle of each track is at a time, float64 [T, 2]."""
    forward = np.minimum(time - tracks["seen"], _LONGEST_FORECAST)
    forecast: NDArray[np.float64] = tracks["center"] + tracks["velocity"] * forward[:, None]
    return forecast


def _scale(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Geometric mean of width and height, float64 [N], at least 1 pixel."""
    scale: NDArray[np.float64] = np.sqrt(np.maximum(sizes, 1).prod(axis=1))
    return scale


def _left_to_right(faces: Faces, rows: _Rows) -> _Rows:
    """An order of rows by which ids do not depend on the order of the faces."""
    return np.lexsort(faces.centers[rows].T[::-1])
