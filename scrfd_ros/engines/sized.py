# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines of a detector for several sizes of its input.

An engine takes one size. Those that are there are loaded when a size is first asked for. Others are
built in another process, which TensorRT can end without harm; live images go on meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

from scrfd_ros.engines.cache import ensure_engine, find_engine, load_engine
from scrfd_ros.errors import ScrfdError
from scrfd_ros.inference.network import Network

MAX_SIZES = 4
"""Sizes besides the largest; each engine takes memory, and a build takes minutes on a Jetson."""

_NICE = 10  # the images come first
_LONGEST_END = 5.0  # seconds that a killed process may take to free the device

_logger = logging.getLogger(__name__)


class SizedEngines:
    """From a size of the input, width and height in pixels, to the engine's network.

    None for a size whose engine is being built, could not be built, or is one too many; the log
    says which, once.

    Args:
        model: an ONNX file with one input.
        batch, cuda_graph: see `scrfd_ros.engines.open.open_network`.
        is_live: do not wait for an engine that is being built.
    """

    def __init__(self, model: Path, *, batch: int, cuda_graph: bool, is_live: bool) -> None:
        self._model = model
        self._batch = batch
        self._cuda_graph = cuda_graph
        self._is_live = is_live
        self._networks: dict[tuple[int, int], Network | None] = {}
        self._build: _Build | None = None
        self._is_full = False

    def __call__(self, size: tuple[int, int]) -> Network | None:
        if size not in self._networks:
            self._look_for(size)
        return self._networks.get(size)

    def _look_for(self, size: tuple[int, int]) -> None:
        if self._build is not None:
            if self._build.is_running:
                return
            self._end_build(self._build)
            if size in self._networks:
                return
        if len(self._networks) < MAX_SIZES:
            if self._load(size):
                return
            self._build = self._begun_build(size)
            if not self._is_live:
                self._end_build(self._build)
        elif not self._is_full:
            self._is_full = True
            _logger.warning(
                "%s: no engine for an input of %s, nor for further sizes: %d of other sizes are in "
                "use. Such images go onto the largest input, which takes longer",
                self._model.name,
                "{}x{}".format(*size),
                MAX_SIZES,
            )

    def _begun_build(self, size: tuple[int, int]) -> _Build:
        _logger.warning(
            "%s: building an engine for an input of %s, once%s",
            self._model.name,
            "{}x{}".format(*size),
            "; until it is ready, images go onto the largest input" if self._is_live else "",
        )
        return _Build(self._model, size, self._batch)

    def _end_build(self, build: _Build) -> None:
        """Wait for the end of a build, and load its engine."""
        failure, self._build = build.failure, None
        if failure is not None:
            self._give_up(build.size, failure)
        elif not self._load(build.size):  # not once more: each build takes minutes
            self._give_up(build.size, "the one that was built is gone, or does not fit")

    def _load(self, size: tuple[int, int]) -> bool:
        """Load the engine of a size, or give up if that fails; False if there is none."""
        try:
            engine = find_engine(self._model, size, self._batch)
            if engine is None:
                return False
            self._networks[size] = load_engine(engine, self._cuda_graph)
        except ScrfdError as error:
            self._give_up(size, str(error))
        return True

    def _give_up(self, size: tuple[int, int], reason: str) -> None:
        self._networks[size] = None
        _logger.warning(
            "%s: no engine for an input of %s: %s. Such images go onto the largest input, which "
            "takes longer; it is tried again at the next start",
            self._model.name,
            "{}x{}".format(*size),
            reason,
        )


class _Build:
    """A process that builds an engine, and ends with this object and this process."""

    def __init__(self, model: Path, size: tuple[int, int], batch: int) -> None:
        self.size = size
        code = (  # the same modules as here, wherever these come from
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from {__name__} import build_for_parent; build_for_parent()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(model), *map(str, (*size, batch))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the other
        )
        weakref.finalize(self, _end, self._process)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def failure(self) -> str | None:
        """Why there is no engine, after the end; None if there is one."""
        status = self._process.wait()
        if status == 0:
            return None
        assert self._process.stdout is not None
        said = self._process.stdout.read().strip()
        if status < 0:
            return f"the process that built it was ended by {signal.Signals(-status).name}"
        return said or f"the process that built it ended with status {status}"


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LONGEST_END)
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


def build_for_parent() -> None:
    """Build the engine that the command line names; ends when the parent does.

    Prints the error if there is one.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICE)
    model, width, height, batch = sys.argv[1:]
    try:
        ensure_engine(Path(model), (int(width), int(height)), int(batch))
    except ScrfdError as error:
        print(error)
        sys.exit(1)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the parent's end of the pipe is closed
    os._exit(1)
