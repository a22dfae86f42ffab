"""The package cv_bridge, where there is one: encodings that are not read natively.

Bayer patterns, YUV 4:2:2 and the like. A full ROS 2 has it, PyPI has not; used by its documented
interface alone, ``CvBridge().imgmsg_to_cv2(message, desired_encoding)``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.images import is_native


@functools.cache
def _bridge() -> Any | None:
    """A bridge; None if the package is not installed, or not for this Python or NumPy."""
    try:
        return importlib.import_module("cv_bridge").CvBridge()
    except (ImportError, AttributeError):
        return None


def converter(message: Image) -> Callable[[str], NDArray[Any]] | None:
    """What gives the pixels of a message in another encoding; None where that is not needed.

    Args:
        message: kept by what is returned.

    Returns:
        None too if cv_bridge is not installed; such an image is then refused when it is read.
        Else a function of the encoding wanted, which raises `ImageError`.
    """
    bridge = None if is_native(message.encoding) else _bridge()
    if bridge is None:
        return None

    def convert(encoding: str) -> NDArray[Any]:
        try:
            return np.asarray(bridge.imgmsg_to_cv2(message, desired_encoding=encoding))
        except Exception as error:  # CvBridgeError, cv2.error, or whatever damaged data leads to
            raise ImageError(
                f"cv_bridge cannot make {encoding} of a {message.encoding} image: {error}"
            ) from error

    return convert
