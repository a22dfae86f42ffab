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

# Their Fast DDS 2.6, 2.10 and 2.14 read the old name only; Fast DDS 3 warns about it.
_OLD_DISTRIBUTIONS = frozenset({"humble", "iron", "jazzy"})


def profile_variable() -> str:
    """Name of the environment variable that the Fast DDS of this distribution reads."""
    old = os.environ.get("ROS_DISTRO") in _OLD_DISTRIBUTIONS
    return _OLD_VARIABLE if old else _VARIABLE


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
    os.environ[profile_variable()] = str(profile)
    return profile
