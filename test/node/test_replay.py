"""Replay with a process that answers in the node's place, and with the node itself."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import data_folders
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from tiny import UNET

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.evaluation.metrics import confusion, iou, mean_iou
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.replay import session
from ttt_kd_ros.replay.bag import bag_sha256
from ttt_kd_ros.replay.convert import convert
from ttt_kd_ros.replay.link import DIAGNOSTICS_TOPIC, Arrival, Link
from ttt_kd_ros.replay.messages import cloud_field
from ttt_kd_ros.replay.node_process import NodeProcess, tied
from ttt_kd_ros.replay.session import remappings, replay
from ttt_kd_ros.replay.settings import ReplaySettings, plan

CLASSES = load_classes("street6")

ECHO_NODE = '''
"""Answers a scan with its points and the label `number of scans so far`; `BEHAVIOUR` can spoil it."""
import os, sys
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField
from tf2_msgs.msg import TFMessage
from rclpy.qos import DurabilityPolicy, QoSProfile

BEHAVIOUR = sys.argv[1]
if BEHAVIOUR == "refuse":
    print("loading\\nthe checkpoint is not to my taste", file=sys.stderr)
    sys.exit(3)

rclpy.init()
node = Node("segment", automatically_declare_parameters_from_overrides=True)
value = lambda name: node.get_parameter(name).value
clouds = node.create_publisher(PointCloud2, "~/segmentation", 10)
reports = node.create_publisher(DiagnosticArray, "~/report", 10)
diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
counts = {"received": 0, "published": 0, "overload": 0, "malformed": 0}

def array(header, name, values):
    pairs = [KeyValue(key=k, value=str(v)) for k, v in values.items()]
    return DiagnosticArray(header=header, status=[DiagnosticStatus(name=name, values=pairs)])

def on_scan(scan):
    counts["received"] += 1
    number = counts["received"]
    if BEHAVIOUR == "die" and number == 2:
        print("out of memory", file=sys.stderr)
        os._exit(9)
    if BEHAVIOUR == "silent" and number == 2:
        return
    if BEHAVIOUR == "drop" and number == 2:
        counts["malformed"] += 1
        diagnostics.publish(array(scan.header, f"{node.get_name()}: scans", counts))
        return
    size = scan.width - 1 if BEHAVIOUR == "lose" else scan.width
    answer = PointCloud2(header=scan.header, height=1, width=size, point_step=1, row_step=size, is_dense=True)
    answer.fields = [PointField(name="label", offset=0, datatype=PointField.UINT8, count=1)]
    answer.data.frombytes(np.full(size, number - 1, np.uint8).tobytes())
    clouds.publish(answer)
    counts["published"] += 1
    losses = {"kd_loss_first": 0.5 + number / 10, "kd_loss_last": 0.25} if number < 3 else {"kd_loss_first": "nan"}
    reports.publish(array(scan.header, f"{node.get_name()}: scan", losses))
    diagnostics.publish(array(scan.header, f"{node.get_name()}: scans", counts))
    diagnostics.publish(array(scan.header, "lidar driver: scans", {"received": 999, "published": 999}))

static = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
quiet = lambda message: None
node.create_subscription(PointCloud2, value("points_topic"), on_scan, qos_profile_sensor_data)
node.create_subscription(TFMessage, "/tf", quiet, 10)
node.create_subscription(TFMessage, "/tf_static", quiet, static)
for camera in value("cameras"):
    assert value(f"camera.{camera}.transport") == "compressed"
    topic = value(f"camera.{camera}.image_topic") + "/compressed"
    node.create_subscription(CompressedImage, topic, quiet, qos_profile_sensor_data)
    node.create_subscription(CameraInfo, value(f"camera.{camera}.info_topic"), quiet, qos_profile_sensor_data)
steps = node.get_parameter_or("adaptation.steps").value
print("parameters", value("base_frame"), value("fixed_frame"), steps, flush=True)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
'''


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights: enough for a node to run with adaptation off."""
    torch.manual_seed(0)
    network = Network(NetworkConfig(CLASSES, TeacherSpec("none", "none", 0, 6), 0.5, 4, UNET))
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(path, network, {})
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = data_folders.pandaset(tmp_path_factory.mktemp("data") / "folder", scans=3)
    return open_folder(path, CLASSES)


