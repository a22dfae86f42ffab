"""TensorRT's log in ours."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

from mmfusion_ros.core.errors import EngineError

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


@contextlib.contextmanager
def failures_told(tensorrt: Any, log: Any, failure: str) -> Iterator[None]:
    """Make errors of ours of what the library itself raises, such as pybind11's TypeError.

    It does so where CUDA and it do not fit together. Nothing of the user's is to be called within.

    Args:
        tensorrt: the module.
        log: of `make_logger`, which the library got.
        failure: what it cannot do then, after its name.

    Raises:
        EngineError: with the failure and what was logged; those that are raised within as they are.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # its exceptions share no other base
        told = "; ".join([f"{type(error).__name__}: {error}", *log.errors])
        raise EngineError(f"TensorRT {tensorrt.__version__} {failure}: {told}") from error
