"""ROS 2 and its DDS: what a program started from here gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmfusion_ros.checks.fastdds_profile import DEFAULT_SEGMENT, FastDdsProfile, read_profile
from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.processes import finish, start
from mmfusion_ros.checks.subject import Setup, megabytes
from mmfusion_ros.dds_profile import profile_names

NO_ROS = "ROS 2 does not work here (ros.installation)"
_TIMEOUT_S = 30.0
_RANGES = {"SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT", "NOT_SET"}
_LAST_SAFE_DOMAIN, _LAST_DOMAIN = 101, 232
# Without these the node does not start; without the others some topics are missing.
_NEEDED_MESSAGES = {"sensor_msgs", "std_msgs", "diagnostic_msgs", "mmfusion_msgs"}


def our_profile_command(setup: Setup) -> str:
    """What sets our profile in the shell that a camera driver is started from."""
    return (
        f"export {profile_names(setup.environment).variables[0]}=$(python -c "
        "\"from mmfusion_ros.share import share_file; print(share_file('config/fastdds.xml'))\")"
    )


@dataclass(frozen=True)
class RosHere:
    """What programs started from here find; see `ros_probe` for the keys.

    Attributes:
        as_set: one that takes the environment as it is, like a camera driver; None if it fails.
            With ``quick`` the same as the next.
        with_profile: one of ours, which sets our profile if the user has set none.
        complaint: what they said on their error output.
    """

    as_set: Mapping[str, Any] | None
    with_profile: Mapping[str, Any] | None
    complaint: str

    @property
    def rmw(self) -> str:
        """Name of the RMW implementation; empty if ROS does not work."""
        return "" if self.as_set is None or self.with_profile is None else self.as_set["rmw"]

    @property
    def is_fastdds(self) -> bool:
        """Whether Fast DDS carries the messages."""
        return "fastrtps" in self.rmw


@cache
def ros_here(setup: Setup) -> RosHere:
    """Start programs and see what they find; one where the user's profile is for both."""
    module = "mmfusion_ros.checks.ros_probe"
    ours = start(setup, module, "--with-our-profile")
    if setup.quick or user_profile(setup) is not None:
        found, complaint = finish(ours, _TIMEOUT_S)
        return RosHere(found, found, complaint)
    like_a_driver = start(setup, module)
    with_profile, complaint = finish(ours, _TIMEOUT_S)
    as_set, other_complaint = finish(like_a_driver, _TIMEOUT_S)
    return RosHere(as_set, with_profile, complaint or other_complaint)


def user_profile(setup: Setup) -> Path | None:
    """The profile that Fast DDS reads because the user set it; None without one."""
    for name in profile_names(setup.environment).variables:
        if setup.environment.get(name):
            return setup.folder / setup.environment[name]
    return None


def check_ros(setup: Setup) -> Iterator[Finding]:
    """Whether ROS works, with which RMW, messages and NumPy; and the DDS settings."""
    here = ros_here(setup)
    if here.as_set is None or here.with_profile is None:
        yield _broken_installation(setup, here.complaint)
        for name in ("ros.messages", "ros.numpy", "dds.profile", "dds.segment"):
            yield skipped(name, NO_ROS)
        yield from _check_network(setup)
        return
    distribution = setup.environment.get("ROS_DISTRO", "")
    yield ok(
        "ros.installation",
        f"ROS 2 {distribution or 'wheels'} with {here.rmw}",
        rmw=here.rmw,
        distribution=distribution,
    )
    yield _messages(here.as_set["missing_messages"])
    yield _numpy(here.as_set["numpy_problem"])
    if here.is_fastdds:
        yield _profile(setup)
        sizes = here.with_profile["segment_bytes"], here.as_set["segment_bytes"]
        yield _segment(setup, *sizes, here.complaint)
    else:
        yield _other_middleware(setup, here.rmw)
        yield skipped("dds.segment", f"{here.rmw} has no Fast DDS segment")
    yield from _check_network(setup)


def _broken_installation(setup: Setup, complaint: str) -> Finding:
    advice = (
        "source /opt/ros/DISTRO/setup.bash and the workspace, or this checkout's environment: "
        "source scripts/setup.sh robot"
    )
    if "being present" in complaint or "cannot open shared object" in complaint:
        advice = (
            "the ROS wheels lost their library path: pass LD_LIBRARY_PATH on together with "
            "_ROS_WHEELS_BOOTSTRAP_COMPLETE, or unset both"
        )
    elif "RMW implementation" in complaint or "rmw_" in complaint:
        wanted = setup.environment.get("RMW_IMPLEMENTATION", "")
        advice = (
            f"RMW_IMPLEMENTATION is {wanted!r}: install that package (apt install "
            f"ros-DISTRO-{wanted.replace('_', '-')}) or unset the variable"
        )
    return Finding(
        "ros.installation",
        Level.ERROR,
        f"no ROS 2 program starts here: {complaint}",
        "rclpy and a node in it",
        advice,
    )


