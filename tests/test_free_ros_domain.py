"""Processes of one machine find ROS domains of their own."""

from __future__ import annotations

import runpy
import socket

import pytest


@pytest.fixture(scope="module")
def script(repo_root):
    return runpy.run_path(str(repo_root / "scripts" / "free_ros_domain.py"))


def test_those_that_look_at_the_same_time_find_different_ones(script):
    for part in range(3):
        assert {script["free_domain"](part, 3) % 3 for _ in range(20)} == {part}


def test_a_domain_that_a_process_has_joined_is_left_alone(script):
    domain = script["free_domain"]()
    assert script["is_free"](domain)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as process:
        process.bind(("", script["first_participant_port"](domain)))
        assert not script["is_free"](domain)
        # A part with that domain alone.
        with pytest.raises(RuntimeError, match="all ROS domains of this machine are in use"):
            script["free_domain"](domain, 1000)
