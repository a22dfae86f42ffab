#!/usr/bin/env bash
# Run a command in the environment that scripts/setup.sh built; entry point of the container.
#
#   scripts/in_environment.sh COMMAND...

# Without `set -e`, which the scripts of ROS are not written for.
source "$(dirname "$0")/../.venv/mmfusion/environment.sh" && exec "${@:?give a command: scripts/in_environment.sh COMMAND...}"
