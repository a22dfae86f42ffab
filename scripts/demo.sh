#!/usr/bin/env bash
# Play cameras into the fusion node over real DDS, record, replay the recording, report.
#
#   scripts/demo.sh                           the bundled courtyard sequence
#   scripts/demo.sh --data FOLDER_OR_BAG      your own pictures or bag
#   scripts/demo.sh --help                    all options
set -euo pipefail

cd_back=$PWD
cd "$(dirname "$0")/.."
source scripts/setup.sh robot
root=$PWD
cd "$cd_back"
exec python "$root/scripts/demo.py" "$@"
