# SPDX-License-Identifier: Apache-2.0
"""Ids that stay with faces from image to image, and which faces need a new embedding.

supervision (Matplotlib, PyAV), trackers (numpy 2) and norfair (numpy 1) ask more of a robot than is
needed here, and count images where stamps tell seconds; so only the assignment is SciPy's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from scrfd_ros.config import TrackingConfig
from scrfd_ros.faces import Faces, FloatArray, boxes_around
from scrfd_ros.recognition.alignment import CROP_SIZE

SAME_PERSON = 0.4
"""Cosine from which on a face can take the id of another track.

With w600k_mbf, of 2850 pairs of faces in the images of the catalogue, of which none should be of
one person, one is above it. Three photographs of one person have 0.65 to 0.72.
"""

OTHER_PERSON = 0.2
"""Cosine below which a face loses the id of its track, if that is in doubt, and from which on it
can take the id of a track nearby. 4 % of those pairs are above it."""

_REACH, _SPEED, _FARTHEST = 0.5, 8.0, 2.0
"""How far from its forecast a face may be, in face sizes: so much, and so much more per second that
it was not seen (walking past a camera), but no more than the last."""

_SURE_REACH = 0.5
"""Face sizes; farther off a match is in doubt."""

_SURE_TIME = 0.25
"""Seconds; after a longer miss a match is in doubt. Also how long after an embedding a face can be
embedded for being in doubt again, so that a flickering overlap costs little."""

_OVERLAP = 0.1
"""Part of the smaller box from which on faces hide each other and can be mixed up."""

_VELOCITY_TIME = 0.1  # seconds that velocity is averaged over
_SHORTEST_STEP = 1e-6  # seconds; two images can be of one time
_LONGEST_FORECAST = 1.0  # seconds; by then people have stopped or turned
_GROWTH = 1.5  # so many times the size it was embedded at is a better view, up to the crop's size
_GOLDEN_RATIO = 0.6180339887
_MAX_TRACKS = 1000  # missed ones count too: no flood of false detections makes it slow

_TRACK = np.dtype(
    [
        # Where it was seen last: pixels, pixels per second, seconds.
        ("center", np.float64, 2),
        ("velocity", np.float64, 2),
        ("size", np.float64, 2),
        ("seen", np.float64),
        # Whether another face overlapped it then, so that the box and the view are not good.
        ("covered", np.bool_),
        # Whether it may have been mixed up with another, and looked like nobody when it was asked.
        ("doubtful", np.bool_),
        ("unlike", np.bool_),
        # Who it is. Known: it has an embedding, and of a view that no other face covered.
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


class Tracker:
    """Follows the faces of one camera.

    A face is matched with the track whose forecast at constant velocity is nearest. Where that can
    be wrong (faces overlapped, a long miss, a jump) the next embedding decides: tracks that were
    mixed up get their ids back, somebody who is back takes the old id, a stranger gets a new one.
    Without embeddings it is left at the nearest. Ids are 1, 2, 3 ...; none is used for two faces.

    Args:
        config: may be replaced between calls.
    """

    def __init__(self, config: TrackingConfig = TrackingConfig()) -> None:
        self.config = config
        self._time = -np.inf
        self._epoch = 0
        self._next_id = 1
        self._tracks: _Tracks = np.zeros(0, _TRACK)
        self._slots: _Rows = np.zeros(0, np.intp)  # tracks of the faces of the last image

    def update(self, faces: Faces, time: float, epoch: int = 0) -> tuple[Faces, _Rows]:
        """Match the faces of the next image with those before.

        Args:
            faces: of one image.
            time: when it was taken, seconds; not before the image before in the same epoch. It
                may be the same: the image can also be the same one, given again.
            epoch: all tracks are forgotten where it is another one than that of the image
                before. Stamps of cameras and bags become time and epoch by a `FrameClock`.

        Raises:
            ValueError: the time is not finite, or goes back within an epoch.

        Returns:
            faces: with ids.
            rows: intp [M], the faces to embed for `learn`: new, in doubt, much larger than when
                last embedded, or not embedded for `refresh_period`.
        """
        is_anew = epoch != self._epoch
        if not np.isfinite(time) or (time < self._time and not is_anew):
            raise ValueError(
                f"time must be finite and must not go back, got {time} after {self._time}; "
                f"FrameClock makes such times of stamps"
            )
        self._epoch = epoch
        tracks = self._tracks[:0] if is_anew else self._tracks
        tracks = tracks[time - tracks["seen"] <= self.config.max_age]
        newest = np.argsort(-tracks["seen"], kind="stable")[:_MAX_TRACKS]
        self._tracks = tracks[newest]
        overdue = self._time - self._tracks["seen"]  # by the last image: 0 unless missed
        self._tracks["doubtful"] |= (overdue > 0) & (time - self._tracks["seen"] > _SURE_TIME)
        self._time = time
        self._match(faces, overdue)
        self._find_overlaps()
        return replace(faces, ids=self._tracks["id"][self._slots]), self._due()

    def learn(self, faces: Faces, rows: _Rows, embeddings: FloatArray, norms: FloatArray) -> Faces:
        """Take in the embeddings that `update` asked for.

        Args:
            faces: as `update` returned them last.
            rows: intp [M], those of the rows it returned that were embedded. It will ask for the
                others again.
            embeddings, norms: float32 [M, D] and [M], as from `ArcFace.embed`.

        Returns:
            The faces with the newest embedding of each, zeros for those never embedded, and with
            ids that can have changed.
        """
        unlike = self._identify(faces, rows, embeddings)
        tracks, slots = self._tracks, self._slots[rows]
        tracks["embedded_time"][slots] = self._time
        tracks["unlike"][slots] = unlike
        tracks["doubtful"][slots] = tracks["covered"][slots] | unlike
        better = ~(unlike & tracks["known"][slots])
        slots = slots[better]
        tracks["known"][slots] = ~tracks["doubtful"][slots]
        tracks["norm"][slots] = norms[better]
        tracks["embedded_size"][slots] = _scale(tracks["size"][slots])
        for slot, embedding in zip(slots, embeddings[better], strict=True):
            tracks["embedding"][slot] = embedding.copy()  # not a view that keeps all of them
        of_faces = tracks[self._slots]
        newest = np.zeros((len(faces), embeddings.shape[1]), np.float32)
        for row in np.flatnonzero(np.isfinite(of_faces["embedded_time"])):
            newest[row] = of_faces["embedding"][row]
        return replace(faces, ids=of_faces["id"]).with_embeddings(newest, of_faces["norm"])

    def go_back(self, before: Tracker) -> None:
        """Forget all since `before`, a copy of this tracker by `copy.copy`, was made."""
        # A copy suffices: `update` begins with new arrays, and `learn` changes only those.
        vars(self).update(vars(before))

    def _match(self, faces: Faces, overdue: NDArray[np.float64]) -> None:
        """Find the track of each face, or begin one, and move it to where the face is."""
        tracks = self._tracks
        missed = self._time - tracks["seen"]
        scales, track_scales = _scale(faces.sizes), _scale(tracks["size"])
        apart = self._apart(faces)
        unlike = apart + np.abs(np.log(scales)[:, None] - np.log(track_scales))
        near = unlike <= np.minimum(_REACH + _SPEED * missed, _FARTHEST)
        # Of two tracks equally near, the one seen later is worth more. No match is worth 0.
        worth = np.where(near, 1 + _FARTHEST - unlike - np.minimum(overdue, 1), 0)
        rows, slots = linear_sum_assignment(worth, maximize=True)
        matched = near[rows, slots]
        rows, slots = rows[matched], slots[matched]

        missed = missed[slots]
        tracks["doubtful"][slots] |= apart[rows, slots] > _SURE_REACH
        moved = faces.centers[rows] - tracks["center"][slots]
        velocity = moved / np.maximum(missed, _SHORTEST_STEP)[:, None]
        weight = (1 - np.exp(-missed / _VELOCITY_TIME)) * ~tracks["covered"][slots]
        tracks["velocity"][slots] += weight[:, None] * (velocity - tracks["velocity"][slots])

        new = np.setdiff1d(np.arange(len(faces)), rows)
        new = new[_left_to_right(faces, new)]
        self._slots = np.empty(len(faces), np.intp)
        self._slots[rows] = slots
        self._slots[new] = len(tracks) + np.arange(len(new))
        begun = np.zeros(len(new), _TRACK)
        begun["embedded_time"] = -np.inf
        begun["id"] = self._new_ids(len(new))
        self._tracks = tracks = np.concatenate((tracks, begun))
        tracks["center"][self._slots] = faces.centers
        tracks["size"][self._slots] = faces.sizes
        tracks["seen"][self._slots] = self._time

    def _find_overlaps(self) -> None:
        """Mark the faces that overlap each other, and doubt these and the tracks they hide."""
        corners = boxes_around(self._forecast(), self._tracks["size"]).T.reshape(2, 2, -1)
        (low, high), areas = corners, (corners[1] - corners[0]).prod(axis=0)
        faces = corners[..., self._slots, None]
        sides = np.minimum(faces[1], high[:, None]) - np.maximum(faces[0], low[:, None])
        smaller = np.minimum(areas[self._slots, None], areas)
        overlaps = np.maximum(sides, 0).prod(axis=0) > _OVERLAP * smaller
        overlaps[np.arange(len(self._slots)), self._slots] = False
        self._tracks["covered"][self._slots] = overlaps[:, self._slots].any(axis=1)
        self._tracks["doubtful"] |= overlaps.any(axis=0)

    def _due(self) -> _Rows:
        """Rows of the faces to embed."""
        tracks = self._tracks[self._slots]
        age = self._time - tracks["embedded_time"]
        # Earlier by a part that differs with each id, so that a group is not refreshed at once.
        stale = age > self.config.refresh_period * (1 - tracks["id"] * _GOLDEN_RATIO % 1 / 2)
        coarse = tracks["embedded_size"] < CROP_SIZE
        grown = coarse & (_scale(tracks["size"]) > _GROWTH * tracks["embedded_size"])
        doubtful = tracks["doubtful"] & (age >= _SURE_TIME)
        first = np.isinf(age)
        return np.flatnonzero(first | (~tracks["covered"] & (stale | grown | doubtful)))

    def _identify(self, faces: Faces, rows: _Rows, embeddings: FloatArray) -> _Flags:
        """Give faces that are new or in doubt, and not covered, the ids that they look like.

        Returns:
            bool [M], who is to be asked again, as he is like nobody, not even his own track. It
            takes two such views to make him somebody else, for the first can be a bad one.
        """
        tracks = self._tracks
        asks = (~tracks["known"] | tracks["doubtful"]) & ~tracks["covered"]
        asking = np.flatnonzero(asks[self._slots[rows]])
        asking = asking[_left_to_right(faces, rows[asking])]
        slots = self._slots[rows[asking]]
        unlike = np.zeros(len(rows), np.bool_)
        missed = np.ones(len(tracks), np.bool_)
        missed[self._slots] = False
        (owners,) = np.nonzero(tracks["known"] & (missed | tracks["doubtful"]))
        if not len(slots) or not len(owners):
            return unlike
        likeness = embeddings[asking] @ np.array(tracks["embedding"][owners].tolist()).T
        own = slots[:, None] == owners
        apart = self._apart(faces)[rows[asking]][:, owners]
        fits = likeness >= np.where(apart < _FARTHEST, OTHER_PERSON, SAME_PERSON)
        kept = own & (likeness >= SAME_PERSON)
        worth = np.where(fits, likeness + 2 * kept, 0)  # who is like himself stays himself
        ids, own_ids = tracks["id"][owners], tracks["id"][slots]
        strangers = np.ones(len(slots), np.bool_)
        for row, column in zip(*linear_sum_assignment(worth, maximize=True), strict=True):
            slot, other = slots[row], np.flatnonzero(tracks["id"] == ids[column])[0]
            # A face that is not asking has to get an embedding in exchange.
            fair = tracks["known"][slot] or missed[other] or other in slots
            if fits[row, column] and fair:
                strangers[row] = False
                self._exchange(slot, other)
        strangers &= tracks["id"][slots] == own_ids  # else they have one that was new
        again = tracks["unlike"][slots]
        unlike[asking] = strangers & ~again
        self._part(slots[strangers & again & tracks["known"][slots]])
        return unlike

    def _exchange(self, one: int, other: int) -> None:
        """Two tracks were each other's."""
        for name in _IDENTITY:
            self._tracks[name][[one, other]] = self._tracks[name][[other, one]]

    def _part(self, slots: _Rows) -> None:
        """Other people are where these tracks were: they get new ids, the tracks are missed."""
        gone = self._tracks[slots]
        gone["seen"] -= _SURE_TIME  # so that the new ones are nearer
        gone["unlike"] = False
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
        tracks = self._tracks
        forward = np.minimum(self._time - tracks["seen"], _LONGEST_FORECAST)
        forecast: NDArray[np.float64] = tracks["center"] + tracks["velocity"] * forward[:, None]
        return forecast


def _scale(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """One number for width and height, float64 [N], at least a pixel."""
    scale: NDArray[np.float64] = np.sqrt(np.maximum(sizes, 1).prod(axis=1))
    return scale


def _left_to_right(faces: Faces, rows: _Rows) -> _Rows:
    """The order that makes ids the same whatever the order of the faces."""
    return np.lexsort(faces.centers[rows].T[::-1])