def _messages(missing: dict[str, str]) -> Finding:
    if not missing:
        return ok("ros.messages", "all message packages are there")
    needed = sorted(_NEEDED_MESSAGES & missing.keys())
    return Finding(
        "ros.messages",
        Level.ERROR if needed else Level.WARNING,
        f"not there: {', '.join(sorted(missing))} ({next(iter(missing.values()))})",
        "the message packages of the node",
        "source the workspace; build it with scripts/setup.sh robot if it is not built",
        {"missing": sorted(missing)},
    )


def _numpy(problem: str) -> Finding:
    if not problem:
        return ok("ros.numpy", "messages and NumPy fit each other")
    return Finding(
        "ros.numpy",
        Level.ERROR,
        f"messages with numbers do not work: {problem}",
        "the NumPy that the messages were compiled against",
        "install NumPy of the distribution's major version (pip install 'numpy<2' on Jazzy and "
        "older) or build the messages again",
    )


def _profile(setup: Setup) -> Finding:
    chosen = user_profile(setup)
    beside = setup.folder / profile_names(setup.environment).folder_file
    is_beside = beside.is_file() and setup.environment.get("SKIP_DEFAULT_XML_FILE") != "1"
    if chosen is None and is_beside:
        return _judge_profile(
            setup, beside, f"{beside}, read because it lies in the working folder"
        )
    if chosen is None:
        return _no_profile(setup)
    if is_beside:
        return Finding(
            "dds.profile",
            Level.NOTE,
            f"{chosen} is set, and {beside} is read besides it",
            "one profile file",
            f"start programs from another folder or move {beside.name}; where both define the "
            "same names, Fast DDS complains and takes the first",
        )
    return _judge_profile(setup, chosen, str(chosen))


def _no_profile(setup: Setup) -> Finding:
    largest = setup.largest_bytes
    if largest < DEFAULT_SEGMENT:
        return ok("dds.profile", f"none is set; none is needed for images of {megabytes(largest)}")
    return Finding(
        "dds.profile",
        Level.WARNING,
        "none is set in this shell: programs of mmfusion_ros set their own, camera drivers started "
        f"from here get {megabytes(DEFAULT_SEGMENT)} of shared memory and lose images of "
        f"{megabytes(largest)}",
        "a profile for every process that publishes images",
        f"before starting camera drivers: {our_profile_command(setup)}",
    )


def _judge_profile(setup: Setup, path: Path, where: str) -> Finding:
    profile = read_profile(path)
    if profile.problem:
        return Finding(
            "dds.profile",
            Level.ERROR,
            f"{where} is not used: {profile.problem}",
            "a profile that Fast DDS reads",
            f"mend it or take ours: {our_profile_command(setup)}",
        )
    values = {"path": str(path), "segment_bytes": profile.segment_bytes, "udp": profile.udp}
    needed = 2 * setup.set_bytes
    if profile.segment_bytes is None or profile.segment_bytes < needed:
        return _small_profile(setup, where, profile, needed, values)
    found = f"{where}: {megabytes(profile.segment_bytes)} of shared memory"
    if not profile.udp:
        return Finding(
            "dds.profile",
            Level.WARNING,
            f"{found}, but no UDP",
            "a UDPv4 transport besides",
            "add it, or peers in other containers and on other machines are not found",
            values,
        )
    return ok("dds.profile", found, **values)


def _small_profile(
    setup: Setup, where: str, profile: FastDdsProfile, needed: int, values: dict[str, Any]
) -> Finding:
    size = profile.segment_bytes
    found = "no shared memory" if size is None else f"{megabytes(size)} of shared memory"
    return Finding(
        "dds.profile",
        Level.WARNING,
        f"{where}: {found}",
        f"at least {megabytes(needed)}: two images of each camera, in one process",
        f"set segment_size to {needed} or more, or take ours: {our_profile_command(setup)}",
        values,
    )


