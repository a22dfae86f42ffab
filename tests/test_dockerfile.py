"""The Dockerfile, as far as it can be checked without building it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path, PurePosixPath

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmfusion_ros import doctor

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "Dockerfile").read_text()
TORCH = {"torch", "torchvision", "torchaudio", "torchjd", "timm", "torch-tensorrt"}


class Dockerfile:
    """The stages of a Dockerfile.

    Attributes:
        images: what each stage is made from, by the stage's name.
        stages: the instructions of each stage, as pairs of name and value.
    """

    def __init__(self, text: str) -> None:
        self.images: dict[str, str] = {}
        self.stages: dict[str, list[tuple[str, str]]] = {"": []}
        stage = ""
        for row in DockerfileParser(fileobj=BytesIO(text.encode())).structure:
            if row["instruction"] == "FROM":
                image, _, stage = re.split(r"\s+(as)\s+", row["value"], flags=re.IGNORECASE)
                self.images[stage] = image
                self.stages[stage] = []
            elif row["instruction"] != "COMMENT":
                self.stages[stage].append((row["instruction"], row["value"]))
        self.final = stage

    def values(self, instruction: str, stage: str | None = None) -> list[str]:
        """Values of an instruction, of one stage or of all."""
        stages = self.stages.values() if stage is None else [self.stages[stage]]
        return [value for rows in stages for name, value in rows if name == instruction]

    @property
    def platforms(self) -> set[str]:
        return {name.removeprefix("platform-") for name in self.images if "platform-" in name}

    @property
    def copied(self) -> list[str]:
        """What comes from the checkout."""
        values = [value.split() for value in self.values("COPY")]
        return [word for words in values if "--from" not in words[0] for word in words[:-1]]


@pytest.fixture(scope="module")
def dockerfile():
    return Dockerfile(TEXT)


@pytest.fixture(scope="module")
def tracked(repo_root):
    """Files that git knows, with whether they can be run."""
    listing = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=repo_root, capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(maxsplit=3) for line in listing.splitlines())
    return {path: mode == "100755" for mode, _, _, path in rows}


def lint(text: str) -> str:
    """What the linter finds, of any severity."""
    folders = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    linter = shutil.which("hadolint", path=folders)
    assert linter, "hadolint is missing: run scripts/setup.sh dev"
    result = subprocess.run(
        [linter, "--no-color", "--failure-threshold", "style", "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert bool(result.returncode) == bool(result.stdout), result.stderr
    return result.stdout


def test_the_linter_finds_nothing():
    assert lint(TEXT) == ""


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ("ros:jazzy-ros-core-noble", "ros", "DL3006"),
        ('"ros-${ROS_DISTRO}-ros-core"', "ros-${ROS_DISTRO}-ros-core", "SC2086"),
        ("USER 1000:1000", "USER root", "DL3002"),
        ("WORKDIR /mmfusion\nCOPY", "WORKDIR mmfusion\nCOPY", "DL3000"),
    ],
)
def test_the_linter_reads_it(good, bad, rule):
    assert rule in lint(changed(good, bad))


def changed(good: str, bad: str) -> str:
    assert good in TEXT
    return TEXT.replace(good, bad)


# --- what a linter does not know ---------------------------------------------------------------


def without_pinned_tag(dockerfile: Dockerfile) -> list[str]:
    """Images from elsewhere without a tag, or with one that any release moves."""
    outside = [
        image
        for image in dockerfile.images.values()
        if image not in dockerfile.images and not image.startswith("platform-$")
    ]
    assert len(outside) == len(dockerfile.platforms)
    return [image for image in outside if image.partition(":")[2] in {"", "latest"}]


def without_checksum(dockerfile: Dockerfile) -> list[str]:
    """Downloads whose content is not pinned."""
    adds = dockerfile.values("ADD")
    return [value for value in adds if not re.search(r"--checksum=sha256:[0-9a-f]{64} ", value)]


def unknown_sources(dockerfile: Dockerfile, tracked: dict[str, bool]) -> list[str]:
    """Copied paths that git does not know."""
    return [
        path
        for path in dockerfile.copied
        if not any(name == path or name.startswith(f"{path}/") for name in tracked)
    ]


def own_installs(dockerfile: Dockerfile) -> list[str]:
    """Steps that install Python packages other than scripts/setup.sh robot does."""
    return [
        value
        for value in dockerfile.values("RUN")
        if re.search(r"\bpip3?\b|\buv\b|\bconda\b|setup\.sh (?!robot\b)|python3-(torch|pip)", value)
    ]


def users(dockerfile: Dockerfile) -> list[str]:
    """Name or number of each user that the last stage runs as."""
    return [value.partition(":")[0] for value in dockerfile.values("USER", dockerfile.final)]


def in_checkout(path: str) -> str:
    """A path of the container as one of the checkout."""
    return PurePosixPath(path).relative_to("/mmfusion").as_posix()


def missing_files(dockerfile: Dockerfile, tracked: dict[str, bool]) -> list[str]:
    """Files that the last stage names by absolute path and the image will not have."""
    rows = dockerfile.stages[dockerfile.final]
    text = " ".join(value for name, value in rows if name not in {"COPY", "WORKDIR"})
    paths = {in_checkout(path) for path in re.findall(r"/mmfusion/[\w./]+", text)}
    assert paths
    return sorted(
        path
        for path in paths
        if not any(name == path or name.startswith(f"{path}/") for name in tracked)
        or path.partition("/")[0] not in dockerfile.copied
    )


def health_command(dockerfile: Dockerfile) -> list[str]:
    (value,) = dockerfile.values("HEALTHCHECK", dockerfile.final)
    return json.loads(value.partition("CMD ")[2])


def test_platforms_are_those_of_the_documentation(dockerfile, repo_root):
    page = (repo_root / "docs" / "container.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == dockerfile.platforms
    assert set(re.findall(r"^#   (\w+)  ", TEXT, re.MULTILINE)) == dockerfile.platforms
    (default,) = dockerfile.values("ARG", "")
    assert default.removeprefix("PLATFORM=") in dockerfile.platforms
    assert dockerfile.images["base"] == "platform-${PLATFORM}"


def test_images_and_downloads_are_pinned(dockerfile):
    assert without_pinned_tag(dockerfile) == []
    assert dockerfile.values("ADD")
    assert without_checksum(dockerfile) == []


def test_what_is_copied_is_in_git_and_reaches_the_build(dockerfile, tracked, repo_root):
    assert unknown_sources(dockerfile, tracked) == []
    lines = (repo_root / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert [line[1:] for line in lines if line.startswith("!")] == dockerfile.copied


def test_the_folders_that_the_ros_package_links_to_are_copied(dockerfile, tracked, repo_root):
    links = [repo_root / path for path in tracked if (repo_root / path).is_symlink()]
    targets = {path.resolve().relative_to(repo_root).parts[0] for path in links}
    assert {"launch", "calibration"} <= targets <= set(dockerfile.copied)


def test_the_last_stage_has_neither_compiler_nor_sources_of_its_own(dockerfile):
    assert dockerfile.images[dockerfile.final] == "base"
    assert dockerfile.images["build"] == "base"
    assert dockerfile.values("RUN", dockerfile.final) == []
    assert dockerfile.values("COPY", dockerfile.final) == ["--from=build /mmfusion /mmfusion"]
    (installed,) = dockerfile.values("RUN", "base")
    assert not re.search(r"build-essential|g\+\+|cmake|python3-dev", installed)


def test_nothing_but_the_robots_requirements_is_installed(dockerfile):
    assert own_installs(dockerfile) == []
    assert sum("scripts/setup.sh robot" in value for value in dockerfile.values("RUN")) == 1


def test_the_robots_requirements_need_no_torch(repo_root):
    """Nor does what they need in turn, as installed here."""
    lines = [
        line
        for name in ("robot", "build")
        for line in (repo_root / "scripts" / f"requirements-{name}.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    waiting, found = [Requirement(line) for line in lines], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another system, or of the distribution
        extras = requirement.extras or {""}
        waiting += [
            r
            for r in map(Requirement, needed)
            if not r.marker or any(r.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    assert {"onnxruntime", "numpy", "matplotlib", "pillow"} <= found
    assert found.isdisjoint(TORCH)


def test_it_does_not_run_as_root(dockerfile):
    assert users(dockerfile) == ["1000"]


def test_the_health_check_is_one_the_doctor_understands(dockerfile, repo_root):
    entry, python, option, module, *arguments = health_command(dockerfile)
    assert [entry] == json.loads(dockerfile.values("ENTRYPOINT")[0])
    assert (python, option) == ("python", "-m")
    assert find_spec(module).loader is not None
    options = doctor._parser().parse_args(arguments)
    assert options.quick
    launched = (repo_root / "launch" / "fusion.launch.py").read_text()
    assert f'name="{options.node.removeprefix("/")}"' in launched


def test_what_it_starts_exists(dockerfile, tracked):
    assert missing_files(dockerfile, tracked) == []
    (entry,) = json.loads(dockerfile.values("ENTRYPOINT")[0])
    assert tracked[in_checkout(entry)], "git does not have it as a program"
    program, verb, package, file, *arguments = json.loads(dockerfile.values("CMD")[-1])
    assert (program, verb) == ("ros2", "launch")
    assert find_spec(package)
    assert f"ros2_ws/src/{package}/package.xml" in tracked
    assert f"launch/{file}" in tracked
    assert [argument.partition(":=")[0] for argument in arguments] == ["artifact"]


def test_labels_have_the_version_of_the_package(dockerfile, repo_root):
    setup = (repo_root / "ros2_ws" / "src" / "mmfusion_ros" / "setup.py").read_text()
    (version,) = re.findall(r'version="(.*)"', setup)
    assert f'image.version="{version}"' in dockerfile.values("LABEL", dockerfile.final)[0]


@pytest.mark.parametrize(
    ("good", "bad", "finds"),
    [
        ("nvidia/cuda:12.6.3-base-ubuntu24.04", "nvidia/cuda", without_pinned_tag),
        ("l4t-jetpack:r36.4.0", "l4t-jetpack:latest", without_pinned_tag),
        ("--checksum=sha256:767884", "--checksum=sha256:76788", without_checksum),
        ("COPY data data", "COPY dates dates", unknown_sources),
        ("&& chmod -R", "&& pip install torch && chmod -R", own_installs),
        ("setup.sh robot", "setup.sh dev", own_installs),
        ("artifacts/rgbdt_tiny_640x480", "artifacts/rgbdt_huge", missing_files),
        ("config/fastdds.xml", "config/dds.xml", missing_files),
        ("COPY scripts scripts\n", "", missing_files),
    ],
)
def test_faults_are_found(good, bad, finds, tracked):
    arguments = (tracked,) if finds in {unknown_sources, missing_files} else ()
    assert finds(Dockerfile(changed(good, bad)), *arguments)


# --- the entry point ---------------------------------------------------------------------------


@pytest.fixture
def entry(tmp_path, repo_root):
    """A copy of it in a checkout whose environment sets one variable."""
    script = tmp_path / "check out" / "scripts" / "in_environment.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(repo_root / "scripts" / script.name, script)
    state = script.parent.parent / ".venv" / "mmfusion"
    state.mkdir(parents=True)
    (state / "environment.sh").write_text("export ENTERED=yes\n")
    return script


def test_a_command_runs_in_the_environment(entry):
    code = "import os, sys; print(os.environ['ENTERED'], sys.argv[1:], os.getpid()); sys.exit(7)"
    with subprocess.Popen(
        [str(entry), sys.executable, "-c", code, "two words", "*"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        output, _ = process.communicate(timeout=60)
    # The same process: signals that a container gets reach it.
    assert output == f"yes ['two words', '*'] {process.pid}\n"
    assert process.returncode == 7


def test_without_an_environment_nothing_runs(entry):
    shutil.rmtree(entry.parent.parent / ".venv")
    result = subprocess.run(
        [str(entry), "echo", "ran"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert result.stdout == ""
    assert "environment.sh" in result.stderr
