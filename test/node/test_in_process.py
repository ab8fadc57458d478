"""Replay without middleware: repeatable, and the same labels as from the node."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import data_folders
import numpy as np
import pytest
import torch
from tiny import UNET

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.cli import main
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.replay import in_process
from ttt_kd_ros.replay.bag import BagWriter, bag_sha256, open_bag, read
from ttt_kd_ros.replay.compare import compare, describe
from ttt_kd_ros.replay.convert import convert
from ttt_kd_ros.replay.discovery import discover
from ttt_kd_ros.replay.frames import BagFrames
from ttt_kd_ros.replay.in_process import replay_in_process
from ttt_kd_ros.replay.session import replay
from ttt_kd_ros.replay.settings import ReplaySettings, plan
from ttt_kd_ros.replay.stream import BagStream
from ttt_kd_ros.ros.counts import Counts

CLASSES = load_classes("street6")
PARAMETERS = {
    "adaptation.steps": 3,
    "adaptation.min_pairs": 1,
    "adaptation.learning_rate": 0.05,
    "adaptation.collapse_share": 1.0,
    "threads": 1,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained small network for EfficientNet's features."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `efficientnet`")
    torch.manual_seed(0)
    teacher = TeacherSpec("efficientnet-lite0", "efficientnet-lite0", 64, 472)
    network = Network(NetworkConfig(CLASSES, teacher, 0.5, 8, UNET))
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(path, network, {})
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return open_folder(data_folders.pandaset(tmp_path_factory.mktemp("data") / "folder", scans=3), CLASSES)


@pytest.fixture(scope="module")
def bag(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "drive"
    convert(folder, path)
    return path


@pytest.fixture(scope="module")
def settings(checkpoint):
    return ReplaySettings(checkpoint, rate=0, parameters=PARAMETERS)


@pytest.fixture(scope="module")
def online(bag, settings):
    return replay_in_process(plan(bag, settings))


def with_parameters(settings, **parameters):
    return replace(settings, parameters={**settings.parameters, **parameters})


def rewritten(bag, path, keep):
    """A copy of the bag with what `keep` makes of the list of (topic, type, time, data)."""
    with open_bag(bag) as reader, BagWriter(path) as writer:
        types = {c.topic: c.msgtype for c in reader.connections}
        for topic, time, data in keep([(t, n, bytes(d)) for t, n, d in read(reader, types)]):
            writer.write_raw(topic, types[topic], time, data, latched=topic == "/tf_static")
    return path


def frames_of(bag, settings):
    what = plan(bag, settings)
    counts = Counts()
    with open_bag(bag) as reader:
        return list(BagFrames(reader, what.layout, what.node_settings, counts)()), counts


def test_every_scan_is_answered_with_steps_and_scored(online, folder):
    assert (online.scans_in, online.clouds_out, sum(online.dropped.values())) == (3, 3, 0)
    assert [answer.stamp for answer in online.answers] == list(folder.stamps)
    assert [len(answer.kd_losses) for answer in online.answers] == [4, 4, 4]
    assert online.pictures["front_camera"]["used"] == 3
    assert 0 <= online.miou <= 1
    losses = np.array([answer.kd_losses for answer in online.answers])
    assert online.kd_loss == {"first": pytest.approx(losses[:, 0].mean()), "last": pytest.approx(losses[:, -1].mean())}


def test_the_same_bag_and_settings_give_the_same_labels_in_one_process(online, bag, settings):
    again = replay_in_process(plan(bag, settings))
    assert again.labels_sha256 == online.labels_sha256
    assert [a.kd_losses for a in again.answers] == [a.kd_losses for a in online.answers]


def test_the_same_bag_and_settings_give_the_same_labels_in_another_process(online, bag, settings, tmp_path):
    options = [f"--param={name}={value}" for name, value in PARAMETERS.items()]
    command = [sys.executable, "-m", "ttt_kd_ros.cli", "replay", str(bag), "--checkpoint", settings.checkpoint]
    text = subprocess.run(
        [*command, "--in-process", "--out", str(tmp_path), *options], check=True, capture_output=True, text=True
    ).stdout
    assert f"SHA-256 {online.labels_sha256}" in text
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["labels_sha256"] == online.labels_sha256
    assert content["bag_sha256"] == bag_sha256(bag)
    assert content["settings"]["in_process"] is True
    assert content["settings"]["parameters"]["adaptation.steps"] == 3


def test_adaptation_changes_the_labels(online, bag, settings):
    source = replay_in_process(plan(bag, with_parameters(settings, **{"adaptation.mode": "off"})))
    assert source.labels_sha256 != online.labels_sha256
    assert not any(answer.kd_losses for answer in source.answers)


def test_as_from_the_node_no_picture_is_used_without_adaptation_but_a_report_shows_them(bag, settings, tmp_path):
    what = plan(bag, with_parameters(settings, **{"adaptation.mode": "off"}))
    result = replay_in_process(what)
    assert {event: n for event, n in result.pictures["front_camera"].items() if n} == {"received": 3}
    compare(tmp_path / "report.html", what, [describe(what, result, in_process=True)])
    assert "in front_camera" in (tmp_path / "report.html").read_text()


def test_the_node_gives_the_same_labels_and_result_where_nothing_is_dropped(online, bag, settings):
    node = replay(plan(bag, with_parameters(settings, image_wait_ms=2000, transform_wait_ms=2000)))
    assert sum(node.dropped.values()) == 0
    assert node.labels_sha256 == online.labels_sha256
    for answer, other in zip(node.answers, online.answers, strict=True):
        assert answer.stamp == other.stamp
        np.testing.assert_array_equal(answer.labels, other.labels)
        assert answer.kd_losses == pytest.approx((other.kd_losses[0], other.kd_losses[-1]), rel=1e-5)
    ours, theirs = online.to_dict(), node.to_dict()
    for each in (ours, theirs):
        del each["latency_ms"], each["kd_loss"], each["peak_memory_mib"]
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("budget_ms", 50, r"'adaptation.budget_ms' is 50: .*leave it 0 in process"),
        ("deadline_ms", 90, r"'adaptation.deadline_ms' is 90: .*leave it 0 in process"),
        ("schedule", "background", "is background: .*set it to before in process"),
    ],
)
def test_what_is_not_the_same_each_time_is_refused(bag, settings, name, value, reason):
    with pytest.raises(InputError, match=reason):
        replay_in_process(plan(bag, with_parameters(settings, **{f"adaptation.{name}": value})))


def test_a_value_out_of_range_is_refused(bag, settings):
    with pytest.raises(InputError, match=r"'adaptation.steps' is -2"):
        replay_in_process(plan(bag, with_parameters(settings, **{"adaptation.steps": -2})))


def test_a_place_that_cannot_be_written_to_is_told_before_the_work(bag, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(in_process, "load_segmenter", lambda **_: pytest.fail("the work has begun"))
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "out", Path("/proc")):
        with pytest.raises(OSError, match=str(place)):
            replay_in_process(plan(bag, replace(settings, out=place)))


def test_the_result_of_a_node_s_replay_is_not_replaced_beside_its_bag(bag, settings, tmp_path):
    (tmp_path / "segmentation").mkdir()
    (tmp_path / "result.json").write_text("the node's")
    with pytest.raises(DataError, match="segmentation' exists already; remove it or choose another directory"):
        replay_in_process(plan(bag, replace(settings, out=tmp_path)))
    assert (tmp_path / "result.json").read_text() == "the node's"


def test_torch_is_left_as_it_was(online, bag, settings):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    replay_in_process(plan(bag, with_parameters(settings, **{"adaptation.mode": "off"})))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_frame_is_that_of_the_folder(folder, bag, settings):
    frames, _ = frames_of(bag, settings)
    for (stamp, frame), expected in zip(frames, folder, strict=True):
        assert stamp == expected.scan.stamp
        np.testing.assert_array_equal(frame.scan.points, expected.scan.points)
        np.testing.assert_array_equal(frame.labels, expected.labels)
        np.testing.assert_allclose(frame.scan.T_base_scan, expected.scan.T_base_scan, atol=1e-9)
        (view,), (expected_view,) = frame.views, expected.views
        np.testing.assert_array_equal(view.image, expected_view.image)
        np.testing.assert_allclose(view.T_camera_scan, expected_view.T_camera_scan, atol=1e-6)


def test_pictures_and_transforms_that_come_late_in_the_bag_are_used(bag, settings, tmp_path):
    def scans_first(messages):
        end = max(time for _, time, _ in messages)
        scans = [(t, n, d) for t, n, d in messages if t == "/points"]
        return [*scans, *((t, end + i, d) for i, (t, _, d) in enumerate(messages) if t != "/points")]

    late, _ = frames_of(rewritten(bag, tmp_path / "late", scans_first), settings)
    usual, _ = frames_of(bag, settings)
    for (_, frame), (_, expected) in zip(late, usual, strict=True):
        np.testing.assert_array_equal(frame.views[0].image, expected.views[0].image)
        np.testing.assert_array_equal(frame.views[0].T_camera_scan, expected.views[0].T_camera_scan)


def test_a_picture_beyond_the_tolerance_is_not_used_and_counted(bag, settings):
    strict = with_parameters(settings, **{"camera.front_camera.tolerance_ms": 10})  # pictures are 49 ms early
    frames, counts = frames_of(bag, strict)
    assert [frame.views for _, frame in frames] == [(), (), ()]
    assert counts.snapshot().counts["camera front_camera", "no image"] == 3


def test_a_scan_without_ground_transform_is_dropped_by_that_cause(bag, settings, tmp_path):
    def without_static(messages):
        return [message for message in messages if message[0] != "/tf_static"]

    bare = rewritten(bag, tmp_path / "bare", without_static)
    result = replay_in_process(plan(bare, with_parameters(settings, base_frame="base_link", fixed_frame="odom")))
    assert (result.scans_in, result.clouds_out) == (3, 0)
    assert {cause: n for cause, n in result.dropped.items() if n} == {"no base transform": 3}


def test_a_report_of_an_in_process_replay_compares_with_the_source_model(bag, settings, tmp_path, capsys):
    options = [f"--param={name}={value}" for name, value in PARAMETERS.items()]
    arguments = ["replay", str(bag), "--checkpoint", settings.checkpoint, "--in-process", "--report", *options]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["labels_sha256"] in page
    assert content["bag_sha256"] in page
    assert f"{content['miou']:.3f}" in page
    assert page.count("Scan ") == 3
    assert re.search(r"<th>adaptation</th><th>off</th><th>online</th>", page)
    assert str(tmp_path / "report.html") in capsys.readouterr().out


def test_a_report_of_a_replay_to_the_node_compares_with_the_source_model(bag, settings, tmp_path, capsys):
    options = [f"--param={name}={value}" for name, value in PARAMETERS.items()]
    arguments = ["replay", str(bag), "--checkpoint", settings.checkpoint, "--rate", "0", "--report", *options]
    limits = [f"--param=adaptation.{name}=60000" for name in ("budget_ms", "deadline_ms")]
    assert main([*arguments, "--out", str(tmp_path), *limits]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<td>in process, scans answered with online</td><td>node, as fast as it answers</td>" in page
    assert json.loads((tmp_path / "result.json").read_text())["labels_sha256"] in page


def test_runs_of_the_same_name_cannot_be_compared(bag, settings, online, tmp_path):
    what = plan(bag, settings)
    run = describe(what, online, in_process=True)
    with pytest.raises(InputError, match="different names, not online, online"):
        compare(tmp_path / "report.html", what, [run, run])


def test_a_bag_without_ground_truth_has_no_labels(bag, settings, tmp_path):
    def without_truth(messages):
        return [message for message in messages if message[0] != "/ground_truth"]

    bare = rewritten(bag, tmp_path / "bare", without_truth)
    assert discover(bare).ground_truth_topic == ""
    frames, _ = frames_of(bare, settings)
    assert all(frame.labels is None for _, frame in frames)


def test_a_stream_of_a_bags_frames_is_put_together_by_the_parameters_of_the_node(bag, checkpoint):
    camera = plan(bag, ReplaySettings(checkpoint)).layout.cameras[0].name
    views = {
        offset: [
            len(frame.views) for frame in BagStream(bag, Path(checkpoint), {f"camera.{camera}.time_offset_ms": offset})
        ]
        for offset in (0.0, 5000.0)
    }
    assert views == {0.0: [1, 1, 1], 5000.0: [0, 0, 0]}


@pytest.mark.parametrize("name", ["adaptation.steps", "device"])
def test_a_stream_of_frames_is_not_told_how_the_network_runs(bag, checkpoint, name):
    with pytest.raises(InputError, match=f"--param {name}: says nothing of how a bag is read"):
        BagStream(bag, Path(checkpoint), {name: "1"})


@pytest.mark.parametrize("command", ["replay", "evaluate", "fit"])
def test_a_bag_whose_scans_are_all_dropped_is_refused_with_the_cause(bag, checkpoint, command, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    how = {"replay": ["--in-process", "--adaptation", "off"], "evaluate": ["--methods", "off"], "fit": []}[command]
    assert main([command, str(bag), "--checkpoint", checkpoint, "--base-frame", "nope", *how, *out]) == 2
    told = capsys.readouterr().err
    assert "no base transform" in told and "set base_frame" in told


@pytest.mark.parametrize("command", ["evaluate", "fit"])
def test_what_is_said_of_bags_is_refused_where_there_is_none(checkpoint, command, tmp_path, capsys):
    folder = data_folders.pandaset(tmp_path / "folder", scans=1)
    arguments = [command, str(folder), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--base-frame", "base_link"]) == 2
    assert "is a data folder; leave out what is said of bags: base_frame" in capsys.readouterr().err