@pytest.fixture(scope="module")
def bag(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "drive"
    convert(folder, path)
    return path


@pytest.fixture
def echo(tmp_path):
    """Command of the process that stands for the node, by its behaviour."""
    script = tmp_path / "echo_node.py"
    script.write_text(textwrap.dedent(ECHO_NODE))
    return lambda behaviour="good": [sys.executable, str(script), behaviour]


def read_bag(path):
    found = {}
    with AnyReader([path]) as reader:
        for connection, stamp, data in reader.messages():
            found.setdefault(connection.topic, []).append((stamp, reader.deserialize(data, connection.msgtype)))
    return found


def expected_confusion(folder, indices):
    """The echo node gives scan i the label i."""
    truths = {i: folder[i].labels for i in indices}
    return sum(confusion(np.full_like(truth, i), truth, 6) for i, truth in truths.items())


def test_every_scan_is_answered_and_scored(folder, bag, checkpoint, echo, tmp_path):
    settings = ReplaySettings(checkpoint, rate=0, parameters={"adaptation.steps": 7}, out=tmp_path / "out")
    result = replay(plan(bag, settings), node_command=echo())
    matrix = expected_confusion(folder, range(3))
    assert (result.scans_in, result.clouds_out, sum(result.dropped.values())) == (3, 3, 0)
    assert list(result.iou) == list(CLASSES.names)
    np.testing.assert_allclose(list(result.iou.values()), iou(matrix))
    assert result.miou == pytest.approx(mean_iou(matrix))
    assert 10 < result.peak_memory_mib < 16_000
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p95"] <= result.latency_ms["p99"] < 5000
    assert result.kd_loss == {"first": pytest.approx(0.65), "last": pytest.approx(0.25)}
    labels = b"".join(bytes([i]) * data_folders.POINTS for i in range(3))
    assert result.labels_sha256 == hashlib.sha256(labels).hexdigest()


def test_the_output_holds_result_log_and_a_bag_at_the_stamps_of_the_scans(folder, bag, checkpoint, echo, tmp_path):
    out = tmp_path / "out"
    settings = ReplaySettings(checkpoint, rate=0, parameters={"adaptation.steps": 7}, out=out)
    result = replay(plan(bag, settings), node_command=echo())
    content = json.loads((out / "result.json").read_text())
    assert content["bag_sha256"] == bag_sha256(bag)
    assert content["settings"]["parameters"]["adaptation.steps"] == 7
    assert content["settings"]["rate"] == 0
    assert {k: content[k] for k in result.to_dict()} == result.to_dict()
    assert "parameters base_link odom 7" in (out / "node.log").read_text()
    found = read_bag(out / "segmentation")
    for topic in ("/points", "/segment/segmentation", "/segment/report"):
        assert [stamp for stamp, _ in found[topic]] == list(folder.stamps)
    for index, (_, cloud) in enumerate(found["/segment/segmentation"]):
        assert (cloud_field(cloud, "label") == index).all()
        assert bytes(found["/points"][index][1].data) == folder.record(index).points.tobytes()


def test_the_recorded_timing_is_kept(bag, checkpoint, echo):
    start = time.monotonic()
    assert replay(plan(bag, ReplaySettings(checkpoint, rate=0.05)), node_command=echo()).clouds_out == 3
    assert time.monotonic() - start > 0.249 / 0.05  # from the first picture to the last scan


def test_a_scan_that_the_node_drops_is_counted_by_cause_and_the_replay_goes_on(bag, checkpoint, echo, folder):
    result = replay(plan(bag, ReplaySettings(checkpoint, rate=0)), node_command=echo("drop"))
    assert (result.scans_in, result.clouds_out) == (3, 2)
    assert {cause: n for cause, n in result.dropped.items() if n} == {"malformed": 1}
    assert result.miou == pytest.approx(mean_iou(expected_confusion(folder, (0, 2))))


def test_a_scan_without_any_answer_is_counted_as_unanswered(bag, checkpoint, echo, monkeypatch):
    monkeypatch.setattr(session, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(session, "REPORT_SECONDS", 0.5)
    result = replay(plan(bag, ReplaySettings(checkpoint, rate=0)), node_command=echo("silent"))
    assert (result.scans_in, result.clouds_out) == (3, 2)
    assert {cause: n for cause, n in result.dropped.items() if n} == {"unanswered": 1}


def test_a_node_that_does_not_start_is_reported_with_its_exit_code_and_last_words(bag, checkpoint, echo):
    with pytest.raises(InputError, match=r"exit code 3: loading \| the checkpoint is not to my taste"):
        replay(plan(bag, ReplaySettings(checkpoint)), node_command=echo("refuse"))


def test_a_node_that_dies_on_the_way_is_reported_and_leaves_no_half_bag(bag, checkpoint, echo, tmp_path):
    with pytest.raises(InputError, match=r"exit code 9: .*out of memory"):
        replay(plan(bag, ReplaySettings(checkpoint, rate=0, out=tmp_path / "out")), node_command=echo("die"))
    assert not (tmp_path / "out" / "segmentation").exists()


def test_a_node_that_dies_is_noticed_while_others_publish_diagnostics(bag, checkpoint, echo, monkeypatch):
    message = DiagnosticArray(status=[DiagnosticStatus(name="lidar driver: scans")])
    others = [Arrival(DIAGNOSTICS_TOPIC, 0, serialize_message(message))] * 3000
    receive = Link.receive
    monkeypatch.setattr(
        Link, "receive", lambda link, timeout: receive(link, min(timeout, 0.01)) or (others.pop() if others else None)
    )
    with pytest.raises(InputError, match=r"exit code 9: .*out of memory"):
        replay(plan(bag, ReplaySettings(checkpoint, rate=0)), node_command=echo("die"))
    assert others


def test_an_answer_of_another_length_is_an_error(bag, checkpoint, echo):
    with pytest.raises(DataError, match="59 labels cannot be scored against 60"):
        replay(plan(bag, ReplaySettings(checkpoint, rate=0)), node_command=echo("lose"))


def test_a_node_that_never_listens_is_reported(bag, checkpoint, monkeypatch):
    monkeypatch.setattr(session, "START_SECONDS", 1.0)
    deaf = [sys.executable, "-c", "import signal; print('still loading', flush=True); signal.pause()"]
    with pytest.raises(InputError, match=r"not connected to .*/points.* after 1 s: still loading"):
        replay(plan(bag, ReplaySettings(checkpoint)), node_command=deaf)


def test_another_node_that_segments_is_reported(bag, checkpoint, echo, tmp_path):
    settings, log = ReplaySettings(checkpoint, rate=0.05), tmp_path / "other.log"  # slow: the middleware has to find it
    with (
        NodeProcess(plan(bag, settings).parameters, remappings("other"), log, echo()) as other,
        pytest.raises(InputError, match="another node publishes /segment/segmentation"),
    ):
        wait_for(lambda: "parameters" in other.last_words())
        replay(plan(bag, settings), node_command=echo())


def test_a_bag_with_other_classes_than_the_checkpoint_is_refused(folder, bag, checkpoint, tmp_path):
    other = tmp_path / "bag"
    convert(folder, other)
    metadata = other / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace('"sidewalk"', '"pavement"'))
    with pytest.raises(DataError, match=r"road, pavement.*but the checkpoint predicts road, sidewalk"):
        plan(other, ReplaySettings(checkpoint))


def test_a_checkpoint_may_be_given_below_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path.resolve() / "x.safetensors"
    assert ReplaySettings("~/x.safetensors").checkpoint_file == expected
    assert ReplaySettings(parameters={"checkpoint": "~/x.safetensors"}).checkpoint_file == expected


def test_parameters_come_from_the_bag_and_then_from_the_settings(bag, checkpoint):
    more = {"image_wait_ms": 200, "camera.front_camera.tolerance_ms": "2e1", "fixed_frame": "", "base_frame": ""}
    what = plan(bag, ReplaySettings(parameters=more | {"checkpoint": checkpoint}))
    values = what.parameters
    assert (values["base_frame"], values["fixed_frame"], values["points_topic"]) == ("base_link", "", "/points")
    assert values["checkpoint"] == str(Path(checkpoint).resolve())
    assert isinstance(values["image_wait_ms"], float)
    assert (values["camera.front_camera.tolerance_ms"], what.node_settings.image_wait_ns) == (20.0, 200_000_000)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"adaptation.stepps": 3}, "no parameter 'adaptation.stepps'"),
        ({"camera.front_camera.tolerance": 3}, "no parameter 'camera.front_camera.tolerance'"),
        ({"camera.rear.tolerance_ms": 3}, "'camera.rear.tolerance_ms' is of a camera that is not used; .*front_camera"),
        ({"adaptation.steps": "many"}, "is 'many'; it must be a whole number"),
        ({"threads": True}, "is 'True'; it must be a whole number"),
        ({"threads": "true"}, "is 'true'; it must be a whole number"),
        ({"device": ["cpu"]}, "it must be a text"),
        ({"adaptation.steps": -2}, "'adaptation.steps' is -2"),
        ({"cameras": [1]}, "no camera 1 "),
        ({"points_topic": "/rear"}, "no PointCloud2 on '/rear'"),
        ({"autostart": False}, "'autostart' is false"),
    ],
)
def test_parameters_that_the_node_or_the_bag_has_not_are_refused(parameters, message, bag, checkpoint):
    with pytest.raises(InputError, match=message):
        replay(plan(bag, ReplaySettings(checkpoint, parameters=parameters)))


