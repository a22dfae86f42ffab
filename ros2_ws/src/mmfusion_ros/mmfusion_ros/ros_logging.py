"""The core logs with Python's logging; this shows it in the node's log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger


class RosLogHandler(logging.Handler):
    """Hands records on to the logger of a node."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            self._log(record.levelno, self.format(record))
        except Exception:  # noqa: BLE001 (as logging wants it: a log line never stops anything)
            self.handleError(record)

    def _log(self, level: int, text: str) -> None:
        # rclpy wants every line of code to log at one level only.
        if level >= logging.ERROR:
            self._logger.error(text)
        elif level >= logging.WARNING:
            self._logger.warning(text)
        elif level >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
