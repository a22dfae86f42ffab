from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "mmfusion_ros"
SHARE = f"share/{PACKAGE}"


def shared_folder(name: str) -> list[tuple[str, list[str]]]:
    """List the files of one folder, which may be a link or missing, to install under share."""
    files = [path.as_posix() for path in sorted(Path(name).glob("*")) if path.is_file()]
    return [(f"{SHARE}/{name}", files)] if files else []


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Fuses colour, depth and thermal cameras on ROS 2",
    license="Apache-2.0",
    maintainer="The mmfusion authors",
    maintainer_email="maintainers@mmfusion.example",
    python_requires=">=3.10",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "checks/*.json", "core/*.json", "templates/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        *shared_folder("launch"),
        *shared_folder("calibration"),
        *shared_folder("config"),
        *shared_folder("rviz"),
        *shared_folder("foxglove"),
    ],
    install_requires=[
        "apsw>=3.42",
        "jinja2>=3.1,<4",
        "jsonschema>=4.18,<5",
        "lz4>=4",
        "matplotlib>=3.8,<4",
        "numpy>=1.26,<3",
        "onnxruntime>=1.18,<2",
        "opencv-python-headless>=4.8,<6",
        "packaging>=22",
        "PyYAML>=6.0,<7",
        "rosbags>=0.10,<0.12",
        "tqdm>=4.65,<5",
    ],
    extras_require={
        # Replay of many bags on the workers of a cluster.
        "fleet": ["distributed>=2025.1"],
        # The backend openvino; onnx brings graphs into the form that it reads.
        "openvino": ["onnx>=1.17,<2", "openvino>=2025.0,<2027"],
        # The backend tensorrt; TensorRT itself comes with JetPack or from NVIDIA.
        "tensorrt": ["cuda-bindings>=12.6,<14", "onnx>=1.17,<2"],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"bag_to_folder = {PACKAGE}.bag_to_folder:main",
            f"build_engine = {PACKAGE}.build_engine:main",
            f"check_graph = {PACKAGE}.check_graph:main",
            f"fusion_node = {PACKAGE}.fusion_node:main",
            f"camera_player = {PACKAGE}.camera_player:main",
            f"doctor = {PACKAGE}.doctor:main",
            f"recorder = {PACKAGE}.recorder:main",
            f"replay = {PACKAGE}.replay:main",
            f"sample_frames = {PACKAGE}.sample_frames:main",
        ],
    },
)
