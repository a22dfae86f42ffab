"""Makes the helpers beside this file importable from the folders below; goldens for all."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="session")
def fill(shared_dir):
    """The module that draws the weights and images behind the goldens."""
    spec = importlib.util.spec_from_file_location("fill", shared_dir / "goldens" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
