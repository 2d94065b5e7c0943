# SPDX-License-Identifier: Apache-2.0
"""Checks of the arrays that users pass, made once at the public functions.

OpenCV accepts images of any type and number of channels. If they do not fit the array that it is to
write into, it leaves this unchanged, and the network would see the previous image.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAX_SIDE = 32_766
"""Longest side of an image, pixels: OpenCV warps by 16-bit coordinates."""

_Array = TypeVar("_Array", bound=NDArray[Any])


def checked_image(image: Any) -> NDArray[np.uint8]:
    """The image in a layout that OpenCV accepts: the array itself, or a contiguous copy of it.

    Rows may be padded, and the array read-only.

    Args:
        image: uint8 [H, W, 3] BGR, each side 1 to `MAX_SIDE`.

    Raises:
        ValueError: it is anything else.
    """
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not 0 < image.shape[0] <= MAX_SIDE
        or not 0 < image.shape[1] <= MAX_SIDE
    ):
        raise ValueError(
            f"image must be a numpy array uint8 [H, W, 3] BGR, got {described(image)}"
            f"{_how_to_convert(image)}"
        )
    row, column, channel = image.strides
    if channel != 1 or column != 3 or row < 3 * image.shape[1]:
        return np.ascontiguousarray(image)
    return image


def check_array(
    array: Any, name: str, shape: tuple[int | None, ...], dtype: DTypeLike | None = np.float32
) -> None:
    """Check shape and dtype of an array.

    Args:
        array: any value.
        name: for the error.
        shape: None for an axis of any length.
        dtype: None for any real numbers.

    Raises:
        ValueError: it is not a numpy array of this shape and type.
    """
    if isinstance(array, np.ndarray) and _has(array, shape, dtype):
        return
    kind = "real numbers" if dtype is None else str(np.dtype(dtype))
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    hint = ""
    if not isinstance(array, np.ndarray):
        hint = f"; convert it with np.asarray(..., '{np.dtype(dtype or np.float32)}')"
    elif dtype is not None and array.dtype != dtype:
        hint = f"; convert it with .astype('{kind}')"
    raise ValueError(f"{name} must be {kind} [{sizes}], got {described(array)}{hint}")


def _has(array: NDArray[Any], shape: tuple[int | None, ...], dtype: DTypeLike | None) -> bool:
    if array.ndim != len(shape):
        return False
    for want, have in zip(shape, array.shape, strict=True):
        if want is not None and want != have:
            return False
    return array.dtype.kind in "iuf" if dtype is None else array.dtype == dtype


def check_finite(array: NDArray[Any], name: str) -> None:
    """Check that an array has no NaN or infinities.

    Raises:
        ValueError: it has some; says how many.
    """
    if not np.isfinite(array).all():
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise ValueError(
            f"{name} must be finite, got {count} of {array.size} numbers that are not; leave out "
            f"their rows"
        )


def written(result: Any, target: _Array) -> _Array:
    """`target`, with the result of an OpenCV function that was to write into it.

    OpenCV returns another array if the target does not fit, without an error.

    Raises:
        ValueError: the result has another shape.
    """
    if result is not target:
        target[...] = result
    return target


def described(value: Any) -> str:
    """Dtype and shape of an array, such as float64 [480, 640]; the type's name of other values."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def _how_to_convert(image: Any) -> str:
    if image is None:
        return ": cv2.imread returns None for an unreadable file; scrfd_ros.read_image says why"
    if not isinstance(image, np.ndarray):
        return "; convert an image of PIL with np.asarray(image.convert('RGB'))[:, :, ::-1]"
    if image.size == 0:
        return ": it has no pixels"
    hints = []
    if image.dtype == np.uint16:
        hints.append("scale 16 bits with cv2.convertScaleAbs(image, alpha=1 / 257)")
    elif image.dtype.kind == "f":
        hints.append("scale 0 to 1 with (image * 255).round().astype(np.uint8)")
    elif image.dtype == np.bool_:
        hints.append("scale it with image * np.uint8(255)")
    elif image.dtype != np.uint8:
        hints.append("convert 0 to 255 with .astype(np.uint8)")
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        hints.append("convert gray with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)")
    elif image.ndim == 3 and image.shape[2] == 4:
        hints.append("drop alpha with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)")
    elif image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        hints.append("put the channels last with image.transpose(1, 2, 0)")
    elif image.ndim == 4:
        hints.append("pass images one by one")
    elif image.ndim == 3 and image.shape[2] == 3 and max(image.shape) > MAX_SIDE:
        hints.append(f"pass parts of at most {MAX_SIDE} pixels a side")
    return "; " + " and ".join(hints) if hints else ""
