# syntax=docker/dockerfile:1
# The fusion node in a container; docs/container.md tells how to run it, docs/jetson.md what is
# special on a Jetson.
#
#   docker build -t mmfusion .
#   docker run --rm --network host --ipc host mmfusion
#
# PLATFORM chooses what it stands on, with --build-arg PLATFORM=...:
#
#   cpu       any x86-64 or aarch64 machine, Jetsons included
#   cuda      x86-64 with an NVIDIA GPU
#   jetpack7  JetPack 7.2 (L4T r39.2)
#   jetpack6  JetPack 6.2 (L4T r36.4); ROS 2 Humble is too old for the node today, and the build
#             stops where it is imported
#
# In all of them the engine is ONNX Runtime on the CPU; nothing here uses a GPU. The images of
# NVIDIA are for the engine that will.
#
# hadolint global ignore=DL3008
# (apt repositories, that of ROS too, keep the newest version only: a pinned one cannot be
# installed any more after the next release.)
ARG PLATFORM=cpu

FROM ros:jazzy-ros-core-noble AS platform-cpu

# What ros2-apt-source brings is the repository of ROS and its key.
FROM nvidia/cuda:12.6.3-base-ubuntu24.04 AS platform-cuda
ENV ROS_DISTRO=jazzy
ADD --chmod=644 --checksum=sha256:0804d9b13db770eb87019be414cd78378835228ad5fa801fc88758596dd8f7e5 \
    https://github.com/ros-infrastructure/ros-apt-source/releases/download/1.2.0/ros2-apt-source_1.2.0.noble_all.deb \
    /tmp/ros2-apt-source.deb

FROM nvcr.io/nvidia/cuda:13.2.0-base-ubuntu24.04 AS platform-jetpack7
ENV ROS_DISTRO=jazzy
ADD --chmod=644 --checksum=sha256:0804d9b13db770eb87019be414cd78378835228ad5fa801fc88758596dd8f7e5 \
    https://github.com/ros-infrastructure/ros-apt-source/releases/download/1.2.0/ros2-apt-source_1.2.0.noble_all.deb \
    /tmp/ros2-apt-source.deb

# Brings the TensorRT of JetPack, the one that knows the board's GPU.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0 AS platform-jetpack6
ENV ROS_DISTRO=humble
ADD --chmod=644 --checksum=sha256:767884cf4ed03116b9d64438930a832ed854147ae435279a7924dfdf60f94433 \
    https://github.com/ros-infrastructure/ros-apt-source/releases/download/1.2.0/ros2-apt-source_1.2.0.jammy_all.deb \
    /tmp/ros2-apt-source.deb

# --- what building and running share -------------------------------------------------------
# Its tag stands with the stage above that it names.
# hadolint ignore=DL3006
FROM platform-${PLATFORM} AS base

ARG DEBIAN_FRONTEND=noninteractive
ENV LANG=C.UTF-8 LC_ALL=C.UTF-8

# vision_msgs is the distribution's own. Fast DDS is named because the profile is for it, ros2launch
# because it is what starts.
RUN apt-get update \
    && if [ -e /tmp/ros2-apt-source.deb ]; then \
        apt-get install --yes --no-install-recommends /tmp/ros2-apt-source.deb \
        && rm /tmp/ros2-apt-source.deb \
        && apt-get update; \
    fi \
    && apt-get install --yes --no-install-recommends \
        "ros-${ROS_DISTRO}-ros-core" \
        "ros-${ROS_DISTRO}-rmw-fastrtps-cpp" \
        "ros-${ROS_DISTRO}-ros2launch" \
        "ros-${ROS_DISTRO}-vision-msgs" \
    && rm -rf /var/lib/apt/lists/*

# --- build ---------------------------------------------------------------------------------
FROM base AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential \
        cmake \
        python3-dev \
        python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /mmfusion
COPY LICENSE LICENSE
COPY artifacts artifacts
COPY calibration calibration
COPY data data
COPY launch launch
COPY models models
COPY ros2_ws ros2_ws
COPY scripts scripts

# One way to set up, in a container as on a machine: a virtual environment that sees the
# system's ROS (ONNX Runtime and rosbags are not in apt), and the workspace built with colcon.
# The import makes the build fail, not the robot, where the distribution does not fit the node.
# Any user may run it, so any user must be able to read it.
RUN scripts/setup.sh robot \
    && scripts/in_environment.sh python -c "import mmfusion_ros.fusion_node" \
    && chmod -R a+rX /mmfusion

# --- run: no compiler, no headers, no PyTorch ----------------------------------------------
FROM base AS runtime

LABEL org.opencontainers.image.title="mmfusion" \
    org.opencontainers.image.description="Fuses colour, depth and thermal cameras on ROS 2. The bundled artifacts are for non-commercial use." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="0.1.0"

# The workspace is made of links into the sources, so it moves as a whole and stays in place.
COPY --from=build /mmfusion /mmfusion

# Camera drivers started here need the profile too. This is the variable that the Fast DDS of
# Jazzy and Humble reads. Home and logs are where any user may write.
ENV FASTRTPS_DEFAULT_PROFILES_FILE=/mmfusion/ros2_ws/src/mmfusion_ros/config/fastdds.xml \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    RMW_IMPLEMENTATION=rmw_fastrtps_cpp \
    ROS_LOG_DIR=/tmp/ros-log

WORKDIR /mmfusion

# Fast DDS cannot open the shared memory of another user. This is the first user of an Ubuntu
# machine, so it meets camera drivers which that one starts; otherwise docker run --user.
USER 1000:1000

# On SIGTERM ros2 launch may leave its processes behind.
STOPSIGNAL SIGINT

HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
    CMD ["/mmfusion/scripts/in_environment.sh", "python", "-m", "mmfusion_ros.doctor", "--quick", "--node", "/fusion_node"]

ENTRYPOINT ["/mmfusion/scripts/in_environment.sh"]
CMD ["ros2", "launch", "mmfusion_ros", "fusion.launch.py", "artifact:=/mmfusion/artifacts/rgbdt_tiny_640x480"]
