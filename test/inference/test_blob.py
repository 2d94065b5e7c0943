# SPDX-License-Identifier: Apache-2.0
"""The look-up table writes what OpenCV's own blobFromImage writes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from scrfd_ros.inference.blob import BlobWriter

RANDOM = np.random.default_rng(0)
SHAPES = [(640, 640), (33, 70), (1, 1), (640, 640)]  # one writer, changing sizes


@pytest.mark.parametrize(
    ("mean", "scale", "tolerance"),
    [
        pytest.param(127.5, 128.0, 0, id="detector: the same bits"),
        pytest.param(0.0, 1.0, 0, id="raw pixels: the same bits"),
        # OpenCV multiplies by the rounded 1 / 127.5, the table divides by 127.5.
        pytest.param(127.5, 127.5, 1.2e-7, id="recognizer: within one rounding"),
    ],
)
def test_equals_blob_from_image(mean: float, scale: float, tolerance: float) -> None:
    writer = BlobWriter(mean, scale)
    for height, width in SHAPES:
        image = RANDOM.integers(0, 256, (height, width, 3), np.uint8)
        blob = np.full((3, height, width), np.nan, np.float32)
        writer.write(image, blob)
        expected = cv2.dnn.blobFromImage(
            image, 1 / scale, (width, height), (mean, mean, mean), swapRB=True
        )[0]
        np.testing.assert_allclose(blob, expected, rtol=0, atol=tolerance)


def test_every_pixel_value_is_exact() -> None:
    values = np.arange(256, dtype=np.uint8)
    image = np.stack((values, values[::-1], np.roll(values, 7)), axis=1)[None]
    blob = np.empty((3, 1, 256), np.float32)
    BlobWriter(127.5, 128.0).write(image, blob)
    red, green, blue = blob[:, 0]
    for plane, channel in ((red, 2), (green, 1), (blue, 0)):
        np.testing.assert_array_equal(plane, (image[0, :, channel] - 127.5) / 128)


def test_takes_a_view_with_padded_rows() -> None:
    padded = RANDOM.integers(0, 256, (20, 40, 3), np.uint8)
    view = padded[:, :32]
    blob, expected = np.empty((2, 3, 20, 32), np.float32)
    BlobWriter(127.5, 128.0).write(view, blob)
    BlobWriter(127.5, 128.0).write(view.copy(), expected)
    np.testing.assert_array_equal(blob, expected)
