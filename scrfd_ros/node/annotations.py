# SPDX-License-Identifier: Apache-2.0
"""Annotations with which Foxglove draws faces over an image. Needs foxglove_msgs."""

from __future__ import annotations

import numpy as np
from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation
from std_msgs.msg import Header

from scrfd_ros.faces import Faces
from scrfd_ros.images.drawing import who

_BOX = Color(r=0.24, g=0.78, b=0.31, a=1.0)
_LANDMARK = Color(r=0.98, g=0.86, b=0.24, a=1.0)
_TEXT = Color(r=0.08, g=0.08, b=0.08, a=1.0)


def image_annotations(faces: Faces, header: Header) -> ImageAnnotations:
    """Boxes, landmarks, ids, and scores or names, for the image with this header.

    Lines and letters scale with the faces, so that they suit large and small images.

    Args:
        faces: in pixels of the image.
    """
    message = ImageAnnotations()
    widths = faces.sizes[:, 0]
    lines = np.clip(widths / 40, 1, 6).tolist()
    letters = np.clip(widths / 6, 8, 40).tolist()
    for row, (x1, y1, x2, y2) in enumerate(faces.boxes.tolist()):
        corners = [Point2(x=x, y=y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
        message.points.append(
            PointsAnnotation(
                timestamp=header.stamp,
                type=PointsAnnotation.LINE_LOOP,
                points=corners,
                outline_color=_BOX,
                thickness=lines[row],
            )
        )
        if faces.landmarks is not None:
            message.points.append(
                PointsAnnotation(
                    timestamp=header.stamp,
                    type=PointsAnnotation.POINTS,
                    points=[Point2(x=x, y=y) for x, y in faces.landmarks[row].tolist()],
                    outline_color=_LANDMARK,
                    thickness=2 * lines[row],
                )
            )
        number = "" if faces.ids is None else f"#{faces.ids[row]} "
        said = f"{faces.scores[row]:.2f}"
        if faces.identities is not None:
            said = who(faces.identities[row])
        message.texts.append(
            TextAnnotation(
                timestamp=header.stamp,
                position=corners[0],
                text=f"{number}{said}".strip(),
                font_size=letters[row],
                text_color=_TEXT,
                background_color=_BOX,
            )
        )
    return message
