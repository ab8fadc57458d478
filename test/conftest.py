"""What all tests share: a ROS domain of their own, and the reasons for which some cannot run here."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import FaultTable

# Read when rclpy is imported: this run hears and disturbs no other ROS system.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))
# Read when the first participant is made: without it big messages between processes are lost.
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(Path(__file__).parents[1] / "config" / "fastdds.xml")


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """The middleware, for all tests in whatever order."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("data"):
        require_data(*marker.args)
    if item.get_closest_marker("gpu"):
        require_gpu()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="FILE", type=Path, help="write what the tests of faults show as a table")
    parser.addoption("--soak", action="store_true", help="let the soaks last as long as is promised")


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--faults"):
        config.pluginmanager.register(FaultTable(path))


def data_root() -> Path:
    root = os.environ.get("TTT_KD_DATA")
    if not root:
        pytest.skip("needs real sensor data: set TTT_KD_DATA to the directory that holds its folders")
    return Path(root)


def require_data(folder: str) -> None:
    if not (data_root() / folder).exists():
        pytest.skip(f"needs real sensor data: TTT_KD_DATA holds no {folder}")


def require_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def data_dir() -> Path:
    """Directory of real sensor data; the test names the folders that it needs with the marker `data`."""
    return data_root()
