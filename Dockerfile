# The fusion node on the CPU, on a ROS 2 distribution: for robots whose system is not Ubuntu, and
# for machines the ROS wheels on PyPI do not cover (aarch64).
#
#   docker build -t mmfusion .
#   docker run --rm --network host --ipc host mmfusion
#
# starts the node with the bundled artifact and rig; for your own:
#
#   docker run --rm --network host --ipc host -v "$PWD/robot:/robot:ro" mmfusion \
#       ros2 launch mmfusion_ros fusion.launch.py artifact:=/robot/artifact rig:=/robot/rig.yaml
#
# --ipc host lets images travel through shared memory between containers; without it they
# go through UDP, which loses large ones.

# Jazzy is the long-term release; Kilted works too.
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base

# From here on ROS_DISTRO is what the base image says.
# The base image has compiler, CMake and colcon; the venv module and the Python headers it
# lacks. vision_msgs is the distribution's own. Fast DDS is named because the shared-memory
# profile is for it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3-dev \
        python3-venv \
        ros-${ROS_DISTRO}-rmw-fastrtps-cpp \
        ros-${ROS_DISTRO}-vision-msgs \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /mmfusion
COPY . .

# One way to set up, in a container as on a machine: a virtual environment that sees the
# system's ROS (ONNX Runtime and rosbags are not in apt), and the workspace built with colcon.
RUN scripts/setup.sh robot

# Fast DDS cannot open the shared memory of another user: with camera drivers that do not run
# as root, start this with docker run --user, which needs the files readable and a place for logs.
RUN chmod -R a+rX /mmfusion
ENV ROS_LOG_DIR=/tmp/ros-log

ENTRYPOINT ["bash", "-c", "source /mmfusion/.venv/mmfusion/environment.sh && exec \"$@\"", "mmfusion"]
CMD ["ros2", "launch", "mmfusion_ros", "fusion.launch.py", "artifact:=/mmfusion/artifacts/rgbdt_tiny_640x480"]