def _segment(setup: Setup, ours: int | None, drivers: int | None, complaint: str) -> Finding:
    """What a participant really got, whatever files and variables say."""
    values = {"with_profile_bytes": ours, "as_set_bytes": drivers}
    if ours is None:
        return Finding(
            "dds.segment",
            Level.ERROR,
            f"Fast DDS has no shared memory here{f': {complaint}' if complaint else ''}",
            f"a segment of {megabytes(2 * setup.set_bytes)} or more",
            "see shared_memory; a participant of another user or container cannot be reached "
            "through it either (docker run --ipc host, same user)",
            values,
        )
    if ours < setup.largest_bytes:
        return Finding(
            "dds.segment",
            Level.ERROR,
            f"a program of mmfusion_ros gets {megabytes(ours)}, an image has "
            f"{megabytes(setup.largest_bytes)}{f' ({complaint})' if complaint else ''}",
            f"a segment of {megabytes(2 * setup.set_bytes)} or more",
            "mend the profile (dds.profile) or make /dev/shm larger (shared_memory)",
            values,
        )
    found = f"a program of mmfusion_ros gets {megabytes(ours)}"
    if drivers is None or drivers < ours:
        got = "none" if drivers is None else megabytes(drivers)
        found += f", a camera driver started from here {got} (see dds.profile)"
    return ok("dds.segment", found, **values)


def _other_middleware(setup: Setup, rmw: str) -> Finding:
    if "cyclonedds" not in rmw:
        return Finding(
            "dds.profile",
            Level.NOTE,
            f"{rmw} takes no Fast DDS profile",
            advice="the streams below tell whether images arrive",
        )
    location = setup.environment.get("CYCLONEDDS_URI", "")
    path = Path(location.removeprefix("file://"))
    if location and not location.lstrip().startswith("<") and not path.is_file():
        return Finding(
            "dds.profile",
            Level.ERROR,
            f"CYCLONEDDS_URI names {path}, which is not there",
            "a file, or nothing",
            "correct the path or unset CYCLONEDDS_URI",
        )
    return Finding(
        "dds.profile",
        Level.NOTE,
        "Cyclone DDS sends images to other processes over UDP",
        advice="it needs large kernel buffers: see kernel.buffers",
    )


def _check_network(setup: Setup) -> Iterable[Finding]:
    yield _domain(setup)
    yield _discovery(setup)


def _domain(setup: Setup) -> Finding:
    text = setup.environment.get("ROS_DOMAIN_ID", "")
    try:
        domain = int(text or 0)
    except ValueError:
        domain = -1
    if not 0 <= domain <= _LAST_DOMAIN:
        return Finding(
            "dds.domain",
            Level.ERROR,
            f"ROS_DOMAIN_ID is {text!r}",
            f"a number from 0 to {_LAST_SAFE_DOMAIN}",
            "set it to one, the same in every shell of this robot",
        )
    if domain > _LAST_SAFE_DOMAIN:
        return Finding(
            "dds.domain",
            Level.WARNING,
            f"ROS_DOMAIN_ID is {domain}: its ports overlap those that Linux hands out",
            f"a number from 0 to {_LAST_SAFE_DOMAIN}",
            "choose a lower one",
        )
    shown = f"ROS_DOMAIN_ID is {domain}" if text else "ROS_DOMAIN_ID is not set: domain 0"
    if domain == 0 and not _only_this_machine(setup):
        return Finding(
            "dds.domain",
            Level.NOTE,
            f"{shown}, as on every robot that sets none",
            "a domain of its own for each robot on a network",
            "with two robots on one network, set ROS_DOMAIN_ID or "
            "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
        )
    return ok("dds.domain", shown, domain=domain)


def _discovery(setup: Setup) -> Finding:
    environment = setup.environment
    if environment.get("ROS_DISCOVERY_SERVER"):
        return Finding(
            "dds.discovery",
            Level.NOTE,
            f"through the discovery server {environment['ROS_DISCOVERY_SERVER']}",
            advice="every program must name the same one",
        )
    local = environment.get("ROS_LOCALHOST_ONLY", "")
    chosen = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if local == "1":
        return Finding(
            "dds.discovery",
            Level.NOTE,
            "ROS_LOCALHOST_ONLY=1 (out of use since Iron): only programs of this machine",
            advice="set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST instead",
        )
    if chosen and chosen.upper() not in _RANGES:
        return Finding(
            "dds.discovery",
            Level.WARNING,
            f"ROS_AUTOMATIC_DISCOVERY_RANGE is {chosen!r}, which ROS does not know",
            f"one of {', '.join(sorted(_RANGES))}",
            "correct it",
        )
    if chosen.upper() == "OFF":
        return Finding(
            "dds.discovery",
            Level.ERROR,
            "ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: no program finds another",
            "LOCALHOST or SUBNET",
            "set it to LOCALHOST for one machine, SUBNET for several",
        )
    if _only_this_machine(setup):
        return ok("dds.discovery", "only programs of this machine", range="LOCALHOST")
    return ok("dds.discovery", "programs of this machine and of the local network", range="SUBNET")


def _only_this_machine(setup: Setup) -> bool:
    chosen = setup.environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper()
    return chosen in {"LOCALHOST", "OFF"} or setup.environment.get("ROS_LOCALHOST_ONLY") == "1"
