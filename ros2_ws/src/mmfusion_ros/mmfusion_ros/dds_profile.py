"""Give this process the shared memory its images need; see config/fastdds.xml for why."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.share import share_file

_logger = logging.getLogger(__name__)

_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
_OLD_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"

# Its Fast DDS 2.14 reads the old name only; Fast DDS 3 warns about it.
_OLD_DISTRIBUTIONS = frozenset({"jazzy"})


def apply_dds_profile() -> Path | None:
    """Make Fast DDS use our profile for every node this process creates from now on.

    Call it before the first node. A profile that the user chose stays in force. With another
    RMW implementation it has no effect.

    Returns:
        The profile applied; None if the user's own is kept or ours is not installed.
    """
    if os.environ.get(_VARIABLE) or os.environ.get(_OLD_VARIABLE):
        return None
    try:
        profile = share_file("config/fastdds.xml")
    except MmfusionError as error:
        _logger.warning("images may get lost between processes: %s", error)
        return None
    old = os.environ.get("ROS_DISTRO") in _OLD_DISTRIBUTIONS
    os.environ[_OLD_VARIABLE if old else _VARIABLE] = str(profile)
    return profile
