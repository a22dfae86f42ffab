"""Print a ROS domain that no process on this machine is using."""

from __future__ import annotations

import random
import socket
import sys

# Higher domains would use ports that Linux hands out to ordinary sockets.
_DOMAINS = 102


def participant_ports(domain: int) -> range:
    """Return the UDP ports of a domain's processes, the first to join first (DDSI-RTPS, 9.6.1)."""
    return range(7400 + 250 * domain + 10, 7400 + 250 * (domain + 1), 2)


def is_free(domain: int) -> bool:
    """Tell whether no process is in the domain; the one that joined first may have left it."""
    for port in participant_ports(domain):
        claim = _bound(port)
        if claim is None:
            return False
        claim.close()
    return True


def claim_domain() -> tuple[int, socket.socket]:
    """Return a free domain, and what keeps others that ask from it.

    A domain that was found looks free until a process joins it, and again once all have left it.
    So the claim is a UDP port between those of the domain that DDS leaves unused. It lasts until
    it is closed, or its process ends, however it ends.

    Raises:
        RuntimeError: if there is none.
    """
    for domain in random.sample(range(_DOMAINS), _DOMAINS):
        claim = _bound(7400 + 250 * domain + 2)
        if claim is not None:
            if is_free(domain):
                return domain, claim
            claim.close()
    raise RuntimeError("all ROS domains of this machine are in use")


def free_domain() -> int:
    """Return a domain that is free and unclaimed, at random as it stays unclaimed."""
    domain, claim = claim_domain()
    claim.close()
    return domain


def _bound(port: int) -> socket.socket | None:
    """Return a socket that has a UDP port to itself; None if it is taken."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind(("", port))
    except OSError:
        bound.close()
        return None
    return bound


if __name__ == "__main__":
    sys.stdout.write(f"{free_domain()}\n")
