#!/usr/bin/env bash
# Check this checkout: style, types and tests.
#
#   scripts/test.sh [pytest arguments]          everything but the slow tests
#   scripts/test.sh --unit [pytest arguments]   fast tests only: no ROS, exports, style or types
#   scripts/test.sh --full [pytest arguments]   everything, slow tests too
set -euo pipefail

cd "$(dirname "$0")/.."

scope=default
case ${1:-} in
    --unit | --full) scope=${1#--} && shift ;;
    --help | -h) sed -n '2,6s/^# \{0,1\}//p' scripts/test.sh && exit ;;
esac

source scripts/setup.sh dev

# Tests must neither hear other robots nor be heard by them.
ROS_DOMAIN_ID=$(python scripts/free_ros_domain.py)
export ROS_DOMAIN_ID ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST

if [[ $scope != unit ]]; then
    ruff check --quiet .
    ruff format --quiet --check .
    mypy --strict --no-error-summary models/mmfusion ros2_ws/src/mmfusion_ros/mmfusion_ros scripts
fi

case $scope in
    unit) selection="not slow and not ros and not export" ;;
    full) selection="slow or not slow" ;;
    *) selection="not slow" ;;
esac

# Files run side by side, in the order of tests/conftest.py, one thread each.
apart=0 real=0
side_by_side=(--dist loadfile --no-loadscope-reorder -n auto)
export OMP_NUM_THREADS=1

# Those that share nothing: a process takes about 1 GB.
python -m pytest "${side_by_side[@]}" --maxprocesses 4 \
    -m "($selection) and not ros" "$@" || apart=$?
interrupted=2
if [[ $scope == unit || $apart == "$interrupted" || $apart -gt 128 ]]; then exit "$apart"; fi

# Real nodes mostly wait: two files at a time, in a ROS domain each. On a busy machine, DDS now and
# then finds no match in a minute; a test that needed its second chance is named in the summary.
python -m pytest "${side_by_side[@]}" --maxprocesses 2 --reruns 1 \
    -m "($selection) and ros" "$@" || real=$?

# Arguments may select tests in one of both alone.
nothing=5
if [[ $apart == 0 && $real == "$nothing" ]]; then exit 0; fi
if [[ $apart == "$nothing" ]]; then exit "$real"; fi
exit $((apart ? apart : real))
