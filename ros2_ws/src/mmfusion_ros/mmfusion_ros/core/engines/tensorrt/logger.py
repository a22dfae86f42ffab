"""TensorRT's log in ours."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

_logger = logging.getLogger("mmfusion_ros.tensorrt")
_KEPT = 8  # the last errors of a build that fails tell its cause; the first are of what came before


def make_logger(tensorrt: Any) -> Any:
    """A TensorRT logger that passes on what matters and keeps the last errors as ``errors``.

    Args:
        tensorrt: the module; its class must be derived from, so it is derived here.
    """
    severities = tensorrt.ILogger.Severity

    class Log(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)  # super() does not reach a pybind class
            self.errors: deque[str] = deque(maxlen=_KEPT)

        def log(self, severity: Any, message: str) -> None:
            if severity in {severities.INTERNAL_ERROR, severities.ERROR}:
                self.errors.append(message)
                # Whoever called gets it as an error of ours, and logs that.
                _logger.debug("%s", message)
            elif severity == severities.WARNING:
                _logger.debug("%s", message)

    return Log()
