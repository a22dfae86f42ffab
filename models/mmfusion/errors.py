"""Errors a user can cause.

Each message says what was wrong, what was expected and what to do.
"""


class MmfusionError(Exception):
    """Base of every error this package raises on purpose."""


class ModelError(MmfusionError):
    """A model name is unknown or weights do not fit a model."""


class ExportError(MmfusionError):
    """A graph cannot be exported as asked."""


class DataError(MmfusionError):
    """A data folder or image is missing, unreadable or inconsistent."""
