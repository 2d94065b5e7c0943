# SPDX-License-Identifier: Apache-2.0
"""Run a network with one input and one output on any number of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.inference.network import Network


def run(network: Network, blob: NDArray[np.float32]) -> NDArray[np.float32]:
    """The output of a network for one input, valid until the network's next call.

    Args:
        network: with one input and one output.
        blob: float32 [N, ...], N up to the largest batch that the network takes.
    """
    return network({network.inputs[0].name: blob})[network.outputs[0].name]


def run_in_batches(
    network: Network, blob: NDArray[np.float32], takes_batches: bool
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Run a network in batches as large as it takes, at most `network.max_batch`.

    Args:
        network: with one input and one output.
        blob: float32 [N, ...].
        takes_batches: the network takes more than one row at once.

    Yields:
        Rows of the blob, and the network's output for them, valid until the next step.
    """
    size = (network.max_batch or max(len(blob), 1)) if takes_batches else 1
    for start in range(0, len(blob), size):
        rows = slice(start, start + size)
        yield rows, run(network, blob[rows])
