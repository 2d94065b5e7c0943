# SPDX-License-Identifier: Apache-2.0
"""What a letterbox has drawn, as an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.letterbox import Letterbox
from scrfd_ros.detection.views import View
from scrfd_ros.inference.blob import BlobWriter


class Canvas:
    """A letterbox that shows its planes.

    Attributes:
        planes: float32 [3, H, W], the pixels from 0 to 255; NaN where nothing was written.
    """

    def __init__(self, width: int, height: int) -> None:
        self.planes = np.full((3, height, width), np.nan, np.float32)
        self._letterbox = Letterbox(self.planes, BlobWriter(0.0, 1.0))

    def __call__(self, image: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.uint8]:
        """What the network sees after views of an image were drawn, uint8 [H, W, 3] BGR."""
        self._letterbox.draw(image, views)
        assert not np.isnan(self.planes).any()
        return self.planes[::-1].transpose(1, 2, 0).astype(np.uint8)