def test_the_node_answers_every_scan_with_its_own_number_of_points(folder, bag, checkpoint, tmp_path):
    settings = ReplaySettings(checkpoint, rate=0, parameters={"adaptation.mode": "off"}, out=tmp_path / "out")
    result = replay(plan(bag, settings))
    assert (result.scans_in, result.clouds_out, sum(result.dropped.values())) == (3, 3, 0)
    assert result.pictures["front_camera"]["received"] == 3
    assert result.pictures["front_camera"]["used"] == 0, "nothing is learned from them"
    found = read_bag(tmp_path / "out" / "segmentation")
    clouds = [cloud for _, cloud in found["/segment/segmentation"]]
    assert [cloud.width for cloud in clouds] == [len(frame.scan.points) for frame in folder]
    labels = [cloud_field(cloud, "label") for cloud in clouds]
    matrix = sum(confusion(label, frame.labels, 6) for label, frame in zip(labels, folder, strict=True))
    assert result.miou == pytest.approx(mean_iou(matrix))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_a_replay_that_ends_early_stops_the_node(number, code, bag, checkpoint, tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "ttt_kd_ros.cli",
        "replay",
        str(bag),
        "--checkpoint",
        checkpoint,
        "--out",
        str(out),
    ]
    replaying = subprocess.Popen(
        [*command, "--adaptation", "off", "--rate", "0.001"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: (out / "node.log").is_file() and "ready" in (out / "node.log").read_text())
    (node,) = children(replaying.pid)
    os.kill(replaying.pid, number)
    _, errors = replaying.communicate(timeout=20)
    assert replaying.returncode == code
    assert "Traceback" not in errors
    wait_for(lambda: has_ended(node), timeout=10.0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a process with its parent")
def test_a_node_does_not_start_once_its_replay_has_ended(monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    command = tied((sys.executable, "-c", "print('started')"))
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def wait_for(condition, timeout=60.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_ended(pid):
    """Whether a process is gone, or waits for a parent to take note of that."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()
