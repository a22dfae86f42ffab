"""Give this process the shared memory its images need; see config/fastdds.xml for why."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.share import share_file

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProfileNames:
    """Where the Fast DDS of a distribution looks for a profile.

    Attributes:
        variables: of the environment, that name a file; the first is the one to set.
        folder_file: read from the working folder besides.
    """

    variables: tuple[str, ...]
    folder_file: str


# Fast DDS 3 warns about the old variable.
_NEW = ProfileNames(
    ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"),
    "DEFAULT_FASTDDS_PROFILES.xml",
)
# Fast DDS 2.6, 2.10 and 2.14 know the old names only.
_OLD = ProfileNames(("FASTRTPS_DEFAULT_PROFILES_FILE",), "DEFAULT_FASTRTPS_PROFILES.xml")
_OLD_DISTRIBUTIONS = frozenset({"humble", "iron", "jazzy"})


def profile_names(environment: Mapping[str, str]) -> ProfileNames:
    """Names that count in an environment, by the distribution that it is of."""
    return _OLD if environment.get("ROS_DISTRO") in _OLD_DISTRIBUTIONS else _NEW


def apply_dds_profile() -> Path | None:
    """Make Fast DDS use our profile for every node this process creates from now on.

    Call it before the first node. A profile that the user chose stays in force. With another
    RMW implementation it has no effect.

    Returns:
        The profile applied; None if the user's own is kept or ours is not installed.
    """
    variables = profile_names(os.environ).variables
    if any(os.environ.get(name) for name in variables):
        return None
    try:
        profile = share_file("config/fastdds.xml")
    except MmfusionError as error:
        _logger.warning("images may get lost between processes: %s", error)
        return None
    os.environ[variables[0]] = str(profile)
    return profile
