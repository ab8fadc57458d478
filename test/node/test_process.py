"""The node as a process of its own, with a real network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from scene import (
    BASE,
    CAMERA_FRAME,
    LIDAR,
    LIDAR_FROM_OPTICAL,
    SECOND,
    camera_info,
    cloud,
    color_picture,
    image,
    transform,
    unpacked,
)
from tiny import UNET

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.segmenter import load_segmenter

ROOT = Path(__file__).parents[2]
NODE = ("-m", "ttt_kd_ros.ros.segment_node")
FAKE = """
import sys, threading
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.ros.segment_node import main

class Fake:
    classes = load_classes("street6")
    stopped = threading.Event()
    def stop(self):
        self.stopped.set()
    def close(self):
        pass
    def segment(self, frame, due):
        {body}

main(load=lambda checkpoint, **_: Fake())
"""
LOADING = """
import sys, threading
from ttt_kd_ros.ros.segment_node import main

def load(checkpoint, **_):
    print("loading", file=sys.stderr, flush=True)
    threading.Event().wait(60)

main(load=load)
"""
POINTS = [(float(i), float(i % 7), -1.5 + 0.1 * (i % 3)) for i in range(60)]
END_S = 20
SOON_S = 2 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
"""2 s on a machine that does nothing else."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    network = Network(NetworkConfig(load_classes("street6"), TeacherSpec("none", "none", 0, 6), 0.5, 4, UNET))
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, network.eval(), {})
    return path


def left_memory() -> set[Path]:
    """What Fast DDS keeps that no other process of this machine uses, but for the ports, which all share."""
    kept = {path for path in Path("/dev/shm").glob("fastdds_*") if "port" not in path.name}
    used = set()
    for maps in set(Path("/proc").glob("[0-9]*/maps")) - {Path(f"/proc/{os.getpid()}/maps")}:
        with suppress(OSError):  # it has ended, or is another user's
            used |= {line.split()[-1] for line in maps.read_text().splitlines() if "/dev/shm/fastdds_" in line}
    return {path for path in kept if str(path).removesuffix("_el") not in used}


@pytest.fixture
def start_process(ros) -> Iterator[Start]:
    """Start Python with arguments and the node's parameters in the rest of them; it must leave no shared memory."""
    before = left_memory()
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **parameters: str) -> subprocess.Popen[str]:
        given = [text for name, value in parameters.items() for text in ("-p", f"{name.replace('__', '.')}:={value}")]
        command = [sys.executable, *arguments, "--ros-args", *given]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    assert left_memory() <= before


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "ready" in line:
            return
    pytest.fail(f"the node ended with {process.wait()}:\n{''.join(lines)}")


def is_connected(world) -> bool:
    reset = world.reset_client.service_is_ready()
    return reset and world.points.get_subscription_count() and world.count_publishers("/segment/segmentation")


