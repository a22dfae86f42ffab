"""Print a ROS domain that no process on this machine is using."""

from __future__ import annotations

import random
import socket
import sys

# Higher domains would use ports that Linux hands out to ordinary sockets.
_DOMAINS = 102


def first_participant_port(domain: int) -> int:
    """Return the UDP port the first process of a domain listens on (DDSI-RTPS, 9.6.1)."""
    return 7400 + 250 * domain + 10


def is_free(domain: int) -> bool:
    """Tell whether no process has joined the domain yet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", first_participant_port(domain)))
        except OSError:
            return False
    return True


def free_domain(part: int = 0, parts: int = 1) -> int:
    """Return a free domain, at random so that two runs starting together rarely meet.

    Args:
        part: of `parts` that look for one at the same time, each among domains of its own: a
            domain that was found looks free until a process joins it.
        parts: how many do.
    """
    domains = range(part, _DOMAINS, parts)
    for domain in random.sample(domains, len(domains)):
        if is_free(domain):
            return domain
    raise RuntimeError("all ROS domains of this machine are in use")


if __name__ == "__main__":
    sys.stdout.write(f"{free_domain()}\n")
