# SPDX-License-Identifier: Apache-2.0
"""What the rest of the package logs with Python's logging, in the node's log."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

_PACKAGE = "scrfd_ros"


class LogBridge(logging.Handler):
    """Passes the package's log records of level INFO and above to a ROS logger, until closed."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger
        package = logging.getLogger(_PACKAGE)
        package.addHandler(self)
        package.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        # One call for each level: rclpy refuses two levels from one place in the code.
        if record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())

    def close(self) -> None:
        logging.getLogger(_PACKAGE).removeHandler(self)
        super().close()