def test_a_scan_gets_the_labels_that_the_segmenter_gives(checkpoint, start_process, world):
    process = start_process(*NODE, checkpoint=str(checkpoint), adaptation__mode="'off'")
    wait_until_ready(process)
    world.wait_until(lambda: is_connected(world))
    world.static_transforms.sendTransform(transform(BASE, LIDAR, (0, 0, 1.5)))
    scan = cloud(POINTS, stamp=3 * SECOND)

    with world.repeating(world.points, scan):
        world.wait_for_clouds(1)
    T_base_scan = np.eye(4)
    T_base_scan[2, 3] = 1.5
    segmenter = load_segmenter(checkpoint, settings=AdaptationSettings(mode="off"))
    expected = segmenter.segment(Frame(Scan(np.array(POINTS, np.float32), T_base_scan)))
    answer = world.clouds[0]
    assert answer.header == scan.header
    assert unpacked(answer)["label"] == expected.labels.tolist()
    np.testing.assert_allclose(unpacked(answer)["confidence"], expected.confidence, rtol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_with_exit_code_zero(checkpoint, start_process, number):
    process = start_process(*NODE, checkpoint=str(checkpoint), adaptation__mode="'off'")
    wait_until_ready(process)
    process.send_signal(number)
    _, rest = process.communicate(timeout=END_S)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


WORKING = "print('working', file=sys.stderr, flush=True); "
STEPS = WORKING + "self.stopped.wait(60); raise RuntimeError('stopped in a step')"
DEAF = WORKING + "threading.Event().wait(60)"


@pytest.mark.parametrize("body", [STEPS, DEAF], ids=["steps", "one long call"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault("SIGINT or SIGTERM in a scan", "the node ends with exit code 0, on an idle machine within 2 s")
def test_a_signal_during_a_scan_ends_the_node_soon_with_exit_code_zero(start_process, world, number, body):
    process = start_process("-c", FAKE.format(body=body), checkpoint="fake")
    wait_until_ready(process)
    publish_until(process, world, "working")
    assert_ends_soon(process, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault("SIGINT or SIGTERM in real steps", "the node ends with exit code 0, on an idle machine within 2 s")
def test_a_signal_during_real_steps_ends_the_node_soon_with_exit_code_zero(start_process, world, number):
    steps = {"adaptation__steps": "1000", "adaptation__min_pairs": "1", "cameras": "[front]", "image_wait_ms": "2000.0"}
    process = start_process(*NODE, threads="1", **steps)
    wait_until_ready(process)
    world.wait_until(lambda: is_connected(world) and world.infos.get_subscription_count())
    world.static_transforms.sendTransform(
        [transform(BASE, LIDAR, (0, 0, 1.5)), transform(LIDAR, CAMERA_FRAME, wxyz=LIDAR_FROM_OPTICAL)]
    )
    scan = cloud([(5.0 + 0.01 * i, 0.5 * (i % 7) - 1.5, 0.2 * (i % 5)) for i in range(2000)])
    picture = image(color_picture(), "rgb8", stamp=SECOND)
    answered = LastAnswer(world, Path(f"/proc/{process.pid}/stat"))
    with (
        world.repeating(world.infos, camera_info()),
        world.repeating(world.images, picture),
        world.repeating(world.points, scan),
    ):
        world.wait_until(lambda: answered.cpu_ticks_since() > 100)
    assert_ends_soon(process, number)


@pytest.mark.fault("SIGINT while training in the background", "node and training end, on an idle machine within 2 s")
def test_a_signal_while_training_in_the_background_ends_both_processes_soon(start_process, world):
    process = start_process(*NODE, threads="1", adaptation__schedule="background")
    wait_until_ready(process)
    (trainer,) = children(process.pid)
    assert_ends_soon(process, signal.SIGINT)
    world.wait_until(lambda: not Path(f"/proc/{trainer}").exists())


def children(pid: int) -> list[int]:
    """The processes that any thread of a process has started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault("SIGINT or SIGTERM while loading", "the node ends with exit code 0, on an idle machine within 2 s")
def test_a_signal_while_the_model_is_loaded_ends_the_node_soon_with_exit_code_zero(start_process, number):
    process = start_process("-c", LOADING, checkpoint="fake")
    assert "loading" in process.stderr.readline()
    assert_ends_soon(process, number)


def assert_ends_soon(process: subprocess.Popen[str], number: signal.Signals) -> None:
    start = time.monotonic()
    process.send_signal(number)
    _, rest = process.communicate(timeout=END_S)
    assert process.returncode == 0, rest
    assert time.monotonic() - start < SOON_S
    assert "Traceback" not in rest


class LastAnswer:
    """CPU time [1/100 s] that a process has used since it last answered a scan."""

    def __init__(self, world, stat: Path) -> None:
        self._world = world
        self._stat = stat
        self._answers, self._ticks = 0, self._used()

    def _used(self) -> int:
        return sum(int(field) for field in self._stat.read_text().rsplit(")", 1)[1].split()[11:13])

    def cpu_ticks_since(self) -> int:
        if len(self._world.clouds) != self._answers:
            self._answers, self._ticks = len(self._world.clouds), self._used()
        return self._used() - self._ticks


def test_a_topic_that_is_no_name_is_refused_in_one_line(start_process):
    process = start_process("-c", FAKE.format(body="pass"), checkpoint="fake", points_topic="'no topic'")
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = text.splitlines()
    assert "no topic" in line


def test_a_fault_in_the_program_ends_the_node_with_its_traceback_and_exit_code_one(start_process, world):
    process = start_process("-c", FAKE.format(body="raise TypeError('a fault')"), checkpoint="fake")
    wait_until_ready(process)
    publish_until(process, world, "TypeError: a fault")
    process.communicate(timeout=END_S)
    assert process.returncode == 1


def publish_until(process: subprocess.Popen[str], world, text: str) -> None:
    """Publish a scan once the process knows where the ground is, and wait until it writes a text."""
    world.wait_until(lambda: is_connected(world))
    world.static_transforms.sendTransform(transform(BASE, LIDAR, (0, 0, 1.5)))
    with world.repeating(world.points, cloud(POINTS, stamp=SECOND)):
        for line in process.stderr:
            if text in line:
                return
    pytest.fail(f"the node ended with {process.wait()} and never wrote '{text}'")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"checkpoint": "missing.safetensors"}, "missing.safetensors"),
        ({"adaptation__steps": "-2"}, "adaptation.steps"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_line(start_process, parameters, reason):
    process = start_process(*NODE, **parameters)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = text.splitlines()
    assert reason in line
