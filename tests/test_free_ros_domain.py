"""Processes of one machine find ROS domains of their own."""

from __future__ import annotations

import contextlib
import runpy
import signal
import socket
import subprocess
import sys

import pytest


@pytest.fixture
def path(repo_root):
    return repo_root / "scripts" / "free_ros_domain.py"


@pytest.fixture
def script(path):
    return runpy.run_path(str(path))


@pytest.fixture
def few(script, monkeypatch):
    """Let there be the given number of domains, those that are free now."""

    def leave(count):
        with contextlib.ExitStack() as stack:
            domains = []
            for _ in range(count):
                domain, claim = script["claim_domain"]()
                stack.enter_context(claim)
                domains.append(domain)
        monkeypatch.setattr(script["random"], "sample", lambda *_: domains)
        return domains

    return leave


def test_a_claimed_domain_is_nobody_elses(script, few):
    domains = few(2)
    first, claim = script["claim_domain"]()
    second, other = script["claim_domain"]()
    with other:
        assert [first, second] == domains
        with claim, pytest.raises(RuntimeError, match="all ROS domains of this machine are in use"):
            script["free_domain"]()
        assert script["free_domain"]() == first


def test_the_claim_of_a_process_that_is_killed_is_void(path, script, few):
    (domain,) = few(1)
    code = (
        "import random, runpy, signal; "
        f"random.sample = lambda *_: [{domain}]; "
        f"claimed = runpy.run_path({str(path)!r})['claim_domain'](); "
        "print(claimed[0], flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert int(process.stdout.readline()) == domain
        with pytest.raises(RuntimeError, match="all ROS domains"):
            script["claim_domain"]()
        process.send_signal(signal.SIGKILL)
    assert script["free_domain"]() == domain


@pytest.mark.parametrize("joined", [0, 1, -1], ids=["first", "second", "last"])
def test_a_domain_that_any_process_is_in_is_left_alone(script, few, joined):
    (domain,) = few(1)
    assert script["is_free"](domain)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as process:
        process.bind(("", script["participant_ports"](domain)[joined]))
        assert not script["is_free"](domain)
        with pytest.raises(RuntimeError, match="all ROS domains of this machine are in use"):
            script["claim_domain"]()
