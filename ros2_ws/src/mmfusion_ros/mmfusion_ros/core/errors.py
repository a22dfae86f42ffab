"""Errors a user or a robot can cause.

Each message says what was wrong, what was expected and what to do.
"""


class MmfusionError(Exception):
    """Base of every error this package raises on purpose."""


class ArtifactError(MmfusionError):
    """The artifact folder is missing, damaged or does not fit its manifest."""


class EngineError(MmfusionError):
    """The inference engine could not be opened or failed while running."""


class ImageError(MmfusionError):
    """An image message is truncated, has an unknown encoding or the wrong size."""


class RigError(MmfusionError):
    """A rig file is missing, malformed or inconsistent."""


class BagError(MmfusionError):
    """A bag cannot be read, or lacks a topic that is needed."""


class GroundTruthError(MmfusionError):
    """Ground truth cannot be read, or does not fit the bag or the artifact."""
