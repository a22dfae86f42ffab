"""What rosbags must know about message types, ours and those of other installed packages."""

from __future__ import annotations

from pathlib import Path

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mmfusion_ros.share import share_file

# One for all machines, so that a bag does not depend on what is installed.
_STORE = Stores.ROS2_JAZZY


def typestore_for(*msgtypes: str) -> Typestore:
    """A typestore that knows some message types and all that they are made of.

    Standard types come with rosbags; others are read from the ``.msg`` files that their
    packages install.

    Args:
        msgtypes: full names, like ``mmfusion_msgs/msg/FrameStatus``.

    Raises:
        MmfusionError: if a type is unknown and no package installs its definition.
    """
    store = get_typestore(_STORE)
    waiting = list(msgtypes)
    definitions = {}
    while waiting:
        name = waiting.pop()
        if name in store.fielddefs or name in definitions:
            continue
        found = get_types_from_msg(_definition(name).read_text(encoding="utf-8"), name)
        definitions.update(found)
        waiting += [used for _, fields in found.values() for used in _types_of(fields)]
    store.register(definitions)
    return store


def _definition(name: str) -> Path:
    package, _, message = name.split("/")
    return share_file(f"msg/{message}.msg", package)


def _types_of(field: object) -> list[str]:
    """Names of the message types in a field's description, which nests tuples."""
    if not isinstance(field, (tuple, list)):
        return []
    if len(field) == 2 and field[0] is Nodetype.NAME:
        return [field[1]]
    return [name for part in field for name in _types_of(part)]
